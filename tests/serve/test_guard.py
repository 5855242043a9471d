import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from octave.serve.guard import BODY_LIMIT_BYTES, LINGER_BYTES, Guard
from octave.serve.use import Use

TOKEN = "t" * 43
HOST = "127.0.0.1:3737"
MESSAGE_BYTES = 5 * 2**20
AUTHORIZED = {"Host": HOST, "Authorization": f"Bearer {TOKEN}"}

pytestmark = pytest.mark.anyio


class Echo:
    """Answers with the body it got; remembers that it was reached."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def client(echo: Echo) -> AsyncIterator[httpx.AsyncClient]:
    hosts = ("Octave.internal:8080",)
    guard = Guard(
        echo, port=3737, token=TOKEN, allowed_hosts=hosts, max_message_bytes=MESSAGE_BYTES
    )
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        # No header but what a test says itself.
        client.headers.clear()
        yield client


def code(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert not [name for name in response.headers if name.startswith("access-control-")]
    return str(error["code"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:3737",
        "127.0.0.1",
        "127.0.0.1:3738",
        "localhost:3737.evil.example",
        "127.0.0.1:37370",
        "[::1]",
        "0.0.0.0:3737",
        "octave.internal",
        "",
    ],
)
async def test_a_foreign_host_is_misdirected(
    client: httpx.AsyncClient, echo: Echo, host: str
) -> None:
    for path in ("/health", "/mcp/tools", "/anything"):
        response = await client.get(path, headers={**AUTHORIZED, "Host": host})
        assert (response.status_code, code(response)) == (421, "host_refused")
    assert not echo.reached


@pytest.mark.parametrize(
    "host", [HOST, "localhost:3737", "LOCALHOST:3737", "[::1]:3737", "octave.internal:8080"]
)
async def test_own_and_allowed_hosts_are_let_in(client: httpx.AsyncClient, host: str) -> None:
    response = await client.get("/mcp/tools", headers={**AUTHORIZED, "Host": host})
    assert response.status_code == 200


async def test_two_host_headers_are_misdirected(client: httpx.AsyncClient) -> None:
    headers = [("Host", HOST), ("Host", HOST), ("Authorization", f"Bearer {TOKEN}")]
    response = await client.get("/mcp/tools", headers=headers)
    assert code(response) == "host_refused"


@pytest.mark.parametrize(
    "origins",
    [
        ["null"],
        ["http://localhost.evil.com:3737"],
        ["http://localhost:3738"],
        ["http://localhost"],
        ["https://localhost:3737"],
        ["http://evil.example"],
        [""],
        ["http://localhost:3737", "http://localhost:3737"],
        ["http://localhost:3737", "http://evil.example"],
    ],
)
async def test_a_foreign_origin_is_forbidden_on_every_route(
    client: httpx.AsyncClient, echo: Echo, origins: list[str]
) -> None:
    for path in ("/health", "/mcp/tools"):
        headers = [*AUTHORIZED.items(), *(("Origin", origin) for origin in origins)]
        response = await client.get(path, headers=headers)
        assert (response.status_code, code(response)) == (403, "origin_refused")
    assert not echo.reached


@pytest.mark.parametrize("origin", ["http://localhost:3737", "http://octave.internal:8080"])
async def test_the_own_origin_is_let_in(client: httpx.AsyncClient, origin: str) -> None:
    response = await client.get("/mcp/tools", headers={**AUTHORIZED, "Origin": origin})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer ü",
    ],
)
async def test_without_the_token_nothing_is_reached(
    client: httpx.AsyncClient, echo: Echo, authorization: str | None
) -> None:
    headers = [(b"Host", HOST.encode())]
    if authorization is not None:
        headers.append((b"Authorization", authorization.encode()))
    response = await client.post("/mcp/call", headers=headers)
    assert (response.status_code, code(response)) == (401, "token_invalid")
    assert response.headers["www-authenticate"] == "Bearer"
    assert not echo.reached


async def test_only_getting_health_is_open(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health", headers={"Host": HOST})).status_code == 200
    assert (await client.post("/health", headers={"Host": HOST})).status_code == 401
    assert (await client.get("/health/", headers={"Host": HOST})).status_code == 401
    assert (await client.get("/healthy", headers={"Host": HOST})).status_code == 401


async def test_the_scheme_is_read_without_regard_to_case(client: httpx.AsyncClient) -> None:
    response = await client.get("/x", headers={"Host": HOST, "Authorization": f"bearer {TOKEN}"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"],
)
async def test_a_simple_request_with_the_token_is_refused(
    client: httpx.AsyncClient, echo: Echo, media_type: str
) -> None:
    headers = {**AUTHORIZED, "Content-Type": media_type}
    response = await client.post("/mcp/call", headers=headers, content=b"{}")
    assert (response.status_code, code(response)) == (415, "content_type_refused")
    assert not echo.reached


async def test_a_body_without_a_type_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/mcp/call", headers=AUTHORIZED, content=b"{}")
    assert code(response) == "content_type_refused"


async def test_json_passes_as_it_came(client: httpx.AsyncClient) -> None:
    headers = {**AUTHORIZED, "Content-Type": "application/json; charset=utf-8"}
    body = b'{ "a": 1.10,\n"a":2}'
    response = await client.post("/mcp/call", headers=headers, content=body)
    assert (response.status_code, response.content) == (200, body)


async def test_a_post_without_a_body_needs_no_type(client: httpx.AsyncClient) -> None:
    response = await client.post("/api/servers/x/start", headers=AUTHORIZED)
    assert response.status_code == 200


async def test_row_22_a_body_over_the_limit_is_refused_by_its_length(
    client: httpx.AsyncClient, echo: Echo
) -> None:
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    response = await client.post("/x", headers=headers, content=b"1" * (BODY_LIMIT_BYTES + 1))
    assert (response.status_code, code(response)) == (413, "body_too_large")
    response = await client.post("/x", headers=headers, content=b"1" * BODY_LIMIT_BYTES)
    assert response.status_code == 200
    assert echo.reached == 1


async def test_row_22_a_message_of_mcp_may_be_as_long_as_one(
    client: httpx.AsyncClient, echo: Echo
) -> None:
    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    for path in ("/mcp", "/mcp/servers/x", "/mcp/profiles/x"):
        response = await client.post(path, headers=headers, content=b"1" * MESSAGE_BYTES)
        assert response.status_code == 200
        response = await client.post(path, headers=headers, content=b"1" * (MESSAGE_BYTES + 1))
        assert (response.status_code, code(response)) == (413, "body_too_large")
        assert "5 MiB" in response.json()["error"]["message"]
    for path in ("/mcp/call", "/mcp/", "/mcp/serversx"):
        response = await client.post(path, headers=headers, content=b"1" * (BODY_LIMIT_BYTES + 1))
        assert response.status_code == 413
        assert "4 MiB" in response.json()["error"]["message"]
    assert echo.reached == 3


async def test_streams_and_ends_of_sessions_need_no_type(client: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        response = await client.request(method, "/mcp", headers=AUTHORIZED)
        assert response.status_code == 200


async def test_row_22_an_endless_body_is_refused_after_a_bounded_look_at_the_rest(
    client: httpx.AsyncClient, echo: Echo
) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        while sent_bytes < 100 * BODY_LIMIT_BYTES:
            sent_bytes += 65536
            yield b"1" * 65536

    headers = {**AUTHORIZED, "Content-Type": "application/json"}
    response = await client.post("/x", headers=headers, content=endless())
    assert (response.status_code, code(response)) == (413, "body_too_large")
    assert sent_bytes <= BODY_LIMIT_BYTES + LINGER_BYTES + 2 * 65536
    assert not echo.reached


async def test_a_client_that_leaves_while_sending_gets_nothing() -> None:
    echo = Echo()
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(message)

    headers = [
        (b"host", HOST.encode()),
        (b"authorization", f"Bearer {TOKEN}".encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
    await Guard(echo, port=3737, token=TOKEN)(scope, receive, send)
    assert not sent
    assert not echo.reached


async def test_a_websocket_is_closed() -> None:
    echo = Echo()
    sent: list[Message] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Guard(echo, port=3737, token=TOKEN)({"type": "websocket"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert not echo.reached


def test_the_refusal_is_json_with_a_hint() -> None:
    from octave.serve.guard import Refusal

    body = json.loads(Refusal(415, "x", "y", "z").body())
    assert body == {"error": {"code": "x", "message": "y", "hint": "z"}}


async def test_who_has_the_token_uses_it_until_the_answer_ends_and_nobody_else_does() -> None:
    use, seen = Use(), list[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(use.in_flight)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        if scope["path"] == "/fails":
            raise OSError("gone")

    transport = httpx.ASGITransport(app=Guard(app, port=3737, token=TOKEN, use=use))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        assert (await client.get("/health", headers=AUTHORIZED)).status_code == 200
        assert (await client.get("/mcp/tools")).status_code == 401
        assert (use.count, seen) == (0, [0])
        await client.get("/mcp/tools", headers=AUTHORIZED)
        with pytest.raises(OSError, match="gone"):
            await client.get("/fails", headers=AUTHORIZED)
    assert (use.count, use.in_flight, seen) == (2, 0, [0, 1, 1])
