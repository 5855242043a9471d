"""Configurations to be shown: without the secrets, those of neighbours included. Pure.

Works on the strings of the text, whatever surrounds them: files of megabytes are not parsed for
it, and a secret written with escapes of its own is found as well.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from octave.clients import diff, looks

SHORTEST_SECRET = 4
"""What is shorter guards nothing, and hiding it would tear holes into every text."""

_STRING = re.compile(
    r"""(?:["']?(?P<name>[\w.-]+)["']?[ \t]*[:=]\s*)?"""
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'[^'\n]*')""",
    re.DOTALL,
)
"""A string of JSON or TOML, with the name before it where it has one."""


def forms(value: str) -> tuple[str, str, str]:
    """Return how a value is written: as it is, and between the quotes of JSON or TOML."""
    return value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]


def replaced(text: str, by: Mapping[str, str]) -> str:
    """Return `text` with each key of `by` replaced by its value."""
    if not by:
        return text
    # All at once, the longest first: one may be a part of another, or of what stands for it.
    longest = sorted(by, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest)), lambda found: by[found[0]], text)


def without(text: str, secrets: Mapping[str, str], *, others: bool = False) -> str:
    """Return `text` with the key in the store in the place of each of `secrets`.

    With `others` all that looks like a secret is hidden too.
    """
    known = {key: value for key, value in secrets.items() if len(value) >= SHORTEST_SECRET}
    shown = replaced(text, {form: f"<{key}>" for key, v in known.items() for form in forms(v)})
    return _STRING.sub(_hiding(known, others=others), shown)


def _hiding(known: Mapping[str, str], *, others: bool) -> Callable[[re.Match[str]], str]:
    flag = ""

    def hidden(found: re.Match[str]) -> str:
        nonlocal flag
        quoted = found["text"]
        value = _decoded(quoted)
        name = found["name"] or flag
        flag = value if value.startswith("-") and "=" not in value else ""
        label = next((key for key, secret in known.items() if secret in value), None)
        is_shown = value.startswith("<") and value.endswith(">")
        if label is None and others and not is_shown and looks.why_secret(name, value):
            label = "hidden"
        if label is None:
            return found[0]
        return f"{found[0][: -len(quoted)]}{quoted[0]}<{label}>{quoted[0]}"

    return hidden


def _decoded(quoted: str) -> str:
    if quoted[0] == '"' and "\\" in quoted:
        try:
            return str(json.loads(quoted))
        except ValueError:
            return quoted[1:-1]
    return quoted[1:-1]


def texts(value: Any) -> Iterator[str]:
    """Yield every text in `value`, the names of members aside."""
    if isinstance(value, dict):
        yield from texts([*value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def difference(
    file: Path, before: str | None, after: str | None, secrets: Mapping[str, str]
) -> str:
    """Return a diff that shows no secret; None is a file that does not exist."""
    return diff.difference(file, before, after, partial(without, secrets=secrets, others=True))
