"""Which process of a server serves whom: shared, private, of which era, and until when."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from octave.packages import offered as offered_file
from octave.packages.launch import LaunchSpec
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.asking import ALL, ROOTS, Asker, Peer, ask, instances, peer, until
from tests.gateway.conversation import BOUND_S, Desk, desk, missing
from tests.runtime.fleet import is_alive

pytestmark = pytest.mark.anyio


async def asked_once(found: Desk, *, era: str = "legacy") -> Peer:
    """A client that the server has asked something: from now on sessions have their own."""
    client = await peer(found, "asker", era="legacy" if era == "legacy" else "modern")
    client.do("first", ask())
    (question,) = await client.asked()
    client.reply(question)
    await client.done("first")
    return client


async def test_one_process_serves_all_until_the_server_asks_something(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        shared = (await one.did(1))["pid"]
        assert (await two.did(1))["pid"] == shared
        one.do(2, ask())
        one.reply((await one.asked())[0])
        assert (await one.done(2))["pid"] == shared
        own = (await one.did(3))["pid"], (await two.did(3))["pid"]
        assert len({shared, *own}) == 3
        # Who cannot answer, or did not say so, stays where he was.
        for client in (
            await peer(found, "asker", can={}),
            await peer(found, "asker", can={"x": {}}),
        ):
            assert (await client.did(1))["pid"] == shared
        assert found.supervisor.servers["asker"].snapshot["instances"] == 3
        (row,) = await found.supervisor.snapshot()
        assert row["memoryBytes"] > 0
        assert set(found.supervisor.servers["asker"].pids) == {shared, *own}


async def test_private_process_is_opened_as_its_client_would(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        can = {"sampling": {"own": 1.5}, "own/x": {}}
        old = await peer(found, "asker", can=can)
        new = await peer(found, "asker", era="modern", can={"elicitation": {"url": {}}})
        opened = (await old.did(1))["opened"]
        assert opened == {
            "protocolVersion": "2025-06-18",
            "capabilities": can,
            "clientInfo": {"name": "peer", "version": "1"},
        }
        assert (await new.did(1))["opened"]["capabilities"] == {"elicitation": {"url": {}}}


async def test_private_process_of_a_modern_client_speaks_modern_where_it_can(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "fixed", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        new, old = await peer(found, "asker", era="modern"), await peer(found, "asker")
        said = await new.did(1)
        assert said["opened"] is None and said["meta"]
        assert (await old.did(1))["opened"]["capabilities"] == ALL


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_session_policy_gives_each_a_process_of_a_modern_server_too(
    tmp_path: Path, era: str
) -> None:
    asker = Asker(tmp_path, "modern", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        clients = [await peer(found, "asker", era=era) for _ in range(2)]  # type: ignore[arg-type] # of the list above
        pids = {(await client.did(1))["pid"] for client in clients}
        assert len(pids) == 2


async def test_shared_policy_keeps_all_in_one_process_whatever_it_asks(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="shared")
    async with desk(tmp_path, asker.spec) as found:
        clients = [await asked_once(found), await asked_once(found)]
        new = await asked_once_modern(found)
        pids = {(await client.did(9))["pid"] for client in (*clients, new)}
        assert len(pids) == 1
        assert found.supervisor.servers["asker"].snapshot["instances"] == 1


async def asked_once_modern(found: Desk) -> Peer:
    client = await peer(found, "asker", era="modern")
    client.do("first", ask())
    assert (await client.result("first"))["resultType"] == "input_required"
    return client


async def test_that_a_server_asks_is_remembered_over_a_restart_and_not_over_an_upgrade(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        await asked_once(found)

        def kept() -> bool:
            file = offered_file.load(tmp_path / "asker.json", "1", "d")
            return file is not None and file.asks

        await until(kept)
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        assert (await one.did(1))["pid"] != (await two.did(1))["pid"]
        upgraded = replace_version(asker)
        await found.supervisor.reload([upgraded])
        three = await peer(found, "asker")
        assert (await three.did(1))["pid"] == (await one.did(2))["pid"]


def replace_version(asker: Asker) -> LaunchSpec:
    return replace(asker.spec, version="2", digest="e")


@pytest.mark.parametrize("how", ["close", "finish"])
async def test_private_process_ends_with_its_session(tmp_path: Path, how: str) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        one, two = await peer(found, "asker"), await peer(found, "asker")
        first, second = (await one.did(1))["pid"], (await two.did(1))["pid"]
        getattr(one.session, how)()
        await until(lambda: not is_alive(first))
        assert is_alive(second)
        assert second in server.pids


async def test_request_on_the_heels_of_its_session_starts_no_process(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        one, two = await peer(found, "asker"), await peer(found, "asker")
        one.do(1)
        one.session.close()
        with anyio.fail_after(BOUND_S):
            late = wire.decode(wire.request(2, "tools/call", b'{"name":"do"}'))
            said = await one.session.serve(late, lambda _: None)
        assert b"over" in said
        await two.did(1)
        assert len(server.instances) == 2


@pytest.mark.parametrize("order", ["stop", "restart", "reload", "remove"])
async def test_orders_about_a_server_are_for_its_private_processes_too(
    tmp_path: Path, order: str
) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        server, supervisor = found.supervisor.servers["asker"], found.supervisor
        client = await peer(found, "asker")
        before = (await client.did(1))["pid"]
        with anyio.fail_after(BOUND_S):
            match order:
                case "stop":
                    await supervisor.stop(["asker"])
                case "restart":
                    await supervisor.restart(["asker"])
                case "reload":
                    await supervisor.reload([replace_version(asker)])
                case "remove":
                    await supervisor.reload([])
        await until(lambda: not is_alive(before))
        client.do(2)
        if order in ("restart", "reload"):
            assert (await client.done(2))["pid"] != before
        else:
            assert (await client.result(2))["code"] in (wire.INTERNAL_ERROR, wire.INVALID_PARAMS)
            assert server.pids == []


async def test_call_during_an_idle_stop_of_the_shared_process_stays_in_its_own(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy", idle_timeout_s=0.2)
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        client = await asked_once(found)
        own = (await client.did(1))["pid"]
        client.do(2, {"wait": "go"})
        # The private one is at work; the other one has nothing to do and ends.
        await until(lambda: server.state in ("stopping", "idle"))
        client.do(3, {"go": "go"})
        assert (await client.done(3))["pid"] == (await client.done(2))["pid"] == own


async def test_private_process_that_nobody_uses_stops_and_comes_back(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session", idle_timeout_s=0.1)
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", can={"own/x": {}})
        first = (await client.did(1))["pid"]
        await instances(found.supervisor.servers["asker"], 0)
        again = await client.did(2)
        assert again["pid"] != first
        assert again["opened"]["capabilities"] == {"own/x": {}}


async def test_private_process_that_died_comes_back_for_its_session_alone(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        first, other = (await one.did(1))["pid"], (await two.did(1))["pid"]
        one.do(2, {"die": 3})
        assert "outcome unknown" in (await one.result(2))["message"]
        assert (await one.did(3))["pid"] not in (first, other)
        assert (await two.did(2))["pid"] == other


async def test_call_while_the_server_is_closed_for_good_holds_up_nothing(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        await one.did(1)
        one.do(2, {"wait": "go"})
        await asker.told("tools/call", 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(found.supervisor.servers["asker"].close)
            await anyio.lowlevel.checkpoint()
            two.do(1)
            await two.result(1)
            one.do(3, {"go": "go"})
        assert found.supervisor.servers["asker"].pids == []


async def test_what_a_private_process_says_is_heard_by_its_session_alone(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", "listens", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        new = await peer(found, "asker", era="modern")
        uri = {"uri": "asker://one"}
        for client in (one, two):
            await client.ask(b'"s"', "resources/subscribe", json.dumps(uri).encode())
        listen = {"notifications": {"resourceSubscriptions": ["asker://one"]}, "_meta": new_meta()}
        new.say(wire.request(b'"l"', "subscriptions/listen", json.dumps(listen).encode()))
        await new.heard("notifications/subscriptions/acknowledged")
        await one.did(1, {"log": "error"}, {"update": "asker://one"})
        await two.did(1)
        await new.did(1)
        assert len([line for line in one.lines if b"notifications/" in line]) == 2
        assert not [line for line in two.lines if b"notifications/" in line]
        assert not [line for line in new.lines if b"/updated" in line]


def new_meta() -> dict[str, object]:
    return {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}


async def test_changed_roots_are_told_once_to_each_process_that_has_them(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec, missing("gone")) as found:
        client = await peer(found, "asker")
        client.do(1, ask(1, ROOTS))
        client.reply((await client.asked())[0], {"roots": []})
        await client.done(1)
        own = ask(2, ROOTS)
        client.do(2, own)
        client.reply((await client.asked(2))[1], {"roots": []})
        await client.done(2)
        client.say(wire.notification("notifications/roots/list_changed"))
        await client.did(3)
        # The shared one was told of them too, before there was a private one.
        await asker.told("notifications/roots/list_changed", 2)
        assert asker.methods().count("notifications/roots/list_changed") == 2
