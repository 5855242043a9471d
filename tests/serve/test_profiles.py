"""A profile of the manifest, as those see it who have it open while it changes."""

import json
from pathlib import Path

import pytest

from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.runtime.peer import Peer, connected
from tests.serve.running import home_workspace, manifest_text, request, running

pytestmark = pytest.mark.anyio

META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}
TOOLS = b"notifications/tools/list_changed"


def text(*servers: str) -> str:
    """A manifest of two servers, and a profile of these if there are any."""
    profile = f"[profiles.work]\nservers = {json.dumps(servers)}\n" if servers else ""
    return manifest_text("good", "changing_tools") + profile


async def ask(peer: Peer, identifier: int, method: str, **params: object) -> None:
    raw = json.dumps({"_meta": META, **params}).encode()
    await peer.say(wire.request(identifier, method, raw))


async def line_with(peer: Peer, part: bytes) -> bytes:
    while part not in (line := await peer.line()):
        pass
    return line


async def test_profile_is_followed_while_it_is_open_and_ends_its_subscriptions(
    tmp_path: Path,
) -> None:
    workspace = home_workspace(tmp_path, text("good"))
    async with running(workspace), connected(workspace, "proxy", profile="work") as peer:
        await ask(peer, 1, "subscriptions/listen", notifications={"toolsListChanged": True})
        await line_with(peer, b"acknowledged")
        workspace.manifest.write_text(text("good", "changing-tools"), encoding="utf-8")
        await request(workspace, "octave/reload")
        await line_with(peer, TOOLS)
        await ask(peer, 2, "tools/list")
        names = {tool["name"] for tool in (await peer.answer(2))["result"]["tools"]}
        assert {"good__echo", "changing-tools__add"} <= names
        workspace.manifest.write_text(text(), encoding="utf-8")
        await request(workspace, "octave/reload")
        assert (await peer.answer(1))["result"]["resultType"] == "complete"
        await ask(peer, 3, "tools/list")
        assert (await peer.answer(3))["result"]["tools"] == []
