"""Editing JSON and JSONC: text is put in and taken out at a place that was read. Pure.

A path is the names that lead to Octave's own entry, as `("mcpServers", "octave")`. What lies
there is changed, and every other character kept.

The entry becomes the first of its object, so that nobody else's line changes, not by a comma
either. Every result is read once more and must say what was meant before it is handed out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octave.clients.jsonc import BLANK, COMMENT, TRIVIA, Member, Node, Unreadable, parse

Entry = Mapping[str, Any]

EMPTY = "{}\n"
"""A whole file without entries."""

_COMMENTS_OF_LINE = re.compile(rf"(?:[ \t]*(?:{COMMENT.pattern}))*", re.DOTALL)
_FIRST_INDENTED = re.compile(r'[\r\n]([ \t]+)"')
_LINE_BREAK = re.compile(r"[\r\n]")
_TO_NEXT_LINE = re.compile(r"[ \t]*[\r\n]")


@dataclass(frozen=True, slots=True)
class Insertion:
    """A text with the entry put in, and what taking it out again needs to know."""

    text: str
    created: int
    """How many names of the path were missing, at least 1."""
    gap: str | None
    """What stood in the place where the first of them is now alone; None: it is not alone."""


def find(text: str, path: Sequence[str]) -> Node | None:
    """Return what lies at `path`; an empty one leads to the whole.

    Raises:
        Unreadable: the text does not parse, or the path leads through something else.
    """
    root = parse(text)
    if not path:
        return root
    way = _way(text, root, path)
    return way[-1].member.node if len(way) == len(path) else None


def insert(text: str, path: Sequence[str], entry: Entry) -> Insertion:
    """Put `entry` at `path`, where nothing lies yet. Raises as `find` does."""
    root = parse(text)
    way = _way(text, root, path)
    missing = path[len(way) :]
    holder = way[-1].member.node if way else root
    assert missing, "something lies there already"
    # What a person wrote beside the opening brace stays beside it.
    at = _end(_COMMENTS_OF_LINE, text, holder.start + 1)
    until = at if holder.members else holder.end - 1
    layout = _layout_for(text, root, holder)
    before = layout.line or (" " if at > holder.start + 1 else "")
    after = "," if holder.members else text[at:until]
    if not holder.members and layout.line and not _LINE_BREAK.search(after):
        after = _line_break(text) + _indentation(text, holder.start)
    member = layout.dump(missing[0]) + layout.colon + layout.dump(_nested(missing[1:], entry))
    result = text[:at] + before + member + after + text[until:]
    gap = None if holder.members else text[holder.start + 1 : until]
    return Insertion(_checked(result, _with(root.value, path, entry)), len(missing), gap)


def replace(text: str, path: Sequence[str], entry: Entry) -> str:
    """Put `entry` in the place of what lies at `path`. Raises as `find` does."""
    root = parse(text)
    member = _way(text, root, path)[-1].member
    old = text[member.node.start : member.node.end]
    layout = _layout(text, _indentation(text, member.start) if "\n" in old else None)
    result = text[: member.node.start] + layout.dump(dict(entry)) + text[member.node.end :]
    return _checked(result, _with(root.value, path, entry))


def remove(text: str, path: Sequence[str], created: int = 1, gap: str | None = None) -> str:
    """Take out what lies at `path`, if anything does; undoes `insert`, also after other changes.

    With `created` and `gap` of the insertion, what was created for the entry and holds nothing
    else goes as well. Raises as `find` does.
    """
    root = parse(text)
    way = _way(text, root, path)
    if len(way) < len(path):
        return text
    level = len(path) - 1
    while created > 1 and _is_alone(text, way[level]):
        level, created = level - 1, created - 1
    step = way[level]
    result = _without(text, step)
    if step.holder.members == (step.member,):
        start, end = step.holder.start + 1, step.holder.end - 1 - (len(text) - len(result))
        inside = result[start:end]
        before = (gap or "") if created == 1 else ""
        # The line breaks that came with the entry go with it, unless something new stands there.
        if _squeezed(inside) == _squeezed(before):
            result = result[:start] + before + result[end:]
    return _checked(result, _with(root.value, path[: level + 1], None))


def snippet(path: Sequence[str], entry: Entry) -> str:
    """Return a whole file with only `entry` in it."""
    return json.dumps(_nested(path, entry), indent=2, ensure_ascii=False)


def _nested(names: Sequence[str], entry: Entry) -> dict[str, Any]:
    value = dict(entry)
    for name in reversed(names):
        value = {name: value}
    return value


@dataclass(frozen=True, slots=True)
class _Step:
    holder: Node
    member: Member


def _way(text: str, root: Node, path: Sequence[str]) -> list[_Step]:
    """Return the steps of `path` that exist, from the outermost on."""
    way: list[_Step] = []
    node = root
    for position, name in enumerate(path):
        if node.members is None:
            raise Unreadable(f"`{path[position - 1]}` is not an object", text, node.start)
        found = [member for member in node.members if member.name == name]
        if len(found) > 1:
            raise Unreadable(f"`{name}` is there twice", text, found[1].start)
        if not found:
            break
        way.append(_Step(node, found[0]))
        node = found[0].node
    return way


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the file at hand writes JSON."""

    line: str
    """Line break and indentation before each member; empty: all on one line."""
    unit: str
    colon: str

    def dump(self, value: Any) -> str:
        if not self.line:
            separators = (self.colon.replace(":", ","), self.colon)
            return json.dumps(value, ensure_ascii=False, separators=separators)
        return self.line.join(json.dumps(value, ensure_ascii=False, indent=self.unit).split("\n"))


def _layout(text: str, indentation: str | None) -> _Layout:
    """Return the layout of members at that indentation; None: on one line."""
    if indentation is None:
        return _Layout("", "", ":" if '":' in text and '": ' not in text else ": ")
    return _Layout(_line_break(text) + indentation, _unit(text), ": ")


def _layout_for(text: str, root: Node, holder: Node) -> _Layout:
    """Return the layout of members of `holder`."""
    outer = _indentation(text, holder.start)
    if not holder.members:
        broken = holder is root or _LINE_BREAK.search(text.strip(BLANK))
        return _layout(text, outer + _unit(text) if broken else None)
    first = holder.members[0].start
    if not _LINE_BREAK.search(text, holder.start, first):
        return _layout(text, None)
    before = text[_line_start(text, first) : first]
    return _layout(text, outer + _unit(text) if before.strip(" \t") else before)


def _unit(text: str) -> str:
    found = _FIRST_INDENTED.search(text)
    return found[1] if found else "  "


def _line_break(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _indentation(text: str, at: int) -> str:
    """Return the blanks that begin the line of the character at `at`."""
    line = text[_line_start(text, at) : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _is_alone(text: str, step: _Step) -> bool:
    around = text[step.holder.start + 1 : step.member.start]
    around += text[step.member.node.end : step.holder.end - 1]
    return step.holder.members == (step.member,) and not around.strip(BLANK + ",")


def _without(text: str, step: _Step) -> str:
    """Return `text` without a member, one comma, and the blanks before it; comments stay."""
    member, siblings = step.member, step.holder.members or ()
    index = siblings.index(member)
    anchor = siblings[index - 1].node.end if index else step.holder.start + 1
    start = len(text[: member.start].rstrip(BLANK))
    head, tail = text[:start], text[member.node.end :]
    comma = _comma(text, member.node.end)
    if comma is not None:
        between = text[member.node.end : comma]
        tail = (between if between.strip(BLANK) else "") + text[comma + 1 :]
    elif index:
        comma = _comma(text, anchor)
        assert comma is not None
        head = text[:comma] + text[comma + 1 : start]
    comments = COMMENT.findall(text, anchor, start)
    if comments and comments[-1].startswith("//") and not _TO_NEXT_LINE.match(tail):
        # Without its line break that comment would swallow what follows.
        head += text[start : member.start]
    return head + tail


def _comma(text: str, at: int) -> int | None:
    """Return where the comma after the value that ends at `at` stands, None without one."""
    at = _end(TRIVIA, text, at)
    return at if text.startswith(",", at) else None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _with(value: Any, path: Sequence[str], entry: Entry | None) -> dict[str, Any]:
    """Return the object `value` with `entry` at `path`, or, for None, without what lies there."""
    result = dict(value)
    name = path[0]
    if len(path) > 1:
        result[name] = _with(result.get(name, {}), path[1:], entry)
    elif entry is None:
        del result[name]
    else:
        result[name] = dict(entry)
    return result


def _checked(result: str, meant: dict[str, Any]) -> str:
    try:
        said = parse(result).value
    except Unreadable as error:
        raise AssertionError("an edit broke the file; nothing was written") from error
    if said != meant:
        raise AssertionError("an edit changed more than it should; nothing was written")
    return result
