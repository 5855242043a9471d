"""Plain writing to stdout and stderr: results, errors, and the filter for foreign text.

Needs no rich: verbs that print a line or a JSON document start faster without it.
"""

import json
import re
import sys
from typing import Any

from octave.errors import OctaveError

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control, bidirectional and invisible characters, lone surrogates, tags and selectors; newline
and tab are harmless, and U+FE0F belongs to many emoji."""


def safe(text: str) -> str:
    """Return `text` with every control, bidirectional and invisible character made visible.

    For all text that a server, a package or a registry wrote: rich and terminals pass escape
    sequences on, also into files.
    """
    return _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return `safe(text)` that cannot look like further lines of Octave's own."""
    return safe(text).replace("\n", "\\n")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def write(text: str) -> None:
    """Write a line of a result to stdout."""
    sys.stdout.write(text + "\n")


def write_json(value: Any) -> None:
    """Write the one JSON document of `--json` to stdout."""
    write(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that no terminal acts upon: hidden characters are escaped."""
    return _HIDDEN.sub(_json_escape, json.dumps(value, indent=indent, ensure_ascii=False))


def _json_escape(found: re.Match[str]) -> str:
    # They stand in strings only; json.dumps itself knows the escapes, pairs included.
    return json.dumps(found[0])[1:-1] if found[0] > "\x7f" else f"\\u{ord(found[0]):04x}"


def tell(text: str) -> None:
    """Write a line meant for a person to stderr."""
    sys.stderr.write(text + "\n")


def tell_error(error: OctaveError, *, as_json: bool) -> None:
    """Write `error` to stderr: a sentence and a hint, or one line of JSON."""
    if as_json:
        tell(json_text({"error": error.as_json()}))
        return
    tell(f"error: {_indented(error.message)}")
    for line in error.details.get("stderrTail") or []:
        tell(f"  | {_indented(str(line))}")
    for line in error.details.get("diff") or []:
        tell(f"  {_indented(str(line))}")
    if error.hint:
        tell(f"hint: {_indented(error.hint)}")


def _indented(text: str) -> str:
    # What a server wrote may be part of it, and must not look like a line of Octave's own.
    return safe(text).replace("\n", "\n  ")
