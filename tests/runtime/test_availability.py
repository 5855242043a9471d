"""The figure of availability: what counts as down, and that it adds up."""

import os
import random
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import StartFailed as CannotStart
from octave.packages.launch import Policy
from octave.runtime.availability import BEAT_S, LATE_S, Availability, Awake
from octave.runtime.lifecycle import (
    Called,
    Died,
    Event,
    Handshook,
    Outgrown,
    Replaced,
    RestartAsked,
    StartAsked,
    StartFailed,
    State,
    StopAsked,
    Stopped,
    Tick,
    decide,
)
from tests.runtime.fleet import call, launch, running

pytestmark = pytest.mark.anyio
LAZY = Policy()
STEADY = Policy(auto_start=True, idle_timeout_s=None)
DIED = Died(answered=True, waiting=True)
DIED_UNUSED = Died(answered=True, waiting=False)
DIED_EARLY = Died(answered=False, waiting=True)
FAILED_START = StartFailed(permanent=False, waiting=True)
GAVE_UP = StartFailed(permanent=True, waiting=True)
OVER = Tick(waiting=True, quiet_since_s=None)
NOBODY = Tick(waiting=False, quiet_since_s=0.0)
ROUNDING_S = 0.001


class Life:
    """A server that lives by a fake clock, told what happens to it."""

    def __init__(self, policy: Policy = LAZY, kind: State = State()) -> None:  # noqa: B008 - frozen
        self.now_s = 0.0
        self.state, self.policy = kind, policy
        self.availability = Availability(lambda: self.now_s)

    def happens(self, event: Event) -> None:
        before = self.state
        self.state, _ = decide(before, event, self.now_s, self.policy)
        if self.state != before:
            self.availability.changed(before, self.state)

    def after(self, *happened: float | Event) -> tuple[float | None, float]:
        """Let seconds pass and things happen, in turn; return the share and the seconds down."""
        for each in happened:
            if isinstance(each, int | float):
                self.now_s += each
            else:
                self.happens(each)
        return self.availability.share, self.availability.down_s


UP = (Called(), 1, Handshook())
"""One second to start."""


@pytest.mark.parametrize(
    ("happened", "down_s"),
    [
        ((*UP, 10), 0),
        ((*UP, 10, DIED, 2, Handshook(), 10), 2),
        ((*UP, 10, DIED, 2, FAILED_START, 3, OVER, 4, Handshook(), 10), 9),
        ((*UP, 5, DIED_EARLY, 1, OVER, 2, Handshook(), 10), 3),
        ((*UP, 10, DIED_UNUSED, 90, Called(), 2, Handshook(), 10), 0),
        ((*UP, 5, Died(answered=False, waiting=False), 1, NOBODY, 50), 1),
        ((*UP, 300, NOBODY, 1, Stopped(), 900, Called(), 2, Handshook()), 0),
        ((*UP, 300, NOBODY, Called(), 1, Stopped(), 2, Handshook(), 3), 0),
        ((*UP, 10, RestartAsked(), 3, Stopped(), 4, Handshook(), 10), 0),
        ((*UP, 10, RestartAsked(), 3, Stopped(), 4, FAILED_START, 5, OVER, 6, Handshook()), 15),
        ((*UP, 10, Outgrown(), 3, Stopped(), 4, Called(), 5, Handshook()), 0),
        ((*UP, 10, Replaced(), 3, Stopped(), 4), 0),
        ((Called(), 30, FAILED_START, 1, OVER, 2, Handshook(), 7), 33),
        ((Called(), 1, GAVE_UP, 500), 501),
        ((Called(), 1, GAVE_UP, 60, Called(), 2, Handshook(), 100), 63),
        ((Called(), 1, GAVE_UP, 60, RestartAsked(), 2, Handshook(), 100), 63),
        ((Called(), 1, GAVE_UP, 60, Replaced(), 100), 61),
        ((Called(), 1, GAVE_UP, 60, StopAsked(), 100), 61),
        ((*UP, 10, DIED, 2, StopAsked(), 3, Stopped(), 100), 2),
        ((*UP, 10, DIED, 2, RestartAsked(), 3, Stopped(), 4, Handshook(), 5), 9),
        ((*UP, 10, DIED, 2, Replaced(), 3, Stopped(), 100), 5),
    ],
    ids=[
        "first-start",
        "death",
        "failed-restart",
        "backoff",
        "death-nobody-noticed",
        "backoff-nobody-waits-for",
        "idle-stop",
        "call-overtakes-idle-stop",
        "ordered-restart",
        "ordered-restart-that-fails",
        "memory-limit",
        "replaced",
        "slow-first-start-that-fails",
        "given-up",
        "given-up-then-called",
        "given-up-then-restarted",
        "given-up-then-replaced",
        "given-up-then-stopped",
        "stopped-while-down",
        "restarted-while-down",
        "replaced-while-down",
    ],
)
def test_down_is_from_what_went_wrong_until_it_is_ready_or_not_wanted(
    happened: Sequence[float | Event], down_s: float
) -> None:
    share, counted_s = Life().after(*happened)
    assert counted_s == pytest.approx(down_s)
    assert share is not None
    assert 0.0 <= share <= 1.0


def test_nothing_is_known_before_the_first_start() -> None:
    assert Life().after(1000) == (None, 0.0)
    assert Life(kind=State("stopped")).after(1000) == (None, 0.0)
    assert Life().after(1000, StopAsked(), 10) == (None, 0.0)


def test_it_counts_from_the_first_start_on() -> None:
    assert Life().after(1000, Called()) == (1.0, 0.0)
    assert Life().after(1000, *UP, 98, DIED, 1, Handshook())[0] == pytest.approx(0.99)


def test_sleep_counts_as_there_and_what_a_person_stopped_does_not_count() -> None:
    asleep = Life().after(*UP, 8, DIED, 1, Handshook(), NOBODY, 300, NOBODY, Stopped(), 690)
    stopped = Life().after(*UP, 8, DIED, 1, Handshook(), 90, StopAsked(), 5, Stopped(), 999)
    again = Life().after(*UP, 8, DIED, 1, Handshook(), StopAsked(), Stopped(), 99, StartAsked(), 90)
    assert asleep[0] == pytest.approx(0.999)
    assert stopped[0] == pytest.approx(0.99)
    assert again[0] == pytest.approx(0.99)


def test_a_crash_every_five_minutes_that_costs_a_quarter_of_a_second_leaves_three_nines() -> None:
    life = Life(STEADY)
    life.after(*UP)
    for _ in range(288):
        share, _ = life.after(300, DIED, 0.25, Handshook())
    assert share is not None
    assert share > 0.999


def test_time_stands_still_while_the_machine_sleeps() -> None:
    now_s = 100.0
    awake = Awake(lambda: now_s)
    assert awake() == 100.0
    now_s += BEAT_S + LATE_S
    assert awake() == 107.0
    now_s += 3600
    assert awake() == 112.0
    now_s += 1
    assert awake() == 113.0


def is_kept_down(state: State) -> bool:
    return state.kind == "stopped" or (state.kind, state.after_stop) == ("stopping", "stopped")


def was_down(path: Sequence[State], index: int) -> bool:
    """Whether it was down in the state at `index` of all it has gone through."""
    so_far = path[: index + 1]
    if is_kept_down(so_far[-1]):
        return False
    for earlier, later in zip(reversed(so_far[:-1]), reversed(so_far), strict=False):
        if later.kind in {"backoff", "failed"}:
            return True
        if later.kind in {"ready", "idle"} or is_kept_down(later):
            break
        if (earlier.kind, later.kind) == ("ready", "starting"):
            return True
    return path[index].kind == "starting" and comes_to_nothing(path[index:])


def comes_to_nothing(path: Iterable[State]) -> bool:
    what_follows = next((state.kind for state in path if state.kind != "starting"), None)
    return what_follows in {"backoff", "failed"}


def was_wanted(path: Sequence[State], index: int) -> bool:
    for state in reversed(path[: index + 1]):
        if state.kind != "idle":
            return not is_kept_down(state)
    return False


def draw(chance: random.Random, state: State, now_s: float) -> Event:
    waiting = chance.random() < 0.5
    orders: list[Event] = [Called(), StartAsked(), StopAsked(), RestartAsked(), Replaced()]
    reports: list[Event] = [
        Handshook(),
        StartFailed(chance.random() < 0.1, waiting),
        Stopped(),
        Died(chance.random() < 0.5, waiting),
        Outgrown(),
        Tick(waiting, None if chance.random() < 0.5 else now_s - 300),
    ]
    weights = [3, 1, 1, 1, 1, 9, 3, 5, 2, 1, 4]
    return chance.choices(orders + reports, weights)[0]


@pytest.mark.parametrize("policy", [LAZY, STEADY], ids=["lazy", "steady"])
@pytest.mark.parametrize("seed", range(20))
def test_it_adds_up_to_what_a_look_at_each_second_finds(seed: int, policy: Policy) -> None:
    chance = random.Random(seed)
    life = Life(policy)
    awake = Awake(lambda: life.now_s)
    life.availability = Availability(awake)
    path, seconds, jumps = [life.state], [], 0
    for _ in range(2000):
        for _ in range(chance.choice((0, 0, 1, 3))):
            life.happens(draw(chance, life.state, life.now_s))
            # Also what did not last: the way through it may matter.
            path.append(life.state)
        if chance.random() < 0.005:
            life.now_s += chance.uniform(60, 9000)
            jumps += 1
        else:
            life.now_s += 1
            seconds.append(len(path) - 1)
        awake()
    down_s = sum(was_down(path, index) for index in seconds)
    wanted_s = sum(was_wanted(path, index) for index in seconds)
    share = life.availability.share
    assert share is not None
    slack_s = jumps * BEAT_S
    assert down_s <= life.availability.down_s <= down_s + slack_s
    assert life.availability.down_s / (1.0 - share) == pytest.approx(wanted_s, abs=slack_s + 0.01)


async def test_a_killed_server_is_down_until_its_successor_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path, launch(tmp_path, "good", policy=STEADY)) as run:
        server = run["good"]
        assert server.snapshot["availability"] is None
        await run.until(lambda: server.state == "ready")
        await call(server, "echo", text="x")
        began_s = time.monotonic()
        os.kill(server.pid or 0, signal.SIGKILL)
        await run.until(lambda: run.kinds("good").count("ready") == 2)
        known = server.snapshot
        assert 0 < known["downSeconds"] <= time.monotonic() - began_s + ROUNDING_S
        assert 0 < known["availability"] < 1
        await call(server, "echo", text="x")
        assert server.snapshot["downSeconds"] == known["downSeconds"]


async def test_a_server_that_cannot_be_started_is_not_available_at_all(tmp_path: Path) -> None:
    broken = replace(launch(tmp_path, "good"), argv=("/nowhere/python",))
    async with running(tmp_path, broken) as run:
        with pytest.raises(CannotStart):
            await call(run["good"], "echo")
        assert run["good"].snapshot["availability"] == 0.0
