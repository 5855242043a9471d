"""The HTTP API behind its guard, in process, with real servers."""

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from octave import __version__
from octave.serve.api import build
from octave.serve.guard import Guard
from octave.serve.private import private
from tests.serve.running import home_workspace, manifest_text

pytestmark = pytest.mark.anyio

TOKEN = "t" * 43
ODD = Path(__file__).parent.parent / "gateway" / "odd_server.py"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    odd = json.dumps([sys.executable, str(ODD), "odd", "bare"])
    text = manifest_text("good", "crash_on_call") + f"[servers.odd]\ncommand = {odd}\n"
    workspace = home_workspace(tmp_path / "h", text)
    async with private(workspace, os.environ) as control:
        app = Guard(build(control), port=3737, token=TOKEN)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://127.0.0.1:3737",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as client:
            yield client


async def test_health_needs_no_token_and_tells_the_version(api: httpx.AsyncClient) -> None:
    response = await api.get("/health", headers={"Authorization": ""})
    assert response.json() == {"status": "ok", "version": __version__}


async def test_every_other_route_needs_the_token(api: httpx.AsyncClient) -> None:
    for method, path in [
        ("GET", "/mcp/tools"),
        ("POST", "/mcp/call"),
        ("GET", "/mcp/status"),
        ("GET", "/api/servers"),
        ("POST", "/api/servers/good/start"),
        ("POST", "/api/servers/good/stop"),
        ("POST", "/api/servers/good/restart"),
        ("POST", "/api/shutdown"),
        ("GET", "/"),
    ]:
        response = await api.request(method, path, headers={"Authorization": "Bearer x"})
        assert response.status_code == 401, path


async def test_no_route_takes_a_command(api: httpx.AsyncClient) -> None:
    body = {"name": "x", "command": ["touch", "pwned"]}
    for path in ("/api/servers", "/api/servers/x", "/api/install", "/mcp/servers"):
        response = await api.post(path, json=body)
        assert response.status_code in {404, 405}
        assert set(response.json()["error"]) >= {"code", "message", "hint"}


async def test_tools_are_as_the_server_gave_them_with_two_members_more(
    api: httpx.AsyncClient,
) -> None:
    response = await api.get("/mcp/tools")
    assert b'"x-n":[1.10,1E2,1e400,-0]' in response.content
    echo = next(tool for tool in response.json()["tools"] if tool["_serverId"] == "odd")
    assert list(echo)[:2] == ["inputSchema", "zeta"]
    assert list(echo)[-2:] == ["_serverId", "_serverName"]
    assert echo["name"] == "echo"


async def test_a_call_gives_the_result_as_the_server_wrote_it(api: httpx.AsyncClient) -> None:
    response = await api.post("/mcp/call", json={"toolName": "seen", "serverId": "odd"})
    assert response.headers["content-type"] == "application/json"
    assert response.content.endswith(b'"type":"text","own":1.0}],"isError": false}')


async def test_a_tool_is_found_by_its_name_alone(api: httpx.AsyncClient) -> None:
    await api.get("/mcp/tools")
    response = await api.post("/mcp/call", json={"toolName": "good__echo"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"toolName": "ecko", "serverId": "good"}, 404, "tool_not_found"),
        ({"toolName": "echo", "serverId": "god"}, 404, "server_not_found"),
        ({"toolName": "echo"}, 409, "ambiguous"),
        ({"toolName": "crash", "serverId": "crash-on-call"}, 502, "server_died"),
        ({"toolName": "echo", "arguments": [1]}, 400, "usage"),
        ({"serverId": "good"}, 400, "usage"),
        ([], 400, "usage"),
    ],
)
async def test_errors_have_their_status(
    api: httpx.AsyncClient, body: object, status: int, code: str
) -> None:
    await api.get("/mcp/tools")
    response = await api.post("/mcp/call", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_status_counts_calls_and_errors(api: httpx.AsyncClient) -> None:
    call = {"toolName": "echo", "serverId": "good", "arguments": {"text": "x"}}
    await api.post("/mcp/call", json=call)
    status = (await api.get("/mcp/status")).json()
    assert set(status) == {"good", "crash-on-call", "odd"}
    assert status["good"]["status"] == "ready"
    assert status["good"]["uptime"] >= 0
    stats = status["good"]["stats"]
    assert (stats["callCount"], stats["errorCount"]) == (1, 0)
    assert stats["lastCallDuration"] == pytest.approx(stats["avgCallDuration"])
    assert set(stats) == {
        *("callCount", "errorCount", "lastCallDuration", "avgCallDuration", "p50", "p95", "p99")
    }


async def test_status_has_the_availability_of_each_server(api: httpx.AsyncClient) -> None:
    await api.post("/api/servers/good/start")
    status = (await api.get("/mcp/status")).json()
    assert (status["good"]["availability"], status["good"]["downSeconds"]) == (1.0, 0.0)
    assert status["odd"]["availability"] is None
    servers = {each["name"]: each for each in (await api.get("/api/servers")).json()["servers"]}
    assert (servers["good"]["availability"], servers["good"]["downSeconds"]) == (1.0, 0.0)


async def test_servers_are_started_and_stopped(api: httpx.AsyncClient) -> None:
    response = await api.post("/api/servers/good/start")
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    response = await api.post("/api/servers/good/stop")
    assert response.json()["status"] == "stopped"
    call = {"toolName": "echo", "serverId": "good"}
    response = await api.post("/mcp/call", json=call)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_running")
    assert (await api.post("/api/servers/god/start")).status_code == 404
    found = (await api.get("/api/servers")).json()
    assert {server["name"] for server in found["servers"]} == {"good", "crash-on-call", "odd"}
