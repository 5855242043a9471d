"""Octave's entry in the file of an AI tool: put in, taken out, looked at.

The file is edited by Octave, under the tool's own lock, and never by the tool's command: that
one writes the whole file anew (every other server's bytes with it), can neither show nor undo
what it will do, and is not there for most tools.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from octave.clients import config_file, journal, records
from octave.clients.document import Change, Connection, Status, advised, held, is_blank, read
from octave.clients.hiding import difference
from octave.clients.jsonc import Node
from octave.clients.records import Record, digest
from octave.errors import OctaveError


def look(connection: Connection) -> Literal["here", "elsewhere"] | None:
    """Tell whether the entry is there, and leads to this Octave and this home; None: it is not.

    Raises:
        OctaveError: the file cannot be read, or does not parse.
    """
    _, found = read(connection)
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
    with held(connection.home, file, connection.lock_suffix, dry_run=dry_run):
        with advised(connection):
            text, found = read(connection)
        if found is not None and found.value == connection.entry:
            return Change("present", file)
        known = records.find(connection.home, file, connection.key)
        is_ours = found is not None and is_as_written(found, known)
        if found is not None and not is_ours and not force:
            raise foreign(connection, known, "add")
        after, record = with_entry(connection, text, found, known)
        backup = None
        with advised(connection):
            config_file.require_writable(file)
            if not dry_run:
                # Before the file: a record of nothing harms less than an entry without one.
                records.put(connection.home, record)
                step = journal.step(connection.client.path, found, connection.entry, text, after)
                journal.note(connection, (text, after), known, [step])
                if text and not is_ours:
                    backup = config_file.back_up(file, text)
                config_file.write(file, after)
    status: Status = "added" if found is None else "updated"
    return Change(status, file, difference(file, text, after, {}), backup)


def remove(connection: Connection, *, force: bool = False, dry_run: bool = False) -> Change:
    """Take out the entry that Octave wrote, with whatever was created for it.

    Raises:
        OctaveError: the file does not parse or cannot be written, or, without `force`, its entry
            is not the one that Octave wrote. Nothing was changed.
    """
    file, after = connection.file, None
    with held(connection.home, file, connection.lock_suffix, dry_run=dry_run):
        text, found = read(connection)
        known = records.find(connection.home, file, connection.key)
        if text is not None and found is not None:
            if not force and not is_as_written(found, known):
                raise foreign(connection, known, "remove")
            config_file.require_writable(file)
            after = without_entry(connection, text, known)
            if not dry_run:
                step = journal.step(connection.client.path, found, None, text, after)
                journal.note(connection, (text, after), known, [step])
                config_file.put_back(file, after)
        if not dry_run:
            records.drop(connection.home, file, connection.key)
    if found is None:
        return Change("absent", file)
    return Change("removed", file, difference(file, text, after, {}))


def with_entry(
    connection: Connection, text: str | None, found: Node | None, known: Record | None
) -> tuple[str, Record]:
    """Return the text with the entry, and how to undo that."""
    path, entry, editor = connection.client.path, connection.entry, connection.editor
    blank = text is None or is_blank(text)
    record = Record(
        client=connection.client.id,
        file=str(connection.file),
        key=connection.key,
        sha256=digest(entry),
        created=1,
        gap=None,
        existed=text is not None,
        blank=text if blank else None,
    )
    if text is not None and found is not None:
        # What undoing takes is known from the first time.
        record = record if known is None else replace(known, sha256=record.sha256)
        return editor.replace(text, path, entry), record
    done = editor.insert(editor.EMPTY if text is None or blank else text, path, entry)
    return done.text, replace(record, created=done.created, gap=done.gap)


def without_entry(connection: Connection, text: str, known: Record | None) -> str | None:
    """Return the text without the entry; None when the file should go with it."""
    path, editor = connection.client.path, connection.editor
    if known is None:
        return editor.remove(text, path)
    after = editor.remove(text, path, known.created, known.gap)
    if after.strip() != editor.EMPTY.strip():
        return after
    if not known.existed:
        return None
    return after if known.blank is None else known.blank


def is_as_written(found: Node, known: Record | None) -> bool:
    """Whether the entry says what Octave wrote."""
    return known is not None and digest(found.value) == known.sha256


def foreign(connection: Connection, known: Record | None, verb: str) -> OctaveError:
    """Return the error for an entry that is not as Octave wrote it."""
    what = "was changed since Octave wrote it" if known else "was not written by Octave"
    name = connection.client.path[-1]
    return OctaveError(
        f"the entry `{name}` in `{connection.file}` {what}",
        hint=f"look at it, then run `octave client {verb} {connection.client.id} --force`",
        details={"file": str(connection.file), "key": connection.key},
    )


def _strings(value: Any) -> Iterator[str]:
    """Yield every name and text in `value`: tools differ in what they call the parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
