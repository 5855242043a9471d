"""A `RemoteLink` in hand: raw lines out, raw lines in, and how it ended."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from octave.packages.launch import Endpoint, TokenStore
from octave.runtime import handshake, wire
from octave.runtime.process import Callbacks
from octave.runtime.remote_server import RemoteLink
from octave.runtime.wire import Message

BOUND_S = 10.0


class Memory:
    """A `TokenStore` that forgets with the test."""

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self.is_locked = False

    def read(self) -> str | None:
        return self.text

    def write(self, text: str) -> None:
        self.text = text

    def remove(self) -> bool:
        was_there, self.text = self.text is not None, None
        return was_there

    def try_lock(self) -> bool:
        if self.is_locked:
            return False
        self.is_locked = True
        return True

    def unlock(self) -> None:
        self.is_locked = False


class Talking:
    """One open link."""

    def __init__(self, endpoint: Endpoint, limit_bytes: int) -> None:
        self.lines: list[bytes] = []
        self.ended = anyio.Event()
        """Set with the end of the link."""
        self._more = anyio.Event()
        ears = Callbacks(self._hear, lambda _: None, self.ended.set)
        self.link = RemoteLink("peer", endpoint, endpoint.headers(), ears, limit_bytes)
        self._last_id = 0

    def ask(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Write a request; return its id."""
        self._last_id += 1
        raw = None if params is None else json.dumps(params).encode()
        self.link.write(wire.request(self._last_id, method, raw))
        return self._last_id

    async def answer(self, identifier: int) -> Message:
        """Return the answer of that id."""
        wanted = b"%d" % identifier
        return await self.message(lambda found: found.is_answer and found.id == wanted)

    async def told(self, method: str) -> Message:
        """Return the first notification or request of that method."""
        return await self.message(lambda found: found.method == method)

    async def message(self, is_it: Callable[[Message], bool]) -> Message:
        with anyio.fail_after(BOUND_S):
            while True:
                for line in self.lines:
                    message = wire.decode(line)
                    if is_it(message):
                        return message
                assert not self.ended.is_set(), self.link.failure
                await self._more.wait()

    async def result(self, method: str, params: dict[str, Any] | None = None) -> Any:
        answer = await self.answer(self.ask(method, params))
        assert answer.result is not None, answer.error
        return json.loads(answer.result)

    async def call(self, tool: str, *, modern: bool = False, **arguments: Any) -> str:
        params = called(tool, modern=modern, **arguments)
        return str((await self.result("tools/call", params))["content"][0]["text"])

    async def shake_hands(self) -> Any:
        """Open a legacy conversation."""
        found = await self.result("initialize", json.loads(handshake.initialize_params()))
        self.link.write(wire.notification("notifications/initialized"))
        return found

    async def end(self) -> None:
        with anyio.fail_after(BOUND_S):
            await self.ended.wait()

    def _hear(self, data: bytes) -> None:
        assert data.endswith(b"\n") and data.count(b"\n") == 1
        self.lines.append(data[:-1])
        self._more.set()
        self._more = anyio.Event()


def called(tool: str, *, modern: bool = False, **arguments: Any) -> dict[str, Any]:
    """Return the params of a call."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if modern:
        params["_meta"] = json.loads(b"{%b}" % handshake.ENVELOPE)
    return params


@asynccontextmanager
async def talking(
    url: str,
    *,
    headers: dict[str, str] | None = None,
    tokens: TokenStore | None = None,
    limit_bytes: int = 16 * 2**20,
) -> AsyncIterator[Talking]:
    talk = Talking(Endpoint(url, lambda: headers or {}, tokens), limit_bytes)
    async with talk.link.running():
        yield talk
    assert talk.ended.is_set()
