"""TOML as text: where each key stands.

`tomllib` says what a file means; this module says where. `scan` expects text that `tomllib`
accepts, and keeps every offset, so that an error can name line and column and an edit can leave
all other bytes alone.
"""

import re
import tomllib
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys from the root; integers are array indexes."""

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[^,\]}\n#]*[^,\]}\n# \t\r]",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One `[header]` or `key = value` of a file, with its offsets."""

    path: Path
    table: Path
    """The path of the header it stands under; `path` itself for a header."""
    start: int
    """Of its first line."""
    value: tuple[int, int] | None
    """The value's span; None for a header."""
    end: int
    """Behind its last line, the comment and the line break included."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.offsets: dict[Path, int] = {}
        self.statements: list[Statement] = []
        self.arrays: dict[Path, int] = {}
        self.table: Path = ()

    def run(self) -> None:
        span: tuple[int, int] | None
        while self._blank() < len(self.text):
            start = self.text.rfind("\n", 0, self.at) + 1
            if self.text[self.at] == "[":
                self._header()
                path, span = self.table, None
            else:
                path, span = self._pair(self.table)
            self._take(_REST_OF_LINE)
            self.statements.append(Statement(path, self.table, start, span, self.at))

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"no TOML at offset {self.at}")
        self.at = found.end()
        return found[0]

    def _blank(self) -> int:
        self._take(_BLANK)
        return self.at

    def _keys(self) -> list[tuple[str, int]]:
        keys = []
        while True:
            self._take(_SPACE)
            offset = self.at
            raw = self._take(_KEY)
            keys.append((tomllib.loads(f"k={raw}")["k"] if raw[0] in "\"'" else raw, offset))
            self._take(_SPACE)
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _header(self) -> None:
        offset = self.at
        doubled = self.text.startswith("[[", self.at)
        self.at += 2 if doubled else 1
        names = [name for name, _ in self._keys()]
        path: Path = ()
        for name in names[:-1]:
            path = (*path, name)
            self.offsets.setdefault(path, offset)
            if path in self.arrays:
                path = (*path, self.arrays[path])
        path = (*path, names[-1])
        if doubled:
            self.arrays[path] = self.arrays.get(path, -1) + 1
            self.offsets.setdefault(path, offset)
            path = (*path, self.arrays[path])
        self.offsets.setdefault(path, offset)
        self.table = path

    def _pair(self, table: Path) -> tuple[Path, tuple[int, int]]:
        path = table
        for name, offset in self._keys():
            path = (*path, name)
            self.offsets.setdefault(path, offset)
        self.at += 1  # the equals sign
        self._take(_SPACE)
        start = self.at
        self._value(path)
        return path, (start, self.at)

    def _value(self, path: Path) -> None:
        if self.text[self.at] == "[":
            self._items("]", path)
        elif self.text[self.at] == "{":
            self._items("}", path)
        else:
            self._take(_SCALAR)

    def _items(self, close: str, path: Path) -> None:
        self.at += 1
        index = 0
        while self.text[self._blank()] != close:
            if close == "}":
                self._pair(path)
            else:
                self.offsets.setdefault((*path, index), self.at)
                self._value((*path, index))
            index += 1
            if self.text[self._blank()] == ",":
                self.at += 1
        self.at += 1


def scan(text: str) -> list[Statement]:
    """Return the statements of `text`, which `tomllib` must accept, in their order."""
    scanner = _Scanner(text)
    scanner.run()
    return scanner.statements


def locate(text: str, path: Path) -> tuple[int, int]:
    """Return line and column (from 1) of the key at `path`, else of the nearest table above it."""
    scanner = _Scanner(text)
    scanner.run()
    while path and path not in scanner.offsets:
        path = path[:-1]
    return position(text, scanner.offsets.get(path, 0))


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of `offset` in `text`."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


_CONFLICT = re.compile(r"^(?:<{7}|\|{7}|={7}|>{7})(?=[ \r\n]|$)", re.MULTILINE)


def merge_conflict(text: str) -> tuple[int, int] | None:
    """Return line and column of the first mark that a merge left in `text`; None without one."""
    found = _CONFLICT.search(text)
    return None if found is None else position(text, found.start())


_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def syntax_place(error: ValueError, text: str) -> tuple[str, int, int]:
    """Return message, line and column of what `tomllib` (Python 3.11) raised for `text`."""
    message = str(error)
    place = _SYNTAX_PLACE.search(message)
    if place is None:
        return message, 1, 1
    line, column = (int(place[1]), int(place[2])) if place[1] else position(text, len(text))
    return message[: place.start()], line, column
