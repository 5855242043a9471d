"""Updates and rollbacks while the command, the runtime or one of their servers is killed."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from octave.packages import lockfile
from tests.packages.story import World
from tests.packages.test_faults_install import Warm, any_port, check_nothing_is_half
from tests.packages.test_update import check_what_counts_is_there
from tests.packages.versions_of import program

VICTIMS = ("command", "runtime", "server")


@pytest.fixture
def served(world: World) -> Iterator[World]:
    any_port(world)
    yield world
    world.octave("shutdown")


def runtime_of(world: World) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        (path,) = (world.home / "run").glob("**/runtime.json")
        return int(json.loads(path.read_bytes())["pid"])
    return None


def newest_server(world: World, parents: list[int]) -> int | None:
    """Return the pid of the server that was started last, by the command or by the runtime."""
    found: list[tuple[float, int]] = []
    for parent in parents:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(parent).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(str(world.home / "servers") in word for word in child.cmdline()):
                        found.append((child.create_time(), child.pid))
    return max(found)[1] if found else None


def locked(world: World) -> str:
    return lockfile.read(Path(world.home / "octave.lock")).pins["story-good"].version


@pytest.mark.campaign
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [40])
def test_whoever_is_killed_a_whole_version_answers_and_a_rerun_finishes(
    served: World, kills: int
) -> None:
    world, chance = served, random.Random(20261201)
    world.offer("story-good", program("1"), "1")
    longest_s, version, hits = 1.5, 1, dict.fromkeys(VICTIMS, 0)
    with contextlib.closing(Warm(world)) as octave:
        assert octave("install", "pypi:story-good") == 0
        for number in range(kills):
            assert octave("start", "story-good") == 0
            version += 1
            world.offer("story-good", program(str(version)), str(version))
            verb = ("rollback", "story-good") if version % 4 == 0 else ("update", "-y")
            command, runtime = octave.begin(verb), runtime_of(world)
            assert runtime is not None
            time.sleep(chance.uniform(0, longest_s))
            victim = VICTIMS[number % len(VICTIMS)]
            pids = {"command": command, "runtime": runtime}
            pid = pids.get(victim) or newest_server(world, [command, runtime])
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    hits[victim] += 1
            code = octave.end()
            longest_s = min(3.0, max(0.3, longest_s * (1.2 if code else 0.8)))
            check_nothing_is_half(world)
            check_what_counts_is_there(world)
            assert world.call("story-good", "echo").stdout.strip() in {
                str(each) for each in range(1, version + 1)
            }
            assert octave("update", "-y") == 0
            assert locked(world) == str(version)
            assert world.call("story-good", "echo").told[:2] == (0, f"{version}\n")
        assert all(hits.values())
        assert octave("lock", "--check") == 0
