import contextlib
import errno
import os
from pathlib import Path

import pytest

from octave.errors import OctaveError, ServerNotFound, StorageFailed
from octave.home import Home, Workspace
from octave.packages import ledger, lockfile, manifest, manifest_edit, store, workspaces
from octave.packages.ecosystems.base import Bench
from octave.packages.lockfile import Lock, Pin
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.secrets import Secrets
from octave.packages.store import Record
from octave.packages.uninstall import uninstall
from tests.packages.story import GOOD, World
from tests.small_disk import BLOCK_BYTES, fill, small_disk


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def site_of(workspace: Workspace) -> Site:
    return Site(
        workspace=workspace,
        registry=Registry(bundled_folder()),
        bench=Bench(workspace.home, {}),
        check=lambda _: Offered(b"{}", {}),
    )


def installed_in(workspace: Workspace, name: str = "x", version: str = "1.0") -> Path:
    """Install a version as far as the files tell; return its folder."""
    integrity = "sha256:" + "a" * 64
    row = {"name": name, "version": version, "hashes": [integrity]}
    pin = Pin(name, f"pypi:{name}@*", "pypi", name, version, integrity, (row,))
    record = Record(name, "pypi", name, version, integrity, pin.graph_digest, ("python",))
    workspace.prepare()
    folder = workspace.home.servers / name / pin.folder
    if not folder.exists():
        store.publish(workspace.home, store.stage(workspace.home, name), record, pin.folder)
    manifest_edit.add_server(workspace.manifest, name, {"package": f"pypi:{name}"})
    workspaces.trust(workspace, manifest.load(workspace.manifest))
    pins = lockfile.read(workspace.lockfile).pins
    wanted = manifest.load(workspace.manifest)
    lockfile.write(workspace.lockfile, Lock(wanted.servers_hash, {**pins, name: pin}))
    known = workspaces.installed(workspace)
    workspaces.remember(workspace, {**known, name: pin.folder})
    return folder


@pytest.fixture
def workspace(home: Home) -> Workspace:
    return Workspace.of_home(home)


@pytest.fixture
def project(home: Home, tmp_path: Path) -> Workspace:
    (tmp_path / "project").mkdir()
    return Workspace(home, tmp_path / "project" / "octave.toml")


def test_it_leaves_manifest_lockfile_and_disk_and_keeps_its_data(workspace: Workspace) -> None:
    folder = installed_in(workspace)
    installed_in(workspace, "other")
    workspace.data("x").mkdir()
    workspace.log("x").write_text("log", encoding="utf-8")
    workspace.catalogue("x").write_text("{}", encoding="utf-8")
    assert uninstall("x", site_of(workspace)).status == "removed"
    wanted = manifest.load(workspace.manifest)
    assert list(wanted.servers) == list(lockfile.read(workspace.lockfile).pins) == ["other"]
    assert lockfile.read(workspace.lockfile).manifest_hash == wanted.servers_hash
    assert list(workspaces.installed(workspace)) == ["other"]
    assert not folder.parent.exists()
    assert workspace.data("x").exists()
    assert workspace.log("x").exists()
    assert not workspace.catalogue("x").exists()


def test_purge_takes_data_logs_and_secrets_of_that_server_alone(workspace: Workspace) -> None:
    installed_in(workspace)
    (workspace.data("x") / "deep").mkdir(parents=True)
    workspace.data("xy").mkdir()
    for name in ("x.log", "x.log.1.gz", "xy.log"):
        (workspace.logs / name).write_text("log", encoding="utf-8")
    secrets = Secrets(workspace.home)
    secrets.set("x/TOKEN", "1")
    secrets.set("xy/TOKEN", "2")
    assert uninstall("x", site_of(workspace), purge=True).warning == ""
    assert [path.name for path in (workspace.state / "data").iterdir()] == ["xy"]
    assert [path.name for path in workspace.logs.iterdir()] == ["xy.log"]
    assert secrets.list() == ["xy/TOKEN"]


def test_the_runtime_lets_go_before_anything_is_deleted(workspace: Workspace) -> None:
    folder = installed_in(workspace)
    seen: list[tuple[bool, bool]] = []
    site = site_of(workspace)
    told = Site(
        workspace,
        site.registry,
        site.bench,
        site.check,
        changed=lambda: seen.append(
            (folder.exists(), "x" in manifest.load(workspace.manifest).servers)
        ),
    )
    uninstall("x", told)
    assert seen == [(True, False)]


def test_every_version_goes_also_one_whose_record_is_damaged(workspace: Workspace) -> None:
    (installed_in(workspace, version="1.0") / store.RECORD).write_text("{", encoding="utf-8")
    installed_in(workspace, version="2.0")
    uninstall("x", site_of(workspace))
    assert list(workspace.home.servers.iterdir()) == []


def test_a_version_that_another_workspace_uses_stays(
    workspace: Workspace, project: Workspace
) -> None:
    folder = installed_in(workspace)
    assert installed_in(project) == folder
    old = installed_in(workspace, version="0.9")
    Secrets(workspace.home).set("x/TOKEN", "1")
    outcome = uninstall("x", site_of(workspace), purge=True)
    assert folder.exists()
    assert not old.exists()
    assert "secrets of `x` are kept" in outcome.warning
    assert Secrets(workspace.home).list() == ["x/TOKEN"]
    uninstall("x", site_of(project), purge=True)
    assert not folder.exists()
    assert Secrets(workspace.home).list() == []


def test_while_another_lockfile_is_damaged_no_version_is_deleted(
    workspace: Workspace, project: Workspace
) -> None:
    folder = installed_in(workspace)
    installed_in(project, "other")
    project.lockfile.write_text("<<<<<<< mine\n", encoding="utf-8")
    assert uninstall("x", site_of(workspace)).status == "removed"
    assert folder.exists()


@pytest.mark.parametrize("name", ["y", "../../x", "", "X", "x\n"])
def test_what_the_manifest_does_not_name_makes_nothing_anywhere(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    installed_in(workspace)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ServerNotFound, match="is not in"):
        uninstall(name, site_of(workspace))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_nearly_right_is_suggested(workspace: Workspace) -> None:
    installed_in(workspace, "github")
    with pytest.raises(ServerNotFound) as caught:
        uninstall("githb", site_of(workspace))
    assert caught.value.hint == "did you mean `github`?"


def test_with_a_damaged_lockfile_nothing_changes(workspace: Workspace) -> None:
    folder = installed_in(workspace)
    workspace.lockfile.write_text("<<<<<<< mine\n", encoding="utf-8")
    before = workspace.manifest.read_bytes()
    with pytest.raises(OctaveError):
        uninstall("x", site_of(workspace))
    assert workspace.manifest.read_bytes() == before
    assert folder.exists()


def test_uninstalling_from_a_strangers_project_does_not_trust_the_rest(
    project: Workspace,
) -> None:
    project.manifest.write_text(
        '[servers.x]\npackage = "pypi:x"\n[servers.evil]\ncommand = ["evil"]\n', encoding="utf-8"
    )
    uninstall("x", site_of(project))
    wanted = manifest.load(project.manifest)
    assert list(wanted.servers) == ["evil"]
    assert not workspaces.trusted(project, wanted)


def test_uninstalling_from_a_trusted_project_keeps_the_trust(project: Workspace) -> None:
    installed_in(project)
    installed_in(project, "other")
    uninstall("x", site_of(project))
    assert workspaces.trusted(project, manifest.load(project.manifest))


def test_comments_around_it_stay(workspace: Workspace) -> None:
    installed_in(workspace)
    text = workspace.manifest.read_text(encoding="utf-8")
    workspace.manifest.write_text(f"# mine\n{text}\n# the end\n", encoding="utf-8")
    uninstall("x", site_of(workspace))
    left = workspace.manifest.read_text(encoding="utf-8")
    assert "# mine\n" in left
    assert "# the end\n" in left


@pytest.mark.parametrize("lacks", ["space", "folders"])
def test_row_28_on_a_full_disk_it_makes_its_own_room(tmp_path: Path, lacks: str) -> None:
    with small_disk(tmp_path / "disk", "1m,nr_inodes=200"):
        workspace = Workspace.of_home(Home(tmp_path / "disk" / "home"))
        (installed_in(workspace) / "bytes").write_bytes(b"x" * 16 * BLOCK_BYTES)
        installed_in(workspace, "other")
        with (
            ledger.changing(workspace),
            store.locked(workspace.home, "x"),
            store.locked(workspace.home, "other"),
        ):
            pass
        if lacks == "space":
            fill(tmp_path / "disk")
        with contextlib.suppress(OSError):
            for number in range(200 if lacks == "folders" else 0):
                (tmp_path / "disk" / str(number)).touch()
        assert uninstall("x", site_of(workspace)).status == "removed"
        assert list(manifest.load(workspace.manifest).servers) == ["other"]
        assert store.folders(workspace.home, "x") == ()
        assert list(workspaces.installed(workspace)) == ["other"]


def test_where_it_can_make_no_room_for_the_manifest_nothing_has_happened(
    home: Home, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "64k"):
        project = Workspace(home, tmp_path / "disk" / "octave.toml")
        folder = installed_in(project)
        before = project.manifest.read_bytes(), project.lockfile.read_bytes()
        filler = fill(tmp_path / "disk")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            uninstall("x", site_of(project))
        assert store.find(home, "x", folder.name) is not None
        assert (project.manifest.read_bytes(), project.lockfile.read_bytes()) == before
        filler.unlink()
        assert uninstall("x", site_of(project)).status == "removed"


def test_where_it_made_too_little_room_it_says_so_and_the_next_one_finishes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installed_in(workspace)

    def full(path: Path, name: str) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(manifest_edit, "remove_server", full)
        with pytest.raises(StorageFailed) as raised:
            uninstall("x", site_of(workspace))
    assert raised.value.message == (
        f"the files of `x` are removed, but cannot write `{workspace.manifest}`: "
        "No space left on device"
    )
    assert raised.value.hint == "free some space, then `octave uninstall x` finishes it"
    assert not folder.exists()
    assert uninstall("x", site_of(workspace)).status == "removed"
    assert manifest.load(workspace.manifest).servers == {}


def test_a_running_server_stops_and_is_gone(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    try:
        assert world.octave("start", "story-good").code == 0
        pid = world.octave("status", "story-good", "--json").json["servers"][0]["pid"]
        assert Path(f"/proc/{pid}").exists()
        done = world.octave("uninstall", "story-good")
        assert done.told == (0, "removed story-good\n", "done in N s\n")
        assert not Path(f"/proc/{pid}").exists()
        assert world.octave("status", "--json").json["servers"] == []
    finally:
        world.octave("shutdown")
    assert world.installed() == []
    assert (world.home / "data" / "story-good").is_dir()
    assert world.octave("call", "story-good", "echo").code == 4


def test_several_names_are_all_done_and_each_reported(world: World) -> None:
    world.offer("story-a", GOOD)
    world.octave("install", "pypi:story-a", "--no-start")
    done = world.octave("uninstall", "story-a", "story-b", "--json")
    assert done.code == 4
    assert [row["status"] for row in done.json["results"]] == ["removed", "failed"]
    assert done.json["results"][1]["error"]["code"] == "server_not_found"
