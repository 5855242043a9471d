"""What servers say by themselves, over HTTP: each session hears its own, by the right stream."""

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import httpx
import pytest

from tests.gateway.test_list_changes import CHANGING, SUBSCRIBE, tags, told
from tests.gateway.test_log_levels import LEVELS, LOUD, heard, set_level
from tests.serve.running import home_workspace, running
from tests.transparency import scenes
from tests.transparency.conversation import PROBE, Probe, Talk
from tests.transparency.posted import HEADERS, Poster
from tests.transparency.scripts import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    UPDATED,
    Era,
    Scene,
    call,
    filled,
    listen,
)

pytestmark = pytest.mark.anyio
SERVERS = pytest.mark.parametrize("server", ["legacy", "modern"])
PATHS = pytest.mark.parametrize("path", ["/mcp", "/mcp/servers/one", "/mcp/profiles/all"])
SCENE = Scene(
    "",
    {},
    {
        "legacy": {
            **CHANGING.server["legacy"],
            **LOUD,
            "logging/setLevel": ['{"jsonrpc":"2.0","id":$ID,"result":{}}'],
        },
        "modern": {**CHANGING.server["modern"], **LOUD},
    },
)


@dataclass(frozen=True, slots=True)
class House:
    """A runtime with a server `one`, and those who come to it."""

    url: str
    client: httpx.AsyncClient
    tasks: anyio.abc.TaskGroup

    async def guest(self, era: Era, path: str) -> Talk:
        """A client that has opened its conversation, and reads what it is told."""
        talk = Talk(era, {})
        out, said = anyio.create_memory_object_stream[bytes](100)
        talk.send = out.send_nowait
        poster = Poster(self.client, self.url + path, talk, era, self.tasks)
        self.tasks.start_soon(post_all, poster, out, said)
        await talk.open()
        return talk


async def post_all(
    poster: Poster,
    out: anyio.abc.ObjectSendStream[bytes],
    said: anyio.abc.ObjectReceiveStream[bytes],
) -> None:
    async with out, said:
        await poster.post_all(said)


@pytest.fixture
async def house(tmp_path: Path, server: str) -> AsyncIterator[House]:
    probe = Probe(tmp_path, SCENE, server, "one")
    command = json.dumps([sys.executable, "-S", os.fspath(PROBE), *probe.words])
    text = f"[runtime]\nport = 0\n[servers.one]\ncommand = {command}\nauto_start = true\n"
    workspace = home_workspace(tmp_path / "h", f'{text}[profiles.all]\nservers = ["one"]\n')
    async with running(workspace) as told:
        headers = {**HEADERS, "Authorization": f"Bearer {workspace.token.read_text()}"}
        url = str(told.facts["url"])
        async with (
            httpx.AsyncClient(headers=headers, timeout=5.0) as client,
            anyio.create_task_group() as tasks,
        ):
            assert (await client.get(f"{url}/mcp/tools")).is_success
            yield House(url, client, tasks)
            tasks.cancel_scope.cancel()


def named(path: str, name: str) -> str:
    return name if "servers" in path else f"one__{name}"


@SERVERS
@PATHS
async def test_changed_lists_reach_stand_alone_streams_and_subscriptions(
    house: House, path: str
) -> None:
    first, second = [await house.guest("legacy", path) for _ in range(2)]
    tools, prompts = [await house.guest("modern", path) for _ in range(2)]
    for talk, identifier, kind in ((tools, '"t"', "tools"), (prompts, "2.50", "prompts")):
        talk.say(filled("modern", listen(identifier, f'"{kind}ListChanged":true').line).encode())
        await talk.hears(ACKNOWLEDGED)
    await first.once(filled("legacy", call("1", named(path, "change"))).encode())
    for talk in (first, second):
        for method in LIST_CHANGED:
            await talk.hears(method)
    await tools.hears(LIST_CHANGED[0])
    await prompts.hears(LIST_CHANGED[1])
    assert set(told(tools, *LIST_CHANGED)) == {LIST_CHANGED[0]}
    assert set(told(prompts, *LIST_CHANGED)) == {LIST_CHANGED[1]}
    assert tags(tools, LIST_CHANGED[0]) == {b'"t"'}
    assert tags(prompts, LIST_CHANGED[1]) == {b"2.50"}


@SERVERS
@PATHS
async def test_updates_reach_only_the_sessions_that_subscribed(house: House, path: str) -> None:
    subscriber, idle = [await house.guest("legacy", path) for _ in range(2)]
    listener = await house.guest("modern", path)
    assert b'"result":{}' in await subscriber.once((SUBSCRIBE % ("s", "subscribe", "one")).encode())
    wanted = listen('"l"', '"resourceSubscriptions":["one://one"]').line
    listener.say(filled("modern", wanted).encode())
    await listener.hears(ACKNOWLEDGED)
    await idle.once(filled("legacy", call("1", named(path, "touch"))).encode())
    await subscriber.hears(UPDATED)
    await listener.hears(UPDATED)
    assert tags(listener, UPDATED) == {b'"l"'}
    await idle.once(b'{"jsonrpc":"2.0","id":"p","method":"ping"}')
    assert told(idle, UPDATED) == []


@SERVERS
@PATHS
async def test_log_lines_come_by_the_stream_of_their_call_at_the_level_of_their_session(
    house: House, path: str
) -> None:
    loud, calm = [await house.guest("legacy", path) for _ in range(2)]
    new = await house.guest("modern", path)
    for talk, level in ((loud, "warning"), (calm, "emergency")):
        await set_level(talk, level)
    for talk, expected in ((loud, LEVELS), (calm, LEVELS[2:])):
        await talk.once(filled("legacy", call("1", named(path, "log"))).encode())
        # All that was said in the call is there when its answer comes.
        assert heard(talk)[-len(expected) :] == expected
    asked = call("1", named(path, "log")).replace('"_meta":{$ENV', scenes.LOG_LEVEL)
    await new.once(filled("modern", asked.replace('"warning"', '"error"')).encode())
    assert heard(new) == LEVELS[1:]
