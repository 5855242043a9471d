"""A remote server of 2026-07-28 alone: opened, called, listed, answered, listened to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime import wire
from octave.runtime.connection import Callbacks, connect
from octave.runtime.handshake import ENVELOPE, MODERN_VERSION, Era
from tests.gateway.asking import peer
from tests.gateway.conversation import desk
from tests.remote_peer import modern
from tests.remote_peer.listening import Listening
from tests.remote_peer.modern import FORM, ModernPeer

pytestmark = pytest.mark.anyio

BOUND_S = 5.0
NAMES = ["echo", "big", "wait", "where", "ask", "grow"]
CAN: dict[str, Any] = {"elicitation": {"form": {}}}
GIVEN = {"action": "accept", "content": {"name": "Ada"}}
ERAS: tuple[Era, Era] = ("legacy", "modern")


@pytest.fixture
def remote_peer() -> ModernPeer:
    return ModernPeer()


@pytest.fixture
def remote(remote_peer: ModernPeer) -> Iterator[Listening]:
    with modern.listening(remote_peer.server) as listening:
        yield listening


@pytest.fixture
def spec(remote: Listening) -> LaunchSpec:
    endpoint = Endpoint(f"{remote.origin}/mcp", dict)
    return LaunchSpec("peer", (), Path("/"), dict, version="1", digest="d", endpoint=endpoint)


async def test_it_is_opened_in_the_era_that_it_speaks(remote: Listening, spec: LaunchSpec) -> None:
    async with connect(spec, Callbacks()) as connection:
        assert connection.greeting.era == "modern"
        listed = await connection.request("tools/list", None, BOUND_S)
        names = [tool["name"] for tool in json.loads(listed.result or b"")["tools"]]
        assert names == NAMES
    methods = [json.loads(seen.body)["method"] for seen in remote.seen]
    assert methods == ["initialize", "server/discover", "tools/list"]
    versions = {seen.headers.get("mcp-protocol-version") for seen in remote.seen[1:]}
    assert versions == {MODERN_VERSION}


@pytest.mark.parametrize("era", ERAS)
async def test_clients_of_both_eras_list_and_call_it(
    tmp_path: Path, spec: LaunchSpec, era: Era
) -> None:
    async with desk(tmp_path, spec) as found:
        client = await peer(found, "peer", era=era, can=CAN)
        client.do(1, tool="echo", arguments={"text": "hi"})
        (content,) = (await client.result(1))["content"]
        assert content["text"] == "hi"
        # Which header that argument needs stands in the list, which nobody has asked for yet.
        client.do(2, tool="where", arguments={"region": "north"})
        assert (await client.result(2))["content"][0]["text"] == "in north"


async def test_a_modern_client_is_asked_in_the_answer(tmp_path: Path, spec: LaunchSpec) -> None:
    async with desk(tmp_path, spec) as found:
        client = await peer(found, "peer", era="modern", can=CAN)
        client.do(1, tool="ask", arguments={})
        asked = await client.result(1)
        assert asked["inputRequests"]["name"]["params"]["message"] == "who?"
        again = {"inputResponses": {"name": GIVEN}, "requestState": asked["requestState"]}
        client.do(2, tool="ask", arguments={}, **again)
        assert (await client.result(2))["content"][0]["text"] == "asked: Ada"


async def test_a_legacy_client_is_asked_in_between(tmp_path: Path, spec: LaunchSpec) -> None:
    async with desk(tmp_path, spec) as found:
        client = await peer(found, "peer", can=CAN)
        client.do(1, tool="ask", arguments={})
        (question,) = await client.asked()
        message = wire.decode(question)
        assert message.method == FORM["method"]
        assert json.loads(message.params or b"")["message"] == "who?"
        client.reply(question, GIVEN)
        assert (await client.result(1))["content"][0]["text"] == "asked: Ada"


@pytest.mark.parametrize("era", ERAS)
async def test_clients_of_both_eras_hear_of_a_new_tool(
    tmp_path: Path, remote_peer: ModernPeer, spec: LaunchSpec, era: Era
) -> None:
    meta = b"{%b}" % ENVELOPE if era == "modern" else b"{}"
    async with desk(tmp_path, spec) as found:
        client = await peer(found, "peer", era=era, can=CAN)
        if era == "modern":
            wanted = b'{"_meta":%b,"notifications":{"toolsListChanged":true}}' % meta
            client.say(wire.request(9, "subscriptions/listen", wanted))
            await client.heard("notifications/subscriptions/acknowledged")
        client.do(1, tool="echo", arguments={"text": "hi"})
        await client.result(1)
        assert await anyio.to_thread.run_sync(remote_peer.listened.wait, BOUND_S)
        client.do(2, tool="grow", arguments={})
        await client.heard("notifications/tools/list_changed")
        listed = json.loads(await client.ask(b"3", "tools/list", b'{"_meta":%b}' % meta))
        assert [tool["name"] for tool in listed["result"]["tools"]] == [*NAMES, "grown"]
