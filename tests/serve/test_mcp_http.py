"""The modern era over HTTP, and both eras at a whole runtime with real servers."""

import functools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from octave.gateway import bridge
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from octave.serve import mcp_sessions, sse
from tests.serve.mcp_client import (
    BOUND_S,
    HEADERS,
    META,
    Events,
    Stage,
    body,
    initialize,
    modern,
    staged,
)
from tests.serve.running import home_workspace, manifest_text, running
from tests.serve.test_mcp_legacy import Held, at_once, connect, note, raw_post, receive_all

pytestmark = pytest.mark.anyio

Send = Callable[[bytes], None]
MISMATCH = -32020


@pytest.fixture
def stage() -> Stage:
    return Stage(at_once)


@pytest.fixture
async def client(stage: Stage, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with staged(tmp_path, stage) as client:
        yield client


def verdict(response: httpx.Response) -> tuple[int, int]:
    """The status, and the code of the JSON-RPC error."""
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()["error"]["code"]


# The ladder, row by row.


async def test_row_2_modern_requests_are_posted(client: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE", "PUT"):
        headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Session-Id": "x"}
        response = await client.request(method, "/mcp", headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_row_3_both_kinds_of_answer_must_be_accepted(client: httpx.AsyncClient) -> None:
    ask = modern("x")
    ask["headers"]["Accept"] = "application/json"
    assert verdict(await client.post("/mcp", **ask)) == (406, -32600)
    ask = modern("x")
    ask["headers"]["Content-Type"] = "text/plain"
    assert (await client.post("/mcp", **ask)).status_code == 415
    ask["headers"] |= {"Content-Type": "application/json", "Accept": "*/*"}
    assert (await client.post("/mcp", **ask)).status_code == 200


async def test_row_4_what_is_no_json_is_refused(client: httpx.AsyncClient) -> None:
    for content in [b"", b"{", b'{"a":' * 100_000 + b"1", b"\xff"]:
        response = await client.post("/mcp", content=content, headers=modern("x")["headers"])
        assert verdict(response) == (400, -32700)
        assert response.json()["id"] is None


async def test_row_5_notifications_are_dropped(client: httpx.AsyncClient, stage: Stage) -> None:
    content = body("notifications/cancelled", {"requestId": 1}, None)
    response = await client.post("/mcp", content=content, headers=modern("x")["headers"])
    assert (response.status_code, response.content) == (202, b"")
    headers = {"MCP-Protocol-Version": "2099-01-01"}
    response = await client.post("/mcp", content=content, headers=headers)
    assert verdict(response) == (400, -32022)
    assert response.json()["error"]["data"] == {
        "supported": [MODERN_VERSION],
        "requested": "2099-01-01",
    }
    assert not stage.sessions


async def test_row_6_anything_but_one_request_is_refused(client: httpx.AsyncClient) -> None:
    for content in [
        b"[]",
        b"[%b]" % modern("x")["content"],
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"method":"x"}',
        b'{"id":1,"method":"x"}',
    ]:
        response = await client.post("/mcp", content=content, headers=modern("x")["headers"])
        assert verdict(response) == (400, -32600)


@pytest.mark.parametrize("name", ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"])
async def test_row_7_a_routing_header_is_given_once(client: httpx.AsyncClient, name: str) -> None:
    ask = modern("tools/call", {"name": "echo"}, "seven")
    headers = [*ask["headers"].items(), (name.upper(), ask["headers"][name])]
    response = await client.post("/mcp", content=ask["content"], headers=headers)
    assert verdict(response) == (400, MISMATCH)
    assert response.json()["id"] == "seven"


async def test_row_8_the_envelope_is_required(client: httpx.AsyncClient) -> None:
    metas: list[Any] = [None, 1, {}, {VERSION_KEY: MODERN_VERSION}, {CAPABILITIES_KEY: {}}]
    for meta in metas:
        params = {} if meta is None else {"_meta": meta}
        response = await client.post(
            "/mcp", content=body("x", params, 8), headers=modern("x")["headers"]
        )
        assert verdict(response) == (400, -32602)
        assert response.json()["id"] == 8


async def test_row_9_headers_say_what_the_body_says(client: httpx.AsyncClient) -> None:
    cases: list[tuple[str, dict[str, Any], dict[str, str | None]]] = [
        ("tools/list", {}, {"MCP-Protocol-Version": "v999.0.0"}),
        ("tools/list", {}, {"MCP-Protocol-Version": "2025-11-25"}),
        ("tools/list", {}, {"MCP-Protocol-Version": None}),
        ("tools/list", {}, {"Mcp-Method": "prompts/list"}),
        ("tools/list", {}, {"Mcp-Method": "TOOLS/LIST"}),
        ("tools/list", {}, {"Mcp-Method": None}),
        ("tools/call", {"name": "echo"}, {"Mcp-Name": "wrong"}),
        ("tools/call", {"name": "echo"}, {"Mcp-Name": None}),
        ("prompts/get", {"name": "a"}, {"Mcp-Name": "=?base64?YQ?="}),
        ("resources/read", {"uri": "a:b"}, {"Mcp-Name": "a:c"}),
    ]
    for method, params, changes in cases:
        ask = modern(method, params, "")
        headers = {
            name: value
            for name, value in {**ask["headers"], **changes}.items()
            if value is not None
        }
        response = await client.post("/mcp", content=ask["content"], headers=headers)
        assert verdict(response) == (400, MISMATCH)
        assert response.json()["id"] == ""


async def test_row_9_encoded_names_and_spaces_around_values_are_right(
    client: httpx.AsyncClient,
) -> None:
    ask = modern("tools/call", {"name": "\xfc"})
    headers = {**ask["headers"], "Mcp-Name": "  =?base64?w7w=?= \t", "Connection": "close"}
    headers["mcp-METHOD"] = headers.pop("Mcp-Method")
    async with await connect(client) as stream:
        await stream.send(raw_post(client, headers, ask["content"]))
        assert (await receive_all(stream)).startswith(b"HTTP/1.1 200 OK")


async def test_row_10_the_version_is_served(client: httpx.AsyncClient) -> None:
    version = "v999.0.0"
    content = body("x", {"_meta": {**META, VERSION_KEY: version}}, 10)
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": "x"}
    response = await client.post("/mcp", content=content, headers=headers)
    assert verdict(response) == (400, -32022)
    assert response.json()["error"]["data"]["requested"] == version


async def test_row_12_methods_of_the_other_era_do_not_exist(client: httpx.AsyncClient) -> None:
    for method in sorted(bridge.NOT_MODERN):
        response = await client.post("/mcp", **modern(method, {}, 12))
        assert verdict(response) == (404, -32601)
        assert response.json()["id"] == 12


async def fail(code: int, message: wire.Message, _: Send) -> bytes:
    return wire.error(message.id, code, "no")


async def test_row_13_an_error_has_its_status(client: httpx.AsyncClient, stage: Stage) -> None:
    for code, status in [
        *((-32600, 400), (-32601, 404), (-32602, 400), (-32700, 400)),
        *((-32020, 400), (-32021, 400), (-32022, 400), (-32603, 200), (-1, 200), (0, 200)),
    ]:
        stage.script = functools.partial(fail, code)
        assert verdict(await client.post("/mcp", **modern("x"))) == (status, code)


async def test_a_result_that_speaks_of_errors_is_none(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    answer = b'{"jsonrpc":"2.0","id":1,"result":{"error":{"code":-32601}}}'

    async def speak(*_: object) -> bytes:
        return answer

    stage.script = speak
    response = await client.post("/mcp", **modern("x"))
    assert (response.status_code, response.content) == (200, answer)


async def test_what_is_nested_deeply_passes(client: httpx.AsyncClient, stage: Stage) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    error = b'{"message":"no","data":%b,"code":-32601}' % deep
    said = wire.notification("notifications/x", b'{"a":%b}' % deep)

    async def answer(message: wire.Message, send: Send) -> bytes:
        if message.method != "x":
            send(said)
        return b'{"jsonrpc":"2.0","id":1,"error":%b}' % error

    stage.script = answer
    response = await client.post("/mcp", **modern("x"))
    assert (response.status_code, response.content.count(b"[")) == (404, 100_000)
    async with client.stream("POST", "/mcp", **modern("subscriptions/listen")) as stream:
        events = await Events(stream).rest()
    assert [event.data.count("[") for event in events] == [100_000, 100_000]


# Requests.


async def test_modern_requests_share_a_session_and_mint_no_ids(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    for path in ("/mcp", "/mcp", "/mcp/profiles/p"):
        ask = modern("x")
        ask["headers"]["Mcp-Session-Id"] = "whatever"
        response = await client.post(path, **ask)
        assert response.status_code == 200
        assert "mcp-session-id" not in response.headers
    assert len(stage.sessions) == 2


async def test_clients_may_use_the_same_ids_at_once(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    held = stage.script = Held()
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            assert (await client.post("/mcp", **modern("x"))).status_code == 200

        for _ in range(3):
            tasks.start_soon(ask)
        await held.until(held.begun, 3)
        held.release.set()


async def test_a_request_turns_into_a_stream_at_its_first_message(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    held = stage.script = Held(note("a"))
    async with client.stream("POST", "/mcp", **modern("subscriptions/listen")) as response:
        assert "mcp-session-id" not in response.headers
        events = Events(response)
        first = await events.next()
        assert (first.message["params"]["data"], first.id, first.retry) == ("a", None, None)
        held.send(note("b"))
        assert (await events.next()).message["params"]["data"] == "b"
        held.release.set()
        (answer,) = await events.rest()
        assert answer.message["result"] == {"ok": True}


@pytest.mark.parametrize("lines", [(), (note("a"),)])
async def test_a_client_that_leaves_cancels(
    client: httpx.AsyncClient, stage: Stage, lines: tuple[bytes, ...]
) -> None:
    held = stage.script = Held(*lines)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.post("/mcp", **modern("x")))
        await held.until(held.begun)
        tasks.cancel_scope.cancel()
    await held.until(held.cancelled)


async def test_a_client_that_does_not_read_is_cut_off_and_cancels(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CUT_AFTER_BYTES", 2**20)
    cut = anyio.Event()

    async def flood(_: wire.Message, send: Send) -> bytes:
        line = note("x" * 2**16)
        try:
            with anyio.fail_after(BOUND_S):
                while True:
                    send(line)
                    await anyio.lowlevel.checkpoint()
        finally:
            cut.set()

    stage.script = flood
    ask = modern("x")
    async with await connect(client) as stream:
        await stream.send(raw_post(client, ask["headers"], ask["content"]))
        with anyio.fail_after(BOUND_S):
            await cut.wait()
        assert (await receive_all(stream)).startswith(b"HTTP/1.1 200 OK")
    stage.script = at_once
    assert (await client.post("/mcp", **modern("x"))).status_code == 200


async def test_a_changed_profile_has_a_new_session_and_the_old_calls_end_in_the_old(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = stage.script = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.post("/mcp/profiles/p", **modern("x")))
        await held.until(held.begun)
        stage.profile = ("one",)
        stage.script = at_once
        assert (await client.post("/mcp/profiles/p", **modern("y"))).status_code == 200
        assert len(stage.sessions) == 1, "the manifest is not read for each request"
        stage.now_s += mcp_sessions.SCOPE_S
        assert (await client.post("/mcp/profiles/p", **modern("y"))).status_code == 200
        old, new = stage.sessions
        assert not old.is_closed
        held.release.set()
    with anyio.fail_after(BOUND_S):
        await old.ended.wait()
    assert not new.is_closed


async def test_the_end_of_the_runtime_ends_what_is_open(tmp_path: Path) -> None:
    held = Held(note("a"))
    stage = Stage(held)
    ended = anyio.Event()

    async def listen(_: wire.Message, send: Send) -> bytes:
        send(note("listening"))
        await stage.sessions[-1].ended.wait()
        return wire.result(b"1", b'{"bye":true}')

    async def follow(client: httpx.AsyncClient, *, task_status: Any) -> None:
        async with client.stream("POST", "/mcp", **modern("x")) as response:
            events = Events(response)
            await events.next()
            task_status.started()
            (answer,) = await events.rest()
            assert answer.message["result"] == {"bye": True}
            ended.set()

    async def hang(client: httpx.AsyncClient) -> None:
        headers = await initialize(client)
        response = await client.post("/mcp", content=body("x"), headers=headers)
        assert '"error"' in response.text

    async with anyio.create_task_group() as tasks, staged(tmp_path, stage) as client:
        tasks.start_soon(hang, client)
        await held.until(held.begun)
        stage.script = listen
        await tasks.start(follow, client)
        stage.stop()
        with anyio.CancelScope(shield=True), anyio.fail_after(BOUND_S):
            await ended.wait()
    assert held.cancelled == [b"1"]


# A whole runtime, with real servers.


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    servers = ("good", "hang_on_call", "annotated")
    text = manifest_text(
        *servers,
        runtime='port = 0\nmax_message = "5MiB"',
        table=f"env = {{ HOSTILE_STATE = {json.dumps(str(tmp_path / 'state'))} }}",
    )
    text += '[profiles.work]\nservers = ["good"]\n'
    workspace = home_workspace(tmp_path / "h", text)
    async with running(workspace) as told:
        token = workspace.token.read_text()
        headers = {**HEADERS, "Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            base_url=told.facts["url"], headers=headers, timeout=2 * BOUND_S
        ) as client:
            yield client


async def test_each_endpoint_shows_its_servers(runtime: httpx.AsyncClient) -> None:
    for path, name in [
        ("/mcp", "good__echo"),
        ("/mcp/profiles/work", "good__echo"),
        ("/mcp/servers/good", "echo"),
    ]:
        headers = await initialize(runtime, path)
        listed = await runtime.post(path, content=body("tools/list"), headers=headers)
        names = [tool["name"] for tool in listed.json()["result"]["tools"]]
        assert name in names
        assert ("hang-on-call__hang" in names) == (path == "/mcp")
        params = {"name": name, "arguments": {"text": "hi"}}
        called = await runtime.post(path, content=body("tools/call", params), headers=headers)
        assert called.json()["result"]["content"] == [{"type": "text", "text": "hi"}]
        assert (await runtime.delete(path, headers=headers)).status_code == 200


async def test_a_name_nobody_has_is_not_found(runtime: httpx.AsyncClient) -> None:
    for path, code in [
        ("/mcp/servers/god", "server_not_found"),
        ("/mcp/profiles/wok", "not_found"),
    ]:
        for response in (
            await runtime.post(path, content=body("initialize")),
            await runtime.post(path, **modern("tools/list")),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (404, code)
    assert (await runtime.get("/mcp/nothing")).status_code == 404


async def test_a_modern_call_reaches_the_server(runtime: httpx.AsyncClient) -> None:
    ask = modern("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
    response = await runtime.post("/mcp/servers/good", **ask)
    assert response.status_code == 200
    assert response.json()["result"]["content"] == [{"type": "text", "text": "hi"}]


async def test_row_11_annotated_arguments_are_repeated(runtime: httpx.AsyncClient) -> None:
    for tool, arguments, headers, status in [
        ("where", {"region": "eu"}, {"Mcp-Param-Region": "eu"}, 200),
        (
            "where",
            {"region": "eu", "n": 42},
            {"mcp-param-REGION": "eu", "Mcp-Param-N": "42.0"},
            200,
        ),
        ("where", {"region": "ü"}, {"Mcp-Param-Region": "=?base64?w7w=?="}, 200),
        ("where", {"region": None}, {}, 200),
        ("where", {}, {}, 200),
        ("where", {"region": "eu"}, {}, 400),
        ("where", {"region": "eu"}, {"Mcp-Param-Region": "us"}, 400),
        ("where", {"region": "Hello"}, {"Mcp-Param-Region": "=?base64?SGVsbG8?="}, 400),
        ("where", {}, {"Mcp-Param-Region": "eu"}, 400),
        ("broken", {"a": "eu"}, {}, 200),
    ]:
        for path, name in [("/mcp/servers/annotated", tool), ("/mcp", f"annotated__{tool}")]:
            await runtime.post(path, **modern("tools/list"))
            ask = modern("tools/call", {"name": name, "arguments": arguments}, 11)
            ask["headers"] |= headers
            response = await runtime.post(path, **ask)
            assert response.status_code == status, response.text
            if status == 400:
                assert verdict(response) == (400, MISMATCH)
                assert response.json()["id"] == 11


async def test_headers_are_compared_without_waking_the_server(runtime: httpx.AsyncClient) -> None:
    path = "/mcp/servers/annotated"
    assert (await runtime.post(path, **modern("tools/list"))).status_code == 200
    await runtime.post("/api/servers/annotated/stop")
    ask = modern("tools/call", {"name": "where", "arguments": {"region": "eu"}})
    assert verdict(await runtime.post(path, **ask)) == (400, MISMATCH)
    servers = (await runtime.get("/mcp/status")).json()
    assert (servers["annotated"]["status"], servers["annotated"]["pid"]) == ("stopped", None)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_client_that_leaves_cancels_at_the_server(
    runtime: httpx.AsyncClient, tmp_path: Path, era: str
) -> None:
    path = "/mcp/servers/hang-on-call"
    journal = tmp_path / "state" / "events.log"
    params = {"name": "hang", "arguments": {}}
    ask: dict[str, Any] = modern("tools/call", params)
    if era == "legacy":
        headers = await initialize(runtime, path)
        ask = {"content": body("tools/call", params), "headers": headers}
    started = await runtime.post("/api/servers/hang-on-call/start")
    assert started.status_code == 200, started.text
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runtime.post(path, **ask))
        await written(runtime, path, journal, "call:hang")
        tasks.cancel_scope.cancel()
    await written(runtime, path, journal, "cancelled:")


async def test_a_legacy_client_cancels_by_a_notification(
    runtime: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = "/mcp/servers/hang-on-call"
    journal = tmp_path / "state" / "events.log"
    headers = await initialize(runtime, path)
    content = body("tools/call", {"name": "hang", "arguments": {}})
    answers: list[httpx.Response] = []
    started = await runtime.post("/api/servers/hang-on-call/start")
    assert started.status_code == 200, started.text
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await runtime.post(path, content=content, headers=headers))

        tasks.start_soon(ask)
        await written(runtime, path, journal, "call:hang")
        again = await runtime.post(path, content=content, headers=headers)
        assert (again.json()["id"], again.json()["error"]["code"]) == (1, -32600)
        cancel = body("notifications/cancelled", {"requestId": 1}, None)
        assert (await runtime.post(path, content=cancel, headers=headers)).status_code == 202
        await written(runtime, path, journal, "cancelled:")
    (answer,) = answers
    assert (answer.status_code, answer.json()["id"]) == (200, 1)
    assert "error" in answer.json()


async def written(runtime: httpx.AsyncClient, path: str, journal: Path, text: str) -> None:
    """Wait until the server has written that down; it does so before its next answer."""
    ask = modern("tools/call", {"name": "echo", "arguments": {}})
    with anyio.fail_after(2 * BOUND_S):
        while text not in journal.read_text(encoding="utf-8"):  # noqa: ASYNC240 - a few lines
            assert (await runtime.post(path, **ask)).status_code == 200


async def test_messages_may_be_as_long_as_the_manifest_says(runtime: httpx.AsyncClient) -> None:
    path = "/mcp/servers/good"
    headers = await initialize(runtime, path)
    for size_bytes, status in ((4 * 2**20 + 1000, 200), (5 * 2**20, 413)):
        params = {"name": "echo", "arguments": {"text": "x" * size_bytes}}
        response = await runtime.post(path, content=body("tools/call", params), headers=headers)
        assert response.status_code == status
    assert "5 MiB" in response.json()["error"]["message"]
    call = {"toolName": "echo", "serverId": "good", "arguments": {"text": "x" * 4 * 2**20}}
    assert (await runtime.post("/mcp/call", json=call)).status_code == 413


async def test_every_route_is_guarded(runtime: httpx.AsyncClient) -> None:
    for path in ("/mcp", "/mcp/servers/good", "/mcp/profiles/work"):
        for headers, status in [
            ({"Host": "evil.example.com"}, 421),
            ({"Origin": "http://evil.example.com"}, 403),
            ({"Authorization": "Bearer x"}, 401),
        ]:
            for method in ("GET", "POST", "DELETE"):
                response = await runtime.request(method, path, headers=headers)
                assert response.status_code == status


async def test_params_that_are_no_object_are_answered_by_whom_they_are_for(
    runtime: httpx.AsyncClient,
) -> None:
    content = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":[1]}'
    for path, method, said in [
        # By the server, as without Octave; where there are several, by Octave.
        ("/mcp/servers/good", b"own/method", (-32601, "Method not found: own/method")),
        ("/mcp", b"tools/call", (-32602, "`params.name` is missing, or not a string")),
        ("/mcp", b"resources/read", (-32602, "`params.uri` is missing, or not a string")),
    ]:
        headers = await initialize(runtime, path)
        response = await runtime.post(path, content=content % method, headers=headers)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["message"]) == (200, *said)
        ask = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": method.decode()}
        response = await runtime.post(path, content=content % method, headers=ask)
        assert verdict(response) == (400, -32602)


@pytest.mark.parametrize("mode", ["auto", "legacy", MODERN_VERSION])
async def test_the_sdk_is_a_client(runtime: httpx.AsyncClient, mode: str) -> None:
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    authorization = {"Authorization": runtime.headers["Authorization"]}
    for path, name in [("mcp", "good__echo"), ("mcp/servers/good", "echo")]:
        async with httpx2.AsyncClient(headers=authorization) as http:
            transport = streamable_http_client(f"{runtime.base_url}/{path}", http_client=http)
            async with Client(transport, mode=mode) as client:
                assert client.protocol_version == (
                    "2025-11-25" if mode == "legacy" else MODERN_VERSION
                )
                assert name in [tool.name for tool in (await client.list_tools()).tools]
                result = await client.call_tool(name, {"text": "hi"})
                assert [block.text for block in result.content if block.type == "text"] == ["hi"]
