import errno
import fcntl
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from octave.errors import UsageError
from octave.home import (
    MANIFEST,
    SOCKET_PATH_BYTES,
    Home,
    Workspace,
    atomic_write,
    find_workspace,
    private_folder,
    sweep,
)
from tests.small_disk import fill, small_disk


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("wanted", [0o600, 0o644])
def test_a_written_file_has_its_mode_whatever_the_umask(tmp_path, open_umask, wanted):
    atomic_write(tmp_path / "file", b"", wanted)
    assert mode(tmp_path / "file") == wanted
    os.umask(0o077)
    atomic_write(tmp_path / "file", b"", wanted)
    assert mode(tmp_path / "file") == wanted


def test_a_write_follows_a_link_and_keeps_it(tmp_path):
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles" / MANIFEST
    target.write_bytes(b"old")
    link = tmp_path / MANIFEST
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_write_through_a_link_to_itself_ends(tmp_path):
    link = tmp_path / "loop"
    link.symlink_to(link)
    atomic_write(link, b"new")
    assert link.read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        atomic_write(tmp_path / "folder", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "file", b"new")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_row_28_an_error_while_writing_leaves_the_old_file_and_no_litter(
    tmp_path, monkeypatch, number, step
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file"
    atomic_write(path, b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_row_28_a_write_that_ends_half_way_leaves_the_old_file_and_no_litter(tmp_path):
    with small_disk(tmp_path / "disk", "64k"):
        path = tmp_path / "disk" / "file"
        atomic_write(path, b"old")
        fill(path.parent).unlink()
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            atomic_write(path, b"x" * 100_000)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in path.parent.iterdir()] == ["file"]
        atomic_write(path, b"new")
        assert path.read_bytes() == b"new"


def test_the_next_write_removes_what_a_killed_one_of_the_same_file_left(tmp_path):
    (tmp_path / ".file.0123456789ab.tmp").touch()
    others = {".other.0123456789ab.tmp", ".file.tmp", "file.0123456789ab.tmp"}
    for name in others:
        (tmp_path / name).touch()
    atomic_write(tmp_path / "file", b"new")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", *others}


def test_the_temporary_file_of_a_living_writer_is_left_alone(tmp_path, monkeypatch):
    fsync = os.fsync

    def another_comes(descriptor: int) -> None:
        fsync(descriptor)
        monkeypatch.setattr(os, "fsync", fsync)
        sweep(tmp_path)
        atomic_write(tmp_path / "file", b"of another")

    monkeypatch.setattr(os, "fsync", another_comes)
    atomic_write(tmp_path / "file", b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_writer_swept_before_it_is_known_to_live_begins_again(tmp_path, monkeypatch):
    flock = fcntl.flock

    def swept_before(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        sweep(tmp_path)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", swept_before)
    atomic_write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_sweep_passes_by_what_it_cannot_open(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / ".link.0123456789ab.tmp").symlink_to("target")
    (tmp_path / ".folder.0123456789ab.tmp").mkdir()
    os.mkfifo(tmp_path / ".pipe.0123456789ab.tmp")
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert len(list(tmp_path.iterdir())) == 4


def test_preparing_a_workspace_sweeps_its_state(home, tmp_path):
    workspace = Workspace(home, tmp_path / "project" / MANIFEST)
    workspace.manifest.parent.mkdir()
    workspace.prepare()
    folders = (home.root, workspace.state, workspace.run, workspace.catalogue("x").parent)
    for folder in folders:
        (folder / ".gone.0123456789ab.tmp").touch()
    workspace.prepare()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_private_folder_and_its_parents_are_private_whatever_the_umask(tmp_path, open_umask):
    folder = private_folder(tmp_path / "a" / "b")
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
    assert private_folder(folder) == folder


def test_a_private_folder_comes_about_though_an_empty_parent_is_removed_meanwhile(
    tmp_path, monkeypatch
):
    make, removed = Path.mkdir, list[None]()

    def mkdir(folder, *arguments, **more):
        if folder.name == "b" and not removed:
            removed.append(folder.parent.rmdir())
        make(folder, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert private_folder(tmp_path / "a" / "b").is_dir()
    assert removed


def test_a_private_folder_leaves_existing_parents_alone(tmp_path):
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent").chmod(0o755)
    private_folder(tmp_path / "parent" / "child")
    assert mode(tmp_path / "parent") == 0o755


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by other users"):
        private_folder(shared)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        private_folder(tmp_path / "file")


def test_a_link_to_nothing_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    for path in (tmp_path / "link", tmp_path / "link" / "folder"):
        with pytest.raises(NotADirectoryError, match="cannot be a folder"):
            private_folder(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder of another user")
def test_a_folder_of_another_user_is_refused(tmp_path):
    foreign = Path("/usr")
    if os.getuid() == 0:
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        private_folder(foreign)


def test_the_home_is_where_the_environment_says():
    assert Home.find({"OCTAVE_HOME": "/elsewhere"}).root == Path("/elsewhere")
    assert Home.find({"OCTAVE_HOME": "here"}).root == Path.cwd() / "here"
    assert Home.find({"OCTAVE_HOME": "~/x"}).root == Path.home() / "x"
    assert Home.find({"OCTAVE_HOME": ""}).root == Path.home() / ".octave"
    assert Home.find({}).root == Path.home() / ".octave"


def test_a_home_in_the_folder_of_nobody_is_a_usage_error():
    with pytest.raises(UsageError, match="`~nobody-at-all/x` is in no home folder"):
        Home.find({"OCTAVE_HOME": "~nobody-at-all/x"})


def test_preparing_a_home_creates_private_folders_once(home, open_umask):
    home.prepare()
    readme = home.root / "README"
    readme.write_text("mine")
    home.prepare()
    assert readme.read_text() == "mine"
    assert {entry.name for entry in home.root.iterdir()} == {
        "README",
        "servers",
        "runtimes",
        "staging",
        "cache",
        "locks",
    }
    for folder in (home.root, home.servers, home.runtimes, home.staging, home.cache, home.locks):
        assert mode(folder) == 0o700


def test_the_paths_of_a_home_lie_in_it(home):
    assert home.manifest == home.root / "octave.toml"
    assert home.workspaces == home.root / "workspaces.json"
    assert home.secrets == home.root / "secrets.toml"


def test_the_state_of_the_home_lies_in_the_home(home):
    workspace = Workspace.of_home(home)
    assert workspace.is_home
    assert workspace.state == home.root
    assert workspace.lockfile == home.root / "octave.lock"
    workspace.prepare()
    assert not (home.root / ".gitignore").exists()


def test_the_state_of_a_project_lies_beside_its_manifest_and_is_ignored_by_git(home, tmp_path):
    workspace = Workspace(home, tmp_path / "project" / MANIFEST)
    workspace.manifest.parent.mkdir()
    workspace.prepare()
    workspace.prepare()
    state = tmp_path / "project" / ".octave"
    assert not workspace.is_home
    assert workspace.lockfile == tmp_path / "project" / "octave.lock"
    assert (state / ".gitignore").read_text() == "*\n"
    assert {e.name for e in state.iterdir()} == {".gitignore", "data", "logs", "catalogue", "run"}
    assert workspace.data("a") == state / "data" / "a"
    assert workspace.log("a") == state / "logs" / "a.log"
    assert workspace.catalogue("a") == state / "catalogue" / "a.json"
    assert workspace.token == state / "run" / "token"
    assert workspace.runtime_lock == state / "run" / "runtime.lock"
    assert workspace.choices == state / "stopped.json"


def test_a_short_socket_path_lies_in_the_run_folder(tmp_path):
    workspace = Workspace.of_home(Home(Path("/h")))
    assert workspace.new_socket({}) == Path("/h/run/octave.sock")


@pytest.mark.parametrize("runtime_folder", ["given", "none", "missing", "too-long"])
def test_a_long_socket_path_moves_to_a_short_private_folder(tmp_path, runtime_folder):
    given = Path("/tmp") / f"octave-test-{os.getpid()}"
    bases = {"given": given, "none": "", "missing": given / "x", "too-long": tmp_path / ("b" * 90)}
    base = Path(bases[runtime_folder])
    if runtime_folder in {"given", "too-long"}:
        base.mkdir(mode=0o700)
    workspace = Workspace.of_home(Home(tmp_path / ("a" * 100)))
    path = workspace.new_socket({"XDG_RUNTIME_DIR": str(bases[runtime_folder])})
    try:
        assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES
        assert mode(path.parent) == 0o700
        assert path.parent.parent == (given if runtime_folder == "given" else Path("/tmp"))
    finally:
        path.parent.rmdir()
        if runtime_folder == "given":
            given.rmdir()


def test_the_socket_of_a_running_runtime_is_the_one_it_names(home):
    workspace = Workspace.of_home(home)
    workspace.prepare()
    assert workspace.socket() == workspace.run / "octave.sock"
    workspace.runtime_file.write_text(json.dumps({"socket": "/short/octave.sock"}))
    assert workspace.socket() == Path("/short/octave.sock")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"socket": 3}'])
def test_a_damaged_runtime_file_names_no_socket(home, content):
    workspace = Workspace.of_home(home)
    workspace.prepare()
    workspace.runtime_file.write_bytes(content)
    assert workspace.socket() == workspace.run / "octave.sock"


def test_the_nearest_manifest_above_is_the_workspace(home, tmp_path):
    inner = tmp_path / "outer" / "inner" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / MANIFEST).touch()
    (tmp_path / "outer" / "inner" / MANIFEST).touch()
    found = find_workspace(home, inner)
    assert found == Workspace(home, tmp_path / "outer" / "inner" / MANIFEST)
    assert find_workspace(home, inner, home_only=True) == Workspace.of_home(home)


def test_without_a_manifest_above_the_home_is_the_workspace(home, tmp_path):
    assert find_workspace(home, tmp_path) == Workspace.of_home(home)


def test_the_home_found_on_the_way_up_is_the_homes_workspace(tmp_path):
    (tmp_path / MANIFEST).touch()
    home = Home(tmp_path / ".octave")
    home.prepare()
    home.manifest.touch()
    assert find_workspace(home, home.servers) == Workspace.of_home(home)


def test_a_named_manifest_wins_and_may_be_a_folder_or_not_there_yet(home, tmp_path):
    (tmp_path / MANIFEST).touch()
    (tmp_path / "other").mkdir()
    wanted = Workspace(home, tmp_path / "other" / MANIFEST)
    assert find_workspace(home, tmp_path, "other") == wanted
    assert find_workspace(home, tmp_path, str(tmp_path / "other" / MANIFEST)) == wanted
    assert find_workspace(home, tmp_path, "other/../other/octave.toml") == wanted


def test_the_homes_manifest_by_another_path_is_still_the_home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / MANIFEST).touch()
    home.manifest.symlink_to(tmp_path / "dotfiles" / MANIFEST)
    (tmp_path / "link").symlink_to(home.root)
    expected = Workspace.of_home(home)
    assert find_workspace(home, tmp_path, str(home.manifest)) == expected
    assert find_workspace(home, tmp_path, str(tmp_path / "link")) == expected
    assert find_workspace(home, tmp_path / "link" / "servers") == expected


@pytest.mark.skipif(os.getuid() == 0, reason="root may search every folder")
def test_a_folder_that_may_not_be_searched_is_passed_by(home, tmp_path):
    locked = tmp_path / "locked"
    (locked / "inner").mkdir(parents=True)
    locked.chmod(0o000)
    try:
        assert find_workspace(home, locked / "inner") == Workspace.of_home(home)
    finally:
        locked.chmod(0o700)
