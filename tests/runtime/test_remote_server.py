"""A link to a real server over HTTP, in both eras and by both transports."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import anyio.to_thread
import pytest

from octave.errors import RemoteUnreachable, StartFailed
from octave.runtime import wire
from tests.remote_peer import server
from tests.remote_peer.listening import Canned, Listening, Seen
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import called, talking

pytestmark = pytest.mark.anyio


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture(params=[True, False], ids=["json", "streams"])
def remote(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Listening]:
    with server.listening(peer, json=request.param) as listening:
        yield listening


@pytest.fixture
def streaming(peer: Peer) -> Iterator[Listening]:
    with server.listening(peer) as listening:
        yield listening


async def test_a_legacy_conversation_has_its_session_and_its_version(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        greeting = await talk.shake_hands()
        assert greeting["serverInfo"]["name"] == "peer"
        assert await talk.call("echo", text="ö") == "ö"
    calls = [seen for seen in remote.seen if b"tools/call" in seen.body]
    assert calls[0].headers["mcp-protocol-version"] == "2025-11-25"
    assert calls[0].headers["mcp-session-id"]
    assert remote.count("/mcp", "DELETE") == 1


async def test_a_modern_request_has_the_headers_of_its_body(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        assert await talk.call("echo", modern=True, text="x") == "x"
    (seen,) = remote.seen
    assert seen.headers["mcp-protocol-version"] == "2026-07-28"
    assert seen.headers["mcp-method"] == "tools/call"
    assert seen.headers["mcp-name"] == "echo"
    assert "mcp-session-id" not in seen.headers


async def test_arguments_are_shown_in_headers_once_the_tools_are_known(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        await talk.result("tools/list", {"_meta": called("", modern=True)["_meta"]})
        assert await talk.call("where", modern=True, region="Köln") == "in Köln"
    assert remote.seen[-1].headers["mcp-param-region"] == "=?base64?S8O2bG4=?="
    assert len(remote.seen) == 2


async def test_a_call_refused_for_such_a_header_is_made_again_with_it(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        assert await talk.call("where", modern=True, region="north") == "in north"
    methods = [json.loads(seen.body)["method"] for seen in remote.seen]
    assert methods == ["tools/call", "tools/list", "tools/call"]
    assert len(talk.lines) == 1


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_five_megabytes_come_through(remote: Listening, modern: bool) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        if not modern:
            await talk.shake_hands()
        assert len(await talk.call("big", modern=modern, bytes=5_000_000)) == 5_000_000


async def test_what_is_over_the_limit_fails_its_call_alone(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp", limit_bytes=100_000) as talk:
        await talk.shake_hands()
        answer = await talk.answer(talk.ask("tools/call", called("big", bytes=200_000)))
        assert b"too large: the limit is 100,000" in (answer.error or b"")
        assert await talk.call("echo", text="still here") == "still here"


async def test_progress_comes_before_the_answer(streaming: Listening, peer: Peer) -> None:
    async with talking(f"{streaming.origin}/mcp") as talk:
        await talk.shake_hands()
        params = called("wait") | {"_meta": {"progressToken": 7}}
        identifier = talk.ask("tools/call", params)
        progress = await talk.told("notifications/progress")
        assert json.loads(progress.params or b"")["progressToken"] == 7
        peer.go_on.set()
        await talk.answer(identifier)


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_a_cancelled_call_is_cut_off_at_the_server(
    streaming: Listening, peer: Peer, modern: bool
) -> None:
    async with talking(f"{streaming.origin}/mcp") as talk:
        if not modern:
            await talk.shake_hands()
        params = called("wait", modern=modern)
        params["_meta"] = params.get("_meta", {}) | {"progressToken": 1}
        identifier = talk.ask("tools/call", params)
        assert await anyio.to_thread.run_sync(peer.waiting.acquire, True, 10)
        cancel = b'{"requestId":%d}' % identifier
        talk.link.write(wire.notification("notifications/cancelled", cancel))
        assert await anyio.to_thread.run_sync(peer.cancelled.acquire, True, 10)
        assert await talk.call("echo", modern=modern, text="on") == "on"
    posted = [seen for seen in streaming.seen if b"notifications/cancelled" in seen.body]
    assert len(posted) == (0 if modern else 1)


async def test_calls_do_not_wait_for_each_other(remote: Listening, peer: Peer) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        await talk.shake_hands()
        slow = talk.ask("tools/call", called("wait"))
        assert await anyio.to_thread.run_sync(peer.waiting.acquire, True, 10)
        assert await talk.call("echo", text="quick") == "quick"
        peer.go_on.set()
        await talk.answer(slow)


async def test_lines_and_answers_are_passed_on_to_the_byte(streaming: Listening) -> None:
    result = b'{"b":1.10,"a":1E2,"\\ud800":12345678901234567890123,"_x":{"z":0,"y":-0}}'
    error = b'{"code":-32099,"message":"no","data":[1.0],"extra":true}'
    answers = {b'"one"': b'"result":' + result, b'"two"': b'"error":' + error}

    def intercept(seen: Seen) -> Canned | None:
        name = wire.member(seen.body, "method") or b""
        body = b'{"jsonrpc":"2.0","id":%b,%b,"odd":1.50}' % (
            wire.member(seen.body, "id") or b"",
            answers[name],
        )
        return Canned(200, body, {"content-type": "application/json"})

    streaming.intercept = intercept
    line = b'{"jsonrpc":"2.0", "method":"one","params":{"n":1.00,"m":1e400},"id":1,"x":[ ]}'
    async with talking(f"{streaming.origin}/mcp") as talk:
        talk.link.write(line)
        assert (await talk.answer(1)).line.endswith(b'"result":' + result + b',"odd":1.50}')
        talk.link.write(wire.request(2, "two"))
        assert (await talk.answer(2)).error == error
    assert streaming.seen[0].body == line


@pytest.mark.parametrize("identifier", [b"null", b"1"])
async def test_an_error_in_a_refusal_is_the_answer(streaming: Listening, identifier: bytes) -> None:
    error = b'{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]},"more":1.0}'
    body = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identifier, error)
    streaming.intercept = lambda _: Canned(400, body, {"content-type": "application/json"})
    async with talking(f"{streaming.origin}/mcp") as talk:
        answer = await talk.answer(talk.ask("initialize"))
        assert (answer.id, answer.error) == (b"1", error)


async def test_any_other_refusal_is_an_error_that_says_so(streaming: Listening) -> None:
    async with talking(f"{streaming.origin}/mcp") as talk:
        await talk.shake_hands()
        streaming.intercept = lambda _: Canned(500, b"<html>", {"content-type": "text/html"})
        answer = await talk.answer(talk.ask("tools/list"))
        text = json.loads(answer.error or b"")["message"]
        assert text == f"`peer` at `{talk.link.host}` answered 500 Internal Server Error"


async def test_a_server_of_2024_is_spoken_to_by_its_own_transport(peer: Peer) -> None:
    with server.older(peer) as listening:
        async with talking(f"{listening.origin}/sse") as talk:
            await talk.shake_hands()
            assert await talk.call("echo", text="old") == "old"
            assert len(await talk.call("big", bytes=5_000_000)) == 5_000_000
        methods = [(seen.method, seen.path) for seen in listening.seen]
        assert methods[:3] == [("POST", "/sse"), ("GET", "/sse"), ("POST", "/messages/")]


async def test_a_page_that_is_no_server_is_said_to_be_none(streaming: Listening) -> None:
    async with talking(f"{streaming.origin}/nowhere") as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, StartFailed)
        assert "answered 404 Not Found, so it is no MCP server" in talk.link.failure.message


async def test_where_nobody_listens_the_link_ends_and_says_where(streaming: Listening) -> None:
    streaming.stop()
    headers = {"Authorization": "Bearer hush-hush"}
    async with talking(f"{streaming.origin}/mcp?key=hush", headers=headers) as talk:
        ticket = talk.link.write(wire.request(1, "initialize"))
        await talk.end()
        failure = talk.link.failure
        assert isinstance(failure, RemoteUnreachable)
        host = streaming.origin.removeprefix("http://")
        assert failure.message == f"`peer` cannot be reached at `{host}`: connection refused"
        assert "hush" not in failure.message + str(failure.hint) + repr(failure.details)
        assert not talk.link.has_sent(ticket)


async def test_a_session_that_is_gone_ends_the_link_and_the_call_was_not_made(
    streaming: Listening,
) -> None:
    async with talking(f"{streaming.origin}/mcp") as talk:
        await talk.shake_hands()
        assert await talk.call("echo", text="x") == "x"
        # A new process knows none of the sessions.
        await anyio.to_thread.run_sync(streaming.stop)
        streaming.start()
        ticket = talk.link.write(wire.request(9, "tools/list"))
        await talk.end()
        assert "ended the session" in str(talk.link.failure)
        assert not talk.link.has_sent(ticket)


async def test_a_server_that_dies_mid_call_ends_the_link_and_the_call_was_sent(
    remote: Listening, peer: Peer
) -> None:
    async with talking(f"{remote.origin}/mcp") as talk:
        await talk.shake_hands()
        ticket = talk.link.write(wire.request(5, "tools/call", json.dumps(called("wait")).encode()))
        assert await anyio.to_thread.run_sync(peer.waiting.acquire, True, 10)
        await anyio.to_thread.run_sync(remote.stop)
        assert talk.link.has_sent(ticket)
        # A stream that breaks off is an answer; then the next line finds nobody there.
        with contextlib.suppress(BrokenPipeError):
            talk.ask("tools/list")
        await talk.end()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(
    streaming: Listening, peer: Peer, status: int
) -> None:
    with server.listening(peer) as other:
        streaming.intercept = lambda _: Canned(status, b"", {"location": f"{other.origin}/mcp"})
        headers = {"Authorization": "Bearer hush-hush"}
        async with talking(f"{streaming.origin}/mcp", headers=headers) as talk:
            answer = await talk.answer(talk.ask("initialize"))
            assert b"not followed" in (answer.error or b"")
        assert other.seen == []


async def test_a_stream_of_2024_that_points_elsewhere_gets_no_message(streaming: Listening) -> None:
    def intercept(seen: Seen) -> Canned:
        if seen.method == "POST":
            return Canned(405)
        body = b"event: endpoint\ndata: http://127.0.0.1:1/messages\n\n"
        return Canned(200, body, {"content-type": "text/event-stream"})

    streaming.intercept = intercept
    async with talking(f"{streaming.origin}/mcp") as talk:
        talk.ask("initialize")
        await talk.end()
        assert "sends its clients to another host" in str(talk.link.failure)


async def test_a_gateway_without_a_server_behind_it_counts_as_unreachable(
    streaming: Listening,
) -> None:
    streaming.intercept = lambda _: Canned(503)
    async with talking(f"{streaming.origin}/mcp") as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, RemoteUnreachable)
        assert "answered 503 Service Unavailable" in talk.link.failure.message


def test_the_sdk_is_loaded_by_the_first_remote_server_alone() -> None:
    code = "import sys, octave.runtime.supervisor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"mcp", "mcp_types", "httpx2", "pydantic"}.isdisjoint(done.stdout.split())
