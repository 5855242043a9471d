"""Entries that leave the files of AI tools, and come back."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from octave.clients import connect, document, journal, moving
from octave.clients.document import Change, Connection
from octave.clients.moving import Taken
from octave.clients.records import digest
from octave.clients.table import CLIENTS, Command
from octave.errors import NotFound, OctaveError, StorageFailed
from octave.home import Home
from tests.clients.documents import texts

TOKEN = 'hush-"quoted"-ü-token'
USUAL = """{
  "numStartups": 7,  // keep
  "mcpServers": {
    "first": {"command": "x", "env": {"TOKEN": HERE}},
    "neighbour": {"command": "y", "env": {"TOKEN": "their-own-hush"}},
    "last": {"command": "z"}, // mine
  },
}
""".replace("HERE", json.dumps(TOKEN))
TOML = """# mine
[mcp_servers.first]
command = "x"
env = { TOKEN = 'hush-"quoted"-ü-token' }

[tui]
x = 1
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a tool's file, a home, and what is in the secret store."""

    folder: Path
    client: str = "claude"
    store: dict[str, str] = field(default_factory=lambda: {"first/TOKEN": TOKEN})

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def link(self) -> Connection:
        file = self.folder / "tool" / ("config.toml" if self.client == "codex" else "config.json")
        command = Command("/opt/octave", ("proxy",), {})
        return Connection(CLIENTS[self.client], file, None, command, self.home)

    def write(self, text: str) -> None:
        self.link.file.parent.mkdir(exist_ok=True)
        self.link.file.write_bytes(text.encode())

    @property
    def text(self) -> str:
        return self.link.file.read_bytes().decode()

    def taken(self, name: str) -> Taken:
        path = (*self.link.client.path[:-1], name)
        found = document.find(self.link.editor, self.link.file, self.text, path)
        assert found is not None
        secrets = {k: v for k, v in self.store.items() if k.startswith(f"{name}/")}
        return Taken(path, digest(found.value), secrets)

    def move(self, *names: str, **more: Any) -> Change:
        batch = journal.next_batch(self.home)
        return moving.move(self.link, [self.taken(name) for name in names], batch, **more)

    def undo(self, *ids: str, **more: Any) -> Change:
        ((_, change),) = journal.undo(self.home, self.store.get, ids, **more)
        if isinstance(change, OctaveError):
            raise change
        return change

    def value(self, *path: str) -> Any:
        found = document.find(self.link.editor, self.link.file, self.text, path)
        return found.value if found else None

    def files(self) -> dict[str, bytes]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(p): p.read_bytes() for p in files if p.suffix != ".lock"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_entries_go_and_octaves_comes_and_undo_gives_every_byte_back(desk):
    desk.write(USUAL)
    change = desk.move("first", "last")
    assert change.status == "moved"
    assert set(desk.value("mcpServers", "octave")) == {"type", "command", "args", "env"}
    assert '"neighbour": {"command": "y"' in desk.text
    assert '"first"' not in desk.text
    assert desk.undo().status == "undone"
    assert desk.text == USUAL
    assert [path.name for path in desk.link.file.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize(("client", "text"), [("claude", USUAL), ("codex", TOML)])
def test_the_secret_is_in_no_file_any_more_and_neither_it_nor_a_neighbours_is_shown(
    tmp_path, client, text
):
    desk = Desk(tmp_path, client)
    desk.write(text)
    planned = desk.move("first", dry_run=True)
    change = desk.move("first")
    assert change.diff == planned.diff != ""
    assert change.backup is not None
    assert "<first/TOKEN>" in change.backup.read_text(encoding="utf-8")
    everything = b"".join(desk.files().values()) + change.diff.encode()
    undone = desk.undo(dry_run=True)
    everything += undone.diff.encode()
    for form in (TOKEN, json.dumps(TOKEN)[1:-1], json.dumps(TOKEN, ensure_ascii=False)[1:-1]):
        assert form.encode() not in everything
    assert "their-own-hush" not in change.diff + undone.diff
    desk.undo()
    assert desk.text == text


def test_a_secret_written_in_a_way_of_its_own_is_not_kept_either(desk):
    odd = "".join(f"\\u{ord(c):04x}" for c in TOKEN)
    desk.write(USUAL.replace(json.dumps(TOKEN), f'"{odd}"'))
    change = desk.move("first")
    assert '"TOKEN": "<first/TOKEN>"' in change.diff
    assert odd.encode() not in b"".join(desk.files().values())
    desk.undo()
    assert desk.value("mcpServers", "first") == {"command": "x", "env": {"TOKEN": TOKEN}}


@settings(max_examples=40)
@given(texts)
def test_any_file_gets_its_bytes_back(tmp_path_factory, text):
    desk = Desk(tmp_path_factory.mktemp("any"))
    desk.write(text)
    found = document.find(desk.link.editor, desk.link.file, text, ("mcpServers",))
    names = list(found.value) if found and isinstance(found.value, dict) else []
    try:
        change = desk.move(*names)
    except OctaveError:
        # Of equal names nobody knows which is meant.
        return
    if names:
        assert change.status == "moved"
        desk.undo()
    assert desk.text == text


def test_a_file_that_others_changed_since_gets_its_entries_back_and_keeps_the_rest(desk):
    desk.write(USUAL)
    desk.move("first", "last")
    desk.write(desk.text.replace('"numStartups": 7', '"numStartups": 8, "new": [1]'))
    change = desk.undo()
    assert change.notes == ()
    found = desk.value()
    assert (found["numStartups"], found["new"]) == (8, [1])
    assert set(found["mcpServers"]) == {"first", "neighbour", "last"}
    assert found["mcpServers"]["first"]["env"] == {"TOKEN": TOKEN}


def test_an_entry_that_somebody_wrote_anew_stays_and_is_told(desk):
    desk.write(USUAL)
    desk.move("first")
    desk.write(desk.text.replace('"neighbour"', '"first": {"command": "new"}, "neighbour"'))
    change = desk.undo()
    assert change.notes == ("`first` was changed since, and stays as it is now",)
    found = desk.value("mcpServers")
    assert found["first"] == {"command": "new"}
    assert "octave" not in found


def test_without_its_secret_nothing_is_put_back(desk):
    desk.write(USUAL)
    desk.move("first")
    before = desk.files()
    desk.store.clear()
    with pytest.raises(OctaveError, match="`first/TOKEN` is not stored any more"):
        desk.undo()
    assert desk.files() == before
    desk.store["first/TOKEN"] = TOKEN
    desk.undo()
    assert desk.text == USUAL


def test_an_entry_that_changed_since_it_was_read_stays(desk):
    desk.write(USUAL)
    taken = [desk.taken("first"), desk.taken("last")]
    desk.write(USUAL.replace('"command": "x"', '"command": "other"'))
    change = moving.move(desk.link, taken, 1)
    assert change.notes == ("`first` was changed meanwhile, and stays",)
    assert '"command": "other"' in desk.text
    assert '"last"' not in desk.text


def test_a_dry_run_writes_nothing(desk):
    desk.write(USUAL)
    before = desk.files()
    assert desk.move("first", dry_run=True).status == "moved"
    assert desk.files() == before


def test_an_entry_of_octaves_name_that_octave_did_not_write_is_nobodys_to_replace(desk):
    desk.write(USUAL.replace('"neighbour"', '"octave"'))
    before = desk.files()
    with pytest.raises(OctaveError, match="was not written by Octave"):
        desk.move("first")
    assert desk.files() == before


def test_octaves_own_entry_is_enough_where_it_is(desk):
    desk.write(USUAL)
    connect.add(desk.link)
    text = desk.text
    desk.move("first")
    assert desk.text.count('"octave"') == 1
    desk.undo()
    assert desk.text == text
    desk.undo("claude")
    assert desk.text == USUAL
    with pytest.raises(NotFound):
        desk.undo()


def test_added_and_removed_entries_are_undone_one_after_the_other(desk):
    desk.write(USUAL)
    connect.add(desk.link)
    with_entry = desk.text
    connect.remove(desk.link)
    desk.undo()
    assert desk.text == with_entry
    assert connect.remove(desk.link).status == "removed"
    desk.undo()
    desk.undo()
    assert desk.text == USUAL


def test_undoing_what_created_the_file_deletes_it(desk):
    connect.add(desk.link)
    assert desk.link.file.exists()
    desk.undo()
    assert not desk.link.file.exists()


def test_a_read_only_file_stays(desk):
    desk.write(USUAL)
    desk.link.file.chmod(0o444)
    with pytest.raises(StorageFailed, match="read-only"):
        desk.move("first")
    assert desk.text == USUAL


def test_the_file_behind_a_link_is_changed_and_the_link_stays(desk):
    desk.write(USUAL)
    real = desk.folder / "dotfiles.json"
    os.replace(desk.link.file, real)  # noqa: PTH105
    desk.link.file.symlink_to(real)
    desk.move("first")
    assert desk.link.file.is_symlink()
    desk.undo()
    assert real.read_text(encoding="utf-8") == USUAL


def test_a_damaged_journal_knows_nothing(desk):
    desk.write(USUAL)
    desk.move("first")
    known = json.loads(desk.home.clients.read_bytes())
    desk.home.clients.write_text(json.dumps({**known, "edits": [{"x": 1}, 7]}), encoding="utf-8")
    with pytest.raises(NotFound):
        desk.undo()


def test_nobody_gets_a_secret_by_writing_a_hole_for_it(desk):
    desk.store["other/KEY"] = "somebody-elses-hush"
    hole = "\0" + "0:other/KEY" + "\0"
    evil = '"evil": { /* %s */ "command": "x", "note": %s},' % (hole, json.dumps(hole))  # noqa: UP031
    desk.write(USUAL.replace('"last":', f'{evil} "last":'))
    desk.move("evil")
    desk.undo()
    assert "evil" in desk.value("mcpServers")
    assert "somebody-elses-hush" not in desk.text
