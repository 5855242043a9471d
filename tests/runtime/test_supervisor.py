"""Several servers of a runtime: orders, reloads, and nobody in the way of another."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from octave.errors import (
    NotRunning,
    OctaveError,
    StartFailed,
)
from octave.packages.launch import Policy
from octave.runtime import wire
from octave.runtime.logs import ServerLog
from octave.runtime.subject import Speaker
from tests.runtime.fleet import Run, call, is_alive, launch, running

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


async def test_the_first_call_starts_the_server_and_status_shows_it(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        assert run["good"].state == "idle"
        assert await call(run["good"], "echo", text="hi") == "hi"
        (shown,) = await run.supervisor.snapshot()
        assert (shown["state"], shown["calls"], shown["errors"]) == ("ready", 1, 0)
        assert shown["memoryBytes"] > 1_000_000
        assert shown["pid"] == int(await call(run["good"], "pid"))
        assert run.kinds("good") == ["starting", "ready"]
    assert not is_alive(shown["pid"])
    assert run.kinds("good") == ["starting", "ready", "stopping", "stopped"]


async def test_a_bug_on_the_way_up_fails_that_server_alone(state: Path) -> None:
    def environment() -> dict[str, str]:
        raise ValueError("surprise")

    broken = replace(launch(state, "good", name="broken"), environment=environment)
    async with running(state, broken, launch(state, "good")) as run:
        with pytest.raises(StartFailed, match="surprise"):
            await call(run["broken"], "echo")
        assert await call(run["good"], "echo", text="fine") == "fine"


async def test_a_stopped_server_refuses_calls_until_it_is_started(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        first = await call(run["good"], "pid")
        (result,) = await run.supervisor.stop(["good"])
        assert (result["status"], is_alive(int(first))) == ("stopped", False)
        with pytest.raises(NotRunning) as caught:
            await call(run["good"], "echo")
        assert caught.value.hint == "octave start good"
        (result,) = await run.supervisor.start(["good"])
        assert (result["status"], result["pid"]) == ("ready", run["good"].pid)
        assert run.choices == [frozenset({"good"}), frozenset()]
        assert run["good"].snapshot["lastError"] is None


async def test_a_server_stopped_earlier_stays_stopped_even_with_auto_start(state: Path) -> None:
    spec = launch(state, "good", policy=Policy(auto_start=True))
    async with running(state, spec, stopped=["good"]) as run:
        with pytest.raises(NotRunning):
            await call(run["good"], "echo")
        assert run.events == []


async def test_restart_gives_a_fresh_process_that_is_ready(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        first = await call(run["good"], "pid")
        (result,) = await run.supervisor.restart(["good"])
        assert result["status"] == "ready"
        assert str(result["pid"]) != first
        assert run["good"].snapshot["restarts"] == 0


async def test_an_unknown_name_is_one_result_among_others(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        results = await run.supervisor.start(["god", "good"])
        assert results[0]["error"]["code"] == "server_not_found"
        assert results[0]["error"]["hint"] == "did you mean `good`?"
        assert results[1]["status"] == "ready"


async def test_a_hanging_start_delays_no_other(state: Path) -> None:
    steady = Policy(auto_start=True, start_timeout_s=30)
    hung = [launch(state, "never_initialize", policy=steady, name=f"hung-{n}") for n in range(3)]
    async with running(state, *hung, launch(state, "good", policy=steady)) as run:
        await run.until(lambda: run["good"].state == "ready")
        assert {run[f"hung-{n}"].state for n in range(3)} == {"starting"}


async def test_notifications_name_their_server(state: Path) -> None:
    async with running(state, launch(state, "changing_tools")) as run:
        heard: list[tuple[str, str | None]] = []
        arrived = anyio.Event()

        def hear(speaker: Speaker, message: wire.Message) -> None:
            heard.append((speaker.name, message.method))
            arrived.set()

        run.supervisor.on_notification = hear
        await call(run["changing-tools"], "echo", text="x")
        with anyio.fail_after(5):
            await arrived.wait()
        assert heard[0] == ("changing-tools", "notifications/tools/list_changed")


async def test_reload_touches_only_what_changed(state: Path) -> None:
    kept, changed = launch(state, "good", name="kept"), launch(state, "good", name="changed")
    removed, added = launch(state, "good", name="removed"), launch(state, "good", name="added")
    async with running(state, kept, changed, removed) as run:
        before = {name: int(await call(run[name], "pid")) for name in ("kept", "changed")}
        gone = run["removed"]
        pid = int(await call(gone, "pid"))
        told = await run.supervisor.reload([kept, replace(changed, version="2"), added])
        assert told == {"added": ["added"], "removed": ["removed"], "changed": ["changed"]}
        assert not is_alive(pid)
        with pytest.raises(NotRunning):
            await call(gone, "echo")
        assert int(await call(run["kept"], "pid")) == before["kept"]
        assert int(await call(run["changed"], "pid")) != before["changed"]
        assert await call(run["added"], "echo", text="new") == "new"


async def test_a_reload_that_mends_a_problem_lets_the_next_call_start_it(state: Path) -> None:
    good = launch(state, "good")
    broken = replace(good, argv=(), problem=OctaveError("`good` is not installed"))
    async with running(state, broken) as run:
        await run.until(lambda: run["good"].state == "failed")
        await run.supervisor.reload([good])
        assert await call(run["good"], "echo", text="mended") == "mended"


async def test_cancelling_the_runtime_leaves_no_process(state: Path) -> None:
    specs = [launch(state, "good", name=f"good-{n}") for n in range(3)]
    run = Run(state, specs, ())
    async with anyio.create_task_group() as tasks:
        await tasks.start(run.supervisor.run)
        pids = [int(await call(run[spec.name], "pid")) for spec in specs]
        tasks.cancel_scope.cancel()
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(NotRunning):
        await call(run["good-0"], "echo")


async def test_servers_that_ignore_every_polite_word_are_down_in_time(state: Path) -> None:
    specs = [launch(state, "ignore_sigterm", name=f"deaf-{n}") for n in range(3)]
    async with running(state, *specs) as run:
        started = await run.supervisor.start([spec.name for spec in specs])
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 8
    assert not any(is_alive(result["pid"]) for result in started)


async def test_a_reload_that_outlasts_the_runtime_adds_nothing_that_nobody_would_end(
    state: Path,
) -> None:
    removed, added = launch(state, "good", name="removed"), launch(state, "good", name="added")
    told: dict[str, list[str]] = {}
    async with running(state, removed) as run:
        await call(run["removed"], "pid")

        async def reload() -> None:
            told.update(await run.supervisor.reload([added]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(call, run["removed"], "sleep", s=0.3))
            await anyio.lowlevel.checkpoint()
            tasks.start_soon(reload)
            await anyio.lowlevel.checkpoint()
            run.supervisor.close()
    assert told == {"added": [], "removed": ["removed"], "changed": []}
    assert run.supervisor.servers == {}


async def test_a_bug_in_the_task_of_a_server_ends_no_other(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = launch(state, "good")
    async with running(state, launch(state, "good", name="broken"), good) as run:
        rest = ServerLog.rest

        def broken(log: ServerLog) -> None:
            if log is run["broken"]._subject.log:
                raise ValueError("surprise")
            rest(log)

        monkeypatch.setattr(ServerLog, "rest", broken)
        await run.supervisor.stop(["broken"])
        assert await call(run["good"], "echo", text="fine") == "fine"
        with pytest.raises(NotRunning), anyio.fail_after(5):
            await call(run["broken"], "echo")


async def test_who_leaves_a_reload_early_leaves_no_process_behind(state: Path) -> None:
    async with running(state, launch(state, "good")) as run:
        pid = int(await call(run["good"], "pid"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.supervisor.reload, [])
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert not is_alive(pid)
