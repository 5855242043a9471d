"""What may happen to an installation: killed, beside another, beside a runtime, on a full disk."""

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from octave.home import Home, Workspace
from octave.packages import lockfile, manifest, store, workspaces
from octave.packages.specs import launch_specs
from octave.runtime.probe import probe
from tests.packages.story import GOOD, WAIT_S, World
from tests.small_disk import fill, small_disk


class Warm:
    """`octave` in children that can be killed at any moment of their work."""

    def __init__(self, world: World) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.packages.warm_octave"],
            cwd=world.cwd,
            env=world.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)
        self._process.stdout.close()

    def begin(self, words: Sequence[str]) -> int:
        """Start a verb; return its pid."""
        assert self._process.stdin is not None
        agreed = ["-y"] if words[0] == "install" else []
        self._process.stdin.write(json.dumps([*words, *agreed]) + "\n")
        return self._line()

    def end(self) -> int:
        """Return the exit code of the verb that was begun, when it has ended."""
        return self._line()

    def __call__(self, *words: str) -> int:
        self.begin(words)
        return self.end()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture
def octave(world: World) -> Iterator[Warm]:
    with contextlib.closing(Warm(world)) as warm:
        yield warm


def workspace_of(world: World) -> Workspace:
    return Workspace.of_home(Home(world.home))


def any_port(world: World) -> None:
    """Let the runtime listen on any port: others may run beside this test."""
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text("runtime.port = 0\n", encoding="utf-8")


def check_nothing_is_half(world: World) -> None:
    """What anybody can see is whole: files that parse, versions with a record."""
    workspace = workspace_of(world)
    manifest.load(workspace.manifest)
    lockfile.read(workspace.lockfile)
    for folder in (world.home / "servers").glob("*/*"):
        found = store.find(workspace.home, folder.parent.name, folder.name)
        assert found is not None, folder
        command = store.absolute(found.command, folder, workspace.home)
        assert all(Path(word).exists() for word in command)


def check_it_runs(world: World, name: str) -> str:
    """Start what a runtime would start for it; return the version."""
    (spec,) = [
        spec for spec in launch_specs(workspace_of(world), world.environ) if spec.name == name
    ]
    assert "echo" in probe(spec).names()
    return spec.version


VERBS = (
    ["install", "pypi:story-next"],
    ["install", "pypi:story-good@2.0"],
    ["uninstall", "story-next"],
    ["install", "pypi:story-good@1.0"],
)
"""A new server, an update, a removal, and back."""


@pytest.mark.parametrize(
    "kills", [4, pytest.param(40, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])]
)
def test_row_42_killed_at_random_instants_the_old_version_runs_and_a_rerun_finishes(
    world: World, octave: Warm, kills: int
) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.offer("story-good", GOOD, "2.0")
    world.offer("story-next", GOOD)
    assert octave("install", "pypi:story-good@1.0") == 0
    chance = random.Random(20260728)
    longest_s = dict.fromkeys(range(len(VERBS)), 0.5)
    killed = turn = 0
    while killed < kills:
        assert turn < 4 * kills, "hardly any kill hits"
        place = turn % len(VERBS)
        pid = octave.begin(VERBS[place])
        time.sleep(chance.uniform(0, longest_s[place]))
        # A child that has ended is reaped by its parent: the pid may be nobody's.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        is_hit = octave.end() == -signal.SIGKILL
        killed += is_hit
        longest_s[place] *= 1.2 if is_hit else 0.6
        check_nothing_is_half(world)
        assert check_it_runs(world, "story-good") in {"1.0", "2.0"}
        assert octave(*VERBS[place]) in ({0, 4} if "uninstall" in VERBS[place] else {0})
        check_after(world, place)
        forget_other_versions(world, "story-good")
        turn += 1
    store.prepare(Home(world.home))
    assert list((world.home / "staging").iterdir()) == []
    assert not list(world.home.glob("**/*.tmp"))
    assert octave("lock", "--check") == 0


def forget_other_versions(world: World, name: str) -> None:
    """Let the next install of another version build it anew."""
    home = Home(world.home)
    for folder in store.folders(home, name):
        if folder != workspaces.installed(workspace_of(world))[name]:
            store.remove(home, name, folder)


def check_after(world: World, place: int) -> None:
    """The verb has done all it is for."""
    words = VERBS[place]
    name, _, version = words[1].removeprefix("pypi:").partition("@")
    installed = workspaces.installed(workspace_of(world))
    if words[0] == "uninstall":
        assert name not in installed
        assert not (world.home / "servers" / name).exists()
        assert name not in manifest.load(workspace_of(world).manifest).servers
    else:
        assert check_it_runs(world, name) == (version or "1.0")


def test_row_42_an_uninstall_killed_half_way_is_finished_by_the_next(
    world: World, octave: Warm
) -> None:
    world.offer("story-good", GOOD)
    assert octave("install", "pypi:story-good") == 0
    # What it looks like after the first half: gone from both files, and still on the disk.
    workspace = workspace_of(world)
    kept = world.root / "kept"
    shutil.copytree(world.home / "servers", kept, symlinks=True)
    assert octave("uninstall", "story-good") == 0
    shutil.copytree(kept, world.home / "servers", symlinks=True, dirs_exist_ok=True)
    assert octave("uninstall", "story-good") == 0
    assert not (world.home / "servers" / "story-good").exists()
    (world.home / "servers" / "story-good").mkdir()
    assert octave("uninstall", "story-good") == 0
    assert not (world.home / "servers" / "story-good").exists()
    assert octave("uninstall", "story-good", "--purge") == 0
    assert not workspace.data("story-good").exists()
    assert octave("uninstall", "story-good", "--purge") == 4


def test_row_43_a_running_runtime_takes_up_what_is_installed_beside_it(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-next", GOOD)
    any_port(world)
    world.octave("install", "pypi:story-good")
    try:
        assert world.octave("start", "story-good").code == 0
        before = world.octave("status", "--json").json
        assert world.octave("install", "pypi:story-next").code == 0
        assert world.call("story-next", "echo", "text=hi").stdout == "hi\n"
        after = world.octave("status", "--json").json
        assert after["runtime"]["pid"] == before["runtime"]["pid"]
        pids = {row["name"]: row["pid"] for row in after["servers"]}
        assert pids["story-good"] == before["servers"][0]["pid"]
        assert pids["story-next"] is not None
    finally:
        world.octave("shutdown")


def test_row_28_an_install_on_a_full_disk_leaves_what_was_there(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-next", GOOD)
    with small_disk(world.home, "8m"):
        assert world.octave("install", "pypi:story-good").code == 0
        filler = fill(world.home)
        before = world.state()
        done = world.octave("install", "pypi:story-next", "--json")
        assert (done.code, done.error["code"]) == (1, "storage_failed")
        assert "space" in done.error["hint"]
        assert world.state() == before
        assert check_it_runs(world, "story-good") == "1.0"
        filler.unlink()
        assert world.octave("install", "pypi:story-next").code == 0


def test_everything_in_the_home_is_private_whatever_the_umask(world: World) -> None:
    world.offer("story-good", GOOD)
    any_port(world)
    words = ["pypi:story-good", "-e", "X_TOKEN"]
    environ = {"X_TOKEN": "hush"}
    assert world.octave("install", *words, environ=environ, umask=0).code == 0
    try:
        assert world.octave("start", "story-good", umask=0).code == 0
        assert world.octave("stop", "story-good", umask=0).code == 0
        open_to_others = {
            str(path.relative_to(world.home))
            for path in [world.home, *own_files(world.home)]
            if stat.S_IMODE(path.lstat().st_mode) & 0o077
        }
    finally:
        world.octave("shutdown")
    # These two are meant to be committed; nobody gets at them through a folder of mode 0700.
    assert open_to_others == {"octave.toml", "octave.lock"}


def own_files(home: Path) -> Iterator[Path]:
    """Everything but what packages, uv and servers lay out in folders of their own."""
    for path in home.rglob("*"):
        inner = path.relative_to(home).parts
        depth = {"servers": 3, "cache": 1, "data": 2}.get(inner[0], len(inner))
        is_record = path.name == "record.json" and len(inner) == 4
        if not path.is_symlink() and (len(inner) <= depth or is_record):
            yield path
