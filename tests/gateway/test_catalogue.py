"""Lists outlive the process they came from, and follow it when it changes."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.errors import Bug, OctaveError, ServerNotFound
from octave.gateway import catalogue
from octave.gateway.listing import Listing
from octave.packages import offered as offered_file
from octave.packages.offered import Offered
from octave.runtime import wire
from octave.runtime.events import Event
from tests.gateway.conversation import BOUND_S, SERVERS, Desk, call, desk, missing, odd, spec

pytestmark = pytest.mark.anyio

KEPT = Offered(b'{"capabilities":{"tools":{}}}', {"tools": (b'{"name":"kept"}',)})


def listen(found: Desk) -> tuple[list[tuple[str, frozenset[str]]], anyio.Event]:
    changes: list[tuple[str, frozenset[str]]] = []
    came = anyio.Event()

    def changed(name: str, lists: frozenset[str]) -> None:
        changes.append((name, lists))
        came.set()

    found.catalogue.on_changed = changed
    return changes, came


async def looks(found: Desk, name: str) -> int:
    asked = wire.decode(wire.request(1, "own/looks"))
    answer = await found.supervisor.servers[name].forward(asked, {})
    return int(answer.result or b"0")


async def test_sleeping_server_is_listed_from_disk_and_sleeps_on(tmp_path: Path) -> None:
    offered_file.save(tmp_path / "one.json", KEPT, "1", "d")
    async with desk(tmp_path, odd("one")) as found:
        (known,) = await found.catalogue.gather(["one"])
        assert known.offered == KEPT
        assert found.supervisor.servers["one"].offered == KEPT
        assert found.supervisor.servers["one"].state == "idle"


async def test_lists_of_another_version_are_not_shown(tmp_path: Path) -> None:
    offered_file.save(tmp_path / "one.json", KEPT, "2", "d")
    async with desk(tmp_path, odd("one")) as found:
        assert found.catalogue.get("one") is None


async def test_what_a_server_said_is_kept_for_the_next_runtime(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        offered = await found.catalogue.refresh("one")
    assert offered_file.load(tmp_path / "one.json", "1", "d") == offered


async def test_what_was_learned_in_the_last_moment_is_kept_too(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        offered = await found.catalogue.refresh("one")
        found.catalogue.learned("one")
        found.supervisor.servers["one"].offered = replace(offered, asks=True)
        found.catalogue.learned("one")
        found.tasks.cancel_scope.cancel()
    kept = offered_file.load(tmp_path / "one.json", "1", "d")
    assert kept is not None
    assert kept.asks


async def test_callers_at_the_same_time_share_one_look(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(found.catalogue.refresh, "one")
        assert await looks(found, "one") == 1


async def test_server_that_wakes_is_asked_and_listeners_hear_what_is_new(tmp_path: Path) -> None:
    offered_file.save(tmp_path / "one.json", KEPT, "1", "d")
    async with desk(tmp_path, odd("one")) as found:
        changes, came = listen(found)
        client = await found.client("one", single=True)
        await client.ask(b"1", "tools/call", call(b"echo"))
        with anyio.fail_after(BOUND_S):
            await came.wait()
        assert changes == [
            ("one", frozenset({"tools", "prompts", "resources", "resourceTemplates"}))
        ]


async def test_unchanged_lists_are_told_to_nobody(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        await found.catalogue.refresh("one")
        changes, _ = listen(found)
        await found.catalogue.refresh("one")
        assert changes == []


async def test_awake_server_that_never_tells_is_asked_again_when_its_lists_are_old(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, odd("bare", "bare")) as found:
        await found.catalogue.refresh("bare")
        found.now_s += 59.0
        await found.catalogue.gather(["bare"])
        assert await looks(found, "bare") == 1
        found.now_s += 1.0
        await found.catalogue.gather(["bare"])
        assert await looks(found, "bare") == 2


async def test_awake_server_that_tells_of_changes_is_left_alone(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one", "tells")) as found:
        await found.catalogue.refresh("one")
        found.now_s += 3600.0
        await found.catalogue.gather(["one"])
        assert await looks(found, "one") == 1


async def test_list_asked_for_right_after_a_change_is_the_new_one(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        client = await found.client()
        await client.ask(b"1", "tools/list")
        await client.ask(b"2", "tools/call", call(b"one__change"))
        assert b'"one__fresh"' in await client.ask(b"3", "tools/list")


async def test_slow_server_delays_the_first_list_for_a_while_and_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "FIRST_LISTS_S", 0.5)
    slow = spec("slow", SERVERS / "never_initialize.py")
    async with desk(tmp_path, slow, odd("one")) as found:
        await found.catalogue.refresh("one")
        with anyio.fail_after(BOUND_S):
            assert [known.server for known in await found.catalogue.gather(["slow", "one"])] == [
                "one"
            ]
        monkeypatch.setattr(catalogue, "FIRST_LISTS_S", 3600.0)
        found.now_s += 3600.0
        with anyio.fail_after(BOUND_S):
            await found.catalogue.gather(["slow", "one"])


async def test_lists_that_cannot_be_kept_are_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "one.json").mkdir()
    async with desk(tmp_path, odd("one")) as found:
        await found.catalogue.refresh("one")
        assert found.catalogue.get("one") is not None


async def test_what_is_wrong_with_lists_is_told_once(tmp_path: Path) -> None:
    broken = spec("broken", SERVERS / "list_answer.py", '"result":{"tools":[{"name":"a"}]}')
    async with desk(tmp_path, broken) as found:
        told: list[Event] = []
        found.supervisor.on_event = told.append
        for _ in range(3):
            await found.catalogue.refresh("broken")
        warnings = [event.details["message"] for event in told if event.kind == "warning"]
        assert warnings == ["tool `a` is not shown to AI tools: it has no `inputSchema`"]


async def test_many_warnings_are_told_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "WARNINGS", 2)
    async with desk(tmp_path, spec("weird", SERVERS / "weird_schemas.py")) as found:
        told: list[Event] = []
        found.supervisor.on_event = told.append
        await found.catalogue.refresh("weird")
        warnings = [event.details["message"] for event in told if event.kind == "warning"]
        assert len(warnings) == 3
        assert warnings[-1] == "19 more warnings"


async def test_server_that_cannot_be_asked_tells_why(tmp_path: Path) -> None:
    async with desk(tmp_path, missing("broken")) as found:
        with pytest.raises(OctaveError, match="broken"):
            await found.catalogue.refresh("broken")
        assert await found.catalogue.gather(["broken"]) == []
        with pytest.raises(ServerNotFound):
            await found.catalogue.refresh("other")


def failing(error: BaseException) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail


async def test_bug_in_a_look_is_told_to_those_who_wait_and_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path, odd("one"), odd("two")) as found:
        with monkeypatch.context() as broken:
            broken.setattr(catalogue, "listing", failing(MemoryError()))
            with pytest.raises(Bug, match="`one`"):
                await found.catalogue.refresh("one")
        assert await found.catalogue.refresh("one")
        assert await found.catalogue.refresh("two")


async def test_lists_that_a_bug_keeps_off_the_disk_are_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offered_file, "save", failing(ValueError("surprise")))
    async with desk(tmp_path, odd("one")) as found:
        await found.catalogue.refresh("one")
        found.catalogue.learned("one")
        assert await found.catalogue.refresh("one")


async def test_bug_while_a_change_settles_leaves_the_next_one_heard(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        came = anyio.Event()

        def changed(_name: str, _lists: frozenset[str]) -> None:
            first = not came.is_set()
            came.set()
            if first:
                raise ValueError("surprise")

        found.catalogue.on_changed = changed
        found.catalogue.noticed("one", ["tools"])
        with anyio.fail_after(BOUND_S):
            await came.wait()
        changes, again = listen(found)
        found.catalogue.noticed("one", ["tools"])
        with anyio.fail_after(BOUND_S):
            await again.wait()
        assert changes == [("one", frozenset({"tools"}))]


async def test_of_a_server_that_was_removed_nothing_is_kept(tmp_path: Path) -> None:
    one, two = odd("one"), odd("two")
    async with desk(tmp_path, one, two) as found:
        for name in ("one", "two"):
            await found.catalogue.refresh(name)
        await found.supervisor.reload([two])
        assert await found.catalogue.gather(["one", "two"])
        gc.collect()
        kept = {each.server for each in gc.get_objects() if isinstance(each, Listing)}
        # Of servers of other tests there may still be some.
        assert kept & {"one", "two"} == {"two"}


async def test_what_a_server_said_before_it_was_removed_is_not_that_of_its_successor(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, odd("one")) as found:
        await found.catalogue.refresh("one")
        await found.supervisor.reload([])
        with pytest.raises(ServerNotFound):
            await found.catalogue.refresh("one")
        await found.supervisor.reload([odd("one", "bare")])
        (tmp_path / "one.json").unlink(missing_ok=True)
        assert found.catalogue.get("one") is None
        offered = await found.catalogue.refresh("one")
        assert "prompts" not in offered.lists
