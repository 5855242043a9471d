"""Definitions of tools: their canonical form and hashes, and what differs from what was approved.

Pure. Two texts that say the same JSON have the same hash, whatever their spelling: order of
members, escapes, blanks, `1.0` for `1`. Two that say something different never have. What no two
readers need to read alike, as a member that stands twice, is no definition.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from octave.errors import IntegrityFailed

Finding = Literal["new", "changed", "annotations", "unreadable"]
"""How a tool differs from what was approved: nobody approved one of its name; its definition is
another; its annotations alone are; or it cannot be read without doubt."""

DIFF_LINES = 20_000
"""So many lines of a definition are compared for a person: beyond that it takes minutes."""
ANNOTATIONS = "annotations"


@dataclass(frozen=True, slots=True)
class ToolPin:
    """The definition of one tool as it was approved."""

    name: str
    sha256: str
    annotations_sha256: str


Approved = Mapping[str, ToolPin]
"""What was approved of one server, by name of the tool."""


def definition_hashes(tool: bytes) -> ToolPin:
    """Return the pin of a tool whose definition, as the server wrote it, is `tool`.

    `sha256` is over the canonical JSON of all its members but `annotations`, those that nobody
    knows included: a client may show them to a model. `annotations_sha256` is over that of
    `annotations`, null when it is absent. Canonical: sorted keys, no blanks, UTF-8, numbers as
    the shortest text of their exact value.

    Raises:
        IntegrityFailed: it is no definition, or has a member twice, so that two readers could
            see two definitions.
    """
    found = _read(tool)
    name = found["name"]
    if type(name) is not str:  # a number is kept as its text
        raise IntegrityFailed("the definition of a tool has no name")
    annotations = found.pop(ANNOTATIONS, None)
    return ToolPin(name, _sha256(found), _sha256(annotations))


def pins_of(tools: Iterable[bytes]) -> tuple[ToolPin, ...]:
    """Return the pins of a list of tools, sorted by name.

    Of two with one name the first counts, as for whoever calls it. What cannot be read is left
    out: it costs neither the others nor the server.
    """
    pins: dict[str, ToolPin] = {}
    for tool in tools:
        pin = _pin_of(tool)
        if pin is not None:
            pins.setdefault(pin.name, pin)
    return tuple(pins[name] for name in sorted(pins))


def findings(tools: Sequence[bytes], approved: Approved) -> dict[int, Finding]:
    """Return how tools differ from what was approved, by their position; none: not at all.

    Another definition under a name that was there is doubtful: who reads the list may take either.
    """
    found: dict[int, Finding] = {}
    seen: dict[str, ToolPin] = {}
    for position, tool in enumerate(tools):
        pin = _pin_of(tool)
        if pin is None or seen.setdefault(pin.name, pin) != pin:
            found[position] = "unreadable"
        elif pin.name not in approved:
            found[position] = "new"
        elif pin.sha256 != approved[pin.name].sha256:
            found[position] = "changed"
        elif pin.annotations_sha256 != approved[pin.name].annotations_sha256:
            found[position] = "annotations"
    return found


def difference(before: bytes | None, after: bytes | None, most: int = DIFF_LINES) -> list[str]:
    """Return the lines of a unified diff of two definitions, without its headings.

    Text stands as it is read, its lines apart. Of each definition `most` lines are compared, and
    that the rest is another is said. None: there is no such definition.
    """
    old, new = _lines(before, most), _lines(after, most)
    diff = difflib.unified_diff(old, new, lineterm="", n=2)
    return [line for line in diff if line[:3] not in {"---", "+++"}]


def _pin_of(tool: bytes) -> ToolPin | None:
    try:
        return definition_hashes(tool)
    except IntegrityFailed:
        return None


class _Number(str):
    """The canonical text of a number."""

    __slots__ = ()


def _read(tool: bytes) -> dict[str, object]:
    try:
        found = json.loads(
            tool.decode("utf-8", "surrogatepass"),
            object_pairs_hook=_members,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise IntegrityFailed("the definition of a tool cannot be read") from error
    if not isinstance(found, dict) or "name" not in found:
        raise IntegrityFailed("the definition of a tool has no name")
    return found


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?")
_PLAIN_DIGITS = 40
"""Numbers of up to so many digits are written without an exponent."""


def _number(text: str) -> _Number:
    # Exact: as floats two different limits would be one, and all beyond 1e308 infinite.
    parts = _NUMBER.fullmatch(text)
    assert parts is not None
    sign, whole, fraction, power = parts[1], parts[2], parts[3] or "", int(parts[4] or 0)
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return _Number("0")
    exponent = power - len(fraction) + len(digits) - len(significant)
    if 0 <= exponent <= _PLAIN_DIGITS:
        return _Number(sign + significant + "0" * exponent)
    if -_PLAIN_DIGITS <= exponent < 0:
        padded = significant.rjust(1 - exponent, "0")
        return _Number(f"{sign}{padded[:exponent]}.{padded[exponent:]}")
    return _Number(f"{sign}{significant}e{exponent}")


def _sha256(found: object) -> str:
    parts: list[str] = []
    try:
        _write(found, parts)
    except RecursionError as error:
        raise IntegrityFailed("the definition of a tool cannot be read") from error
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _write(found: object, parts: list[str]) -> None:
    if isinstance(found, _Number):
        parts.append(found)
    elif isinstance(found, dict):
        parts.append("{")
        for index, key in enumerate(sorted(found)):
            parts.append(f"{',' if index else ''}{json.dumps(key, ensure_ascii=False)}:")
            _write(found[key], parts)
        parts.append("}")
    elif isinstance(found, list):
        parts.append("[")
        for index, item in enumerate(found):
            parts.append("," if index else "")
            _write(item, parts)
        parts.append("]")
    else:
        parts.append(json.dumps(found, ensure_ascii=False))


def _lines(tool: bytes | None, most: int) -> list[str]:
    if tool is None:
        return []
    try:
        found = _read(tool)
    except IntegrityFailed:
        return [f"(cannot be read without doubt: {hashlib.sha256(tool).hexdigest()})"]
    lines: list[str] = []
    try:
        _show(found, "", "", lines)
    except RecursionError:
        lines.append("(nested too deeply to be shown)")
    more = len(lines) - most
    if more > 0:
        rest = hashlib.sha256("\n".join(lines[most:]).encode("utf-8", "surrogatepass"))
        lines[most:] = [f"({more} more lines: {rest.hexdigest()})"]
    return lines


def _show(found: object, label: str, indent: str, lines: list[str]) -> None:
    """Write a value for a person: a member a line, longer texts below it with their own lines."""
    if isinstance(found, str) and not isinstance(found, _Number) and "\n" in found:
        lines.append(f"{indent}{label}")
        lines += [f"{indent}  | {line}" for line in found.split("\n")]
    elif isinstance(found, dict) and found:
        lines.append(f"{indent}{label or '-'}")
        for key in sorted(found):
            _show(found[key], f"{key}:", indent + "  ", lines)
    elif isinstance(found, list) and any(isinstance(item, dict | list) for item in found):
        lines.append(f"{indent}{label or '-'}")
        for item in found:
            _show(item, "-", indent + "  ", lines)
    else:
        parts: list[str] = []
        _write(found, parts)
        lines.append(f"{indent}{label} {''.join(parts)}")
