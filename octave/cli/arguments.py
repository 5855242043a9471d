"""Turn the words of `octave call` into the arguments of a tool, by the tool's schema.

Converts, and checks nothing else: the server validates.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octave.errors import UsageError


def arguments_of(words: Sequence[str], text: str | None, schema: Any) -> dict[str, Any]:
    """Return the arguments that `words` and `--args` say; words win over `--args`.

    Words: `key=value` (by the schema), `key:=JSON`, `key=@FILE`. `text`: a JSON object, or `-`
    for standard input.

    Raises:
        UsageError: a word or the JSON cannot be read.
    """
    found = _object(sys.stdin.read() if text == "-" else text) if text is not None else {}
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for word in words:
        key, value = _pair(word, properties if isinstance(properties, dict) else {})
        found[key] = value
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"`--args` is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("`--args` must be a JSON object", hint='--args \'{"key": "value"}\'')
    return found


def _pair(word: str, properties: dict[str, Any]) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UsageError(
            f"`{word}` is no argument", hint="use key=value, key:=JSON, key=@FILE or --args JSON"
        )
    if key.endswith(":"):
        try:
            return key[:-1], json.loads(value)
        except ValueError as error:
            raise UsageError(f"`{word}`: no JSON after `:=`: {error}") from error
    if value.startswith("@"):
        try:
            return key, Path(value[1:]).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"`{word}`: cannot read the file: {error}") from error
    return key, _converted(value, _types(properties.get(key)))


def _types(schema: Any) -> set[str]:
    """Return the JSON types a property admits, as far as its schema says plainly."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type")
    found = {named} if isinstance(named, str) else set(named) if isinstance(named, list) else set()
    for key in ("anyOf", "oneOf"):
        for choice in schema.get(key) or []:
            found |= _types(choice)
    return found


def _converted(value: str, types: set[str]) -> Any:
    if not types or "string" in types:
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    fits = {
        "integer": isinstance(found, int) and not isinstance(found, bool),
        "number": isinstance(found, int | float) and not isinstance(found, bool),
        "boolean": isinstance(found, bool),
        "array": isinstance(found, list),
        "object": isinstance(found, dict),
        "null": found is None,
    }
    return found if any(fits.get(name, False) for name in types) else value
