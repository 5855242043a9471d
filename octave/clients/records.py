"""What Octave wrote into the files of AI tools: the home's clients.json.

With it `remove` takes away only what Octave added, notices what a person changed since, and
leaves the file as it was; `undo` takes back whole changes. A damaged file knows nothing; a newer
one is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from octave.home import Home, atomic_write, private_folder
from octave.packages import state_file

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One entry that Octave put into one file."""

    client: str
    file: str
    """An absolute path, links not resolved."""
    key: str
    """The names that lead to the entry, each after a slash."""
    sha256: str
    """`digest` of the entry."""
    created: int
    gap: str | None
    """Both as in `json_edit.Insertion`."""
    existed: bool
    """Whether there was a file."""
    blank: str | None
    """What the file held when it held no entries at all, else None."""


def digest(value: Any) -> str:
    """Return the hash of an entry as data: the tool may lay it out anew, in another order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find(home: Home, file: Path, key: str) -> Record | None:
    """Return what is recorded of `key` in `file`.

    Raises:
        StorageFailed: a newer Octave wrote the records.
    """
    return _records(_read(home)).get((str(file), key))


def put(home: Home, record: Record) -> None:
    """Record `record`, in the place of an older one of the same entry; the caller holds the lock.

    Raises:
        StorageFailed: a newer Octave wrote the records.
        OSError: the home cannot be written.
    """
    document = _read(home)
    _keep(home, document, {**_records(document), (record.file, record.key): record})


def drop(home: Home, file: Path, key: str) -> None:
    """Forget `key` in `file`; the caller holds the lock. Raises as `put` does."""
    document = _read(home)
    known = _records(document)
    if known.pop((str(file), key), None) is not None:
        _keep(home, document, known)


def of_json(entry: object) -> Record | None:
    """Return the record that `asdict` made `entry` from; None for anything else."""
    if isinstance(entry, dict) and entry.keys() == {field.name for field in fields(Record)}:
        return Record(**entry)
    return None


def edits(home: Home) -> list[Any]:
    """Return the changes that can be undone, the oldest first, as `journal` wrote them.

    Raises:
        StorageFailed: a newer Octave wrote the records.
    """
    found = _read(home).get("edits")
    return found if isinstance(found, list) else []


def keep_edits(home: Home, edits: list[Any]) -> None:
    """Write down the changes that can be undone; the caller holds the lock. Raises as `put`."""
    _write(home, {**_read(home), "edits": edits})


def _read(home: Home) -> dict[str, Any]:
    return state_file.read(home.clients, FORMAT)


def _records(document: Mapping[str, Any]) -> dict[tuple[str, str], Record]:
    entries = document.get("entries")
    found = map(of_json, entries if isinstance(entries, list) else ())
    return {(record.file, record.key): record for record in found if record is not None}


def _keep(
    home: Home, document: Mapping[str, Any], records: Mapping[tuple[str, str], Record]
) -> None:
    entries = [asdict(records[place]) for place in sorted(records)]
    _write(home, {**document, "entries": entries})


def _write(home: Home, document: Mapping[str, Any]) -> None:
    text = json.dumps({"entries": [], **document, "format": FORMAT}, indent=1, sort_keys=True)
    private_folder(home.root)
    atomic_write(home.clients, text.encode() + b"\n")
