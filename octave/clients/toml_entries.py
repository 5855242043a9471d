"""Editing TOML as `json_edit` edits JSON: same functions, same promises. Pure.

A path is the names that lead to an entry, as `("mcp_servers", "octave")`. What lies there is
changed, and every other character kept; each result is read once more before it is handed out.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from octave.clients.json_edit import Entry, Insertion
from octave.clients.jsonc import DEEPEST, Node, Unreadable
from octave.packages.toml_edit import drop, set_keys
from octave.packages.toml_text import scan, syntax_place

EMPTY = ""
_MARK = "\ufeff"


def find(text: str, path: Sequence[str]) -> Node | None:
    """Return what lies at `path`; its span begins and ends with whole lines.

    Raises:
        Unreadable: the text does not parse, or the path leads through something else.
    """
    value: Any = _parsed(text)
    for position, name in enumerate(path):
        if not isinstance(value, dict):
            raise Unreadable(f"`{path[position - 1]}` is not a table", text, 0)
        if name not in value:
            return None
        value = value[name]
    bare = text.removeprefix(_MARK)
    around = [s for s in scan(bare) if s.path[: len(path)] == tuple(path)]
    start, end = (around[0].start, around[-1].end) if around else (0, len(bare))
    try:
        return Node(start, end, _plain(value))
    except RecursionError:
        raise Unreadable("nested too deeply", bare, start) from None


def insert(text: str, path: Sequence[str], entry: Entry) -> Insertion:
    """Put `entry` at `path`, where nothing lies yet. Raises as `find` does."""
    missing = sum(find(text, path[: length + 1]) is None for length in range(len(path)))
    assert missing, "something lies there already"
    bare = text.removeprefix(_MARK)
    result = _mark(text) + set_keys(bare, tuple(path), entry)
    return Insertion(_checked(result, text, path, entry), missing, bare[len(bare.rstrip()) :])


def replace(text: str, path: Sequence[str], entry: Entry) -> str:
    """Put `entry` in the place of what lies at `path`. Raises as `find` does."""
    found = find(text, path)
    assert found is not None
    old = found.value if isinstance(found.value, dict) else {}
    bare = text.removeprefix(_MARK)
    for key in old.keys() - entry.keys():
        bare = drop(bare, (*path, key))
    return _checked(_mark(text) + set_keys(bare, tuple(path), entry), text, path, entry)


def remove(text: str, path: Sequence[str], created: int = 1, gap: str | None = None) -> str:
    """Take out what lies at `path`, if anything does; undoes `insert`, also after other changes.

    With the `gap` of the insertion the file ends as it did before. Raises as `find` does.
    """
    found = find(text, path)
    if found is None:
        return text
    bare = text.removeprefix(_MARK)
    result = drop(bare, tuple(path))
    if gap is not None and not bare[found.end :].strip():
        result = result.rstrip() + gap
    return _checked(_mark(text) + result, text, path, None)


def snippet(path: Sequence[str], entry: Entry) -> str:
    """Return a whole file with only `entry` in it."""
    return set_keys("", tuple(path), entry).rstrip("\n")


def _mark(text: str) -> str:
    return _MARK if text.startswith(_MARK) else ""


def _parsed(text: str) -> dict[str, Any]:
    bare = text.removeprefix(_MARK)
    try:
        return tomllib.loads(bare)
    except RecursionError:
        raise Unreadable("nested too deeply", bare, 0) from None
    except ValueError as error:
        message, line, column = syntax_place(error, bare)
        starts = [0, *(at + 1 for at, character in enumerate(bare) if character == "\n")]
        raise Unreadable(message, bare, min(starts[line - 1] + column - 1, len(bare))) from None


def _plain(value: Any, depth: int = 0) -> Any:
    """Return `value` without dates and times, which JSON has no words for."""
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, Mapping):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, str | bool | int | float) else str(value)


def _checked(result: str, before: str, path: Sequence[str], entry: Entry | None) -> str:
    try:
        said = _parsed(result)
    except Unreadable as error:
        raise AssertionError("an edit broke the file; nothing was written") from error
    if _without(said, path) != _without(_parsed(before), path):
        raise AssertionError("an edit changed more than it should; nothing was written")
    found = find(result, path)
    if (found.value if found else None) != (dict(entry) if entry is not None else None):
        raise AssertionError("an edit did not do what it should; nothing was written")
    return result


def _without(value: Any, path: Sequence[str]) -> Any:
    """Return `value` without what lies at `path`, and without tables that are empty then."""
    if not isinstance(value, dict):
        return value
    name, rest = path[0], path[1:]
    inner = _without(value[name], rest) if rest and name in value else None
    others = {key: item for key, item in value.items() if key != name}
    return others if inner in (None, {}) else {**others, name: inner}
