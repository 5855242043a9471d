"""An AI tool's file with Octave's entry in it: read, and held while it is changed.

Its own lock is taken as well where it has one, so that neither writes over the other.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from octave.clients import config_file
from octave.clients.editors import EDITORS, Editor
from octave.clients.json_edit import Entry
from octave.clients.jsonc import Node, Unreadable
from octave.clients.table import Client, Command
from octave.errors import Locked, OctaveError
from octave.home import Home, private_folder

LOCK_WAIT_S = 60.0
"""The lock is held for moments; longer is a hung process."""

Status = Literal["added", "updated", "present", "removed", "absent", "moved", "undone"]


@dataclass(frozen=True, slots=True)
class Connection:
    """An AI tool's file, and what its entry should say."""

    client: Client
    file: Path
    lock_suffix: str | None
    """As in `table.Place`."""
    command: Command
    home: Home

    @property
    def entry(self) -> Entry:
        """The entry in the words of this tool."""
        return self.client.entry(self.command)

    @property
    def key(self) -> str:
        """The place of the entry in the records."""
        return "".join(f"/{name}" for name in self.client.path)

    @property
    def editor(self) -> Editor:
        """The editor of the file's format."""
        return EDITORS[self.client.format]


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be."""

    status: Status
    file: Path
    diff: str = ""
    backup: Path | None = None
    notes: tuple[str, ...] = ()


def is_blank(text: str) -> bool:
    """Whether a file of that text holds nothing at all."""
    return not text.strip("\ufeff \t\r\n")


def read(connection: Connection) -> tuple[str | None, Node | None]:
    """Return the text of the file and Octave's entry in it, None for what does not exist.

    Raises:
        OctaveError: the file cannot be read, or does not parse.
    """
    text = config_file.read(connection.file)
    return text, find(connection.editor, connection.file, text, connection.client.path)


def find(editor: Editor, file: Path, text: str | None, path: Sequence[str]) -> Node | None:
    """Return what lies at `path` of `text`, the content of `file`.

    Raises:
        OctaveError: it does not parse.
    """
    try:
        return None if text is None or is_blank(text) else editor.find(text, path)
    except Unreadable as error:
        raise OctaveError(
            f"`{file}` cannot be read: {error}",
            hint="repair it, then try again",
            details={"file": str(file), "line": error.line, "column": error.column},
        ) from error


@contextlib.contextmanager
def advised(connection: Connection) -> Iterator[None]:
    """Tell a person what to write, where Octave cannot."""
    try:
        yield
    except OctaveError as error:
        snippet = connection.editor.snippet(connection.client.path, connection.entry)
        advice = f"{error.hint}, or " if error.hint else ""
        raise type(error)(
            error.message,
            hint=f"{advice}write this into it yourself:\n{snippet}",
            details={**error.details, "file": str(connection.file), "snippet": snippet},
        ) from error


@contextlib.contextmanager
def held(home: Home, file: Path, lock_suffix: str | None, *, dry_run: bool) -> Iterator[None]:
    """Keep other Octaves and the tool itself from writing; a dry run touches nothing at all.

    Raises:
        Locked: one of them does not let go.
    """
    if dry_run:
        yield
        return
    # The dot keeps it apart from the locks that are named after servers.
    path = private_folder(home.locks) / "clients.json.lock"
    lock = FileLock(path, timeout=LOCK_WAIT_S, mode=0o600)
    try:
        with lock, config_file.held(file, lock_suffix):
            yield
    except Timeout as error:
        raise Locked(
            f"another process holds `{path}`", hint="end that process, then try again"
        ) from error
