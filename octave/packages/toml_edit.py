"""Edits of hand-written TOML that leave every byte they are not about as it was.

tomlkit writes the values. Where they go is decided here: its documents put a new key behind the
comment of the following table, and delete that comment with the table before it; here a statement's
own lines are replaced, inserted or cut. Texts in and out are TOML that `tomllib` accepts.
"""

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octave.packages.toml_text import Statement, scan

if TYPE_CHECKING:
    import tomlkit.items

Keys = tuple[str, ...]


def set_keys(text: str, table: Keys, values: Mapping[str, object]) -> str:
    """Return `text` with `values` in `table`: replaced where they stand, else added to it.

    A table that is not there yet is added at the end.

    Raises:
        TypeError, ValueError: TOML cannot hold a value.
    """
    inline = _inline(scan(text), table)
    if inline is not None:
        return _rewrite(text, inline, table, values)
    if not any(_under(statement, table) for statement in scan(text)):
        return _append(text, table, values)
    for key, item in values.items():
        text = _set_key(text, table, key, value_text(item))
    return text


def drop(text: str, path: Keys) -> str:
    """Return `text` without the table or key at `path`; comments beside it stay."""
    statements = scan(text)
    inline = _inline(statements, path[:-1])
    if inline is not None:
        return _rewrite(text, inline, path, None)
    kept = [not _under(statement, path) for statement in statements]
    index = len(statements)
    while index:
        last = index = index - 1
        if kept[index]:
            continue
        while index and not kept[index - 1]:
            index -= 1
        text = _cut(text, statements[index].start, statements[last].end)
    return text


def value_text(value: object) -> str:
    """Return `value` (str, bool, int, list, mapping) on one line of TOML.

    Raises:
        TypeError: TOML cannot hold it.
        ValueError: a string that is no Unicode text.
    """
    return _item(value).as_string()


def _item(value: object) -> "tomlkit.items.Item":
    # Imported late: reading a manifest to start or install something does not pay for it.
    import tomlkit

    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for key, item in value.items():
            table.append(tomlkit.key(key), _item(item))
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(_item(item) for item in value)
        return array
    if isinstance(value, str):
        value.encode()  # a lone surrogate raises here
        return tomlkit.string(value)
    if isinstance(value, bool | int):
        return tomlkit.item(value)
    raise TypeError(f"TOML cannot hold {type(value).__name__}")


def key_text(key: str) -> str:
    """Return `key` as it is written in TOML: bare where it can be."""
    import tomlkit

    return tomlkit.key(key).as_string()


def _under(statement: Statement, path: Keys) -> bool:
    return statement.path[: len(path)] == path


def _inline(statements: list[Statement], path: Keys) -> Statement | None:
    """Return the `key = {...}` that holds the table at `path`."""
    for statement in statements:
        if statement.value is not None and statement.path == path[: len(statement.path)]:
            return statement
    return None


def _rewrite(
    text: str, statement: Statement, path: Keys, values: Mapping[str, object] | None
) -> str:
    """Return `text` with the inline table of `statement` written anew; no values: `path` goes."""
    root: Any = tomllib.loads(text)
    for key in statement.path:
        root = root[key]
    inner = path[len(statement.path) :]
    table = root
    for key in inner if values is not None else inner[:-1]:
        table = table.setdefault(key, {})
    if values is None:
        table.pop(inner[-1], None)
    else:
        table.update(values)
    assert statement.value is not None
    start, end = statement.value
    return text[:start] + value_text(root) + text[end:]


def _set_key(text: str, table: Keys, key: str, shown: str) -> str:
    path = (*table, key)
    found = [statement for statement in scan(text) if _under(statement, path)]
    if len(found) == 1 and found[0].path == path and found[0].value is not None:
        start, end = found[0].value
        return text[:start] + shown + text[end:]
    text = drop(text, path)
    anchors = [statement for statement in scan(text) if _takes_keys(statement, table)]
    if not anchors:
        return _append_lines(text, f"[{_dotted(table)}]", f"{key_text(key)} = {shown}")
    anchor = anchors[-1]
    first = text[anchor.start :]
    indent = first[: len(first) - len(first.lstrip(" \t"))]
    name = _dotted(path[len(anchor.table) :])
    before = _ended(text[: anchor.end])
    return f"{before}{indent}{name} = {shown}{_line_break(text)}{text[anchor.end :]}"


def _takes_keys(statement: Statement, table: Keys) -> bool:
    """Tell whether a key of `table` may be written in the line behind `statement`."""
    header_above = statement.table == table[: len(statement.table)]
    return header_above and _under(statement, table)


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(key_text(str(key)) for key in path)


def _append(text: str, table: Keys, values: Mapping[str, object]) -> str:
    lines = [f"{key_text(key)} = {value_text(item)}" for key, item in values.items()]
    return _append_lines(text, f"[{_dotted(table)}]", *lines)


def _append_lines(text: str, *lines: str) -> str:
    end = _line_break(text)
    before = _ended(text)
    gap = end if before and not before.endswith(end * 2) else ""
    return before + gap + "".join(line + end for line in lines)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + _line_break(text)


def _line_break(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _cut(text: str, start: int, end: int) -> str:
    before, behind = text[:start], text[end:]
    lines = behind.splitlines(keepends=True)
    blank = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    if blank == len(lines):
        kept = before.rstrip()
        return kept + (_line_break(text) if kept else "")
    previous = before.splitlines()
    if not previous or not previous[-1].strip():
        return before + "".join(lines[blank:])
    return before + behind
