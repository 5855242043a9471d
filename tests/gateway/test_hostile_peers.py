"""Clients and servers that mean harm, or go at the wrong moment: nobody else may feel it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from octave.packages.launch import LaunchSpec, Policy
from octave.runtime import wire
from octave.runtime.events import Event
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.conversation import BOUND_S, SERVERS, Client, Desk, desk, error_code, spec

pytestmark = pytest.mark.anyio

META = json.dumps({VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}})[1:-1].encode()
LONE = rb'"\ud800"'

ASKING = """
import json, os, sys
ERA = os.environ.get("ERA", "legacy")
def send(**message):
    sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\\n")
    sys.stdout.buffer.flush()
LISTS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources",
         "resources/templates/list": "resourceTemplates"}
TOOLS = [{"name": n, "inputSchema": {"type": "object"}} for n in ("ask", "hold", "told", "say")]
CAPS = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
KEY = "io.modelcontextprotocol/protocolVersion"
held, told, asked = [], [], {}
for line in sys.stdin.buffer:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if method is None:
        told.append(message)
        if number in asked:
            send(id=asked.pop(number), result={"content": [], "isError": False})
    elif number is None:
        told.append(message)
    elif method == "initialize" and ERA == "legacy":
        send(id=number, result={"protocolVersion": "2025-11-25", "capabilities": CAPS,
                                "serverInfo": {"name": "a", "version": "1"}})
    elif method == "server/discover" and ERA == "modern":
        send(id=number, result={"supportedVersions": ["2026-07-28"], "capabilities": CAPS,
                                "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
    elif ERA == "modern" and KEY not in (params.get("_meta") or {}):
        send(id=number, error={"code": -32602, "message": "no envelope"})
    elif method in LISTS:
        found = {"tools": TOOLS, "resources": [{"uri": "x:1", "name": "x"}]}
        send(id=number, result={LISTS[method]: found.get(LISTS[method], []),
                                "resultType": "complete"})
    elif method == "tools/call" and params["name"] == "ask":
        arguments = params["arguments"]
        send(id="q", method=arguments["method"], params={})
        if arguments.get("waits"):
            asked["q"] = number
        else:
            send(id=number, result={"content": []})
    elif method == "tools/call" and params["name"] == "say":
        answer = {"jsonrpc": "2.0", "id": number, "result": {"content": []}}
        lines = [*params["arguments"]["lines"], json.dumps(answer)]
        sys.stdout.buffer.write("".join(line + "\\n" for line in lines).encode())
        sys.stdout.buffer.flush()
    elif method == "tools/call" and params["name"] == "told":
        send(id=number, result={"content": [{"type": "text", "text": json.dumps(told)}]})
    elif method == "resources/subscribe" and "refuse" in params["uri"]:
        send(id=number, error={"code": -32602, "message": "no"})
    elif method in ("resources/subscribe", "resources/unsubscribe"):
        told.append({"method": method, "uri": params["uri"]})
        send(id=number, result={})
    elif method == "tools/call":
        held.append(number)
    else:
        send(id=number, error={"code": -32601, "message": "no such method"})
"""


def asking(folder: Path, name: str = "a", era: str = "legacy", **policy: object) -> LaunchSpec:
    """A server that asks its client what it is told to, and remembers what it is told."""
    script = folder / "asking.py"
    script.write_text(ASKING, encoding="utf-8")
    return LaunchSpec(
        name,
        (sys.executable, "-S", str(script)),
        folder,
        lambda: {"PYTHONUTF8": "1", "ERA": era},
        version="1",
        digest="d",
        policy=Policy(**policy),  # type: ignore[arg-type] # names of its fields
    )


def good(name: str) -> LaunchSpec:
    return spec(name, SERVERS / "good.py")


def heard(found: Desk, kind: str) -> anyio.Event:
    """An event that is set when something of that kind happens to a server."""
    event, before = anyio.Event(), found.supervisor.on_event

    def hear(happened: Event) -> None:
        before(happened)
        if happened.kind == kind:
            event.set()

    found.supervisor.on_event = hear
    return event


async def opened(client: Client, capabilities: bytes = b"{}") -> None:
    params = b'{"protocolVersion":"2025-11-25","capabilities":%b,"clientInfo":{}}' % capabilities
    await client.ask(b'"open"', "initialize", params)


# Texts that are legal JSON and no text.


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", b'{"name":%b}'),
        ("tools/call", b'{"name":%b,"_meta":{%%b}}'.replace(b"%%", b"%")),
        ("prompts/get", b'{"name":%b}'),
        ("resources/read", b'{"uri":%b}'),
        ("resources/subscribe", b'{"uri":%b}'),
        ("completion/complete", b'{"ref":{"type":"ref/prompt","name":%b}}'),
        ("completion/complete", b'{"ref":{"type":"ref/resource","uri":%b}}'),
    ],
)
async def test_a_name_with_a_lone_surrogate_is_refused_like_any_other(
    tmp_path: Path, method: str, params: bytes
) -> None:
    params = params % ((LONE, META) if params.count(b"%b") == 2 else LONE)
    async with desk(tmp_path, good("one"), good("two")) as found:
        client = await found.client()
        await client.open()
        assert error_code(await client.ask(b"1", method, params)) == wire.INVALID_PARAMS
        assert await client.ask(b"2", "ping")


async def test_a_version_with_a_lone_surrogate_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path, good("one"), good("two")) as found:
        client = await found.client()
        params = b'{"_meta":{"%b":%b,"%b":{}}}' % (
            VERSION_KEY.encode(),
            LONE,
            CAPABILITIES_KEY.encode(),
        )
        assert error_code(await client.ask(b"1", "tools/list", params)) == -32022
        assert await client.ask(b"2", "ping")


async def test_a_method_with_a_lone_surrogate_is_unknown(tmp_path: Path) -> None:
    async with desk(tmp_path, good("one"), good("two")) as found:
        client = await found.client()
        client.say(rb'{"jsonrpc":"2.0","id":1,"method":"\ud800"}')
        assert error_code(await client.answer(b"1")) == wire.METHOD_NOT_FOUND


async def test_a_server_that_asks_by_a_method_with_a_lone_surrogate_is_told_that_it_is_unknown(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, asking(tmp_path)) as found:
        client = await found.client("a", single=True)
        params = rb'{"name":"ask","arguments":{"method":"\ud800","waits":true},"_meta":{%b}}' % META
        # Modern: what it asks is passed on to nobody.
        assert wire.decode(await client.ask(b"1", "tools/call", params)).result


# Params of every kind.

ODD = (b"null", b"[]", b"[1]", b"1", b'"x"', b"true", b'{"_meta":null}', b'{"_meta":[]}')


@pytest.mark.parametrize("params", ODD)
async def test_odd_params_of_a_legacy_client_reach_a_modern_server(
    tmp_path: Path, params: bytes
) -> None:
    async with desk(tmp_path, asking(tmp_path, era="modern")) as found:
        client = await found.client("a", single=True)
        await opened(client)
        answer = await client.ask(b"1", "own/method", params)
        # Object or nothing, it passes (-32601 is the server's); the rest is no request of MCP.
        is_object = params == b"null" or params.startswith(b"{")
        assert error_code(answer) == (
            wire.METHOD_NOT_FOUND if is_object else wire.INVALID_PARAMS
        ), answer


# Who leaves.


async def test_what_a_client_subscribed_to_ends_with_it(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path)) as found:
        client, stays = await found.client("a", single=True), await found.client("a", single=True)
        await opened(client)
        await client.ask(b"1", "resources/subscribe", b'{"uri":"x:1"}')
        client.session.close()
        told = await stays.ask(b"2", "tools/call", b'{"name":"told","arguments":{}}')
        with anyio.fail_after(BOUND_S):
            while b"resources/unsubscribe" not in told:
                told = await stays.ask(b"2", "tools/call", b'{"name":"told","arguments":{}}')


async def test_a_server_is_not_kept_awake_by_a_subscriber_who_left(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, idle_timeout_s=0.05)) as found:
        client = await found.client("a", single=True)
        await opened(client)
        await client.ask(b"1", "resources/subscribe", b'{"uri":"x:1"}')
        idle = heard(found, "idle")
        client.session.close()
        with anyio.fail_after(BOUND_S):
            await idle.wait()


async def test_a_subscription_that_was_refused_is_none(tmp_path: Path) -> None:
    for era in ("legacy", "modern"):
        folder = tmp_path / era
        folder.mkdir()
        async with desk(folder, asking(folder, era=era, call_timeout_s=0.2)) as found:
            client = await found.client("a", single=True)
            await opened(client)
            for identifier in (b"1", b"2"):
                params = b'{"uri":"x:refuse"}'
                answer = await client.ask(identifier, "resources/subscribe", params)
                assert wire.decode(answer).error, era


async def test_a_listen_that_is_refused_halfway_leaves_no_subscription(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, idle_timeout_s=0.05)) as found:
        client = await found.client("a", single=True)
        params = b'{"_meta":{%b},"notifications":{"resourceSubscriptions":["x:1",1]}}' % META
        idle = heard(found, "idle")
        answer = await client.ask(b"1", "subscriptions/listen", params)
        assert error_code(answer) == wire.INVALID_PARAMS
        with anyio.fail_after(BOUND_S):
            await idle.wait()


async def test_nobody_is_asked_for_his_roots_once_he_has_left(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, instance="shared")) as found:
        client = await found.client("a", single=True)
        await opened(client, b'{"roots":{}}')
        params = b'{"name":"ask","arguments":{"method":"roots/list","waits":true}}'
        client.say(wire.request(1, "tools/call", params))
        asked = wire.decode(await client.heard("roots/list"))
        client.say(wire.result(asked.id or b"", b'{"roots":[]}'))
        await client.answer(b"1")
        client.session.close()
        stays = await found.client("a", single=True)
        # It asks again when nobody's call is open: right after it has answered.
        params = b'{"name":"ask","arguments":{"method":"roots/list"},"_meta":{%b}}' % META
        await stays.ask(b"2", "tools/call", params)
        told = b""
        with anyio.fail_after(BOUND_S):
            while b"-326" not in told:
                told = await stays.ask(b"3", "tools/call", b'{"name":"told","arguments":{}}')


async def test_a_client_that_leaves_at_once_leaves_no_process_behind(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, instance="session")) as found:
        first = await found.client("a", single=True)
        await opened(first)
        assert await first.ask(b"1", "tools/list")
        client = await found.client("a", single=True)
        client.say(wire.request(1, "tools/call", b'{"name":"hold","arguments":{}}'))
        client.session.close()
        await anyio.wait_all_tasks_blocked()
        server = found.supervisor.servers["a"]
        owners = [each.role.owner for each in server.instances]
        assert [owner.session for owner in owners if owner] == [first.session]


async def test_servers_end_although_somebody_comes_while_they_do(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, instance="session")) as found:
        client = await found.client("a", single=True)
        await opened(client)
        assert await client.ask(b"0", "tools/list")
        client.say(wire.request(1, "tools/call", b'{"name":"hold","arguments":{}}'))
        await anyio.wait_all_tasks_blocked()
        server = found.supervisor.servers["a"]
        ended = anyio.Event()

        async def close() -> None:
            await server.close()
            ended.set()

        found.tasks.start_soon(close)
        await anyio.wait_all_tasks_blocked()
        # Its own process drains, the first one is gone: another client comes.
        late = await found.client("a", single=True)
        late.say(wire.request(1, "tools/call", b'{"name":"hold","arguments":{}}'))
        await anyio.wait_all_tasks_blocked()
        client.session.close()
        late.session.close()
        with anyio.fail_after(2 * BOUND_S):
            await ended.wait()
        await anyio.wait_all_tasks_blocked()
        assert server._now._tasks is None


async def test_notifications_to_a_server_that_was_removed_are_dropped(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path)) as found:
        client = await found.client("a", single=True)
        await opened(client)
        with anyio.fail_after(BOUND_S):
            await found.supervisor.reload([])
        for method in ("notifications/roots/list_changed", "notifications/own"):
            client.say(wire.notification(method))
        assert error_code(await client.ask(b"1", "tools/list")) == wire.INVALID_PARAMS


async def test_a_process_of_ones_own_hears_once_that_the_roots_changed(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path, instance="session")) as found:
        client = await found.client("a", single=True)
        await opened(client, b'{"roots":{"listChanged":true}}')
        params = b'{"name":"ask","arguments":{"method":"roots/list","waits":true}}'
        client.say(wire.request(1, "tools/call", params))
        asked = wire.decode(await client.heard("roots/list"))
        client.say(wire.result(asked.id or b"", b'{"roots":[]}'))
        await client.answer(b"1")
        client.say(wire.notification("notifications/roots/list_changed"))
        told = await client.ask(b"2", "tools/call", b'{"name":"told","arguments":{}}')
        assert told.count(b"notifications/roots/list_changed") == 1


# Parked calls.


async def park(client: Client, identifier: bytes, state: bytes | None = None) -> bytes:
    more = b"" if state is None else b',"requestState":%b,"inputResponses":{}' % state
    meta = META.replace(b"{}", b'{"roots":{}}')
    params = b'{"name":"ask","arguments":{"method":"roots/list","waits":true}%b,"_meta":{%b}}'
    return await client.ask(identifier, "tools/call", params % (more, meta))


@pytest.mark.parametrize("state", [b"9" * 5000, b"1", b"null", b"{}", LONE, b'"x"'])
async def test_a_state_that_nobody_gave_is_refused(tmp_path: Path, state: bytes) -> None:
    async with desk(tmp_path, asking(tmp_path)) as found:
        client = await found.client("a", single=True)
        assert error_code(await park(client, b"1", state)) == wire.INVALID_PARAMS


async def test_each_round_of_a_parked_call_takes_the_place_of_the_last(tmp_path: Path) -> None:
    async with desk(tmp_path, asking(tmp_path)) as found:
        client = await found.client("a", single=True)
        loop: Any = asyncio.get_running_loop()
        answer = await park(client, b"1")
        before = len(loop._scheduled)
        for number in range(20):
            state = wire.member(answer, "result", "requestState")
            answer = await park(client, b"%d" % (number + 2), state)
        alive = sum(not timer.cancelled() for timer in loop._scheduled)
        assert alive <= before + 3


# Servers that say what is none.

SAID = (
    *("notifications/tools/list_changed", "notifications/resources/updated"),
    *("notifications/message", "notifications/progress", "notifications/cancelled", "own/x"),
)


@pytest.mark.parametrize("method", SAID)
async def test_odd_params_of_a_servers_notification_cost_nobody_anything(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(tmp_path, asking(tmp_path), good("other")) as found:
        client = await found.client()
        params = b'{"_meta":{%b},"notifications":{"toolsListChanged":true}}' % META
        client.say(wire.request(b'"listen"', "subscriptions/listen", params))
        await client.heard("notifications/subscriptions/acknowledged")
        for number, odd in enumerate((*ODD, b'{"_meta":1}', b'{"_meta":"x"}', b'{"uri":1}'), 1):
            line = wire.notification(method, odd).decode()
            params = json.dumps({"name": "a__say", "arguments": {"lines": [line]}}).encode()
            assert wire.decode(await client.ask(b"%d" % number, "tools/call", params)).result
            if method == SAID[0]:
                # Until it was told: then the catalogue has lived through it.
                client.lines.clear()
                await client.heard(method)
                client.lines.clear()
        assert await client.ask(b'"end"', "tools/list", b"{}")
        assert found.catalogue._tasks is not None
    assert not caplog.records
