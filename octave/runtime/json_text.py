"""Where in the text of a JSON object its values stand, so that they can be cut out and replaced.

A fast decoder tells the lengths where it can; the rest (members given twice, what is nested too
deeply) is found by scanning. Linear in the text, and nothing of it is rebuilt. Expects JSON.
"""

import contextlib
import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

Path = tuple[str, ...]
"""Names of members, outermost first."""
Span = tuple[int, int, Path]

OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
UNDECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises over text that may be legal JSON all the same."""

_STRING = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_NAME = _STRING + rb"[ \t\n\r]*:[ \t\n\r]*"
_FIRST = re.compile(rb"[ \t\n\r]*\{[ \t\n\r]*(?:" + _NAME + rb"|\})", re.DOTALL)
_NEXT = re.compile(rb"[ \t\n\r]*(?:,[ \t\n\r]*" + _NAME + rb"|\})", re.DOTALL)
_FIRST_ELEMENT = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*(?=[^\] \t\n\r])")
_COMMA = re.compile(rb"[ \t\n\r]*,[ \t\n\r]*")
_SCALAR = re.compile(_STRING + rb"|-?[0-9][-+.0-9eE]*|true|false|null", re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_DELIMITERS = b" \t\n\r,}"

_COLON = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
SHORT_BYTES = 16 * 1024
"""Up to here searching for names beats walking from member to member; beyond, a walk skips more."""
_NONE: Mapping[str, msgspec.Raw] = MappingProxyType({})


Members = Mapping[str, bytes | msgspec.Raw]
"""Values by the names of an object's members; of members given twice the last."""


def spans(text: bytes, paths: Collection[Path], known: Members | None = None) -> list[Span]:
    """Return start, end and path of every value at one of `paths`, in the order of the text.

    A member given twice is there twice. `known` saves decoding: the members of the outermost
    object, some others may be missing.

    Raises:
        KeyError: nothing is at one of the paths.
    """
    found = _unmistakable(text, paths, known)
    if found is None:
        try:
            found = list(_spans((text, None), 0, len(text), paths, known=known))
        except UNDECODED:
            found = list(_spans((text, legible(text)), 0, len(text), paths))
        missing = set(paths).difference(path for _, _, path in found)
        if missing:
            raise KeyError(missing.pop())
    return sorted(found)


def elements(text: bytes) -> list[bytes]:
    """Return the text of each element of an array; none when it is something else."""
    readable = legible(text)
    lengths: Iterator[int] = iter(())
    with contextlib.suppress(*UNDECODED):
        lengths = iter([len(memoryview(raw)) for raw in ARRAY.decode(readable)])
    found: list[bytes] = []
    position = _FIRST_ELEMENT.match(text)
    while position is not None:
        start = position.end()
        length = next(lengths, None)
        end = _value_end(text, start) if length is None else start + length
        found.append(text[start:end])
        position = _COMMA.match(text, end)
    return found


def members_by_name(text: bytes) -> dict[str, bytes]:
    """Return the text of each member of an object; of members given twice the last counts."""
    readable = legible(text)
    try:
        values: Mapping[str, msgspec.Raw] = OBJECT.decode(readable)
    except UNDECODED:
        values = _NONE
    return {key: text[start:end] for key, start, end in members(text, 0, values, readable)}


def legible(text: bytes) -> bytes:
    """Return JSON of the same length, every value in its place, without the escapes of surrogates.

    Lone ones such as ``\\ud800`` are legal JSON, and the fast decoder refuses them. What comes
    instead is no ASCII, so that no name turns into one that is asked for.
    """
    return text.replace(b"\\ud", b"\\u2").replace(b"\\uD", b"\\u2")


def _unmistakable(text: bytes, paths: Iterable[Path], known: Members | None) -> list[Span] | None:
    """Find values by their quoted names alone; None unless each name occurs just once.

    What looks like a quoted name is one: inside of a string its quotes would be escaped. And the
    name cannot be spelled otherwise, as nothing in the text is spelled with ``\\u``.
    """
    if len(text) > SHORT_BYTES or b"\\u" in text:
        return None
    found: list[Span] = []
    levels: dict[Path, Members] = {}
    try:
        levels[()] = OBJECT.decode(text) if known is None else known
        for path in paths:
            name = quoted(path[-1])
            at = text.find(name)
            if at < 0 or text.find(name, at + 1) != -1:
                return None
            colon = _COLON.match(text, at + len(name))
            if colon is None:
                return None
            found.append((colon.end(), colon.end() + _size(path, levels), path))
    except (KeyError, *UNDECODED):
        return None
    return found


def _size(path: Path, levels: dict[Path, Members]) -> int:
    """Return how long the value at `path` is; `levels` has the members of the objects so far."""
    outer = path[:-1]
    for depth in range(1, len(path)):
        if path[:depth] not in levels:
            inner = levels[path[: depth - 1]][path[depth - 1]]
            levels[path[:depth]] = OBJECT.decode(inner)
    return len(memoryview(levels[outer][path[-1]]))


@functools.cache
def quoted(name: str) -> bytes:
    """Return a name as JSON; of those that Octave knows, which are few."""
    if not name.isidentifier():
        raise KeyError(name)
    return b'"%b"' % name.encode()


def _spans(
    texts: tuple[bytes, bytes | None],
    at: int,
    until: int,
    changes: Iterable[Path],
    depth: int = 0,
    known: Members | None = None,
) -> Iterator[Span]:
    """Yield start, end and path of each value to be replaced in the object at `at`, in order.

    `texts` are the text as it is, and `legible`. Without the second it raises one of `UNDECODED`
    where that is needed: most texts can do without, and to make it takes a while.
    """
    text, readable = texts[0], texts[1] or texts[0]
    wanted: dict[str, list[Path]] = {}
    for path in changes:
        wanted.setdefault(path[depth], []).append(path)
    try:
        values = OBJECT.decode(memoryview(readable)[at:until]) if known is None else known
    except msgspec.ValidationError:
        return
    except UNDECODED:
        if texts[1] is None:
            raise
        values = _NONE
    for key, start, end in members(text, at, values, readable):
        paths = wanted.get(key)
        if paths is None:
            continue
        if len(paths[0]) == depth + 1:
            yield start, end, paths[0]
        elif text[start] in b"{":
            yield from _spans(texts, start, end, paths, depth + 1)


def members(
    text: bytes,
    at: int = 0,
    values: Members = _NONE,
    readable: bytes | None = None,
) -> Iterator[tuple[str, int, int]]:
    """Yield key, start and end of the value, for each member of the object at `at`, in order.

    `values` are the same members as a fast decoder found them in `readable` (None: in `text`),
    which saves scanning them again; where they do not match (a key given twice), or are missing,
    the text is scanned.
    """
    if readable is None:
        readable = text
    named = _FIRST.match(text, at)
    while named is not None and named[1] is not None:
        key, start = _key(named[1]), named.end()
        known = values.get(key)
        end = start if known is None else start + len(memoryview(known))
        # JSON values other than numbers end by themselves: the same text here is the same value.
        if known is None or not readable.startswith(known, start) or text[end] not in _DELIMITERS:
            end = _value_end(text, start)
        yield key, start, end
        named = _NEXT.match(text, end)
    if named is None:
        raise ValueError("not an object, or cut off")


def _key(raw: bytes) -> str:
    if b"\\" not in raw:
        return raw.decode(errors="replace")
    try:
        return str(json.loads(b'"%b"' % raw))
    except ValueError as error:
        raise ValueError(f"a key is not JSON: {error}") from error


def _value_end(text: bytes, start: int) -> int:
    if text[start : start + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(text, start)
        if scalar is None:
            raise ValueError("a member has no value")
        return scalar.end()
    depth = 0
    for token in _TOKEN.finditer(text, start):
        first = token[0][:1]
        if first in (b"{", b"["):
            depth += 1
        elif first in (b"}", b"]"):
            depth -= 1
            if not depth:
                return token.end()
    raise ValueError("a member does not end")
