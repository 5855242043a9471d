"""What clients stand on is there again when a process of their server was replaced by another."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.packages.launch import LaunchSpec
from octave.runtime import interests, lifecycle, wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY, Era
from tests.gateway.asking import ALL, Asker, Peer, ask, peer, until
from tests.gateway.conversation import BOUND_S, Desk, desk

pytestmark = pytest.mark.anyio

URI = "asker://one"
UPDATED = "notifications/resources/updated"
ASKS = {"resources/subscribe", "subscriptions/listen"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


async def subscribe(client: Peer, uri: str = URI) -> None:
    """Have the client hear of updates of the resource, in the way of its era."""
    if client.era == "legacy":
        identifier = b'"s%d"' % len(client.lines)
        answer = await client.ask(identifier, "resources/subscribe", params(uri=uri))
        assert wire.decode(answer).result == b"{}"
        await client.ask(b'"l"', "logging/setLevel", params(level="debug"))
        return
    meta = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}
    wanted = params(_meta=meta, notifications={"resourceSubscriptions": [uri]})
    client.say(wire.request(b'"listen"', "subscriptions/listen", wanted))
    assert uri.encode() in await client.heard("notifications/subscriptions/acknowledged")


def params(**members: object) -> bytes:
    return json.dumps(members).encode()


def asked(asker: Asker) -> int:
    """How often the server was asked for updates of the resource."""
    return sum(each.method in ASKS and URI.encode() in each.line for each in asker.received)


async def happen(found: Desk, asker: Asker, what: str, pid: int) -> None:
    """Let the server lose that process of it."""
    supervisor = found.supervisor
    match what:
        case "restart":
            await supervisor.restart(["asker"])
        case "stop":
            await supervisor.stop(["asker"])
            await supervisor.start(["asker"])
        case "reload":
            await supervisor.reload([changed(asker)])
        case "crash":
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pid not in supervisor.servers["asker"].pids)


def changed(asker: Asker) -> LaunchSpec:
    return replace(asker.spec, title="another")


@pytest.mark.parametrize("what", ["restart", "stop", "reload", "crash"])
@pytest.mark.parametrize(
    ("server", "era", "policy"),
    [
        ("legacy", "legacy", "auto"),
        ("legacy", "modern", "auto"),
        ("modern", "legacy", "auto"),
        ("fixed", "modern", "auto"),
        ("legacy", "legacy", "session"),
        ("legacy", "modern", "session"),
        ("fixed", "modern", "session"),
    ],
)
async def test_subscription_is_there_again_before_anybody_calls(
    tmp_path: Path, server: str, era: Era, policy: str, what: str
) -> None:
    asker = Asker(tmp_path, server, "listens", instance=policy)
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", era=era)
        await subscribe(client)
        pid = (await client.did(1))["pid"]
        before = asked(asker)
        with anyio.fail_after(BOUND_S):
            await happen(found, asker, what, pid)
        await until(lambda: asked(asker) > before)
        assert (await client.did(2, {"update": URI}))["pid"] != pid
        await client.heard(UPDATED)


async def test_server_that_is_not_to_be_restarted_waits_for_a_call(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", "listens", auto_restart=False)
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await subscribe(client)
        await happen(found, asker, "crash", (await client.did(1))["pid"])
        await until(lambda: found.supervisor.servers["asker"].state in ("idle", "failed"))
        assert asked(asker) == 1
        await client.did(2)
        await until(lambda: asked(asker) == 2)


@pytest.mark.parametrize("what", ["restart", "stop", "crash"])
async def test_log_level_is_told_to_the_next_process(tmp_path: Path, what: str) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await client.ask(b'"l"', "logging/setLevel", params(level="debug"))
        pid = (await client.did(1))["pid"]
        with anyio.fail_after(BOUND_S):
            await happen(found, asker, what, pid)
        assert (await client.did(2))["pid"] != pid
        await asker.told("logging/setLevel", 2)


async def test_process_of_ones_own_is_told_the_level_that_the_shared_one_was(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await client.ask(b'"l"', "logging/setLevel", params(level="debug"))
        client.do(1, ask())
        client.reply((await client.asked())[0])
        shared = (await client.done(1))["pid"]
        assert (await client.did(2))["pid"] != shared
        await asker.told("logging/setLevel", 2)


async def test_stop_keeps_all_processes_down_whatever_is_wanted_of_them(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "fixed", "listens")
    async with desk(tmp_path, asker.spec) as found:
        old, new = await peer(found, "asker"), await peer(found, "asker", era="modern")
        for client in (old, new):
            await subscribe(client)
        await found.supervisor.stop(["asker"])
        assert found.supervisor.servers["asker"].pids == []
        for client in (old, new):
            client.do(1)
            assert "is stopped" in (await client.result(1))["message"]


async def test_subscription_of_a_client_that_left_meanwhile_starts_nothing(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "fixed", "listens")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        client = await peer(found, "asker", era="modern")
        await subscribe(client)
        await found.supervisor.stop(["asker"])
        client.session.close()
        await found.supervisor.start(["asker"])
        assert server.snapshot["instances"] == 1


async def test_subscription_of_a_server_that_came_back_is_one_of_the_new_one(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await subscribe(client)
        await found.supervisor.reload([])
        await found.supervisor.reload([asker.spec])
        await subscribe(client)
        assert asked(asker) == 2
        await client.did(1, {"update": URI})
        await client.heard(UPDATED)


async def move(client: Peer) -> int:
    """Let the session have a process of its own; return which."""
    client.do("asked", ask())
    client.reply((await client.asked())[0])
    await client.done("asked")
    pid: int = (await client.did("own"))["pid"]
    return pid


async def test_subscription_goes_with_its_session_to_a_process_of_its_own(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await subscribe(client)
        own = await move(client)
        await until(lambda: subscribers(asker, "resources/subscribe") == [asker.pids[0], own])
        assert (await client.did(1, {"update": URI}))["pid"] == own
        await client.heard(UPDATED)


async def test_subscription_of_a_modern_client_goes_with_it_too(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client, other = await peer(found, "asker", era="modern"), await peer(found, "asker")
        await subscribe(client)
        await move(other)
        own = (await client.did(1, {"update": URI}))["pid"]
        await client.heard(UPDATED)
        await until(lambda: subscribers(asker, "resources/subscribe") == [asker.pids[0], own])
        client.cancel("listen")
        await until(lambda: own in subscribers(asker, "resources/unsubscribe"))
        assert not found.supervisor.servers["asker"]._first.interests


def subscribers(asker: Asker, method: str) -> list[int]:
    """The processes that were told so, in that order."""
    lines = [each.split(b" ", 1) for each in asker.journal.read_bytes().splitlines()]
    return [int(pid) for pid, line in lines if wire.decode(line).method == method]


@pytest.mark.parametrize("is_moved", [False, True])
async def test_last_who_unsubscribes_has_the_process_told_that_was_asked(
    tmp_path: Path, is_moved: bool
) -> None:
    asker = Asker(tmp_path, "legacy", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await subscribe(client)
        if is_moved:
            await move(client)
        answer = await client.ask(b'"u"', "resources/unsubscribe", params(uri=URI))
        assert wire.decode(answer).result == b"{}"
        await asker.told("resources/unsubscribe", 1 + is_moved)
        assert subscribers(asker, "resources/unsubscribe") == asker.pids[: 1 + is_moved]


async def test_listener_that_leaves_while_it_begins_leaves_no_subscription(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", era="modern")
        await client.did(1)
        meta = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}
        wanted = params(_meta=meta, notifications={"resourceSubscriptions": [URI, "asker://mute"]})
        client.say(wire.request(b'"listen"', "subscriptions/listen", wanted))
        first = found.supervisor.servers["asker"]._first
        await until(lambda: first.interests.has("asker://mute"))
        client.cancel("listen")
        await until(lambda: not first.interests)


async def test_subscription_that_a_modern_server_ends_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interests, "AGAIN_S", 0.01)
    asker = Asker(tmp_path, "modern", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", era="modern")
        await subscribe(client)
        (listening,) = await asker.told("subscriptions/listen")
        ended = wire.result(listening.id or b"", b'{"resultType":"complete"}').decode()
        await client.did(1, {"send": ended})
        await asker.told("subscriptions/listen", 2)


async def test_subscription_that_a_modern_server_refuses_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interests, "AGAIN_S", 0.0)
    asker = Asker(tmp_path, "modern", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", era="modern")
        await subscribe(client)
        (listening,) = await asker.told("subscriptions/listen")
        refused = wire.error(listening.id, wire.METHOD_NOT_FOUND, "no").decode()
        await client.did(1, {"send": refused})
        for number in range(2, 5):
            await client.did(number)
        assert asker.methods().count("subscriptions/listen") == 1
