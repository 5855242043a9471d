"""What an editor of one file format can do, whatever the format. All pure: text in, text out.

A path is the names that lead to Octave's own entry, as `("mcpServers", "octave")`. An editor
changes what lies at the path and keeps every other character.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Entry = Mapping[str, Any]


class Unreadable(ValueError):
    """The text is not what the format wants, or has no room for the entry. Counted from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {problem}")
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a path; `value` is plain data and may be anything."""

    value: Any


@dataclass(frozen=True, slots=True)
class Insertion:
    """A text with the entry put in, and what taking it out again needs to know."""

    text: str
    created: int
    """How many names of the path were missing, at least 1."""
    gap: str | None
    """What stood in the place where the first of them is now alone; None: it is not alone."""


class Editor(Protocol):
    """The editor of one file format; a module will do.

    Raises, in every method but `snippet`:
        Unreadable: the text does not parse, or the path leads through something else.
    """

    EMPTY: str
    """A whole file without entries."""

    def find(self, text: str, path: Sequence[str]) -> Found | None:
        """Return what lies at `path`."""

    def insert(self, text: str, path: Sequence[str], entry: Entry) -> Insertion:
        """Put `entry` at `path`, where nothing lies yet."""

    def replace(self, text: str, path: Sequence[str], entry: Entry) -> str:
        """Put `entry` in the place of what lies at `path`."""

    def remove(
        self, text: str, path: Sequence[str], created: int = 1, gap: str | None = None
    ) -> str:
        """Take out what lies at `path`; undoes `insert`, also after changes elsewhere.

        Names that `insert` created are taken out as well once nothing else lies under them.
        """

    def snippet(self, path: Sequence[str], entry: Entry) -> str:
        """Return a whole file with only `entry` in it, for a person to copy from."""
