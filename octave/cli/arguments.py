"""Turn the words of `octave call` into the arguments of a tool, by the tool's schema.

Converts, and checks nothing else: the server validates.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from octave.cli.schema import json_types, properties_of
from octave.errors import UsageError

FORMS = "use key=value, key:=JSON, key=@FILE or --args JSON"


def arguments_of(words: Sequence[str], text: str | None, schema: Any) -> dict[str, Any]:
    """Return the arguments that `words` and `--args` say; words win over `--args`.

    Words: `key=value` and `key=@FILE` (both by the schema), `key:=JSON`. `text`: a JSON object,
    or `-` for one on standard input.

    Raises:
        UsageError: a word or the JSON cannot be read.
    """
    found = _object(text) if text is not None else {}
    for word in words:
        key, value = _pair(word, schema)
        found[key] = value
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        # Bytes: JSON is UTF-8 whatever the locale says.
        found = _parsed(sys.stdin.buffer.read().decode("utf-8-sig") if text == "-" else text)
    except ValueError as error:
        raise UsageError(f"`--args` is no JSON: {error}", hint=FORMS) from error
    if not isinstance(found, dict):
        raise UsageError("`--args` must be a JSON object", hint='--args \'{"key": "value"}\'')
    return found


def _pair(word: str, schema: Any) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or key in {"", ":"}:
        raise UsageError(f"`{word}` is no argument", hint=FORMS)
    if any("\udc80" <= character <= "\udcff" for character in word):
        raise UsageError(f"`{word}` is no UTF-8 text", hint="write it to a file, then key=@FILE")
    if key.endswith(":"):
        try:
            return key[:-1], _parsed(value)
        except ValueError as error:
            raise UsageError(f"`{word}`: no JSON after `:=`: {error}", hint=FORMS) from error
    if value.startswith("@"):
        value = _read(key, value[1:])
    return key, _converted(value, json_types(properties_of(schema).get(key), schema))


def _read(key: str, name: str) -> str:
    try:
        return Path(name).expanduser().read_bytes().decode("utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:
        # Not UTF-8, a NUL in the name, or the home of nobody.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"`{key}=@{name}`: cannot read the file: {reason}",
            hint=f"a text that begins with `@` is given as {key}:='\"@{name}\"'",
        ) from error


def _converted(value: str, types: set[str]) -> Any:
    """Return `value` as the JSON it is, if that is of one of `types`, else as it stands."""
    if not types or "string" in types:
        return value
    try:
        found = _parsed(value)
    except ValueError:
        return value
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    fits = {
        # Whether 3.5 will do for an integer is for the server to say.
        "integer": is_number,
        "number": is_number,
        "boolean": isinstance(found, bool),
        "array": isinstance(found, list),
        "object": isinstance(found, dict),
        "null": found is None,
    }
    return found if any(fits.get(name, False) for name in types) else value


def _parsed(text: str) -> Any:
    """Return the value of a JSON text, of real JSON only: neither NaN nor Infinity.

    Raises:
        ValueError: it is none, or holds what cannot be passed on.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number
