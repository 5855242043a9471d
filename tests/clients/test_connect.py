import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings

from octave.clients import connect, document
from octave.clients.document import Change, Connection
from octave.clients.table import CLIENTS, Command
from octave.errors import Locked, OctaveError, StorageFailed
from octave.home import Home
from tests.clients.documents import texts

USUAL = b"""{
  "numStartups": 7,  // keep
  "mcpServers": {
    "other": {"command": "x", "env": {"TOKEN": "secret"}},
  },
}
"""
FOREIGN = b'{"mcpServers": {"octave": {"command": "something"}}}'
BROKEN = b'{\n  "mcpServers": {\n    "a": 1\n    "b": 2\n  }\n}\n'


def connection(file: Path, home: Home) -> Connection:
    command = Command("/opt/octave", ("proxy",), {})
    return Connection(CLIENTS["claude"], file, ".lock", command, home)


@dataclass(frozen=True)
class Desk:
    """An AI tool's file in a folder of its own, and a home."""

    folder: Path
    home: Home

    @property
    def file(self) -> Path:
        return self.folder / ".claude.json"

    @property
    def link(self) -> Connection:
        return connection(self.file, self.home)

    def document(self):
        return json.loads(self.file.read_bytes())

    def everything(self) -> dict[str, bytes]:
        """Return every file that there is, the home's included."""
        files = [path for path in self.folder.parent.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder.parent)): path.read_bytes() for path in files}

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "user").mkdir()
    return Desk(tmp_path / "user", Home(tmp_path / "home"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_entry_is_added_and_removed_without_a_trace(desk):
    desk.file.write_bytes(USUAL)
    desk.file.chmod(0o640)
    added = connect.add(desk.link)
    assert (added.status, connect.look(desk.link)) == ("added", "here")
    assert desk.names() == {".claude.json", ".claude.json.octave-backup"}
    assert mode(desk.file) == 0o640
    removed = connect.remove(desk.link)
    assert (removed.status, connect.look(desk.link)) == ("removed", None)
    assert desk.file.read_bytes() == USUAL
    assert mode(desk.file) == 0o640
    assert desk.names() == {".claude.json"}


def test_every_other_byte_stays(desk):
    desk.file.write_bytes(USUAL)
    connect.add(desk.link)
    before, _, after = USUAL.partition(b'"mcpServers": {')
    found = desk.file.read_bytes()
    assert found.startswith(before + b'"mcpServers": {')
    assert found.endswith(after)


@settings(max_examples=40, deadline=None)
@given(texts)
def test_any_file_gets_its_bytes_back(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("any")
    link = connection(folder / "config.json", Home(folder / "home"))
    link.file.write_bytes(text.encode())
    assert connect.add(link).status == "added"
    assert connect.add(link).status == "present"
    assert connect.remove(link).status == "removed"
    assert link.file.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xef\xbb\xbf", b"{}", b"{ }\r\n", b'{"mcpServers":{}}']
)
def test_a_file_without_entries_gets_one_and_its_bytes_back(desk, content):
    desk.file.write_bytes(content)
    connect.add(desk.link)
    assert connect.look(desk.link) == "here"
    connect.remove(desk.link)
    assert desk.file.read_bytes() == content


def test_a_missing_file_is_created_for_its_owner_alone_and_deleted_again(desk):
    added = connect.add(desk.link)
    assert added == Change("added", desk.file, diff=added.diff, backup=None)
    assert added.diff.startswith("--- /dev/null\n")
    assert mode(desk.file) == 0o600
    assert desk.document() == {"mcpServers": {"octave": desk.link.entry}}
    removed = connect.remove(desk.link)
    assert removed.diff.splitlines()[1] == "+++ /dev/null"
    assert desk.names() == set()


def test_a_created_file_that_got_more_content_since_is_not_deleted(desk):
    connect.add(desk.link)
    desk.file.write_text(json.dumps({**desk.document(), "theme": "dark"}), encoding="utf-8")
    connect.remove(desk.link)
    assert desk.document() == {"theme": "dark"}


def test_a_second_add_changes_nothing(desk):
    desk.file.write_bytes(USUAL)
    connect.add(desk.link)
    before = desk.everything()
    identity = desk.file.stat().st_ino
    assert connect.add(desk.link) == Change("present", desk.file)
    assert desk.everything() == before
    assert desk.file.stat().st_ino == identity


@pytest.mark.parametrize("content", [USUAL, None])
def test_a_dry_run_writes_nothing_and_tells_what_would_be_done(desk, content):
    if content is not None:
        desk.file.write_bytes(content)
    before = desk.everything()
    planned = connect.add(desk.link, dry_run=True)
    assert desk.everything() == before
    assert not desk.home.root.exists()
    done = connect.add(desk.link)
    assert planned == replace(done, backup=None)
    after = desk.everything()
    planned = connect.remove(desk.link, dry_run=True)
    assert desk.everything() == after
    assert planned == connect.remove(desk.link)


def test_the_diff_shows_no_neighbour(desk):
    desk.file.write_bytes(USUAL)
    added = connect.add(desk.link)
    assert [line for line in added.diff.splitlines() if line.startswith("-")] == [
        f"--- {desk.file}"
    ]
    assert "secret" not in added.diff
    assert '+    "octave": {' in added.diff


def test_the_file_as_it_was_lies_beside_it_readable_for_its_owner_alone(desk):
    desk.file.write_bytes(USUAL)
    desk.file.chmod(0o644)
    backup = connect.add(desk.link).backup
    assert backup is not None
    assert backup == desk.folder / ".claude.json.octave-backup"
    assert backup.read_bytes() == USUAL
    assert mode(backup) == 0o600


def test_a_link_stays_a_link(desk, tmp_path):
    target = tmp_path / "dotfiles.json"
    target.write_bytes(USUAL)
    desk.file.symlink_to(target)
    connect.add(desk.link)
    assert desk.file.is_symlink()
    assert target.read_bytes() != USUAL
    connect.remove(desk.link)
    assert desk.file.is_symlink()
    assert target.read_bytes() == USUAL


def test_a_link_to_nothing_is_a_link_to_nothing_again(desk, tmp_path):
    target = tmp_path / "dotfiles.json"
    desk.file.symlink_to(target)
    connect.add(desk.link)
    assert target.is_file()
    connect.remove(desk.link)
    assert desk.file.is_symlink()
    assert not target.exists()


def test_a_read_only_file_is_refused_with_what_to_write(desk):
    desk.file.write_bytes(USUAL)
    desk.file.chmod(0o444)
    with pytest.raises(StorageFailed, match="is read-only") as caught:
        connect.add(desk.link)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"chmod u+w {desk.file}, or write this into it yourself:\n")
    assert "/opt/octave" in caught.value.details["snippet"]
    assert desk.file.read_bytes() == USUAL
    assert desk.names() == {".claude.json"}
    assert not desk.home.clients.exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_does_not_parse_is_refused_with_the_place_and_what_to_write(desk, force):
    desk.file.write_bytes(BROKEN)
    with pytest.raises(OctaveError) as caught:
        connect.add(desk.link, force=force)
    error = caught.value
    assert error.message == (
        f"`{desk.file}` cannot be read: line 4, column 5: expected `,` or `}}`"
    )
    assert error.hint is not None
    assert error.hint.startswith("repair it, then try again, or write this into it yourself:\n{")
    assert json.loads(error.details["snippet"]) == {"mcpServers": {"octave": desk.link.entry}}
    assert (error.details["line"], error.details["column"]) == (4, 5)
    assert desk.everything() == {"user/.claude.json": BROKEN, "home/locks/clients.json.lock": b""}


def test_a_file_that_does_not_parse_is_not_written_by_remove_either(desk):
    desk.file.write_bytes(BROKEN)
    with pytest.raises(OctaveError, match="line 4, column 5") as caught:
        connect.remove(desk.link, force=True)
    assert caught.value.hint == "repair it, then try again"
    assert desk.file.read_bytes() == BROKEN


def test_an_entry_of_somebody_else_is_replaced_by_force_alone(desk):
    desk.file.write_bytes(FOREIGN)
    with pytest.raises(OctaveError, match="was not written by Octave") as caught:
        connect.add(desk.link)
    assert caught.value.hint == "look at it, then run `octave client add claude --force`"
    assert desk.file.read_bytes() == FOREIGN
    assert connect.look(desk.link) == "elsewhere"
    changed = connect.add(desk.link, force=True)
    assert changed.status == "updated"
    assert changed.backup is not None
    assert changed.backup.read_bytes() == FOREIGN
    assert connect.look(desk.link) == "here"


def test_an_entry_of_somebody_else_is_removed_by_force_alone(desk):
    desk.file.write_bytes(FOREIGN)
    with pytest.raises(OctaveError, match="was not written by Octave"):
        connect.remove(desk.link)
    assert desk.file.read_bytes() == FOREIGN
    assert connect.remove(desk.link, force=True).status == "removed"
    assert desk.document() == {"mcpServers": {}}


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_an_entry_that_a_person_changed_is_touched_by_force_alone(desk, verb):
    desk.file.write_bytes(USUAL)
    connect.add(desk.link)
    changed = desk.file.read_bytes().replace(b'"proxy"', b'"proxy", "github"')
    desk.file.write_bytes(changed)
    act = connect.add if verb == "add" else connect.remove
    with pytest.raises(OctaveError, match="was changed since Octave wrote it") as caught:
        act(desk.link)
    assert caught.value.hint == f"look at it, then run `octave client {verb} claude --force`"
    assert desk.file.read_bytes() == changed
    assert connect.look(desk.link) == "here"
    act(desk.link, force=True)
    assert connect.remove(desk.link).status == ("removed" if verb == "add" else "absent")
    assert desk.file.read_bytes() == USUAL


def test_octaves_older_entry_is_brought_up_to_date_without_force(desk):
    desk.file.write_bytes(USUAL)
    connect.add(desk.link)
    moved = replace(desk.link, command=Command("/new/octave", ("proxy",), {}))
    assert connect.look(moved) == "elsewhere"
    changed = connect.add(moved)
    assert (changed.status, changed.backup) == ("updated", None)
    assert changed.diff.splitlines()[3:] == [
        '-      "command": "/opt/octave",',
        '+      "command": "/new/octave",',
    ]
    connect.remove(moved)
    assert desk.file.read_bytes() == USUAL


def test_an_entry_is_removed_after_the_tool_wrote_the_file_anew(desk):
    desk.file.write_bytes(b'{"b": 1, "a": 2}')
    connect.add(desk.link)
    anew = json.dumps({**desk.document(), "c": 3}, indent=2, sort_keys=True)
    desk.file.write_text(anew, encoding="utf-8")
    connect.remove(desk.link)
    assert desk.file.read_text(encoding="utf-8") == '{\n  "a": 2,\n  "b": 1,\n  "c": 3\n}'


def test_a_comment_that_a_person_wrote_beside_the_entry_stays(desk):
    desk.file.write_bytes(b'{"mcpServers": {}}')
    connect.add(desk.link)
    noted = desk.file.read_bytes().replace(b'"octave"', b'/* mine */ "octave"')
    desk.file.write_bytes(noted)
    connect.remove(desk.link)
    assert desk.file.read_bytes() == b'{"mcpServers": {/* mine */}}'


def test_an_entry_that_a_person_took_out_is_absent_and_can_be_added_again(desk):
    desk.file.write_bytes(USUAL)
    connect.add(desk.link)
    desk.file.write_bytes(USUAL)
    assert connect.remove(desk.link) == Change("absent", desk.file)
    assert connect.add(desk.link).status == "added"


@pytest.mark.parametrize("content", [USUAL, None])
def test_removing_what_is_not_there_changes_nothing(desk, content):
    if content is not None:
        desk.file.write_bytes(content)
    assert connect.remove(desk.link) == Change("absent", desk.file)
    assert desk.names() == (set() if content is None else {".claude.json"})


def test_a_map_that_is_no_map_is_refused(desk):
    desk.file.write_bytes(b'{"mcpServers": []}')
    with pytest.raises(OctaveError, match="`mcpServers` is not an object"):
        connect.add(desk.link)
    assert desk.file.read_bytes() == b'{"mcpServers": []}'


@pytest.mark.parametrize(
    ("env", "wanted", "seen"),
    [
        ({}, {"OCTAVE_HOME": "/h"}, "elsewhere"),
        ({"OCTAVE_HOME": "/h"}, {}, "elsewhere"),
        ({"OCTAVE_HOME": "/h"}, {"OCTAVE_HOME": "/i"}, "elsewhere"),
        ({"OCTAVE_HOME": "/h"}, {"OCTAVE_HOME": "/h"}, "here"),
    ],
)
def test_an_entry_leads_here_only_when_its_home_is_this_one(desk, env, wanted, seen):
    connect.add(replace(desk.link, command=Command("/opt/octave", ("proxy",), env)))
    link = replace(desk.link, command=Command("/opt/octave", ("proxy",), wanted))
    assert connect.look(link) == seen


def test_the_tools_own_lock_is_waited_for(desk):
    desk.file.write_bytes(USUAL)
    lock = desk.folder / ".claude.json.lock"
    lock.mkdir()
    done: list[Change] = []
    thread = threading.Thread(target=lambda: done.append(connect.add(desk.link)))
    thread.start()
    thread.join(0.1)
    assert desk.file.read_bytes() == USUAL
    # What the tool wrote meanwhile is read after it let go.
    desk.file.write_bytes(USUAL.replace(b"7", b"8"))
    lock.rmdir()
    thread.join(5)
    assert [change.status for change in done] == ["added"]
    assert b'"numStartups": 8' in desk.file.read_bytes()
    assert not lock.exists()


def test_another_octave_that_hangs_is_told(desk, monkeypatch):
    desk.home.locks.mkdir(parents=True, mode=0o700)
    desk.home.root.chmod(0o700)
    monkeypatch.setattr(document, "LOCK_WAIT_S", 0.0)
    with FileLock(desk.home.locks / "clients.json.lock"), pytest.raises(Locked) as caught:
        connect.add(desk.link)
    assert caught.value.hint == "end that process, then try again"
    assert desk.names() == set()


def test_many_at_once_lose_no_record(desk):
    links = [
        replace(desk.link, file=desk.folder / f"{number}.json", lock_suffix=None)
        for number in range(6)
    ]
    threads = [threading.Thread(target=connect.add, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert [connect.remove(link).status for link in links] == ["removed"] * 6
    assert desk.names() == set()


@pytest.fixture
def closed_folder(desk: Desk) -> Iterator[Path]:
    desk.folder.chmod(0o500)
    yield desk.folder
    desk.folder.chmod(0o700)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write into any folder")
def test_a_folder_that_cannot_be_written_is_told(desk, closed_folder):
    with pytest.raises(StorageFailed, match="cannot make"):
        connect.add(desk.link)
    assert list(closed_folder.iterdir()) == []
