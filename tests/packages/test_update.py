"""What may happen to an update: beside a runtime, beside another, killed, on a full disk."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from octave.home import Home, Workspace
from octave.packages import lockfile, manifest, store, workspaces
from octave.remote import Remote
from tests.packages.story import WAIT_S, World, ended
from tests.packages.test_faults_install import Warm, any_port, check_it_runs, check_nothing_is_half
from tests.packages.versions_of import program
from tests.small_disk import fill, small_disk

WAITS_FOR = """
        import os, time
        open({seen!r}, "w").close()
        while not os.path.exists({flag!r}):
            time.sleep(0.01)
"""
CRASHES_LATER = """
import os, sys
if os.path.exists({flag!r}):
    None.attribute
open({flag!r}, "w").close()
"""
HANGS_LATER = """
import os, time
if os.path.exists({flag!r}):
    open({seen!r}, "w").close()
    time.sleep(60)
open({flag!r}, "w").close()
"""


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """A world whose runtime ends with the test."""
    any_port(world)
    yield world
    world.octave("shutdown")


def workspace_of(world: World) -> Workspace:
    return Workspace.of_home(Home(world.home))


def until(is_so: Callable[[], object]) -> None:
    """Wait for what only another process can tell."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def status_of(world: World, name: str) -> dict[str, Any]:
    with Remote.connect(workspace_of(world)) as remote:
        (found,) = remote.request("octave/status", {"names": [name]})["servers"]
    return dict(found)


def state_of(world: World, name: str) -> str:
    return str(status_of(world, name)["state"])


def pid_of(world: World, name: str) -> int:
    return int(status_of(world, name)["pid"])


def test_calls_in_flight_end_in_the_old_version_and_later_ones_meet_the_new(
    served: World, tmp_path: Path
) -> None:
    seen, flag = tmp_path / "seen", tmp_path / "flag"
    waits = WAITS_FOR.format(seen=str(seen), flag=str(flag))
    served.offer("story-good", program("1.0", call=waits), "1.0")
    served.octave("install", "pypi:story-good")
    assert served.octave("start", "story-good").code == 0
    held = served.start("call", "story-good", "echo")
    until(seen.exists)
    served.offer("story-good", program("2.0"), "2.0")
    done = served.octave("update", "-y")
    assert (done.code, done.stdout) == (0, "updated story-good 1.0 -> 2.0 (1 tool)\n")
    assert served.call("story-good", "echo").told[:2] == (0, "2.0\n")
    assert (held.poll(), state_of(served, "story-good")) == (None, "ready")
    flag.touch()
    assert ended(held).told[:2] == (0, "1.0\n")


def test_no_call_fails_while_everybody_calls(served: World) -> None:
    served.offer("story-good", program("1.0"), "1.0")
    served.octave("install", "pypi:story-good")
    assert served.octave("start", "story-good").code == 0
    served.offer("story-good", program("2.0"), "2.0")
    is_over = threading.Event()

    def ask() -> list[str]:
        answers: list[str] = []
        with Remote.connect(workspace_of(served)) as remote:
            while not is_over.is_set() or answers[-1:] == ["1.0"]:
                result = remote.request("octave/call", {"server": "story-good", "tool": "echo"})
                answers.append(str(result["content"][0]["text"]))
        return answers

    with ThreadPoolExecutor(3) as pool:
        told = [pool.submit(ask) for _ in range(3)]
        try:
            assert served.octave("update", "-y", "-q").code == 0
        finally:
            is_over.set()
        for answers in (each.result(WAIT_S) for each in told):
            assert answers == sorted(answers)
            assert set(answers) == {"1.0", "2.0"}


def test_an_update_that_is_interrupted_while_the_new_version_starts_returns_to_the_old_one(
    served: World, tmp_path: Path
) -> None:
    served.offer("story-good", program("1.0"), "1.0")
    served.octave("install", "pypi:story-good")
    assert served.octave("start", "story-good").code == 0
    before, pid = (served.lockfile, served.installed()), pid_of(served, "story-good")
    hangs = HANGS_LATER.format(flag=str(tmp_path / "flag"), seen=str(tmp_path / "seen"))
    served.offer("story-good", program("2.0", before=hangs), "2.0")
    update = served.start("update", "-y", "-q")
    until((tmp_path / "seen").exists)
    assert served.call("story-good", "echo").stdout == "1.0\n"
    update.send_signal(signal.SIGTERM)
    assert ended(update).told == (130, "", "error: interrupted\n")
    assert (served.lockfile, served.installed()) == before
    assert served.call("story-good", "echo").stdout == "1.0\n"
    assert pid_of(served, "story-good") == pid


def test_a_version_that_does_not_come_up_in_the_runtime_gives_way_to_the_old_one(
    served: World, tmp_path: Path
) -> None:
    served.offer("story-good", program("1.0"), "1.0")
    served.octave("install", "pypi:story-good")
    assert served.octave("start", "story-good").code == 0
    crashes = CRASHES_LATER.format(flag=str(tmp_path / "flag"))
    served.offer("story-good", program("2.0", before=crashes), "2.0")
    before = served.lockfile, served.manifest, served.installed()
    pid = pid_of(served, "story-good")
    done = served.octave("update", "-y", "-q")
    assert (done.code, done.stdout) == (6, "")
    assert pid_of(served, "story-good") == pid
    assert done.stderr.startswith(
        "error: `story-good` 2.0 did not become ready in the running runtime, so 1.0 is back: "
    )
    assert (served.lockfile, served.manifest, served.installed()) == before
    assert served.call("story-good", "echo").stdout == "1.0\n"
    assert served.octave("rollback", "story-good").code == 4


def test_a_server_that_sleeps_is_not_woken_and_calls_the_new_version_next(served: World) -> None:
    served.offer("story-good", program("1.0"), "1.0")
    served.octave("install", "pypi:story-good")
    served.octave("start", "story-good")
    served.octave("stop", "story-good")
    served.offer("story-good", program("2.0"), "2.0")
    assert served.octave("update", "-y").code == 0
    assert state_of(served, "story-good") == "stopped"
    served.octave("start", "story-good")
    assert served.call("story-good", "echo").stdout == "2.0\n"


def test_a_rollback_reaches_the_running_server_at_once(served: World) -> None:
    served.offer("story-good", program("1.0"), "1.0")
    served.octave("install", "pypi:story-good")
    served.offer("story-good", program("2.0"), "2.0")
    assert served.octave("update", "-y").code == 0
    served.octave("start", "story-good")
    assert served.call("story-good", "echo").stdout == "2.0\n"
    assert served.octave("rollback", "story-good").code == 0
    assert state_of(served, "story-good") == "ready"
    assert served.call("story-good", "echo").stdout == "1.0\n"


def test_a_rollback_to_what_does_not_start_any_more_changes_nothing(
    served: World, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    crashes = f"import os, sys\nif os.path.exists({str(flag)!r}):\n    None.attribute\n"
    served.offer("story-good", program("1.0", before=crashes), "1.0")
    served.octave("install", "pypi:story-good")
    served.offer("story-good", program("2.0"), "2.0")
    assert served.octave("update", "-y").code == 0
    served.octave("start", "story-good")
    flag.touch()
    before, pid = (served.lockfile, served.manifest), pid_of(served, "story-good")
    done = served.octave("rollback", "story-good")
    assert (done.code, done.stdout) == (6, "")
    assert done.stderr.startswith(
        "error: `story-good` 1.0 did not become ready in the running runtime, so 2.0 is back: "
    )
    assert (served.lockfile, served.manifest) == before
    assert pid_of(served, "story-good") == pid
    flag.unlink()
    assert served.octave("rollback", "story-good").code == 0
    assert served.call("story-good", "echo").stdout == "1.0\n"


def test_two_updates_at_once_end_as_one(world: World) -> None:
    world.offer("story-good", program("1.0"), "1.0")
    world.octave("install", "pypi:story-good")
    world.offer("story-good", program("2.0"), "2.0")
    both = [world.start("update", "-y", "-q") for _ in range(2)]
    told = sorted((done.code, done.stdout.split()[0]) for done in map(ended, both))
    assert told == [(0, "current"), (0, "updated")]
    assert world.octave("rollback", "story-good", "-q").stdout.startswith(
        "rolled-back story-good 2.0 -> 1.0"
    )


def test_on_a_full_disk_the_old_version_stays_and_runs(world: World) -> None:
    world.offer("story-good", program("1.0"), "1.0")
    with small_disk(world.home, "8m"):
        assert world.octave("install", "pypi:story-good").code == 0
        world.offer("story-good", program("2.0"), "2.0")
        filler = fill(world.home)
        before = world.state()
        done = world.octave("update", "-y", "--json")
        assert (done.code, done.error["code"]) == (1, "storage_failed")
        assert world.state() == before
        assert check_it_runs(world, "story-good") == "1.0"
        filler.unlink()
        assert world.octave("update", "-y").code == 0
        assert world.call("story-good", "echo").stdout == "2.0\n"


@pytest.mark.parametrize(
    "kills", [3, pytest.param(40, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])]
)
def test_killed_at_any_instant_a_whole_version_counts_and_a_rerun_finishes(
    world: World, kills: int
) -> None:
    world.offer("story-good", program("1"), "1")
    chance = random.Random(20261130)
    longest_s, killed, version = 1.0, 0, 1
    with contextlib.closing(Warm(world)) as octave:
        assert octave("install", "pypi:story-good") == 0
        for _ in range(4 * kills):
            version += 1
            world.offer("story-good", program(str(version)), str(version))
            verb = ("update", "-y") if version % 3 else ("rollback", "story-good")
            pid = octave.begin(verb)
            time.sleep(chance.uniform(0, longest_s))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            is_hit = octave.end() == -signal.SIGKILL
            killed += is_hit
            longest_s *= 1.2 if is_hit else 0.7
            check_nothing_is_half(world)
            check_what_counts_is_there(world)
            assert octave("update", "-y") == 0
            assert lockfile.read(world.home / "octave.lock").pins["story-good"].version == str(
                version
            )
            if killed >= kills:
                break
        assert killed >= kills, "hardly any kill hits"
        assert octave("rollback", "story-good") == 0
        assert octave("lock", "--check") == 0


def check_what_counts_is_there(world: World) -> None:
    workspace = workspace_of(world)
    pin = lockfile.read(workspace.lockfile).pins["story-good"]
    assert workspaces.installed(workspace) == {"story-good": pin.folder}
    assert store.require(workspace.home, "story-good", pin.folder).version == pin.version
    assert (
        manifest.load(workspace.manifest).servers_hash
        == lockfile.read(workspace.lockfile).manifest_hash
    )
