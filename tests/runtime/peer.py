"""A client on the socket of a whole runtime, as raw lines."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from octave.home import Workspace
from octave.runtime import wire

BOUND_S = 10.0
LONGEST_BYTES = 2**26


class Peer:
    """One connection, whose first line was answered."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._received = BufferedByteReceiveStream(stream)

    async def say(self, line: bytes) -> None:
        await self._stream.send(line + b"\n")

    async def line(self) -> bytes:
        with anyio.fail_after(BOUND_S):
            return await self._received.receive_until(b"\n", LONGEST_BYTES)

    async def answer(self, identifier: int) -> Any:
        """Return the parsed answer of that id, whatever comes before it."""
        while True:
            line = await self.line()
            message = wire.decode(line)
            if message.is_answer and message.id == b"%d" % identifier:
                return json.loads(line)

    async def call(self, identifier: int, tool: str, **arguments: Any) -> None:
        params = json.dumps({"name": tool, "arguments": arguments}).encode()
        await self.say(wire.request(identifier, "tools/call", params))

    async def result(self, identifier: int, tool: str, **arguments: Any) -> str:
        await self.call(identifier, tool, **arguments)
        answer = await self.answer(identifier)
        return str(answer["result"]["content"][0]["text"])

    async def leave(self) -> None:
        """Close the connection, as the end of the client's process does."""
        await self._stream.aclose()


@asynccontextmanager
async def connected(workspace: Workspace, kind: str, **wishes: Any) -> AsyncIterator[Peer]:
    """Open a connection of that kind, `proxy` or `control`."""
    async with await anyio.connect_unix(workspace.socket()) as stream:
        peer = Peer(stream)
        await peer.say(json.dumps({"octave": {"version": 1, kind: wishes}}).encode())
        assert b'"runtime"' in await peer.line()
        yield peer
