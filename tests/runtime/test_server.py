"""One server against real children, well-behaved and hostile."""

import ast
import itertools
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from octave.errors import (
    CallTimedOut,
    NotRunning,
    OctaveError,
    ServerBusy,
    ServerDied,
    StartFailed,
)
from octave.packages.launch import Policy
from octave.runtime import exchange, lifecycle, wire
from octave.runtime import instance as server_module
from octave.runtime.events import Clock
from octave.runtime.log_reader import read
from tests.runtime.fleet import Run, call, is_alive, launch, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


async def test_row_10_a_hundred_callers_start_one_process(state: Path) -> None:
    pids: set[str] = set()
    async with running(state, launch(state, "slow_start", "0.3")) as run:

        async def ask() -> None:
            pids.add(await call(run["slow-start"], "pid"))

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask)
        assert len(pids) == run.happened("slow-start", "start") == 1


async def test_calls_beyond_the_limit_are_refused_as_busy(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CALLS_AT_ONCE", 2)
    async with (
        running(state, launch(state, "slow_start", "0.3")) as run,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(2):
            tasks.start_soon(call, run["slow-start"], "pid")
        await run.until(lambda: run["slow-start"].state == "starting")
        with pytest.raises(ServerBusy):
            await call(run["slow-start"], "pid")


async def test_row_01_a_crash_in_a_call_is_told_and_the_next_call_gets_a_new_process(
    state: Path,
) -> None:
    async with running(state, launch(state, "crash_on_call")) as run:
        server = run["crash-on-call"]
        first = await call(server, "pid")
        began_s = time.monotonic()
        with pytest.raises(ServerDied, match="signal 11") as caught:
            await call(server, "crash")
        assert time.monotonic() - began_s < 1
        assert caught.value.details["signal"] == 11
        assert await call(server, "pid") != first
        assert run.happened("crash-on-call", "call:crash") == 1
        shown = server.snapshot
        assert (shown["restarts"], shown["calls"], shown["errors"]) == (1, 3, 1)
        assert shown["lastError"]["signal"] == 11
        assert "died" in run.kinds("crash-on-call")


async def test_a_killed_auto_start_server_comes_back_by_itself(state: Path) -> None:
    policy = Policy(auto_start=True, idle_timeout_s=None)
    async with running(state, launch(state, "good", policy=policy)) as run:
        await run.until(lambda: run["good"].state == "ready")
        first = run["good"].pid
        await call(run["good"], "echo", text="x")
        assert first is not None
        os.kill(first, 9)
        await run.until(lambda: run.kinds("good").count("ready") == 2)
        assert run["good"].pid != first


async def test_an_idle_server_is_stopped_and_comes_back_with_the_next_call(state: Path) -> None:
    policy = Policy(idle_timeout_s=0.05)
    async with running(state, launch(state, "good", policy=policy)) as run:
        first = await call(run["good"], "pid")
        await run.until(lambda: run["good"].state == "idle")
        assert not is_alive(int(first))
        assert await call(run["good"], "pid") != first
        assert run["good"].snapshot["restarts"] == 0


async def test_a_call_longer_than_the_idle_time_is_left_alone(state: Path) -> None:
    policy = Policy(idle_timeout_s=0.05)
    async with running(state, launch(state, "good", policy=policy)) as run:
        assert await call(run["good"], "sleep", s=0.4) == "slept"
        assert run.happened("good", "start") == 1


@pytest.mark.timeout(60)
async def test_row_65_two_hundred_calls_that_race_the_idle_stop_never_fail(state: Path) -> None:
    policy = Policy(idle_timeout_s=0.001)
    fleet = [launch(state, "good", policy=policy, name=f"good-{n}") for n in range(4)]
    # Without the site module a process is there in a third of the time.
    specs = [replace(spec, argv=(spec.argv[0], "-S", "-E", *spec.argv[1:])) for spec in fleet]
    async with running(state, *specs) as run, anyio.create_task_group() as tasks:
        for spec in specs:
            tasks.start_soon(race, run, spec.name, 50)
    assert sum(run.happened(spec.name, "call:echo") for spec in specs) == 200
    assert sum(run.kinds(spec.name).count("stopping") for spec in specs) > 100


async def race(run: Run, name: str, turns: int) -> None:
    """Call it again before its idle stop, as that begins, and when it is over."""
    for turn, phase in zip(range(turns), itertools.cycle(["", "stopping", "idle"]), strict=False):
        before = run.kinds(name).count(phase)
        assert await call(run[name], "echo", text=str(turn)) == str(turn)
        if phase:
            await run.until(partial(has_come, run, name, phase, before), seconds=30)
        # A little later each time.
        for _ in range(turn * turn % 97):
            await anyio.lowlevel.checkpoint()


def has_come(run: Run, name: str, phase: str, before: int) -> bool:
    return run.kinds(name).count(phase) > before


async def test_row_44_a_wall_clock_that_jumps_by_days_changes_nothing(state: Path) -> None:
    jumps = itertools.cycle([0.0, 86_400.0, -86_400.0])
    clock = Clock(time.monotonic, lambda: time.time() + next(jumps))
    policy = Policy(health_interval_s=0.02)
    async with running(state, launch(state, "good", policy=policy), clock=clock) as run:
        for turn in range(20):
            assert await call(run["good"], "sleep", s=0.01) == "slept"
            assert await call(run["good"], "echo", text=str(turn)) == str(turn)
        assert run.kinds("good") == ["starting", "ready"]


def test_row_44_nothing_in_the_runtime_reads_the_wall_clock_by_itself() -> None:
    """It is handed over as a function, to log lines and records alone."""
    modules = sorted(Path(server_module.__file__).parent.glob("*.py"))
    assert len(modules) > 10
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                words = ast.unparse(node.func)
                assert words not in {"time.time", "datetime.now", "datetime.utcnow"}, module


async def test_row_08_a_server_that_never_answers_the_handshake_is_killed_in_time(
    state: Path,
) -> None:
    policy = Policy(start_timeout_s=1)
    async with running(state, launch(state, "never_initialize", policy=policy)) as run:
        server = run["never-initialize"]
        with anyio.fail_after(5):
            with pytest.raises(StartFailed, match="initialize") as caught:
                await call(server, "echo")
        assert any("silent" in line for line in caught.value.details["stderrTail"])
        assert run.happened("never-initialize", "start") == 1
        await run.until(lambda: server.state == "idle")
        journal = (state / "never-initialize" / "events.log").read_text(encoding="utf-8")
        assert not is_alive(int(journal.split()[1]))


async def test_row_04_a_crash_loop_ends_failed_and_shows_its_cause(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)
    async with running(state, launch(state, "crash_loop", "0")) as run:
        server = run["crash-loop"]
        with anyio.fail_after(5):
            with pytest.raises(StartFailed) as caught:
                await call(server, "echo")
        assert caught.value.hint == "`octave logs crash-loop` shows what it wrote"
        assert (server.state, run.happened("crash-loop", "start")) == ("failed", 5)
        told = server.snapshot["lastError"]
        assert told["exitCode"] == 3
        assert any("API key" in line for line in told["stderrTail"])
        with pytest.raises(StartFailed):
            await call(server, "echo")
        assert run.happened("crash-loop", "start") == 5
    log = [entry.line for entry in read(state / "crash-loop.log")]
    assert log.count(b"crash_loop: fatal: missing API key") == 5


async def test_row_48_a_missing_program_is_named_and_not_tried_again(state: Path) -> None:
    spec = replace(launch(state, "good"), argv=("/nowhere/python", "x.py"))
    async with running(state, spec) as run:
        for _ in range(2):
            with pytest.raises(StartFailed, match="/nowhere/python"):
                await call(run["good"], "echo")
        assert run.kinds("good") == ["starting", "failed"]


async def test_an_environment_that_does_not_resolve_fails_that_server_at_once(state: Path) -> None:
    def environment() -> dict[str, str]:
        raise StartFailed("`TOKEN` of `good` is not set", hint="octave secret set good/TOKEN")

    spec = replace(launch(state, "good"), environment=environment)
    async with running(state, spec) as run:
        with pytest.raises(StartFailed, match="TOKEN") as caught:
            await call(run["good"], "echo")
        assert caught.value.hint == "octave secret set good/TOKEN"
        assert run["good"].state == "failed"


async def test_a_server_with_a_problem_has_failed_before_anybody_calls(state: Path) -> None:
    problem = OctaveError("`good` is not installed", hint="octave install")
    async with running(state, replace(launch(state, "good"), argv=(), problem=problem)) as run:
        await run.until(lambda: run["good"].state == "failed")
        with pytest.raises(OctaveError, match="not installed"):
            await call(run["good"], "echo")


async def test_a_stop_waits_for_the_call_in_flight(state: Path) -> None:
    answers: list[str] = []
    async with running(state, launch(state, "good")) as run:
        await call(run["good"], "pid")

        async def ask() -> None:
            answers.append(await call(run["good"], "sleep", s=0.3))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            await run.supervisor.stop(["good"])
        assert answers == ["slept"]


async def test_a_call_that_outlasts_the_drain_is_told_of_the_stop(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.05)
    async with running(state, launch(state, "hang_on_call")) as run:
        server = run["hang-on-call"]
        await call(server, "echo", text="x")
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(NotRunning, match="was stopped before it answered"):
                    await call(server, "hang")

            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            await server.stop()


async def test_calls_in_flight_end_with_the_process_they_began_with_when_it_is_replaced(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.05)
    answers: list[str] = []
    spec = launch(state, "good")
    async with running(state, spec) as run:
        server = run["good"]
        before = await call(server, "pid")

        async def ask(tool: str, **arguments: object) -> None:
            answers.append(await call(server, tool, **arguments))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ask, "sleep", s=0.3))
            await anyio.lowlevel.checkpoint()
            await run.supervisor.reload([replace(spec, version="2")])
            assert server.state == "stopping"
            tasks.start_soon(ask, "pid")
        assert answers[0] == "slept"
        assert answers[1] != before


async def test_a_stop_does_not_wait_as_long_as_a_replacement(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.05)
    spec = launch(state, "hang_on_call")
    async with running(state, spec) as run:
        server = run["hang-on-call"]
        await call(server, "echo", text="x")
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(NotRunning, match="was stopped before it answered"):
                    await call(server, "hang")

            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            await run.supervisor.reload([replace(spec, version="2")])
            with anyio.fail_after(10):
                await server.stop()
        assert server.state == "stopped"


async def test_a_stop_during_the_start_does_not_wait_for_it(state: Path) -> None:
    async with running(state, launch(state, "slow_start", "30")) as run:
        server = run["slow-start"]
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(NotRunning):
                    await call(server, "echo")

            tasks.start_soon(ask)
            await run.until(lambda: server.state == "starting")
            with anyio.fail_after(6):
                await server.stop()
        assert (server.state, server.snapshot["lastError"]) == ("stopped", None)


async def test_a_hanging_call_is_cancelled_and_the_server_kept(state: Path) -> None:
    policy = Policy(call_timeout_s=0.2, call_timeout_max_s=0.2)
    async with running(state, launch(state, "hang_on_call", policy=policy)) as run:
        server = run["hang-on-call"]
        with pytest.raises(CallTimedOut):
            await call(server, "hang")
        with anyio.move_on_after(0.1):
            await call(server, "hang")
        # Its answer comes after both cancellations were read.
        assert await call(server, "echo", text="still here") == "still here"
        journal = (state / "hang-on-call" / "events.log").read_text(encoding="utf-8")
        assert journal.count("cancelled:") == 2
        assert run.happened("hang-on-call", "start") == 1
        assert (server.figures.count, server.figures.errors) == (3, 1)


async def test_own_questions_wake_the_server_but_are_no_calls(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        offered = await run["good"].asker.exchange.ask()
        assert offered.names() == ("echo", "pid", "sleep")
        assert run["good"].figures.count == 0


async def test_results_with_is_error_count_as_errors(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        message = wire.decode(wire.request(1, "tools/call", b'{"name":"nope"}'))
        answer = await run["good"].forward(message, {})
        assert answer.error is not None
        assert run["good"].figures.errors == 1


async def test_stray_stdout_is_logged_and_counted(state: Path) -> None:
    async with running(state, launch(state, "banner_on_stdout")) as run:
        assert await call(run["banner-on-stdout"], "echo", text="x") == "x"
        assert run["banner-on-stdout"].snapshot["noise"] > 0
    log = list(read(state / "banner-on-stdout.log"))
    assert any(entry.stream == "out" and b"anner" in entry.line for entry in log)
    assert [entry.line for entry in log if entry.stream == "octave"][-1] == b"stopped"
