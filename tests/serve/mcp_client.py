"""MCP over real HTTP on loopback: what clients post and read, and sessions that follow a script."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from octave.errors import NotFound
from octave.gateway.audience import Scope
from octave.gateway.catalogue import Catalogue
from octave.gateway.router import Router
from octave.gateway.session import Session
from octave.home import Home, Workspace
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from octave.runtime.logs import ServerLog
from octave.runtime.supervisor import Supervisor
from octave.serve.claim import bind_port
from octave.serve.control import Control, Runtime
from octave.serve.guard import Admission
from octave.serve.http import serve_http
from octave.serve.jobs import Jobs
from octave.serve.mcp_http import Face
from octave.serve.socket import Wish
from octave.serve.verbs import Verbs

BOUND_S = 5.0
TOKEN = "t" * 43
META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}
BOTH = "application/json, text/event-stream"
HEADERS = {"Accept": BOTH, "Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}

Script = Callable[[wire.Message, Callable[[bytes], None]], Awaitable[bytes]]
"""Answers a request; what it sends meanwhile goes in front."""


def body(method: str, params: Any = None, identifier: Any = 1) -> bytes:
    """A request of the handshake era, or (without id) a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if identifier is not None:
        message["id"] = identifier
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


def modern(method: str, params: Any = None, identifier: Any = 1) -> dict[str, Any]:
    """What `httpx` is to post: a request of the modern era with the headers that belong to it."""
    params = {"_meta": META, **(params or {})}
    headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": method}
    named = params.get("uri" if method == "resources/read" else "name")
    if named is not None:
        headers["Mcp-Name"] = named
    return {"content": body(method, params, identifier), "headers": headers}


async def initialize(
    client: httpx.AsyncClient, path: str = "/mcp", version: str = "2025-11-25"
) -> dict[str, str]:
    """Open a session; return the headers of what is posted in it."""
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t"}}
    response = await client.post(path, content=body("initialize", params, "open"))
    assert response.status_code == 200, response.text
    assert response.json()["result"]["protocolVersion"] == version
    headers = {
        "Mcp-Session-Id": response.headers["mcp-session-id"],
        "MCP-Protocol-Version": version,
    }
    done = await client.post(
        path, content=body("notifications/initialized", None, None), headers=headers
    )
    assert (done.status_code, done.content) == (202, b"")
    return headers


@dataclass(slots=True)
class Event:
    """One server-sent event."""

    data: str = ""
    id: str | None = None
    retry: int | None = None

    @property
    def message(self) -> Any:
        return json.loads(self.data)


class Events:
    """Reads the server-sent events of a response, and comments."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.headers["content-type"] == "text/event-stream"
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """The next event; `StopAsyncIteration` at the end."""
        event = Event()
        with anyio.fail_after(BOUND_S):
            while True:
                line = await anext(self._lines)
                if not line and event != Event():
                    return event
                if line and not line.startswith(":"):
                    name, value = re.fullmatch(r"(\w+): ?(.*)", line).groups()  # type: ignore[union-attr] # else it fails
                    if name != "event":
                        setattr(event, name, int(value) if name == "retry" else value)

    async def comment(self) -> None:
        """Wait for a comment, which nothing else may precede."""
        with anyio.fail_after(BOUND_S):
            while (line := await anext(self._lines)) != ":":
                assert not line

    async def rest(self) -> list[Event]:
        """All events to the end."""
        found = []
        with contextlib.suppress(StopAsyncIteration):
            while True:
                found.append(await self.next())
        return found


class Scripted(Session):
    """A session whose requests, but `initialize`, a script answers."""

    def __init__(
        self, router: Router, scope: Scope, send: Callable[[bytes], None], stage: "Stage"
    ) -> None:
        super().__init__(router, scope, send)
        self.say = send
        self.stage = stage
        self.taken: list[wire.Message] = []
        self.took = anyio.Event()
        self.ended = anyio.Event()

    @property
    def is_closed(self) -> bool:
        return self.ended.is_set()

    async def serve(self, message: wire.Message, send: Callable[[bytes], None]) -> bytes:
        if message.method == "initialize":
            return await super().serve(message, send)
        return await self.stage.script(message, send)

    def take(self, message: wire.Message) -> None:
        self.taken.append(message)
        self.took.set()

    def close(self) -> None:
        self.ended.set()
        super().close()


@dataclass(slots=True)
class Stage:
    """What scripted sessions do, the endpoints they are at, and the time."""

    script: Script
    sessions: list[Scripted] = field(default_factory=list)
    now_s: float = 0.0
    profile: tuple[str, ...] = ("one", "two")
    """The servers of the profile `p`; of servers there is `one`."""
    stop: Callable[[], None] = lambda: None
    """Ends what serves them."""

    def scope_of(self, wish: Wish) -> Scope:
        if wish.servers not in ((), ("one",)) or wish.profile not in (None, "p"):
            raise NotFound("not there")
        if wish.profile is not None:
            return Scope(self.profile)
        return Scope(wish.servers or None, single=bool(wish.servers))


@dataclass(frozen=True, slots=True)
class StagedFace(Face):
    stage: Stage = None  # type: ignore[assignment] # always given

    def open_session(self, scope: Scope, send: Callable[[bytes], None]) -> Session:
        self.stage.sessions.append(Scripted(self.router, scope, send, self.stage))
        return self.stage.sessions[-1]


@contextlib.asynccontextmanager
async def staged(folder: Path, stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Serve scripted sessions, with no server behind them."""
    supervisor = Supervisor((), lambda name: ServerLog(folder / f"{name}.log"))
    router = Router(supervisor, Catalogue(supervisor, lambda name: folder / name))
    face = StagedFace(router, stage.scope_of, 2**20, lambda: stage.now_s, stage)
    control = Control(supervisor, router, Runtime(list, dict, lambda: None))
    listener = bind_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with anyio.create_task_group() as tasks:
        stage.stop = tasks.cancel_scope.cancel
        jobs = Jobs(Verbs(Workspace.of_home(Home(folder / "home")), {}))
        await tasks.start(serve_http, listener, control, face, jobs, Admission(TOKEN))
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=BOUND_S) as client:
            yield client
        tasks.cancel_scope.cancel()
    listener.close()
