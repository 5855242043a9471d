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

from octave.clients import config_file, records
from octave.clients.command import Command
from octave.clients.diff import difference
from octave.clients.editor import Entry, Found, Unreadable
from octave.clients.records import Record, digest
from octave.clients.table import Client
from octave.errors import Locked, OctaveError, StorageFailed
from octave.home import Home, private_folder

LOCK_WAIT_S = 60.0
"""The lock is held for moments; longer is a hung process."""

Status = Literal["added", "updated", "present", "removed", "absent"]


@dataclass(frozen=True, slots=True)
class Connection:
    """An AI tool's file, and what its entry should say."""

    client: Client
    file: Path
    command: Command
    home: Home

    @property
    def entry(self) -> Entry:
        """The entry in the words of this tool."""
        return self.client.entry(self.command)

    @property
    def key(self) -> str:
        """The place of the entry as a JSON pointer."""
        return records.pointer(self.client.path)


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
    found = _find(connection, config_file.read(connection.file))
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
    with _held(connection, dry_run=dry_run):
        text = config_file.read(connection.file)
        found = _find(connection, text)
        known = records.find(connection.home, connection.file, connection.key)
        if found is not None and found.value == connection.entry:
            return Change("present", connection.file)
        is_ours = found is not None and known is not None and _is_same(found, known)
        if found is not None and not is_ours and not force:
            raise _foreign(connection, known, "add")
        after, record = _with_entry(connection, text, found, known)
        with _explained(connection):
            config_file.require_writable(connection.file)
            if not dry_run:
                # Before the file: a record of nothing harms less than an entry without one.
                records.put(connection.home, record)
                backup = None if is_ours else _back_up(connection.file, text)
                config_file.write(connection.file, after)
        return Change(
            "updated" if found is not None else "added",
            connection.file,
            difference(connection.file, text, after),
            None if dry_run else backup,
        )


def remove(connection: Connection, *, force: bool = False, dry_run: bool = False) -> Change:
    """Take out the entry that Octave wrote, with whatever was created for it.

    Raises:
        OctaveError: the file does not parse or cannot be written, or, without `force`, its entry
            is not the one that Octave wrote. Nothing was changed.
    """
    with _held(connection, dry_run=dry_run):
        text = config_file.read(connection.file)
        found = _find(connection, text)
        known = records.find(connection.home, connection.file, connection.key)
        if text is not None and found is not None:
            if not force and not (known is not None and _is_same(found, known)):
                raise _foreign(connection, known, "remove")
            config_file.require_writable(connection.file)
            after = _without_entry(connection, text, known)
            if not dry_run:
                _put_back(connection.file, after)
        if known is not None and not dry_run:
            records.drop(connection.home, known)
        if text is None or found is None:
            return Change("absent", connection.file)
        return Change("removed", connection.file, difference(connection.file, text, after))


def _find(connection: Connection, text: str | None) -> Found | None:
    if text is None or _is_blank(text):
        return None
    with _explained(connection):
        return connection.client.editor.find(text, connection.client.path)


def _with_entry(
    connection: Connection, text: str | None, found: Found | None, known: Record | None
) -> tuple[str, Record]:
    editor, path = connection.client.editor, connection.client.path
    is_blank = text is None or _is_blank(text)
    record = Record(
        client=connection.client.id,
        file=str(connection.file),
        key=connection.key,
        sha256=digest(connection.entry),
        created=1,
        gap=None,
        existed=text is not None,
        blank=text if is_blank else None,
    )
    if found is not None and text is not None:
        # What undoing takes is known from the first time.
        record = replace(known, sha256=record.sha256) if known is not None else record
        return editor.replace(text, path, connection.entry), record
    base = editor.EMPTY if text is None or is_blank else text
    done = editor.insert(base, path, connection.entry)
    return done.text, replace(record, created=done.created, gap=done.gap)


def _without_entry(connection: Connection, text: str, known: Record | None) -> str | None:
    """Return the text without the entry; None when the file should go with it."""
    editor, path = connection.client.editor, connection.client.path
    if known is None:
        return editor.remove(text, path)
    after = editor.remove(text, path, known.created, known.gap)
    if after.strip() != editor.EMPTY.strip():
        return after
    if not known.existed:
        return None
    return after if known.blank is None else known.blank


def _put_back(file: Path, text: str | None) -> None:
    if text is None:
        config_file.delete(file)
    else:
        config_file.write(file, text)
    backup = config_file.backup_of(file)
    # A backup of what the file says anyway is litter.
    with contextlib.suppress(OctaveError, OSError):
        if config_file.read(backup) == text:
            backup.unlink(missing_ok=True)


def _back_up(file: Path, text: str | None) -> Path | None:
    if not text:
        return None
    backup = config_file.backup_of(file)
    # An older backup may be readable for others, or a link.
    backup.unlink(missing_ok=True)
    config_file.write(backup, text)
    return backup


def _strings(value: Any) -> Iterator[str]:
    """Yield every name and text in `value`: tools differ in what they call the parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value:
            yield from _strings(part)
        for part in value.values() if isinstance(value, dict) else ():
            yield from _strings(part)


def _is_blank(text: str) -> bool:
    return not text.strip("\ufeff \t\r\n")


def _is_same(found: Found, known: Record) -> bool:
    return digest(found.value) == known.sha256


def _foreign(connection: Connection, known: Record | None, verb: str) -> OctaveError:
    what = "was changed since Octave wrote it" if known else "was not written by Octave"
    name = connection.client.path[-1]
    return OctaveError(
        f"the entry `{name}` in `{connection.file}` {what}",
        hint=f"look at it, then run `octave client {verb} {connection.client.id} --force`",
        details={"file": str(connection.file), "key": connection.key},
    )


@contextlib.contextmanager
def _explained(connection: Connection) -> Iterator[None]:
    """Tell a person what to write, where Octave cannot."""
    client, file = connection.client, connection.file
    snippet = client.editor.snippet(client.path, connection.entry)
    details = {"file": str(file), "snippet": snippet}
    try:
        yield
    except Unreadable as error:
        raise OctaveError(
            f"`{file}` cannot be read: {error}",
            hint=f"repair it and try again, or write this into it yourself:\n{snippet}",
            details={**details, "line": error.line, "column": error.column},
        ) from error
    except StorageFailed as error:
        advice = f"{error.hint}, or " if error.hint else ""
        raise StorageFailed(
            error.message,
            hint=f"{advice}write this into it yourself:\n{snippet}",
            details=details,
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
        with lock, config_file.held(connection.file, connection.client.lock_suffix):
            yield
    except Timeout as error:
        raise Locked(
            f"another process holds `{path}`", hint="end that process, then try again"
        ) from error
