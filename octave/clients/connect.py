"""Octave's entry in the file of an AI tool: put in, taken out, looked at.

The file is edited by Octave, under the tool's own lock, and never by the tool's command: that
one writes the whole file anew (every other server's bytes with it), can neither show nor undo
what it will do, and is not there for most tools.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from octave.clients import config_file, json_edit, records
from octave.clients.diff import difference
from octave.clients.json_edit import Entry
from octave.clients.jsonc import Node, Unreadable
from octave.clients.records import Record, digest
from octave.clients.table import Client, Command
from octave.errors import Locked, OctaveError
from octave.home import Home, private_folder

LOCK_WAIT_S = 60.0
"""The lock is held for moments; longer is a hung process."""

Status = Literal["added", "updated", "present", "removed", "absent"]


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


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be."""

    status: Status
    file: Path
    diff: str = ""
    backup: Path | None = None


def look(connection: Connection) -> Literal["here", "elsewhere"] | None:
    """Tell whether the entry is there, and leads to this Octave and this home; None: it is not.

    Raises:
        OctaveError: the file cannot be read, or does not parse.
    """
    _, found = _read(connection)
    if found is None:
        return None
    said, command = set(_strings(found.value)), connection.command
    wanted = {command.program, *command.env.values()}
    is_same_home = ("OCTAVE_HOME" in said) == ("OCTAVE_HOME" in command.env)
    return "here" if wanted <= said and is_same_home else "elsewhere"


def add(connection: Connection, *, force: bool = False, dry_run: bool = False) -> Change:
    """Put the entry into the file, or bring Octave's older one up to date.

    Raises:
        OctaveError: the file does not parse or cannot be written, or, without `force`, has an
            entry that Octave did not write. Nothing was changed.
    """
    file = connection.file
    with _held(connection, dry_run=dry_run):
        with _advised(connection):
            text, found = _read(connection)
        if found is not None and found.value == connection.entry:
            return Change("present", file)
        known = records.find(connection.home, file, connection.key)
        is_ours = found is not None and _is_as_written(found, known)
        if found is not None and not is_ours and not force:
            raise _foreign(connection, known, "add")
        after, record = _with_entry(connection, text, found, known)
        backup = None
        with _advised(connection):
            config_file.require_writable(file)
            if not dry_run:
                # Before the file: a record of nothing harms less than an entry without one.
                records.put(connection.home, record)
                if text and not is_ours:
                    backup = config_file.back_up(file, text)
                config_file.write(file, after)
    status: Status = "added" if found is None else "updated"
    return Change(status, file, difference(file, text, after), backup)


def remove(connection: Connection, *, force: bool = False, dry_run: bool = False) -> Change:
    """Take out the entry that Octave wrote, with whatever was created for it.

    Raises:
        OctaveError: the file does not parse or cannot be written, or, without `force`, its entry
            is not the one that Octave wrote. Nothing was changed.
    """
    file, after = connection.file, None
    with _held(connection, dry_run=dry_run):
        text, found = _read(connection)
        known = records.find(connection.home, file, connection.key)
        if text is not None and found is not None:
            if not force and not _is_as_written(found, known):
                raise _foreign(connection, known, "remove")
            config_file.require_writable(file)
            after = _without_entry(connection, text, known)
            if not dry_run:
                config_file.put_back(file, after)
        if not dry_run:
            records.drop(connection.home, file, connection.key)
    if found is None:
        return Change("absent", file)
    return Change("removed", file, difference(file, text, after))


def _read(connection: Connection) -> tuple[str | None, Node | None]:
    """Return the text of the file and the entry in it, None for what does not exist."""
    file = connection.file
    text = config_file.read(file)
    try:
        is_blank = text is None or _is_blank(text)
        return text, None if text is None or is_blank else json_edit.find(
            text, connection.client.path
        )
    except Unreadable as error:
        raise OctaveError(
            f"`{file}` cannot be read: {error}",
            hint="repair it, then try again",
            details={"file": str(file), "line": error.line, "column": error.column},
        ) from error


def _with_entry(
    connection: Connection, text: str | None, found: Node | None, known: Record | None
) -> tuple[str, Record]:
    """Return the text with the entry, and how to undo that."""
    path, entry = connection.client.path, connection.entry
    is_blank = text is None or _is_blank(text)
    record = Record(
        client=connection.client.id,
        file=str(connection.file),
        key=connection.key,
        sha256=digest(entry),
        created=1,
        gap=None,
        existed=text is not None,
        blank=text if is_blank else None,
    )
    if text is not None and found is not None:
        # What undoing takes is known from the first time.
        record = record if known is None else replace(known, sha256=record.sha256)
        return json_edit.replace(text, path, entry), record
    done = json_edit.insert(json_edit.EMPTY if text is None or is_blank else text, path, entry)
    return done.text, replace(record, created=done.created, gap=done.gap)


def _without_entry(connection: Connection, text: str, known: Record | None) -> str | None:
    """Return the text without the entry; None when the file should go with it."""
    path = connection.client.path
    if known is None:
        return json_edit.remove(text, path)
    after = json_edit.remove(text, path, known.created, known.gap)
    if after.strip() != json_edit.EMPTY.strip():
        return after
    if not known.existed:
        return None
    return after if known.blank is None else known.blank


def _strings(value: Any) -> Iterator[str]:
    """Yield every name and text in `value`: tools differ in what they call the parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _is_blank(text: str) -> bool:
    return not text.strip("\ufeff \t\r\n")


def _is_as_written(found: Node, known: Record | None) -> bool:
    return known is not None and digest(found.value) == known.sha256


def _foreign(connection: Connection, known: Record | None, verb: str) -> OctaveError:
    what = "was changed since Octave wrote it" if known else "was not written by Octave"
    name = connection.client.path[-1]
    return OctaveError(
        f"the entry `{name}` in `{connection.file}` {what}",
        hint=f"look at it, then run `octave client {verb} {connection.client.id} --force`",
        details={"file": str(connection.file), "key": connection.key},
    )


@contextlib.contextmanager
def _advised(connection: Connection) -> Iterator[None]:
    """Tell a person what to write, where Octave cannot."""
    try:
        yield
    except OctaveError as error:
        snippet = json_edit.snippet(connection.client.path, connection.entry)
        advice = f"{error.hint}, or " if error.hint else ""
        raise type(error)(
            error.message,
            hint=f"{advice}write this into it yourself:\n{snippet}",
            details={**error.details, "file": str(connection.file), "snippet": snippet},
        ) from error


@contextlib.contextmanager
def _held(connection: Connection, *, dry_run: bool) -> Iterator[None]:
    """Keep other Octaves and the tool itself from writing; a dry run touches nothing at all."""
    if dry_run:
        yield
        return
    # The dot keeps it apart from the locks that are named after servers.
    path = private_folder(connection.home.locks) / "clients.json.lock"
    lock = FileLock(path, timeout=LOCK_WAIT_S, mode=0o600)
    try:
        with lock, config_file.held(connection.file, connection.lock_suffix):
            yield
    except Timeout as error:
        raise Locked(
            f"another process holds `{path}`", hint="end that process, then try again"
        ) from error
