"""Sessions of the handshake era over HTTP, whose answers a script gives."""

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest

from octave.gateway import eras
from octave.runtime import wire
from octave.serve import mcp_http, mcp_sessions, sse
from tests.serve.mcp_client import BOUND_S, HEADERS, Events, Stage, body, initialize, staged

pytestmark = pytest.mark.anyio

Send = Callable[[bytes], None]


async def at_once(message: wire.Message, _: Send) -> bytes:
    return wire.result(message.id or b"", b'{"ok":true}')


class Held:
    """A script whose answers wait to be released."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = lines
        self.begun: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.more = anyio.Event()
        self.release = anyio.Event()
        self.send: Send = lambda _: None

    async def __call__(self, message: wire.Message, send: Send) -> bytes:
        identifier = message.id or b""
        self.send = send
        for line in self.lines:
            send(line)
        self._tell(self.begun, identifier)
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self._tell(self.cancelled, identifier)
            raise
        return wire.result(identifier, b'{"ok":true}')

    async def until(self, count_of: list[bytes], count: int = 1) -> None:
        with anyio.fail_after(BOUND_S):
            while len(count_of) < count:
                await self.more.wait()

    def _tell(self, where: list[bytes], identifier: bytes) -> None:
        where.append(identifier)
        told, self.more = self.more, anyio.Event()
        told.set()


def note(text: str) -> bytes:
    return wire.notification("notifications/message", json.dumps({"data": text}).encode())


def code(response: httpx.Response) -> int:
    return int(response.json()["error"]["code"])


@pytest.fixture
def stage() -> Stage:
    return Stage(at_once)


@pytest.fixture
async def client(stage: Stage, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with staged(tmp_path, stage) as client:
        yield client


@pytest.mark.parametrize("version", eras.LEGACY_VERSIONS)
async def test_a_session_is_opened_in_each_version(client: httpx.AsyncClient, version: str) -> None:
    headers = await initialize(client, version=version)
    identifier = headers["Mcp-Session-Id"]
    assert len(identifier) >= 43
    assert all("\x21" <= character <= "\x7e" for character in identifier)
    assert (await initialize(client, version=version))["Mcp-Session-Id"] != identifier
    response = await client.post("/mcp", content=body("x"), headers=headers)
    assert response.headers["content-type"] == "application/json"
    assert response.content == b'{"jsonrpc":"2.0","id":1,"result":{"ok":true}}'


async def test_ids_come_back_as_they_were(client: httpx.AsyncClient) -> None:
    headers = await initialize(client)
    for identifier in (b"0", b'""', b'"a\\u00e9"', b"-7", b"123456789012345678901234567890"):
        content = wire.request(identifier, "x")
        response = await client.post("/mcp", content=content, headers=headers)
        assert wire.decode(response.content).id == identifier


async def test_without_a_session_nothing_is_answered(client: httpx.AsyncClient) -> None:
    for content in (body("x"), body("notifications/initialized", None, None)):
        response = await client.post("/mcp", content=content)
        assert (response.status_code, code(response)) == (400, -32600)
        response = await client.post("/mcp", content=content, headers={"Mcp-Session-Id": "x"})
        assert (response.status_code, code(response)) == (404, -32600)
    assert (await client.post("/mcp", content=body("x", None, 7))).json()["id"] == 7
    assert (await client.delete("/mcp")).status_code == 400
    assert (await client.delete("/mcp", headers={"Mcp-Session-Id": "x"})).status_code == 404
    assert (await client.get("/mcp")).status_code == 400


async def test_a_session_belongs_to_its_endpoint(client: httpx.AsyncClient) -> None:
    headers = await initialize(client, "/mcp/profiles/p")
    response = await client.post("/mcp", content=body("x"), headers=headers)
    assert response.status_code == 404
    response = await client.post("/mcp/profiles/p", content=body("x"), headers=headers)
    assert response.status_code == 200


async def test_deleted_a_session_is_gone(client: httpx.AsyncClient, stage: Stage) -> None:
    headers = await initialize(client)
    held = stage.script = Held()
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            response = await client.post("/mcp", content=body("x"), headers=headers)
            assert code(response) == mcp_sessions.REQUEST_CANCELLED

        tasks.start_soon(ask)
        await held.until(held.begun)
        assert (await client.delete("/mcp", headers=headers)).status_code == 200
    assert held.cancelled == [b"1"]
    assert stage.sessions[0].is_closed
    for response in (
        await client.post("/mcp", content=body("x"), headers=headers),
        await client.delete("/mcp", headers=headers),
        await client.get("/mcp", headers=headers),
    ):
        assert (response.status_code, code(response)) == (404, -32600)


async def test_notifications_and_answers_are_taken(client: httpx.AsyncClient, stage: Stage) -> None:
    headers = await initialize(client)
    answer = b'{"jsonrpc":"2.0","id":"srv-1","result":{"roots":[]}}'
    response = await client.post("/mcp", content=answer, headers=headers)
    assert (response.status_code, response.content) == (202, b"")
    assert stage.sessions[0].taken[-1].line == answer


async def test_what_is_no_message_is_refused(client: httpx.AsyncClient) -> None:
    for content, expected in [
        (b"", -32700),
        (b"{", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"x"} x', -32700),
        (b'{"a":' * 100_000, -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"x"}]', -32600),
        (b'{"id":1,"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', -32600),
        (b"1", -32600),
    ]:
        headers = await initialize(client)
        response = await client.post("/mcp", content=content, headers=headers)
        assert (response.status_code, code(response)) == (400, expected)
        assert response.json()["id"] is None


async def test_a_message_on_many_lines_becomes_one(client: httpx.AsyncClient, stage: Stage) -> None:
    headers = await initialize(client)
    lines: list[bytes] = []

    async def keep(message: wire.Message, _: Send) -> bytes:
        lines.append(message.line)
        return wire.result(b"1", b"{}")

    stage.script = keep
    content = b'{"jsonrpc":"2.0",\r\n"id":1,\n"method":"x","params":{"a":"\\n"}}\n'
    response = await client.post("/mcp", content=content, headers=headers)
    assert response.status_code == 200
    assert lines == [b'{"jsonrpc":"2.0",  "id":1, "method":"x","params":{"a":"\\n"}} ']


async def test_a_client_must_take_both_kinds_of_answer(client: httpx.AsyncClient) -> None:
    for accept in ["application/json", "text/event-stream", "text/html", ""]:
        response = await client.post("/mcp", content=body("initialize"), headers={"Accept": accept})
        assert response.status_code == 406


async def test_other_verbs_are_not_allowed(client: httpx.AsyncClient) -> None:
    response = await client.put("/mcp", content=b"{}")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST, DELETE")


async def test_unknown_names_are_not_found(client: httpx.AsyncClient) -> None:
    for path in ["/mcp/servers/two", "/mcp/profiles/q"]:
        for response in (
            await client.post(path, content=body("initialize")),
            await client.get(path),
            await client.delete(path),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


# Streams of a call.


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
async def test_what_comes_before_the_answer_makes_it_a_stream(
    client: httpx.AsyncClient, stage: Stage, version: str
) -> None:
    headers = await initialize(client, version=version)
    held = stage.script = Held(note("a"), note("b"))
    async with client.stream("POST", "/mcp", content=body("x"), headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        events = Events(response)
        if version == "2025-11-25":
            primed = await events.next()
            assert (primed.data, primed.retry, bool(primed.id)) == ("", 1000, True)
        first, second = await events.next(), await events.next()
        assert [event.message["params"]["data"] for event in (first, second)] == ["a", "b"]
        assert first.id != second.id
        held.release.set()
        (answer,) = await events.rest()
        assert answer.data == '{"jsonrpc":"2.0","id":1,"result":{"ok":true}}'


async def test_a_question_of_the_server_is_answered_by_another_post(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    headers = await initialize(client)
    question = wire.request(b'"q-1"', "elicitation/create", b"{}")

    async def ask(message: wire.Message, send: Send) -> bytes:
        send(question)
        (session,) = stage.sessions
        while not session.taken or session.taken[-1].id != b'"q-1"':
            session.took = anyio.Event()
            await session.took.wait()
        return wire.result(message.id or b"", session.taken[-1].result or b"")

    stage.script = ask
    async with client.stream("POST", "/mcp", content=body("x"), headers=headers) as response:
        events = Events(response)
        await events.next()
        assert (await events.next()).data.encode() == question
        content = b'{"jsonrpc":"2.0","id":"q-1","result":{"action":"decline"}}'
        assert (await client.post("/mcp", content=content, headers=headers)).status_code == 202
        (answer,) = await events.rest()
        assert answer.message["result"] == {"action": "decline"}


async def test_silence_turns_an_answer_into_a_stream_with_comments(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await initialize(client, version="2025-06-18")
    held = stage.script = Held()
    monkeypatch.setattr(mcp_http, "SILENCE_S", 0.02)
    async with client.stream("POST", "/mcp", content=body("x"), headers=headers) as response:
        events = Events(response)
        await events.comment()
        await events.comment()
        held.release.set()
        (answer,) = await events.rest()
    assert answer.message["result"] == {"ok": True}


async def test_three_requests_at_once_are_answered_each_on_its_own(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    headers = await initialize(client)
    held = stage.script = Held()
    found: dict[int, object] = {}

    async def ask(number: int) -> None:
        content = body("tools/list", None, number)
        response = await client.post("/mcp", content=content, headers=headers)
        assert response.status_code == 200
        found[number] = response.json()["id"]

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(ask, number)
        await held.until(held.begun, 3)
        held.release.set()
    assert found == {0: 0, 1: 1, 2: 2}


async def test_a_client_that_leaves_before_any_event_cancels(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    headers = await initialize(client)
    held = stage.script = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: client.post("/mcp", content=body("x"), headers=headers))
        await held.until(held.begun)
        tasks.cancel_scope.cancel()
    await held.until(held.cancelled)


# Coming back.


async def test_a_call_goes_on_without_its_connection_and_is_resumed(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    headers = await initialize(client)
    held = stage.script = Held(note("a"), note("b"))
    async with client.stream("POST", "/mcp", content=body("x"), headers=headers) as response:
        events = Events(response)
        await events.next()
        first = await events.next()
        assert first.id is not None
    held.send(note("c"))
    held.release.set()
    again = {**headers, "Last-Event-ID": first.id}
    async with client.stream("GET", "/mcp", headers=again) as response:
        resumed = [event for event in await Events(response).rest() if event.data]
    assert not held.cancelled
    assert [event.message.get("params", {}).get("data") for event in resumed] == ["b", "c", None]
    assert resumed[-1].message["result"] == {"ok": True}
    # And once more, as this connection may have been lost too.
    async with client.stream("GET", "/mcp", headers=again) as response:
        once_more = [event for event in await Events(response).rest() if event.data]
    assert once_more == resumed


async def test_the_primed_id_leads_to_everything(client: httpx.AsyncClient, stage: Stage) -> None:
    headers = await initialize(client)
    held = stage.script = Held(note("a"))
    async with client.stream("POST", "/mcp", content=body("x"), headers=headers) as response:
        primed = await Events(response).next()
        assert (primed.data, primed.retry) == ("", 1000)
    held.release.set()
    again = {**headers, "Last-Event-ID": primed.id or ""}
    async with client.stream("GET", "/mcp", headers=again) as response:
        found = [event for event in await Events(response).rest() if event.data]
    assert [event.message.get("method") for event in found] == ["notifications/message", None]


async def test_an_event_nobody_was_sent_leads_nowhere(client: httpx.AsyncClient) -> None:
    for event_id in ["", "x", "9-1", "1", "1-", "1-x", "1--1", "0-9e9", "1-٣"]:
        headers = await initialize(client)
        again = [(name.encode(), value.encode()) for name, value in headers.items()]
        again.append((b"Last-Event-ID", event_id.encode()))
        response = await client.get("/mcp", headers=again)
        assert (response.status_code, code(response)) == (400, -32600)


async def test_few_finished_streams_are_kept(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "FINISHED_STREAMS", 2)
    headers = await initialize(client)

    async def chatty(message: wire.Message, send: Send) -> bytes:
        send(note("a"))
        return wire.result(message.id or b"", b"{}")

    stage.script = chatty
    ids = []
    for _ in range(4):
        response = await client.post("/mcp", content=body("x"), headers=headers)
        ids.append(response.text.partition("id: ")[2].partition("\n")[0])
    statuses = [
        (await client.get("/mcp", headers={**headers, "Last-Event-ID": each})).status_code
        for each in ids
    ]
    assert statuses == [400, 400, 200, 200]


# The stand-alone stream.


async def test_what_belongs_to_no_request_waits_for_the_stand_alone_stream(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEPT_BYTES", 200)
    headers = await initialize(client)
    (session,) = stage.sessions
    for number in range(10):
        session.say(note(str(number)))
    async with client.stream("GET", "/mcp", headers=headers) as response:
        events = Events(response)
        assert (await events.next()).retry == 1000
        kept = [await events.next(), await events.next()]
        assert [event.message["params"]["data"] for event in kept] == ["8", "9"]
        session.say(note("live"))
        live = await events.next()
        assert live.message["params"]["data"] == "live"
        second = await client.get("/mcp", headers=headers)
        assert (second.status_code, code(second)) == (409, -32600)
        # Whoever says what it has read has lost its connection, even if we do not know.
        again = {**headers, "Last-Event-ID": kept[-1].id or ""}
        async with client.stream("GET", "/mcp", headers=again) as resumed:
            more = Events(resumed)
            await more.next()
            assert (await more.next()).data == live.data
            assert await events.rest() == []
            await client.delete("/mcp", headers=headers)
            assert await more.rest() == []


async def test_the_stand_alone_stream_must_be_accepted(client: httpx.AsyncClient) -> None:
    headers = {**await initialize(client), "Accept": "application/json"}
    assert (await client.get("/mcp", headers=headers)).status_code == 406


# Bounds.


async def test_a_session_ends_when_its_client_stays_away(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    headers = await initialize(client)
    stage.now_s += mcp_sessions.IDLE_S - 1
    assert (await client.post("/mcp", content=body("x"), headers=headers)).status_code == 200
    stage.now_s += mcp_sessions.IDLE_S - 1
    async with client.stream("GET", "/mcp", headers=headers) as response:
        await Events(response).next()
        stage.now_s += 2 * mcp_sessions.IDLE_S
        assert (await client.post("/mcp", content=body("x"), headers=headers)).status_code == 200
    await until_gone(client, stage, headers)
    assert stage.sessions[0].is_closed


async def until_gone(client: httpx.AsyncClient, stage: Stage, headers: dict[str, str]) -> None:
    with anyio.fail_after(BOUND_S):
        while True:
            stage.now_s += mcp_sessions.IDLE_S
            response = await client.post("/mcp", content=body("x"), headers=headers)
            if response.status_code == 404:
                return
            # The end of the stream's connection is still to be noticed.
            await anyio.sleep(0.01)


async def test_sessions_nobody_asks_for_are_ended_too(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "SESSIONS_LIMIT", 1)
    await initialize(client)
    response = await client.post("/mcp", content=body("initialize", {}, 5))
    assert (response.status_code, code(response)) == (503, -32600)
    assert response.json()["id"] == 5
    assert "too many sessions are open" in response.json()["error"]["message"]
    stage.now_s += mcp_sessions.IDLE_S
    await initialize(client)
    assert stage.sessions[0].is_closed


async def test_a_hundred_sessions(client: httpx.AsyncClient, stage: Stage) -> None:
    opened = [await initialize(client) for _ in range(100)]
    assert len({headers["Mcp-Session-Id"] for headers in opened}) == 100
    for headers in opened:
        response = await client.post("/mcp", content=body("x"), headers=headers)
        assert response.status_code == 200


async def test_a_session_that_cannot_begin_is_none(client: httpx.AsyncClient) -> None:
    # There is no server behind this endpoint.
    response = await client.post("/mcp/servers/one", content=body("initialize", {}))
    assert response.status_code == 200
    assert "error" in response.json()
    assert "mcp-session-id" not in response.headers


async def test_a_client_that_does_not_read_is_cut_off_and_may_come_back(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CUT_AFTER_BYTES", 2**20)
    headers = await initialize(client)
    answered = anyio.Event()

    async def flood(message: wire.Message, send: Send) -> bytes:
        line = note("x" * 2**16)
        # More than the kernel takes for a peer that does not read.
        for _ in range(512):
            send(line)
            await anyio.lowlevel.checkpoint()
        answered.set()
        return wire.result(message.id or b"", b'{"ok":true}')

    stage.script = flood
    async with await connect(client) as stream:
        await stream.send(raw_post(client, headers, body("x")))
        with anyio.fail_after(BOUND_S):
            await answered.wait()
        data = await receive_all(stream)
    assert b"HTTP/1.1 200 OK" in data
    assert len(data) < 512 * 2**16
    assert b'"ok"' not in data
    first = re.search(rb"\nid: ([0-9-]+)", data)
    assert first is not None
    again = {**headers, "Last-Event-ID": first[1].decode()}
    async with client.stream("GET", "/mcp", headers=again) as response:
        found = await Events(response).rest()
    assert found[-1].message["result"] == {"ok": True}


async def receive_all(stream: anyio.abc.SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(BOUND_S):
        try:
            while True:
                data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data


async def connect(client: httpx.AsyncClient) -> anyio.abc.SocketStream:
    return await anyio.connect_tcp(client.base_url.host, client.base_url.port or 0)


def raw_post(client: httpx.AsyncClient, headers: dict[str, str], content: bytes) -> bytes:
    lines = {"Host": client.base_url.netloc.decode(), **HEADERS, **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /mcp HTTP/1.1\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
