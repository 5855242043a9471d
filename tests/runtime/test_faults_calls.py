"""Servers that die, or never live: what happens to calls, and what callers are told.

Real children, each with one fault of tests/servers.
"""

import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.errors import NotRunning, ServerBusy, ServerDied, StartFailed
from octave.packages.launch import Policy
from octave.runtime import exchange, lifecycle, process
from octave.runtime import instance as server_module
from octave.runtime.events import Clock
from octave.runtime.server import Server
from tests.runtime.fleet import Run, call, is_alive, launch, running
from tests.runtime.peer import connected
from tests.serve.running import home_workspace, manifest_text, request
from tests.serve.running import running as whole_runtime

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


async def died(server: Server, tool: str, **arguments: object) -> ServerDied:
    with anyio.fail_after(5), pytest.raises(ServerDied) as caught:
        await call(server, tool, **arguments)
    return caught.value


# In the middle of a call.


async def test_row_01_callers_are_told_the_server_its_end_and_its_last_words(state: Path) -> None:
    workspace = home_workspace(state / "h", manifest_text("last_words"))
    async with whole_runtime(workspace), connected(workspace, "proxy") as peer:
        await peer.call(1, "last-words__die")
        error = (await peer.answer(1))["error"]
        assert error["code"] == -32603
        assert error["message"] == (
            "`last-words` ended with exit code 3 before it answered `tools/call`, outcome unknown;"
            " `octave logs last-words` shows what it wrote\n"
            "its last lines on stderr:\n"
            "last_words: cannot open the box\n"
            "last_words: giving up"
        )
        told = error["data"]["octave"]
        assert told["code"] == "server_died"
        assert told["details"]["exitCode"] == 3
        assert told["details"]["stderrTail"][-1] == "last_words: giving up"
        assert told["details"]["outcome"] == "unknown"
        # The next call gets a new process.
        assert await peer.result(2, "last-words__echo", text="back") == "back"


@pytest.mark.parametrize("policy", [Policy(), Policy(replay=True)], ids=["default", "replay"])
async def test_row_02_half_an_answer_is_nobodys_and_its_call_is_not_made_again(
    state: Path, policy: Policy
) -> None:
    await ends_in_mid_call(state, "half", policy)


async def test_row_03_an_exit_with_0_is_a_failure_while_a_call_is_in_flight(state: Path) -> None:
    await ends_in_mid_call(state, "clean", Policy())


async def ends_in_mid_call(state: Path, tool: str, policy: Policy) -> None:
    async with running(state, launch(state, "exit_mid_call", policy=policy)) as run:
        server = run["exit-mid-call"]
        server.offered = await server.asker.exchange.ask()
        error = await died(server, tool)
        assert "ended with exit code 0 before it answered" in error.message
        assert error.details["outcome"] == "unknown"
        assert await call(server, "echo", text="in step") == "in step"
        assert run.happened("exit-mid-call", "side_effect") == 1
        assert run.happened("exit-mid-call", "start") == 2
        assert server.snapshot["lastError"]["exitCode"] == 0


# Starts.


async def test_row_05_status_shows_what_a_crash_loop_is_caused_by(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)
    workspace = home_workspace(state / "h", manifest_text("crash_loop"))
    async with whole_runtime(workspace) as told:
        await request(workspace, "octave/start", names=["crash-loop"])
        await told.until(lambda: told.events and told.events[-1].kind in {"idle", "failed"})
        (shown,) = (await request(workspace, "octave/status"))["servers"]
        assert shown["lastError"]["exitCode"] == 3
        assert "fatal: missing API key" in shown["lastError"]["stderrTail"][-1]


async def given_up(run: Run, name: str) -> None:
    with pytest.raises(StartFailed, match="exit code 4"):
        await run[name].start()
    await run.until(lambda: run[name].state == "failed")


async def test_row_07_a_failed_server_that_was_mended_is_tried_by_a_call_after_a_minute(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.001)
    skipped_s = 0.0
    clock = Clock(lambda: time.monotonic() + skipped_s, time.time)
    spec = launch(state, "broken_until_mended")
    async with running(state, spec, clock=clock) as run:
        await given_up(run, spec.name)
        (spec.cwd / "mended").touch()
        skipped_s = lifecycle.HALF_OPEN_AFTER_S - 30
        with pytest.raises(StartFailed, match="exit code 4"):
            await call(run[spec.name], "echo")
        assert run.happened(spec.name, "start") == lifecycle.GIVE_UP_AFTER
        skipped_s = lifecycle.HALF_OPEN_AFTER_S
        assert await call(run[spec.name], "echo", text="again") == "again"


async def test_row_07_a_failed_server_that_was_mended_is_started_at_once_when_asked(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.001)
    spec = launch(state, "broken_until_mended")
    async with running(state, spec) as run:
        await given_up(run, spec.name)
        (spec.cwd / "mended").touch()
        await run[spec.name].start()
        assert await call(run[spec.name], "echo", text="again") == "again"


async def test_row_09_a_slow_first_start_is_shown_and_its_one_call_succeeds(state: Path) -> None:
    async with (
        running(state, launch(state, "slow_start", "1")) as run,
        anyio.create_task_group() as tasks,
    ):
        server = run["slow-start"]
        tasks.start_soon(call, server, "echo")
        await run.until(lambda: server.state == "starting")
        (shown,) = await run.supervisor.snapshot()
        assert (shown["state"], shown["calls"]) == ("starting", 0)
        await run.until(lambda: server.state == "ready")
    assert (server.figures.count, server.figures.errors) == (1, 0)
    assert run.happened("slow-start", "start") == 1


async def test_row_11_a_server_that_ignores_what_it_does_not_know_starts_like_any_other(
    state: Path,
) -> None:
    async with running(state, launch(state, "ignore_ping")) as run:
        for bound_s in (3.0, 0.5):
            with anyio.fail_after(bound_s):
                assert await call(run["ignore-ping"], "echo", text="x") == "x"
        assert run.happened("ignore-ping", "server/discover") == 0
        assert run.happened("ignore-ping", "ping") == 0


@pytest.mark.parametrize("code", [126, 127])
async def test_row_48_a_program_that_a_wrapper_cannot_run_is_not_tried_again(
    state: Path, code: int
) -> None:
    script = f"echo start >> $HOSTILE_STATE/events.log; echo sh: no such node >&2; exit {code}"
    spec = replace(launch(state, "good"), argv=("/bin/sh", "-c", script))
    async with running(state, spec) as run:
        for _ in range(2):
            with pytest.raises(StartFailed, match=f"exit code {code}") as caught:
                await call(run["good"], "echo")
            assert caught.value.details["stderrTail"] == ["sh: no such node"]
        assert run["good"].state == "failed"
        assert run.happened("good", "start") == 1


# Half alive.


async def test_row_55_a_server_without_stdout_is_dead_and_replaced(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_OF_INPUT_GRACE_S", 0.1)
    async with running(state, launch(state, "close_pipe")) as run:
        server = run["close-pipe"]
        await call(server, "echo")
        first = server.pid
        assert first is not None
        with anyio.fail_after(1):
            error = await died(server, "close", fd=1)
        assert "closed its stdout before it answered" in error.message
        assert await call(server, "pid") != str(first)
        assert not is_alive(first)


async def test_row_56_what_a_server_without_stdin_was_not_sent_goes_to_the_next_process(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_OF_INPUT_GRACE_S", 0.1)
    async with running(state, launch(state, "close_pipe")) as run:
        server = run["close-pipe"]
        first = server.pid
        assert await call(server, "close", fd=0) == "closed"
        assert await call(server, "pid") != str(first)
        assert (server.figures.count, server.figures.errors) == (2, 0)
        assert run.happened("close-pipe", "call:pid") == 1
        assert "closed its stdin" in server.snapshot["lastError"]["message"]


# Orders while calls are under way.


async def test_a_call_refused_by_a_stopped_server_is_none(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        server = run["good"]
        await server.stop()
        with pytest.raises(NotRunning, match="`good` is stopped"):
            await call(server, "echo")
        assert (server.figures.count, server.figures.errors) == (0, 0)


async def test_a_call_that_a_stop_cuts_off_has_an_unknown_outcome(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.05)
    async with running(state, launch(state, "hang_on_call")) as run:
        server = run["hang-on-call"]
        await call(server, "echo")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut_off, server)
            await anyio.lowlevel.checkpoint()
            await server.stop()
        assert (server.figures.count, server.figures.errors) == (2, 1)


async def cut_off(server: Server) -> None:
    with pytest.raises(NotRunning, match="was stopped before it answered") as caught:
        await call(server, "hang")
    assert caught.value.message.endswith("outcome unknown")
    assert caught.value.details == {"sent": True, "outcome": "unknown"}


@pytest.mark.parametrize("order", ["restart", "stop", "close"])
async def test_a_call_that_an_order_overtakes_before_it_was_sent_is_made_or_refused(
    state: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(server_module, "DRAIN_S", 0.05)
    monkeypatch.setattr(process, "END_OF_INPUT_GRACE_S", 0.1)
    answers: list[str] = []
    large = "x" * 200_000
    async with running(state, launch(state, "hang_on_call")) as run:
        server = run["hang-on-call"]
        await call(server, "echo")

        async def freeze() -> None:
            with pytest.raises(NotRunning, match="outcome unknown"):
                await call(server, "freeze")

        async def fill() -> None:
            with pytest.raises(NotRunning, match="outcome unknown"):
                await call(server, "echo", text=large)

        async def ask() -> None:
            try:
                answers.append(await call(server, "echo", text="made"))
            except NotRunning as error:
                answers.append(error.message)

        async with anyio.create_task_group() as tasks:
            for work in (freeze, fill, ask):
                tasks.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            await {"restart": server.restart, "stop": server.stop, "close": server.close}[order]()
    assert answers == [
        {
            "restart": "made",
            "stop": "`hang-on-call` is stopped",
            "close": "`hang-on-call` is being shut down",
        }[order]
    ]
    assert server.figures.count == (4 if order == "restart" else 3)


async def test_calls_are_bounded_by_size_but_one_is_always_taken(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CALLS_BYTES", 10_000)
    async with (
        running(state, launch(state, "slow_start", "0.3")) as run,
        anyio.create_task_group() as tasks,
    ):
        server = run["slow-start"]
        tasks.start_soon(call, server, "echo")
        await run.until(lambda: server.state == "starting")
        with pytest.raises(ServerBusy, match="`slow-start` is busy"):
            await call(server, "echo", text="x" * 10_000)
        assert server.figures.count == 0
    async with running(state, launch(state, "good")) as run:
        assert len(await call(run["good"], "echo", text="x" * 20_000)) == 20_000


@pytest.mark.campaign
@pytest.mark.timeout(200)
async def test_row_04_a_crash_loop_that_is_called_all_the_time_starts_six_times_a_minute(
    state: Path,
) -> None:
    async with running(state, launch(state, "crash_loop", "0")) as run:
        for began_s, most in ((time.monotonic(), 6), (time.monotonic() + 60, 1)):
            before = run.happened("crash-loop", "start")
            while time.monotonic() < began_s + 60:
                with pytest.raises(StartFailed):
                    await call(run["crash-loop"], "echo")
                await anyio.sleep(0.1)
            assert run.happened("crash-loop", "start") - before <= most
