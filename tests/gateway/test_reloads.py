"""A manifest that changes is another face to those who have it open: they are told, and hear it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from octave.gateway.audience import Scope
from octave.packages.launch import LaunchSpec
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from octave.serve.control import Control, Runtime
from tests.gateway.conversation import Client, Desk, call, desk, odd

pytestmark = pytest.mark.anyio

TOOLS = "notifications/tools/list_changed"
META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}
LISTEN = json.dumps({"_meta": META, "notifications": {"toolsListChanged": True}}).encode()


class Manifest:
    """What a reload finds."""

    def __init__(self, found: Desk) -> None:
        self._specs: Sequence[LaunchSpec] = ()
        self._profiles: Mapping[str, tuple[str, ...]] = {}
        runtime = Runtime(lambda: self._specs, dict, lambda: None, lambda: self._profiles)
        self._control = Control(found.supervisor, found.router, runtime)

    async def become(self, *specs: LaunchSpec, **profiles: tuple[str, ...]) -> None:
        self._specs, self._profiles = specs, profiles
        await self._control.reload()


async def begin(found: Desk, scope: Scope) -> Client:
    """A modern client that listens to the tools of a face."""
    client = Client(found.router, scope)
    await found.tasks.start(client.session.run)
    client.say(wire.request(b'"listen"', "subscriptions/listen", LISTEN))
    await client.heard("notifications/subscriptions/acknowledged")
    return client


async def tools(client: Client, identifier: bytes) -> bytes:
    return await client.ask(identifier, "tools/list", json.dumps({"_meta": META}).encode())


async def test_server_that_a_profile_gained_is_listed_and_heard(tmp_path: Path) -> None:
    one, two = odd("one"), odd("two")
    async with desk(tmp_path, one, two) as found:
        manifest, everybody = Manifest(found), await found.client()
        await everybody.open()
        client = await begin(found, Scope.of("work", ["one"]))
        other = await begin(found, Scope.of("home", ["one"]))
        assert b"two__echo" not in await tools(client, b"1")
        other.lines.clear()
        await manifest.become(one, two, work=("one", "two"), home=("one",))
        await client.heard(TOOLS)
        assert b"two__echo" in await tools(client, b"2")
        client.lines.clear()
        await everybody.ask(b"1", "tools/call", call(b"two__change"))
        await client.heard(TOOLS)
        assert b"two__fresh" in await tools(client, b"3")
        assert not [line for line in other.lines if b"list_changed" in line]


async def test_server_that_is_new_to_a_profile_is_heard_there(tmp_path: Path) -> None:
    one, two = odd("one"), odd("two")
    async with desk(tmp_path, one) as found:
        manifest = Manifest(found)
        client = await begin(found, Scope.of("work", ["one"]))
        await manifest.become(one, two, work=("one", "two"))
        await client.heard(TOOLS)
        assert b"two__echo" in await tools(client, b"1")


@pytest.mark.parametrize("is_profile", [True, False])
async def test_subscription_at_a_face_that_is_gone_ends_in_good_order(
    tmp_path: Path, is_profile: bool
) -> None:
    scope = Scope.of("work", ["one"]) if is_profile else Scope(("one",), single=True)
    async with desk(tmp_path, odd("one"), odd("two")) as found:
        manifest = Manifest(found)
        client = await begin(found, scope)
        await manifest.become(odd("two"))
        ended = await client.answer(b'"listen"')
        assert wire.member(ended, "result", "resultType") == b'"complete"'
        assert b'"io.modelcontextprotocol/subscriptionId":"listen"' in ended
        assert not found.router.audience._listens


async def test_one_server_face_is_told_that_another_version_is_there(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one", "tells")) as found:
        manifest = Manifest(found)
        client = await found.client("one", single=True)
        await client.open()
        await manifest.become(odd("one"))
        await client.heard(TOOLS)
