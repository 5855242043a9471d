import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import IntegrityFailed, NotTrusted, StorageFailed
from octave.home import Home, Workspace
from octave.packages import lockfile, manifest, workspaces
from octave.packages.lockfile import Lock, Pin

HASH = "sha256:" + "0" * 64
PIN = Pin(
    name="x",
    request="pypi:x@*",
    kind="pypi",
    package="x",
    version="1.0",
    integrity=HASH,
    graph=({"name": "x", "version": "1.0", "hashes": [HASH]},),
)
X_FOLDER = PIN.folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def project(home: Home, tmp_path: Path) -> Workspace:
    path = tmp_path / "project" / "octave.toml"
    path.parent.mkdir()
    path.write_text('[servers.x]\npackage = "npm:x"\n', encoding="utf-8")
    return Workspace(home, path)


def unwritable(home: Home) -> None:
    """Make every write into the home fail, for root too: the folder of locks is a file."""
    home.root.mkdir(mode=0o700, exist_ok=True)
    for path in home.locks.glob("*"):
        path.unlink()
    if home.locks.is_dir():
        home.locks.rmdir()
    home.locks.touch()


def loaded(workspace: Workspace) -> manifest.Manifest:
    return manifest.load(workspace.manifest)


def test_the_homes_own_manifest_is_always_trusted(home):
    workspace = Workspace.of_home(home)
    home.prepare()
    home.manifest.write_text('[servers.x]\npackage = "npm:x"\n', encoding="utf-8")
    assert workspaces.trusted(workspace, loaded(workspace))
    workspaces.require_trust(workspace, loaded(workspace))
    workspaces.trust(workspace, loaded(workspace))
    assert not home.workspaces.exists()


def test_a_project_needs_trust_once(project):
    with pytest.raises(NotTrusted) as caught:
        workspaces.require_trust(project, loaded(project))
    assert caught.value.exit_code == 7
    assert caught.value.message == f"`{project.manifest}` is not trusted yet"
    assert "octave trust" in str(caught.value.hint)
    workspaces.trust(project, loaded(project))
    workspaces.require_trust(project, loaded(project))
    assert workspaces.trusted(project, loaded(project))


def test_a_change_of_the_servers_asks_again_and_a_comment_does_not(project):
    workspaces.trust(project, loaded(project))
    text = project.manifest.read_text(encoding="utf-8")
    project.manifest.write_text(f"# mine\n{text}\n[runtime]\nport = 1\n", encoding="utf-8")
    assert workspaces.trusted(project, loaded(project))
    project.manifest.write_text(f'{text}env = {{ A = {{ env = "TOKEN" }} }}\n', encoding="utf-8")
    with pytest.raises(NotTrusted, match="was changed since it was trusted"):
        workspaces.require_trust(project, loaded(project))


def test_the_same_manifest_elsewhere_is_not_trusted(project, home, tmp_path):
    workspaces.trust(project, loaded(project))
    (tmp_path / "copy").mkdir()
    copy = Workspace(home, tmp_path / "copy" / "octave.toml")
    copy.manifest.write_bytes(project.manifest.read_bytes())
    assert not workspaces.trusted(copy, loaded(copy))


def test_a_link_to_a_trusted_manifest_is_trusted(project, home, tmp_path):
    workspaces.trust(project, loaded(project))
    (tmp_path / "link").symlink_to(project.manifest.parent)
    link = Workspace(home, tmp_path / "link" / "octave.toml")
    assert workspaces.trusted(link, loaded(link))


def test_a_manifest_that_starts_nothing_needs_no_trust(project):
    project.manifest.write_text("[runtime]\nport = 1\n", encoding="utf-8")
    workspaces.require_trust(project, loaded(project))
    project.manifest.write_text('[runtime]\ntoken = { file = "/x" }\n', encoding="utf-8")
    with pytest.raises(NotTrusted):
        workspaces.require_trust(project, loaded(project))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"format":1}', b"[" * 9999]
)
def test_a_damaged_file_trusts_nothing_and_is_written_anew(project, home, content):
    home.prepare()
    home.workspaces.write_bytes(content)
    assert not workspaces.trusted(project, loaded(project))
    assert workspaces.known_lockfiles(home) == []
    workspaces.trust(project, loaded(project))
    assert workspaces.trusted(project, loaded(project))


def test_a_file_of_a_newer_octave_is_refused_and_left_alone(project, home):
    home.prepare()
    home.workspaces.write_text('{"format": 2}', encoding="utf-8")
    for use in (workspaces.trusted, workspaces.trust):
        with pytest.raises(StorageFailed, match="has format 2, and this version of Octave reads 1"):
            use(project, loaded(project))
    assert home.workspaces.read_text(encoding="utf-8") == '{"format": 2}'


def test_the_file_is_private_whatever_the_umask(project, home):
    before = os.umask(0)
    try:
        workspaces.trust(project, loaded(project))
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.workspaces.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_without_a_lockfile_nothing_is_installed(project):
    assert workspaces.installed(project) == {}


def test_a_lockfile_is_read_once_and_then_remembered(project, home):
    lockfile.write(project.lockfile, Lock("", {"x": PIN}))
    assert workspaces.installed(project) == {"x": X_FOLDER}
    known = json.loads(home.workspaces.read_bytes())
    known["workspaces"][str(project.manifest)]["installed"] = {"x": "from-memory"}
    home.workspaces.write_text(json.dumps(known), encoding="utf-8")
    assert workspaces.installed(project) == {"x": "from-memory"}


def test_a_file_that_knows_the_home_by_its_path_is_understood(home):
    workspace = Workspace.of_home(home)
    home.prepare()
    entry = {"previous": {"x": "1.0-aaaaaaaa"}, "installed": {"x": X_FOLDER}, "lock": ""}
    content = {"format": 1, "workspaces": {str(home.manifest): entry}}
    home.workspaces.write_text(json.dumps(content), encoding="utf-8")
    assert workspaces.previous(workspace) == {"x": "1.0-aaaaaaaa"}
    assert workspaces.known_manifests(home) == [home.manifest]
    workspaces.set_previous(workspace, "y", "2.0-bbbbbbbb")
    assert workspaces.previous(workspace) == {"x": "1.0-aaaaaaaa", "y": "2.0-bbbbbbbb"}
    assert str(home.manifest) not in home.workspaces.read_text(encoding="utf-8")


def test_a_changed_lockfile_is_read_anew(project):
    lockfile.write(project.lockfile, Lock("", {"x": PIN}))
    workspaces.remember(project, {"x": "other"})
    assert workspaces.installed(project) == {"x": "other"}
    y = replace(PIN, name="y")
    lockfile.write(project.lockfile, Lock("", {"x": PIN, "y": y}))
    assert workspaces.installed(project) == {"x": X_FOLDER, "y": X_FOLDER}


def test_what_is_remembered_does_not_touch_trust(project):
    workspaces.trust(project, loaded(project))
    lockfile.write(project.lockfile, Lock("", {"x": PIN}))
    workspaces.remember(project, {"x": X_FOLDER})
    assert workspaces.trusted(project, loaded(project))


def test_a_home_that_cannot_be_written_still_answers(project, home):
    lockfile.write(project.lockfile, Lock("", {"x": PIN}))
    unwritable(home)
    assert workspaces.installed(project) == {"x": X_FOLDER}
    assert not home.workspaces.exists()
    with pytest.raises(OSError, match="is not a folder"):
        workspaces.trust(project, loaded(project))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_still_answers(project, home):
    lockfile.write(project.lockfile, Lock("", {"x": PIN}))
    home.prepare()
    for folder in (home.locks, home.root):
        folder.chmod(0o500)
    try:
        assert workspaces.installed(project) == {"x": X_FOLDER}
    finally:
        home.root.chmod(0o700)
        home.locks.chmod(0o700)


def test_a_damaged_lockfile_is_told_and_not_remembered(project, home):
    project.lockfile.write_text("version = \n", encoding="utf-8")
    with pytest.raises(IntegrityFailed, match="line 1"):
        workspaces.installed(project)
    assert not home.workspaces.exists()
    project.lockfile.unlink()
    project.lockfile.mkdir()
    with pytest.raises(IntegrityFailed, match="cannot read"):
        workspaces.installed(project)


def test_every_lockfile_that_was_used_is_known_while_it_exists(project, home):
    assert workspaces.known_lockfiles(home) == []
    own = Workspace.of_home(home)
    home.prepare()
    for workspace in (project, own):
        lockfile.write(workspace.lockfile, Lock("", {"x": PIN}))
        workspaces.installed(workspace)
    assert workspaces.known_lockfiles(home) == sorted([own.lockfile, project.lockfile])
    project.lockfile.unlink()
    assert workspaces.known_lockfiles(home) == [own.lockfile]


def test_writers_at_once_lose_nothing(home, tmp_path):
    spaces = []
    for number in range(8):
        path = tmp_path / f"p{number}" / "octave.toml"
        path.parent.mkdir()
        path.write_text(f'[servers.x]\npackage = "npm:x{number}"\n', encoding="utf-8")
        spaces.append(Workspace(home, path))
    threads = [
        threading.Thread(target=workspaces.trust, args=(space, loaded(space))) for space in spaces
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(workspaces.trusted(space, loaded(space)) for space in spaces)
