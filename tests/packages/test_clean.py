"""What may happen to a cleaning: killed, or beside installations."""

import contextlib
import os
import random
import signal
import time

import pytest

from tests.packages.story import World, ended
from tests.packages.test_faults_install import Warm, check_it_runs, check_nothing_is_half
from tests.packages.versions_of import program


def offer(world: World, *versions: int) -> None:
    for version in versions:
        world.offer("story-good", program(str(version)), str(version))


def test_beside_updates_nothing_goes_that_counts_or_would_be_returned_to(world: World) -> None:
    offer(world, 1)
    assert world.octave("install", "pypi:story-good").code == 0
    for version in range(2, 5):
        offer(world, version)
        update, clean = world.start("update", "-y", "-q"), world.start("clean")
        done = ended(update)
        assert done.code == 0, done.stderr
        assert ended(clean).code == 0
        check_nothing_is_half(world)
        assert check_it_runs(world, "story-good") == str(version)
    assert world.octave("rollback", "story-good", "-q").code == 0
    assert check_it_runs(world, "story-good") == "3"


@pytest.mark.parametrize(
    "kills", [3, pytest.param(40, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])]
)
def test_killed_at_any_instant_it_leaves_what_counts_and_a_rerun_finishes(
    world: World, kills: int
) -> None:
    chance = random.Random(20261130)
    offer(world, 1)
    longest_s, killed = 0.5, 0
    with contextlib.closing(Warm(world)) as octave:
        assert octave("install", "pypi:story-good", "--no-start") == 0
        for version in range(2, 2 + 4 * kills):
            offer(world, version)
            assert octave("install", f"pypi:story-good@{version}", "--no-start") == 0
            pid = octave.begin(("clean",))
            time.sleep(chance.uniform(0, longest_s))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            is_hit = octave.end() == -signal.SIGKILL
            killed += is_hit
            longest_s *= 1.2 if is_hit else 0.7
            check_nothing_is_half(world)
            assert octave("clean") == 0
            kept = [name.partition("/")[2].partition("-")[0] for name in world.installed()]
            assert sorted(kept, key=int) == [str(version - 1), str(version)]
            assert list((world.home / "staging").iterdir()) == []
            if killed >= kills:
                break
    assert killed >= kills, "hardly any kill hits"
    assert world.octave("rollback", "story-good").code == 0
