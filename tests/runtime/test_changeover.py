"""Another version takes over a server that is up: nobody waits for the old one, nor meets a gap."""

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.errors import NotRunning, OctaveError
from octave.packages.launch import LaunchSpec, Policy
from octave.runtime.handshake import Opening
from octave.runtime.questions import Caller
from octave.runtime.server import Server, Visitor
from tests.runtime.fleet import Run, call, is_alive, launch, running

pytestmark = pytest.mark.anyio


def versioned(spec: LaunchSpec, version: str, *args: str) -> LaunchSpec:
    argv = (*spec.argv, *args) if args else spec.argv
    return replace(spec, version=version, digest=version, argv=argv)


async def swap(run: Run, spec: LaunchSpec) -> None:
    await run.supervisor.swap(spec)


async def test_a_call_in_flight_ends_in_the_old_process_while_new_ones_meet_the_new(
    tmp_path: Path,
) -> None:
    spec = launch(tmp_path, "good")
    async with running(tmp_path, spec) as run:
        server = run["good"]
        old, told = int(await call(server, "pid")), list[str]()

        async def long_call() -> None:
            told.append(await call(server, "sleep", s=1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(long_call)
            await anyio.wait_all_tasks_blocked()
            await swap(run, versioned(spec, "2"))
            new = int(await call(server, "pid"))
            assert not told
            assert (new != old, server.pid, server.state) == (True, new, "ready")
            assert set(server.pids) == {old, new}
        assert told == ["slept"]
        await run.until(lambda: not is_alive(old))
        assert server.pids == [new]
        assert server.snapshot["restarts"] == 0


async def test_a_version_that_does_not_start_leaves_the_old_process_alone(tmp_path: Path) -> None:
    spec = launch(tmp_path, "good")
    async with running(tmp_path, spec) as run:
        server = run["good"]
        old = await call(server, "pid")
        broken = replace(versioned(spec, "2"), argv=(spec.argv[0], "-c", "raise SystemExit(3)"))
        with pytest.raises(OctaveError):
            await swap(run, broken)
        assert await call(server, "pid") == old
        assert (server.spec, server.state, len(server.pids)) == (spec, "ready", 1)
        marked = [e.details.get("instance") for e in run.events if e.kind in ("backoff", "failed")]
        assert set(marked) == {"next"}


async def test_callers_without_a_pause_see_neither_an_error_nor_a_gap(tmp_path: Path) -> None:
    spec = launch(tmp_path, "good")
    async with running(tmp_path, spec) as run:
        server, is_over, pids = run["good"], anyio.Event(), set[str]()

        async def ask() -> None:
            while not is_over.is_set():
                pids.add(await call(server, "pid"))

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask)
            for number in range(5):
                await swap(run, versioned(spec, str(number)))
                # Each version serves at least once, however slow the machine is.
                await run.until(lambda: str(server.pid) in pids)
            is_over.set()
        assert len(pids) >= 5
        assert server.snapshot["errors"] == 0
        last = await call(server, "pid")
        await run.until(lambda: server.pids == [int(last)])


async def test_one_that_sleeps_is_not_woken(tmp_path: Path) -> None:
    spec = launch(tmp_path, "good")
    async with running(tmp_path, spec, launch(tmp_path, "slow_start"), stopped=["good"]) as run:
        await swap(run, versioned(spec, "2"))
        assert (run["good"].state, run["good"].spec.version) == ("stopped", "2")
        with pytest.raises(NotRunning):
            await call(run["good"], "pid")
        slow = run["slow-start"]
        await swap(run, versioned(slow.spec, "2"))
        assert (slow.state, slow.spec.version) == ("idle", "2")


async def test_one_that_a_person_stops_meanwhile_stays_down(tmp_path: Path) -> None:
    spec = launch(tmp_path, "slow_start", "0.5")
    async with running(tmp_path, spec) as run:
        server = run["slow-start"]
        await call(server, "pid")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swap, run, versioned(spec, "2"))
            await run.until(lambda: run.kinds("slow-start").count("starting") == 2)
            await run.supervisor.stop(["slow-start"])
        assert (server.state, server.pids, server.spec.version) == ("stopped", [], "2")


async def test_a_reload_meanwhile_leaves_it_alone(tmp_path: Path) -> None:
    spec = launch(tmp_path, "slow_start", "0.5")
    async with running(tmp_path, spec) as run:
        server = run["slow-start"]
        old = await call(server, "pid")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swap, run, versioned(spec, "2"))
            await run.until(lambda: run.kinds("slow-start").count("starting") == 2)
            tasks.start_soon(swap, run, versioned(spec, "3"))
            touched = await run.supervisor.reload([versioned(spec, "3")])
            assert touched["changed"] == []
            assert await call(server, "pid") == old
            assert server.serving == [server.asker] != server.instances
            await run.until(lambda: run.kinds("slow-start").count("starting") == 3)
            touched = await run.supervisor.reload([versioned(spec, "3")])
            assert touched["changed"] == []
        assert await call(server, "pid") != old
        assert run.happened("slow-start", "start") == 3


async def test_who_gives_up_meanwhile_leaves_no_process(tmp_path: Path) -> None:
    spec = launch(tmp_path, "slow_start", "5")
    async with running(tmp_path, launch(tmp_path, "good")) as run:
        server = run["good"]
        old = await call(server, "pid")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(swap, run, replace(spec, name="good", version="2"))
                await run.until(lambda: run.kinds("good").count("starting") == 2)
                scope.cancel()
        assert await call(server, "pid") == old
        assert len(server.instances) == 1


def visitor_of(session: object) -> Visitor:
    owner = Caller(session)
    return Visitor("legacy", owner, can_answer=True, opening=Opening())


async def pid_for(server: Server, visitor: Visitor) -> int:
    # Before its task runs there is but the first process.
    await anyio.wait_all_tasks_blocked()
    instance = server.instance_for(visitor)
    await instance.exchange.greeting()
    assert instance.pid is not None
    return instance.pid


async def test_a_session_keeps_its_own_process_until_it_ends(tmp_path: Path) -> None:
    spec = launch(tmp_path, "good", policy=Policy(instance="session"))
    async with running(tmp_path, spec) as run:
        server = run["good"]
        early, late = visitor_of("early"), visitor_of("late")
        old = await pid_for(server, early)
        await swap(run, versioned(spec, "2"))
        assert await pid_for(server, early) == old
        assert await pid_for(server, late) != old
        server.dismiss("early")
        await run.until(lambda: not is_alive(old))
        assert await pid_for(server, early) != old
        assert len(server._generations) == 1


async def test_a_session_whose_own_process_died_goes_on_in_the_new_version(tmp_path: Path) -> None:
    spec = launch(tmp_path, "good", policy=Policy(instance="session"))
    async with running(tmp_path, spec) as run:
        server, early = run["good"], visitor_of("early")
        old = await pid_for(server, early)
        await swap(run, versioned(spec, "2"))
        before = server.instance_for(early)
        os.kill(old, 9)
        await run.until(lambda: before.state != "ready")
        assert server.instance_for(early) is not before
        assert server.instance_for(early).subject.spec.version == "2"


async def test_a_session_that_never_ends_moves_on_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.runtime.generation.REPLACED_DRAIN_S", 0.1)
    spec = launch(tmp_path, "good", policy=Policy(instance="session"))
    async with running(tmp_path, spec) as run:
        server, early = run["good"], visitor_of("early")
        old = await pid_for(server, early)
        await swap(run, versioned(spec, "2"))
        await run.until(lambda: not is_alive(old))
        assert await pid_for(server, early) != old


async def test_what_is_wanted_is_told_the_new_process_before_anybody_calls_it(
    tmp_path: Path,
) -> None:
    spec = launch(tmp_path, "good")
    async with running(tmp_path, spec) as run:
        server = run["good"]
        await call(server, "pid")
        wanted = server.asker.interests
        wanted.add("demo://x")
        await swap(run, versioned(spec, "2"))
        assert server.asker.interests is wanted
        assert wanted.live() is server.asker._connection
