"""The changes Octave made to the files of AI tools, each with what takes it back.

A change is a few steps, each about one entry. A file nobody touched since gets its very bytes
back; in any other one the entries alone are put back and taken out, and what others wrote stays.
Secrets that moved to the store are left out, and filled in from there.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from octave.clients import config_file, document, hiding, records
from octave.clients.document import Change, Connection, held
from octave.clients.editors import EDITORS, Editor
from octave.clients.jsonc import Node
from octave.clients.records import Record, digest
from octave.clients.table import CLIENTS
from octave.errors import NotFound, OctaveError
from octave.home import Home

KEPT = 50
"""Changes; each is a few kilobytes."""

INEXACT = -1
"""In the place of `at`: the text around the entry was not kept."""
_HOLE = re.compile("\0([0-2]):([^\0]*)\0")
"""A secret left out: in which form, and its key. No configuration has a NUL in it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry put in, taken out or replaced."""

    path: tuple[str, ...]
    before: tuple[Any, ...]
    """The entry; empty: there was none."""
    after: str | None
    """Its `digest` afterwards; None: there was none."""
    at: int
    """Where in the text `old` became `new`, in characters."""
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file."""

    batch: int
    """Equal for what one command did."""
    client: str
    file: str
    lock_suffix: str | None
    existed: bool
    sha256: str | None
    """Of the text afterwards; None: the file was deleted."""
    steps: tuple[Step, ...]
    record: Record | None
    """What was recorded of Octave's entry before."""


def step(
    path: Sequence[str],
    found: Node | None,
    entry: Mapping[str, Any] | None,
    text: str | None,
    after: str | None,
) -> Step:
    """Return the step from `text` to `after`, in which `found` at `path` became `entry`."""
    old, new = text or "", after or ""
    limit = min(len(old), len(new))
    start = _longest(limit, lambda size: old[:size] == new[:size])
    ends = len(old), len(new)
    end = _longest(limit - start, lambda size: old[ends[0] - size :] == new[ends[1] - size :])
    return Step(
        path=tuple(path),
        before=() if found is None else (found.value,),
        after=None if entry is None else digest(dict(entry)),
        at=start,
        old=old[start : len(old) - end],
        new=new[start : len(new) - end],
    )


def _longest(limit: int, is_same: Callable[[int], bool]) -> int:
    """Return the largest size up to `limit` that is the same; all smaller ones are as well."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_same(middle) else (low, middle - 1)
    return low


def next_batch(home: Home) -> int:
    """Return the number for what a command is about to do."""
    return max((edit.batch for edit in _edits(home)), default=0) + 1


def note(
    connection: Connection,
    texts: tuple[str | None, str | None],
    known: Record | None,
    steps: Sequence[Step],
    *,
    batch: int | None = None,
    secrets: Mapping[str, str] | None = None,
) -> None:
    """Write down a change before it is made; the caller holds the lock.

    `texts` are the file's before and after, `known` what was recorded of Octave's entry, and
    `secrets` values by their keys in the store, which the steps are kept without.

    Raises:
        StorageFailed: a newer Octave wrote the records.
        OSError: the home cannot be written.
    """
    kept = tuple(_without(each, secrets or {}) for each in steps)
    edit = Edit(
        batch=next_batch(connection.home) if batch is None else batch,
        client=connection.client.id,
        file=str(connection.file),
        lock_suffix=connection.lock_suffix,
        existed=texts[0] is not None,
        sha256=None if texts[1] is None else _sha256(texts[1]),
        steps=kept,
        record=known,
    )
    _keep(connection.home, [*_edits(connection.home), edit][-KEPT:])


def undo(
    home: Home, secret: Callable[[str], str | None], ids: Sequence[str], *, dry_run: bool = False
) -> list[tuple[str, Change | OctaveError]]:
    """Take back the newest change, or the newest of each of `ids`; return what became of each.

    `secret` gives the value of a key in the store.

    Raises:
        NotFound: nothing was changed that could be undone.
    """
    known = _edits(home)
    newest = known[-1].batch if known else 0
    chosen = [edit for edit in known if edit.batch == newest]
    if ids:
        last = {edit.client: edit.batch for edit in known}
        chosen = [edit for edit in known if edit.client in ids and last[edit.client] == edit.batch]
    if not chosen:
        raise NotFound(
            "Octave has changed nothing there that could be undone", hint="octave client list"
        )
    outcomes: list[tuple[str, Change | OctaveError]] = []
    for edit in reversed(chosen):
        try:
            outcomes.append((edit.client, _undo(home, edit, secret, dry_run=dry_run)))
        except OctaveError as error:
            outcomes.append((edit.client, error))
    return outcomes


def _undo(home: Home, edit: Edit, secret: Callable[[str], str | None], *, dry_run: bool) -> Change:
    file = Path(edit.file)
    with held(home, file, edit.lock_suffix, dry_run=dry_run):
        text = config_file.read(file)
        before, notes = _before(edit, text, _filling(secret))
        config_file.require_writable(file)
        secrets = {key: secret(key) or "" for each in edit.steps for key in _keys(each)}
        if not dry_run:
            if before != text:
                kept = None if before is None else hiding.without(before, secrets)
                config_file.put_back(file, before, kept)
            _forget(home, edit)
    diff = hiding.difference(file, text, before, secrets)
    return Change("undone", file, diff, notes=notes)


def _before(
    edit: Edit, text: str | None, fill: Callable[[str], str]
) -> tuple[str | None, tuple[str, ...]]:
    """Return the text as it should be again, and what could not be undone."""
    is_exact = all(each.at != INEXACT for each in edit.steps)
    if is_exact and edit.sha256 == (None if text is None else _sha256(text)):
        whole = text or ""
        for each in reversed(edit.steps):
            whole = whole[: each.at] + fill(each.old) + whole[each.at + len(each.new) :]
        return whole if edit.existed else None, ()
    editor = EDITORS[CLIENTS[edit.client].format]
    found, notes = text, []
    for each in reversed(edit.steps):
        found, note_ = _step_back(editor, Path(edit.file), found, each, fill)
        notes += note_
    return found, tuple(notes)


def _step_back(
    editor: Editor, file: Path, text: str | None, each: Step, fill: Callable[[str], str]
) -> tuple[str | None, list[str]]:
    found = document.find(editor, file, text, each.path)
    if (None if found is None else digest(found.value)) != each.after:
        return text, [f"`{each.path[-1]}` was changed since, and stays as it is now"]
    whole = editor.EMPTY if text is None or document.is_blank(text) else text
    if not each.before:
        return editor.remove(whole, each.path), []
    entry = _mapped(each.before[0], fill)
    if found is None:
        return editor.insert(whole, each.path, entry).text, []
    return editor.replace(whole, each.path, entry), []


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return `value` with each text in it changed; whole numbers become integers again."""
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return change(value) if isinstance(value, str) else value


def _filling(secret: Callable[[str], str | None]) -> Callable[[str], str]:
    def value(hole: re.Match[str]) -> str:
        found = secret(hole[2])
        if found is None:
            raise OctaveError(
                f"the secret `{hole[2]}` is not stored any more, so its entry cannot be put back",
                hint="store it again, or write the entry yourself",
            )
        return hiding.forms(found)[int(hole[1])]

    return lambda text: _HOLE.sub(value, text)


def _without(each: Step, secrets: Mapping[str, str]) -> Step:
    """Return the step with holes for `secrets`."""
    # As data, so that each hole is one string's and is filled with the value itself. A NUL of
    # somebody else's would make a hole for any secret they like.
    before = _mapped(each.before, lambda text: _holed(text.replace("\0", ""), secrets, (0,)))
    old = _holed(each.old, secrets, (0, 1, 2))
    if "\0" in each.old or len(_HOLE.findall(old)) < sum(
        len(_HOLE.findall(text)) for text in hiding.texts(before)
    ):
        # Written in a way of its own, and still in there: the entry alone can be put back.
        return replace(each, before=before, at=INEXACT, old="", new="")
    return replace(each, before=before, old=old)


def _holed(text: str, secrets: Mapping[str, str], forms: Sequence[int]) -> str:
    holes = {
        hiding.forms(value)[form]: f"\0{form}:{key}\0"
        for key, value in secrets.items()
        if value
        for form in reversed(forms)
    }
    return hiding.replaced(text, holes)


def _keys(each: Step) -> set[str]:
    return {
        key for text in (each.old, *hiding.texts(each.before)) for _, key in _HOLE.findall(text)
    }


def _forget(home: Home, edit: Edit) -> None:
    key = "".join(f"/{name}" for name in CLIENTS[edit.client].path)
    if edit.record is None:
        records.drop(home, Path(edit.file), key)
    else:
        records.put(home, edit.record)
    _keep(home, [each for each in _edits(home) if each != edit])


def _edits(home: Home) -> list[Edit]:
    return [edit for each in records.edits(home) if (edit := _of_json(each)) is not None]


def _of_json(found: Any) -> Edit | None:
    if not isinstance(found, dict) or found.keys() != {field.name for field in fields(Edit)}:
        return None
    steps = [
        Step(**{**each, "path": tuple(each["path"]), "before": tuple(each["before"])})
        for each in found["steps"]
        if isinstance(each, dict) and each.keys() == {field.name for field in fields(Step)}
    ]
    known = records.of_json(found["record"])
    return Edit(**{**found, "steps": tuple(steps), "record": known})


def _keep(home: Home, edits: Sequence[Edit]) -> None:
    records.keep_edits(home, [asdict(edit) for edit in edits])


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
