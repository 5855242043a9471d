"""A reader of JSON with comments and trailing commas that knows where everything stands.

Accepts what RFC 8259 does, plus `//` and `/* */` comments and one comma before a closing
bracket. Says line and column of the first thing it does not accept. What is plain JSON is read by
the standard library, several times as fast: some AI tools keep megabytes beside their settings.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

BLANK = " \t\r\n"
COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
TRIVIA = re.compile(rf"(?:[{BLANK}]+|{COMMENT.pattern})*", re.DOTALL)
"""Blanks and comments; matches everywhere, if only nothing."""

# No possessive quantifiers: around alternatives Python 3.11 before 3.11.5 matches too much
# (https://github.com/python/cpython/issues/106052).
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
DEEPEST = 200
"""Levels of nesting; far more than a configuration has, far less than Python's stack takes."""


class Unreadable(ValueError):
    """The text is not what was expected at a place; line and column count from 1."""

    def __init__(self, problem: str, text: str, at: int) -> None:
        self.line = text.count("\n", 0, at) + 1
        self.column = at - text.rfind("\n", 0, at)
        super().__init__(f"line {self.line}, column {self.column}: {problem}")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place: `text[start:end]`."""

    start: int
    end: int
    value: Any
    """Plain data; all numbers are floats, of equal names the last counts."""
    found: "tuple[Member, ...] | None" = None
    plain: str | None = field(default=None, repr=False, compare=False)
    """The whole text, where it is plain JSON: members are looked for when they are asked for."""

    @property
    def members(self) -> "tuple[Member, ...] | None":
        """Its members in their order; None when it is no object."""
        if self.plain is None:
            return self.found
        return _Reader(self.plain, self.start).plain_members() if self.is_object else None

    @property
    def is_object(self) -> bool:
        """Whether it can have members."""
        return isinstance(self.value, dict)


@dataclass(frozen=True, slots=True)
class Member:
    """A name, where its opening quote stands, and its value."""

    name: str
    start: int
    node: Node


def parse(text: str) -> Node:
    """Return the object that is the whole of `text`; a byte order mark may precede it.

    Raises:
        Unreadable: `text` is something else.
    """
    reader = _Reader(text)
    plain = _read_plain(text, reader.at)
    if plain is not None:
        return plain
    reader.skip()
    if not text.startswith("{", reader.at):
        raise reader.unreadable("expected `{`")
    node = reader.node(0)
    reader.skip()
    if reader.at < len(text):
        raise reader.unreadable("expected nothing more")
    return node


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)


_PLAIN = json.JSONDecoder(parse_int=float, parse_constant=_refuse)


def _read_plain(text: str, at: int) -> Node | None:
    """Return the object that `text` is from there on; None: not plain JSON, or nested deeply."""
    start = at + len(text[at:]) - len(text[at:].lstrip(BLANK))
    if not text.startswith("{", start):
        return None
    try:
        value, end = _PLAIN.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    is_whole = not text[end:].strip(BLANK)
    return Node(start, end, value, plain=text) if is_whole and _is_shallow(value) else None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        holders = (each for each in level if isinstance(each, dict | list))
        level = [
            inner
            for each in holders
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return True
    return not any(isinstance(each, dict | list) for each in level)


class _Reader:
    def __init__(self, text: str, start: int | None = None) -> None:
        self.text = text
        self.at = start or 0
        self._is_plain = start is not None
        if start is None and text.startswith("\ufeff"):
            self.at = 1

    def plain_members(self) -> tuple[Member, ...]:
        """Return the members of the object that begins here, in a text that is plain JSON."""
        self.at += 1
        return tuple(self._members(0))

    def unreadable(self, problem: str) -> Unreadable:
        return Unreadable(problem, self.text, self.at)

    def skip(self) -> None:
        found = TRIVIA.match(self.text, self.at)
        assert found
        self.at = found.end()

    def node(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self.unreadable(f"nested more than {DEEPEST} levels deep")
        start = self.at
        if self._is_plain:
            value, self.at = _PLAIN.raw_decode(self.text, start)
            return Node(start, self.at, value, plain=self.text)
        if self._take("{"):
            members = self._members(depth + 1)
            value = {member.name: member.node.value for member in members}
            return Node(start, self.at, value, tuple(members))
        value = self._items(depth + 1) if self._take("[") else self._scalar()
        return Node(start, self.at, value)

    def _members(self, depth: int) -> list[Member]:
        members: list[Member] = []
        self.skip()
        while not self._take("}"):
            start = self.at
            name = self._string()
            if name is None:
                raise self.unreadable("expected a name in double quotes, or `}`")
            self.skip()
            if not self._take(":"):
                raise self.unreadable("expected `:`")
            self.skip()
            members.append(Member(name, start, self.node(depth)))
            self._end_item("}")
        return members

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.skip()
        while not self._take("]"):
            items.append(self.node(depth).value)
            self._end_item("]")
        return items

    def _end_item(self, closing: str) -> None:
        self.skip()
        if not self._take(",") and not self.text.startswith(closing, self.at):
            raise self.unreadable(f"expected `,` or `{closing}`")
        self.skip()

    def _scalar(self) -> Any:
        text = self._string()
        if text is not None:
            return text
        for word, value in _WORDS.items():
            if self._take(word):
                return value
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise self.unreadable("expected a value")
        self.at = found.end()
        return float(found[0])

    def _string(self) -> str | None:
        found = _STRING.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return str(json.loads(found[0]))

    def _take(self, word: str) -> bool:
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True
