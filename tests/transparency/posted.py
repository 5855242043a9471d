"""Plays a scene over Streamable HTTP: each message a POST, raw, and what is read of the answers."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio
import anyio.abc
import httpx

from octave.runtime import wire
from tests.gateway.conversation import BOUND_S
from tests.transparency.comparison import Record, member
from tests.transparency.conversation import LATEST, Probe, Talk
from tests.transparency.scripts import MODERN_VERSION, Era, Scene

NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


async def posted(
    url: str, token: str, era: Era, scene: Scene, probe: Probe, last: str = ""
) -> Record:
    """Play the scene at the endpoint of that URL; `last` as `Talk.play` has it."""
    talk = Talk(era, scene.replies)
    out, said = anyio.create_memory_object_stream[bytes](100)
    talk.send = out.send_nowait
    headers = {**HEADERS, "Authorization": f"Bearer {token}"}
    async with (
        out,
        said,
        httpx.AsyncClient(headers=headers, timeout=BOUND_S) as client,
        anyio.create_task_group() as tasks,
    ):
        poster = Poster(client, url, talk, era, tasks)
        tasks.start_soon(poster.post_all, said)
        await talk.play(scene, last)
        await poster.leave()
        tasks.cancel_scope.cancel()
    return Record(talk.heard, probe.received)


@dataclass(slots=True)
class Poster:
    """The HTTP side of one client."""

    client: httpx.AsyncClient
    url: str
    talk: Talk
    era: Era
    tasks: anyio.abc.TaskGroup
    session: dict[str, str] = field(default_factory=dict)
    open: dict[bytes, anyio.CancelScope] = field(default_factory=dict)

    async def post_all(self, said: anyio.abc.ObjectReceiveStream[bytes]) -> None:
        """Post each line; an answer is waited for by nobody but who asks."""
        async for line in said:
            message = wire.decode(line)
            if message.is_request and message.method != "initialize":
                await self.tasks.start(self._request, line, message)
            elif message.is_request:
                await self._initialize(line)
            elif self.era == "modern" and message.method == "notifications/cancelled":
                # In this era nothing but the end of its stream cancels a request.
                scope = self.open.get(member(line, "params", "requestId"))
                if scope is not None:
                    scope.cancel()
            else:
                response = await self._post(line)
                assert (response.status_code, response.content) == (202, b"")
                if message.method == "notifications/initialized":
                    await self.tasks.start(self._hear)

    async def leave(self) -> None:
        """End the session, if there is one."""
        if self.session:
            response = await self.client.delete(self.url, headers=self.session)
            assert response.status_code == 200

    async def _initialize(self, line: bytes) -> None:
        response = await self._post(line)
        identifier = response.headers["mcp-session-id"]
        self.session = {"Mcp-Session-Id": identifier, "MCP-Protocol-Version": LATEST}
        self.talk.take(response.content)

    async def _post(self, line: bytes) -> httpx.Response:
        return await self.client.post(self.url, content=line, headers=self._headers(line))

    async def _request(
        self, line: bytes, message: wire.Message, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        with anyio.CancelScope() as scope:
            self.open[message.id or b""] = scope
            task_status.started()
            headers = self._headers(line)
            async with self.client.stream(
                "POST", self.url, content=line, headers=headers
            ) as response:
                await self._read(response)

    async def _hear(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Read the stand-alone stream of a session."""
        async with self.client.stream("GET", self.url, headers=self.session) as response:
            assert response.status_code == 200
            task_status.started()
            await self._read(response)

    async def _read(self, response: httpx.Response) -> None:
        if response.headers["content-type"] == "application/json":
            self.talk.take(await response.aread())
            return
        async for line in _lines(response):
            data = line.removeprefix(b"data: ")
            if data != line:
                self.talk.take(data)

    def _headers(self, line: bytes) -> dict[str, str]:
        if self.era == "legacy":
            return self.session
        message = wire.decode(line)
        headers = {
            "MCP-Protocol-Version": MODERN_VERSION,
            "Mcp-Method": message.method or "",
        }
        named = member(line, "params", NAMED_BY.get(message.method or "", "-"))
        if named:
            text = str(httpx.Response(200, content=named).json())
            encoded = base64.b64encode(text.encode()).decode()
            headers["Mcp-Name"] = f"=?base64?{encoded}?="
        return headers


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of a stream of events; no other character than these ends one."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
