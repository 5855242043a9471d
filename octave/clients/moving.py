"""Other servers' entries taken out of the file of an AI tool, with Octave's put in their place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octave.clients import config_file, hiding, journal, records
from octave.clients.connect import foreign, with_entry
from octave.clients.document import Change, Connection, find, held, read
from octave.clients.journal import Step
from octave.clients.records import digest
from octave.errors import OctaveError


@dataclass(frozen=True, slots=True)
class Taken:
    """One entry that Octave has taken over."""

    path: tuple[str, ...]
    sha256: str
    """Its `digest` when it was read."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The values in it that are in the store now, by their keys there."""


def move(
    connection: Connection, taken: Sequence[Taken], batch: int, *, dry_run: bool = False
) -> Change:
    """Take `taken` out of the file and put Octave's entry in, unless one leads to it already.

    Neither the diff nor the backup has the secrets of `taken`; `journal.undo` takes them from the
    store.

    Raises:
        OctaveError: the file cannot be read or written, or has an entry of Octave's name that
            Octave did not write. Nothing was changed.
    """
    file, home = connection.file, connection.home
    secrets = {key: value for each in taken for key, value in each.secrets.items()}
    with held(home, file, connection.lock_suffix, dry_run=dry_run):
        text, found = read(connection)
        known = records.find(home, file, connection.key)
        if text is None:
            raise OctaveError(f"`{file}` is not there any more")
        if found is not None and not _is_ours(connection, found.value):
            raise foreign(connection, known, "add")
        config_file.require_writable(file)
        steps, after, notes = _taken_out(connection, text, taken)
        record = None
        if steps and found is None:
            before, (after, record) = after, with_entry(connection, after, None, known)
            steps.append(
                journal.step(connection.client.path, None, connection.entry, before, after)
            )
        backup = None
        if steps and not dry_run:
            if record is not None:
                records.put(home, record)
            texts = (text, after)
            journal.note(connection, texts, known, steps, batch=batch, secrets=secrets)
            backup = config_file.back_up(file, hiding.without(text, secrets))
            config_file.write(file, after)
    diff = hiding.difference(file, text, after, secrets) if steps else ""
    return Change("moved" if steps else "present", file, diff, backup, tuple(notes))


def _is_ours(connection: Connection, value: Any) -> bool:
    """Whether the entry of Octave's name is one that Octave wrote, or would write."""
    known = records.find(connection.home, connection.file, connection.key)
    return value == connection.entry or (known is not None and digest(value) == known.sha256)


def _taken_out(
    connection: Connection, text: str, taken: Sequence[Taken]
) -> tuple[list[Step], str, list[str]]:
    steps: list[Step] = []
    notes: list[str] = []
    for parent in dict.fromkeys(each.path[:-1] for each in taken):
        # All of one place at once: looking for that takes a second in a file of megabytes.
        part, start, lead = _part(connection, text, parent)
        whole = part
        for each in taken:
            if each.path[:-1] != parent:
                continue
            path = (*lead, each.path[-1])
            found = find(connection.editor, connection.file, part, path)
            if found is None or digest(found.value) != each.sha256:
                notes.append(f"`{each.path[-1]}` was changed meanwhile, and stays")
                continue
            after = connection.editor.remove(part, path)
            step = journal.step(each.path, found, None, part, after)
            steps.append(replace(step, at=step.at + start))
            part = after
        text = text[:start] + part + text[start + len(whole) :]
    return steps, text, notes


def _part(
    connection: Connection, text: str, parent: tuple[str, ...]
) -> tuple[str, int, tuple[str, ...]]:
    """Return the object at `parent`, where that begins, and the path in it.

    All of the text where entries lie in no one place.
    """
    holder = find(connection.editor, connection.file, text, parent)
    if holder is None or holder.members is None:
        return text, 0, parent
    return text[holder.start : holder.end], holder.start, ()
