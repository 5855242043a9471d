"""A whole runtime and its faces: who is let in, what each shows, whose processes end with whom."""

import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from starlette.routing import Route

from octave.home import Workspace
from octave.runtime import wire
from octave.serve import socket as serve_socket
from octave.serve.api import build
from tests.gateway.asking import ALL, ASKER, until
from tests.runtime.fleet import is_alive
from tests.serve.mcp_client import BOUND_S, HEADERS, body, initialize, modern
from tests.serve.running import SERVERS, home_workspace, running
from tests.transparency.conversation import Probe
from tests.transparency.scripts import Scene, text

pytestmark = pytest.mark.anyio

BIG = Scene("", {}, {"legacy": {"tools/call say": [text("x" * 2**18)]}})
PROFILES = """
[profiles.work]
servers = ["good", "twin"]
[profiles.alone]
servers = ["good"]
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A runtime with `good`, its `twin`, `asker` (which has a process for each session), `big`."""

    http: httpx.AsyncClient
    workspace: Workspace

    async def server(self, name: str) -> dict[str, Any]:
        """What status says of a server."""
        rows = (await self.http.get("/api/servers")).json()["servers"]
        (row,) = (row for row in rows if row["name"] == name)
        return dict(row)


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Running]:
    good = [sys.executable, str(SERVERS / "good.py")]
    asker = [sys.executable, "-S", str(ASKER), "legacy", str(tmp_path / "journal")]
    big = Probe(tmp_path, BIG, "legacy", "big").spec.argv
    text = ["[runtime]\nport = 0\n"]
    for name, command, more in (
        ("good", good, ""), ("twin", good, ""), ("asker", asker, 'instance = "session"\n'),
        ("big", list(big), ""),
    ):  # fmt: skip
        text.append(f"[servers.{name}]\ncommand = {json.dumps(command)}\n{more}")
    workspace = home_workspace(tmp_path / "h", "\n".join(text) + PROFILES)
    async with running(workspace) as told:
        headers = {**HEADERS, "Authorization": f"Bearer {workspace.token.read_text()}"}
        url = str(told.facts["url"])
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=BOUND_S) as http:
            yield Running(http, workspace)


# The guard.


def routes() -> list[tuple[str, str]]:
    """Every method and path that the application has."""
    found = []
    for route in build(None, lambda *_: None).routes:  # type: ignore[arg-type] # nothing is served
        assert isinstance(route, Route), "another kind has routes of its own"
        path = route.path.format(name="good", profile="work") if "{" in route.path else route.path
        methods = route.methods or {"GET", "POST", "DELETE", "PUT", "OPTIONS"}
        found += [(method, path) for method in sorted(methods)]
    return found


async def test_guard_stands_before_every_route_there_is(runtime: Running) -> None:
    found = routes()
    assert {path for _, path in found} >= {"/mcp", "/mcp/servers/good", "/mcp/call", "/health"}
    for method, path in [*found, ("OPTIONS", "/mcp/call"), ("GET", "/"), ("GET", "/no/such")]:
        for headers, status in [
            ({"Host": "evil.example.com"}, 421),
            ({"Host": "127.0.0.1"}, 421),
            ({"Origin": "http://evil.example.com"}, 403),
            ({"Origin": "null"}, 403),
            ({"Authorization": "Bearer x"}, 401),
            ({"Authorization": ""}, 401),
        ]:
            if (status, path) == (401, "/health") and method in {"GET", "HEAD"}:
                continue
            response = await runtime.http.request(method, path, headers=headers)
            assert response.status_code == status, (method, path, headers)
            assert not [name for name in response.headers if name.startswith("access-control-")]
    assert (await runtime.server("good"))["state"] == "idle", "nothing was reached"


async def test_health_is_open_to_getting_alone(runtime: Running) -> None:
    open_to = []
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        response = await runtime.http.request(method, "/health", headers={"Authorization": ""})
        open_to += [method] if response.status_code == 200 else []
    assert open_to == ["GET"]


# Streamable HTTP.


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_batches_are_refused_whole_and_the_session_goes_on(
    runtime: Running, version: str
) -> None:
    headers = await initialize(runtime.http, "/mcp/servers/good", version)
    one = body("tools/call", {"name": "echo", "arguments": {"text": "a"}})
    for batch in (b"[%b]" % one, b"[%b,%b]" % (one, one), b"[]", b" [%b]" % body("x", None, None)):
        response = await runtime.http.post("/mcp/servers/good", content=batch, headers=headers)
        assert response.status_code == 400
        assert (response.json()["id"], response.json()["error"]["code"]) == (None, -32600)
    assert (await runtime.server("good"))["calls"] == 0
    response = await runtime.http.post("/mcp/servers/good", content=one, headers=headers)
    assert response.json()["result"]["content"][0]["text"] == "a"


async def test_messages_that_no_session_carries_are_refused_and_reach_nobody(
    runtime: Running,
) -> None:
    headers = await initialize(runtime.http, "/mcp/servers/good")
    call = body("tools/call", {"name": "echo", "arguments": {"text": "a"}})
    for path, wrong in (
        ("/mcp/servers/twin", headers),
        ("/mcp", headers),
        ("/mcp/servers/good", {**headers, "Mcp-Session-Id": "x" * 43}),
        ("/mcp/servers/good", {**headers, "Mcp-Session-Id": headers["Mcp-Session-Id"][:-1]}),
    ):
        response = await runtime.http.post(path, content=call, headers=wrong)
        assert response.status_code == 404, path
    assert (await runtime.server("good"))["calls"] == 0


# Private processes.


async def process_of(http: httpx.AsyncClient, headers: dict[str, str]) -> int:
    call = body("tools/call", {"name": "do", "arguments": {"steps": []}})
    response = await http.post("/mcp/servers/asker", content=call, headers=headers)
    return int(json.loads(response.json()["result"]["content"][0]["text"])["pid"])


async def test_private_processes_count_in_status_and_end_with_their_http_session(
    runtime: Running,
) -> None:
    sessions = [await initialize(runtime.http, "/mcp/servers/asker") for _ in range(3)]
    pids = [await process_of(runtime.http, headers) for headers in sessions]
    assert len(set(pids)) == 3
    row = await runtime.server("asker")
    shared = row["pid"] is not None
    assert row["instances"] == 3 + shared
    assert (await runtime.http.delete("/mcp/servers/asker", headers=sessions[0])).is_success
    await until(lambda: not is_alive(pids[0]))
    with anyio.fail_after(BOUND_S):
        while (await runtime.server("asker"))["instances"] != 2 + shared:  # noqa: ASYNC110
            await anyio.sleep(0.002)
    assert await process_of(runtime.http, sessions[1]) == pids[1]
    assert is_alive(pids[2])


class Line:
    """A client at the unix socket."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def next(self) -> Any:
        with anyio.fail_after(BOUND_S):
            while b"\n" not in self._rest:
                self._rest += await self.stream.receive()
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def say(self, line: bytes) -> None:
        await self.stream.send(line + b"\n")

    async def ask(self, method: str, params: Any = None, identifier: int = 1) -> Any:
        await self.say(body(method, params, identifier))
        while (answer := await self.next()).get("id") != identifier or "method" in answer:
            pass
        return answer


async def hello(line: Line, **wish: Any) -> Any:
    """Say who is there, and return what is said to that."""
    await line.say(json.dumps({"octave": {"version": 1, "proxy": wish}}).encode())
    return (await line.next())["octave"]


async def connected(runtime: Running, **wish: Any) -> Line:
    """Open a session; whoever has it closes its stream."""
    line = Line(await anyio.connect_unix(runtime.workspace.socket()))
    assert "runtime" in await hello(line, **wish)
    about = {"protocolVersion": "2025-11-25", "capabilities": ALL, "clientInfo": {"name": "t"}}
    await line.ask("initialize", about)
    await line.say(wire.notification("notifications/initialized"))
    return line


async def test_private_process_ends_when_its_client_hangs_up(runtime: Running) -> None:
    one, two = [await connected(runtime, servers=["asker"]) for _ in range(2)]
    pids = []
    for line in (one, two):
        answer = await line.ask("tools/call", {"name": "do", "arguments": {"steps": []}})
        pids.append(json.loads(answer["result"]["content"][0]["text"])["pid"])
    await one.stream.aclose()
    await until(lambda: not is_alive(pids[0]))
    assert is_alive(pids[1])
    await two.stream.aclose()


# What each face shows.


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({}, {"good__echo", "twin__echo", "asker__do"}),
        ({"servers": ["good"]}, {"echo"}),
        ({"servers": ["good", "asker"]}, {"good__echo", "asker__do"}),
        ({"profile": "work"}, {"good__echo", "twin__echo"}),
        ({"profile": "alone"}, {"good__echo"}),
        ({"profile": "alone", "servers": ["asker"]}, {"good__echo", "asker__do"}),
    ],
    ids=lambda each: json.dumps(each) if isinstance(each, dict) else "",
)
async def test_socket_shows_what_its_client_wished_for_and_calls_nothing_else(
    runtime: Running, wish: dict[str, Any], expected: set[str]
) -> None:
    line = await connected(runtime, **wish)
    everything = {"good__echo", "twin__echo", "asker__do", "echo"}
    listed = await line.ask("tools/list", {}, 2)
    assert {tool["name"] for tool in listed["result"]["tools"]} & everything == expected
    for number, name in enumerate(sorted(everything), 3):
        call = {"name": name, "arguments": {"text": "hi", "steps": []}}
        answer = await line.ask("tools/call", call, number)
        assert ("error" in answer) == (name not in expected), answer
    await line.stream.aclose()


@pytest.mark.parametrize("wish", [{"profile": "wok"}, {"servers": ["god"]}])
async def test_wish_for_what_is_not_there_is_refused_with_a_suggestion(
    runtime: Running, wish: dict[str, Any]
) -> None:
    async with await anyio.connect_unix(runtime.workspace.socket()) as stream:
        refused = (await hello(Line(stream), **wish))["error"]
    assert refused["code"] in {"not_found", "server_not_found"}
    assert refused["hint"] in {"did you mean `work`?", "did you mean `good`?"}


@pytest.mark.parametrize("path", ["/mcp", "/mcp/profiles/work", "/mcp/servers/good"])
async def test_both_eras_are_shown_the_same_tools(runtime: Running, path: str) -> None:
    headers = await initialize(runtime.http, path)
    old = await runtime.http.post(path, content=body("tools/list"), headers=headers)
    new = await runtime.http.post(path, **modern("tools/list"))
    assert new.json()["result"]["tools"] == old.json()["result"]["tools"] != []
    assert new.json()["result"]["resultType"] == "complete"


# Who does not read.


async def test_client_that_does_not_read_is_cut_and_its_neighbours_feel_nothing(
    runtime: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_socket, "CUT_AFTER_BYTES", 4 * 2**20)
    other = await connected(runtime, servers=["big"])
    slow = await connected(runtime, servers=["big"])
    calls = [body("tools/call", {"name": "say"}, number) for number in range(2, 102)]
    await slow.say(b"\n".join(calls))
    for number in range(2, 12):
        answer = await other.ask("tools/call", {"name": "say"}, number)
        assert len(answer["result"]["content"][0]["text"]) == 2**18
    received = 0
    with anyio.fail_after(BOUND_S):
        try:
            while True:
                received += len(await slow.stream.receive(2**20))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
    assert received < len(calls) * 2**18, "it was cut before it had everything"
    await slow.stream.aclose()
    assert (await other.ask("ping", None, 99))["result"] == {}
    await other.stream.aclose()
