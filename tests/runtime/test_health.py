"""Whether a server is well: the decision with a fake clock, the probe against real children."""

import threading
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.errors import CallTimedOut, ServerDied
from octave.packages.launch import Policy
from octave.runtime import calls as calls_module
from octave.runtime.health import (
    LATE_S,
    OUTGROWN_AGAIN_S,
    PROBE_SHARE,
    PROBES,
    Finding,
    Look,
    decide,
    has_outgrown,
    next_look_s,
)
from octave.runtime.process import TERMINATE_GRACE_S
from octave.runtime.subject import Speaker
from octave.runtime.wire import Message
from tests.runtime.fleet import Run, call, is_alive, launch, running

POLICY = Policy()
INTERVAL_S = POLICY.health_interval_s
QUIET = Look(now_s=100, due_s=100, heard_s=70)
"""Nobody calls, and nothing was heard for a whole interval."""
OVERDUE = Look(now_s=100, due_s=100, heard_s=50, overdue_s=70)
"""A call ran out of time an interval ago, and nothing was heard since."""


def test_traffic_within_the_interval_is_a_sign_of_life() -> None:
    assert decide(replace(QUIET, heard_s=70.1), POLICY) is Finding.WELL


def test_after_a_silent_interval_it_is_asked() -> None:
    assert decide(QUIET, POLICY) is Finding.ASK


def test_it_is_never_asked_while_a_call_is_in_flight() -> None:
    assert decide(replace(QUIET, heard_s=0, oldest_s=1), POLICY) is Finding.WELL


def test_a_silent_probe_alone_condemns_nobody() -> None:
    silent = replace(QUIET, heard_s=0, asked_s=90)
    assert decide(silent, POLICY) is Finding.WELL
    assert decide(replace(silent, oldest_s=95), POLICY) is Finding.WELL


def test_a_call_past_its_deadline_then_silence_and_a_silent_probe_is_stuck() -> None:
    assert decide(OVERDUE, POLICY) is Finding.ASK
    assert decide(replace(OVERDUE, asked_s=94), POLICY) is Finding.STUCK


def test_any_byte_after_the_deadline_or_the_probe_clears_it() -> None:
    assert decide(replace(OVERDUE, asked_s=94, heard_s=71), POLICY) is Finding.WELL
    assert decide(replace(OVERDUE, asked_s=60, heard_s=65), POLICY) is Finding.WELL


def test_right_after_the_deadline_it_is_asked_but_not_condemned_for_an_interval() -> None:
    fresh = replace(OVERDUE, overdue_s=100)
    assert decide(fresh, POLICY) is Finding.ASK
    assert decide(replace(fresh, now_s=106, due_s=106, asked_s=100), POLICY) is Finding.WELL


def test_a_call_that_began_before_and_still_has_time_excuses_the_silence() -> None:
    busy = replace(OVERDUE, oldest_s=60)
    assert decide(busy, POLICY) is Finding.WELL
    assert decide(replace(busy, asked_s=94), POLICY) is Finding.WELL


def test_calls_that_came_after_the_deadline_do_not_excuse_it() -> None:
    assert decide(replace(OVERDUE, oldest_s=71, asked_s=94), POLICY) is Finding.STUCK


@pytest.mark.parametrize("look", [QUIET, OVERDUE, replace(OVERDUE, asked_s=94)])
def test_a_look_that_comes_late_proves_nothing(look: Look) -> None:
    woken = replace(look, now_s=look.now_s + 3600)
    assert decide(woken, POLICY) is Finding.WELL
    in_time = replace(woken, due_s=woken.now_s - LATE_S)
    assert decide(in_time, POLICY) is not Finding.WELL


def test_the_next_look_comes_after_an_interval_or_when_the_grace_is_over() -> None:
    assert next_look_s(100, None, POLICY) == 130
    assert next_look_s(100, 95, POLICY) == 125
    assert next_look_s(100, 70, POLICY) == 130


def test_row_14_a_stuck_server_is_found_and_gone_within_45_seconds_by_default() -> None:
    assert INTERVAL_S * (1 + PROBE_SHARE * len(PROBES)) + TERMINATE_GRACE_S <= 45


@pytest.mark.parametrize(
    ("memory_bytes", "since_last_s", "is_used", "expected"),
    [
        (100, None, True, False),
        (101, None, False, True),
        (101, 1, True, True),
        (101, OUTGROWN_AGAIN_S - 1, False, False),
        (101, OUTGROWN_AGAIN_S, False, True),
    ],
)
def test_past_its_limit_it_gets_a_fresh_process_but_not_again_and_again_unused(
    memory_bytes: int, since_last_s: float | None, is_used: bool, expected: bool
) -> None:
    policy = Policy(memory_limit_bytes=100)
    assert has_outgrown(memory_bytes, policy, since_last_s, is_used=is_used) is expected
    assert not has_outgrown(10**12, Policy(), since_last_s, is_used=is_used)


# Real children, and short intervals.

QUICK = Policy(
    health_interval_s=0.5, call_timeout_s=0.3, call_timeout_max_s=0.3, idle_timeout_s=None
)
PATIENT = replace(QUICK, call_timeout_s=30)


class Notifications:
    """What the servers of a run say unasked, counted."""

    def __init__(self, run: Run) -> None:
        self.count = 0
        self._arrived = anyio.Event()
        run.supervisor.on_notification = self._hear

    def _hear(self, _speaker: Speaker, _message: Message) -> None:
        self.count += 1
        self._arrived.set()

    async def until(self, count: int) -> None:
        with anyio.fail_after(5):
            while self.count < count:
                self._arrived = anyio.Event()
                await self._arrived.wait()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


async def stuck(run: Run, name: str) -> None:
    """Freeze it with a call that runs out of time; return when it was given up."""
    with pytest.raises(CallTimedOut):
        await call(run[name], "freeze")
    await run.until(lambda: "died" in run.kinds(name), seconds=10)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["silent", "refuse"])
async def test_row_12_a_healthy_server_that_never_answers_ping_is_not_restarted(
    state: Path, how: str
) -> None:
    policy = Policy(health_interval_s=0.2, idle_timeout_s=None)
    async with running(state, launch(state, "ignore_ping", how, policy=policy)) as run:
        server, probes = run["ignore-ping"], Notifications(run)
        await call(server, "echo", text="x")
        await probes.until(3)
        assert (server.state, run.happened("ignore-ping", "start")) == ("ready", 1)
        # Once it was seen what it answers, it is asked nothing else.
        assert run.happened("ignore-ping", "ping") == 1
        assert server.figures.count == 1


@pytest.mark.anyio
async def test_probes_do_not_keep_an_idle_server_awake(state: Path) -> None:
    policy = Policy(health_interval_s=0.05, idle_timeout_s=0.5)
    async with running(state, launch(state, "ignore_ping", "refuse", policy=policy)) as run:
        await call(run["ignore-ping"], "echo", text="x")
        await run.until(lambda: run["ignore-ping"].state == "idle")
        assert run.happened("ignore-ping", "tools/list") > 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "policy"),
    [("hang_on_call", QUICK), ("ignore_ping", replace(QUICK, auto_start=True))],
)
async def test_row_14_a_frozen_server_is_replaced_and_the_next_call_succeeds(
    state: Path, script: str, policy: Policy
) -> None:
    name = script.replace("_", "-")
    async with running(state, launch(state, script, policy=policy)) as run:
        server = run[name]
        await call(server, "echo", text="x")
        frozen = server.pid
        await stuck(run, name)
        (died,) = [event for event in run.events if event.kind == "died"]
        assert "was stuck (silent for" in died.details["message"]
        if policy.auto_start:
            await run.until(lambda: run.kinds(name).count("ready") == 2)
        assert await call(server, "echo", text="back") == "back"
        assert frozen is not None
        assert not is_alive(frozen)
        assert "was stuck" in server.snapshot["lastError"]["message"]


@pytest.mark.anyio
async def test_row_14_callers_of_a_frozen_server_are_told_why_they_get_no_answer(
    state: Path,
) -> None:
    async with running(state, launch(state, "hang_on_call", policy=QUICK)) as run:
        server = run["hang-on-call"]
        await call(server, "echo", text="x")
        with pytest.raises(CallTimedOut):
            await call(server, "freeze")
        server.spec = replace(server.spec, policy=PATIENT)
        with pytest.raises(ServerDied, match="was stuck") as caught:
            await call(server, "echo", text="too late")
        assert caught.value.details["exitCode"] is None


@pytest.mark.anyio
async def test_row_14_a_frozen_server_is_replaced_although_its_callers_never_wait_long_enough(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "GIVEN_UP_AFTER_S", 0.2)
    async with running(state, launch(state, "hang_on_call", policy=PATIENT)) as run:
        server = run["hang-on-call"]
        await call(server, "echo")
        for tool in ("freeze", "echo"):
            with anyio.move_on_after(0.3):
                await call(server, tool)
        await run.until(lambda: "died" in run.kinds("hang-on-call"))
        assert await call(server, "echo", text="back") == "back"


@pytest.mark.anyio
async def test_row_13_a_server_with_one_hanging_call_is_asked_and_kept(state: Path) -> None:
    async with running(state, launch(state, "hang_on_call", policy=QUICK)) as run:
        server = run["hang-on-call"]
        for _ in range(6):
            with pytest.raises(CallTimedOut):
                await call(server, "hang")
        assert await call(server, "echo", text="still here") == "still here"
        assert run.happened("hang-on-call", "start") == 1
        journal = (state / "hang-on-call" / "events.log").read_text(encoding="utf-8")
        assert journal.count("cancelled:") == 6


@pytest.mark.anyio
async def test_row_15_a_call_longer_than_many_health_periods_is_left_alone(state: Path) -> None:
    policy = Policy(health_interval_s=0.05, idle_timeout_s=0.05)
    async with running(state, launch(state, "good", policy=policy)) as run:
        assert await call(run["good"], "sleep", s=1) == "slept"
        assert run.happened("good", "start") == 1


@pytest.mark.anyio
async def test_row_45_a_runtime_that_slept_declares_nobody_dead(state: Path) -> None:
    policy = replace(QUICK, call_timeout_s=5, call_timeout_max_s=5)
    async with running(state, launch(state, "good", policy=policy)) as run:
        await call(run["good"], "echo", text="x")
        # Whatever is due comes late, all at once: the event loop does not run meanwhile.
        threading.Event().wait(LATE_S + 0.6)
        assert await call(run["good"], "echo", text="awake") == "awake"
        assert run.kinds("good") == ["starting", "ready"]


@pytest.mark.anyio
async def test_row_57_a_leaking_server_is_replaced_between_calls_and_no_call_fails(
    state: Path,
) -> None:
    policy = Policy(health_interval_s=0.1, memory_limit_bytes=40_000_000)
    async with running(state, launch(state, "leak_memory", "50", policy=policy)) as run:
        server = run["leak-memory"]
        await call(server, "leak")
        (shown,) = await run.supervisor.snapshot()
        assert shown["memoryBytes"] > 40_000_000
        with anyio.fail_after(10):
            # One upon the other: it is never found without a call.
            while "stopping" not in run.kinds("leak-memory"):
                await call(server, "pid")
        assert await call(server, "leak") == "50 MB leaked"
        assert server.figures.errors == 0
        assert run.happened("leak-memory", "start") == 2
        told = next(event for event in run.events if event.kind == "stopping")
        assert told.details["memoryBytes"] > 40_000_000
        assert "`memory_limit` is 40,000,000" in told.details["message"]
        assert server.snapshot["lastError"] is None


@pytest.mark.anyio
async def test_an_auto_start_server_past_its_limit_comes_back_by_itself(state: Path) -> None:
    policy = Policy(
        auto_start=True, idle_timeout_s=None, health_interval_s=0.1, memory_limit_bytes=40_000_000
    )
    async with running(state, launch(state, "leak_memory", "50", policy=policy)) as run:
        await call(run["leak-memory"], "leak")
        await run.until(lambda: run.kinds("leak-memory").count("ready") == 2)
        assert run["leak-memory"].snapshot["restarts"] == 0
