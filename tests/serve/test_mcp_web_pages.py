"""What a page in the user's browser can send to the runtime, and what comes of it: nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from octave.gateway import eras
from octave.runtime.handshake import MODERN_VERSION
from octave.serve import http
from tests.serve.mcp_client import BOUND_S, HEADERS, TOKEN, Stage, body, modern, staged
from tests.serve.test_mcp_legacy import Held, at_once, connect, receive_all

pytestmark = pytest.mark.anyio

PATHS = ("/mcp", "/mcp/servers/one", "/mcp/profiles/p")
CALL = modern("tools/call", {"name": "echo"})
OPEN = body("initialize", {"protocolVersion": eras.LATEST_LEGACY, "capabilities": {}})


@pytest.fixture
def stage() -> Stage:
    return Stage(at_once)


@pytest.fixture
async def client(stage: Stage, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with staged(tmp_path, stage) as client:
        # A page knows no token.
        client.headers.clear()
        yield client


async def said(client: httpx.AsyncClient, head: str, content: bytes = b"") -> str:
    """The first line of the answer to a request that is written like that; `{}` is our port."""
    text = head.format(port=client.base_url.port) + f"Content-Length: {len(content)}\r\n"
    async with await connect(client) as stream:
        with anyio.fail_after(BOUND_S):
            await stream.send(f"{text}Connection: close\r\n\r\n".encode() + content)
            answer = (await receive_all(stream)).decode().lower()
    assert "access-control-" not in answer
    return answer.partition("\r\n")[0]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_form_that_a_page_submits_is_refused(
    client: httpx.AsyncClient, stage: Stage, path: str, media_type: str
) -> None:
    for content in (OPEN, CALL["content"]):
        for origin in ("http://evil.example", "null"):
            headers = {"Origin": origin, "Content-Type": media_type}
            response = await client.post(path, content=content, headers=headers)
            assert response.status_code == 403
        # Where a browser says nothing of the origin it says nothing of the token either.
        response = await client.post(path, content=content, headers={"Content-Type": media_type})
        assert response.status_code == 401
    assert not stage.sessions


@pytest.mark.parametrize("path", PATHS)
async def test_no_preflight_is_answered_as_a_page_would_need_it(
    client: httpx.AsyncClient, stage: Stage, path: str
) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,mcp-session-id",
        "Access-Control-Request-Private-Network": "true",
    }
    own = f"http://127.0.0.1:{client.base_url.port}"
    for origin, status in (("http://evil.example", 403), ("null", 403), (own, 401)):
        response = await client.options(path, headers={**asked, "Origin": origin})
        assert response.status_code == status
        assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", PATHS)
async def test_what_a_page_embeds_gets_no_stream(
    client: httpx.AsyncClient, stage: Stage, path: str
) -> None:
    for accept in ("text/event-stream", "image/*", "*/*"):
        response = await client.get(
            path, headers={"Accept": accept, "Sec-Fetch-Site": "cross-site"}
        )
        assert response.status_code == 401
    assert not stage.sessions


async def test_the_token_counts_in_its_header_alone(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    for path in (f"/mcp?token={TOKEN}", f"/mcp?access_token={TOKEN}"):
        headers = {
            **CALL["headers"],
            "Content-Type": "application/json",
            "Cookie": f"token={TOKEN}",
        }
        response = await client.post(path, content=CALL["content"], headers=headers)
        assert response.status_code == 401
    assert not stage.sessions


@pytest.mark.parametrize(
    ("head", "status"),
    [
        # A name that was rebound to this machine, also where something in between is to be blamed.
        ("POST /mcp HTTP/1.1\r\nHost: evil.example:{port}\r\n", "421"),
        ("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1.evil.example:{port}\r\n", "421"),
        (
            "POST /mcp HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: 127.0.0.1:{port}\r\n",
            "421",
        ),
        ("POST /mcp HTTP/1.1\r\nHost: evil.example\r\nForwarded: host=127.0.0.1:{port}\r\n", "421"),
        ("POST http://127.0.0.1:{port}/mcp HTTP/1.1\r\nHost: evil.example:{port}\r\n", "421"),
        ("POST /mcp HTTP/1.0\r\n", "421"),
        ("POST /mcp HTTP/1.1\r\n", "400"),
        # The one open route leads nowhere else.
        ("GET /health/../mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n", "401"),
        ("GET /health%2f..%2fmcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n", "401"),
        ("GET //mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n", "401"),
        ("GET /%6dcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n", "401"),
        (
            "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n",
            "401",
        ),
    ],
)
async def test_a_request_that_is_written_oddly_gets_nowhere(
    client: httpx.AsyncClient, stage: Stage, head: str, status: str
) -> None:
    more = f"MCP-Protocol-Version: {MODERN_VERSION}\r\nContent-Type: application/json\r\n"
    assert status in await said(client, head + more)
    assert not stage.sessions


@pytest.mark.parametrize("begun", [b"", b"G", b"POST /mcp HTTP/1.1\r\nHost: 127"])
async def test_a_connection_over_which_nothing_is_asked_is_closed(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    client.headers.update(HEADERS)
    held = stage.script = Held()
    responses: list[httpx.Response] = []

    async def ask() -> None:
        responses.append(await client.post("/mcp", **modern("x")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await held.until(held.begun)
        monkeypatch.setattr(http, "HEAD_S", 0.05)
        async with await connect(client) as stream:
            if begun:
                await stream.send(begun)
            assert await receive_all(stream) == b""
        # One over which an answer is waited for is not.
        held.release.set()
    # Nor is one that rests, as another request may come.
    await ask()
    assert [response.status_code for response in responses] == [200, 200]


async def test_a_head_that_is_begun_after_an_answer_must_be_ended_too(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{client.base_url.port}\r\n".encode()
    async with await connect(client) as stream:
        await stream.send(head + b"\r\n")
        assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK")
        monkeypatch.setattr(http, "HEAD_S", 0.05)
        await stream.send(head)
        # The rest of that answer, and the end.
        assert b"HTTP/1.1" not in await receive_all(stream)
