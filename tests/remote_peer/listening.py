"""A real HTTP server on loopback, in a thread of the test: what it was asked, and how it ends."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn

BOUND_S = 10.0

App = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Canned:
    """An answer given in place of the application's."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Listening:
    """Serves an application while entered; may be stopped and started again on the same port.

    `intercept` is asked first about every request, and may answer it.
    """

    def __init__(self, make_app: Callable[[str], App]) -> None:
        self.seen: list[Seen] = []
        self.intercept: Callable[[Seen], Canned | None] = lambda _: None
        self._make_app = make_app
        self._socket = self._bound(0)
        self.port: int = self._socket.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        if self._socket.fileno() < 0:
            self._socket = self._bound(self.port)
        # Listening already: whoever connects before the application runs is served then.
        self._socket.listen(128)
        config = uvicorn.Config(
            self._recording(self._make_app(self.origin)), log_level="critical", lifespan="on"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End as a process does that is killed: connections are cut."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        self._socket.close()
        self._server = self._thread = None

    def count(self, path: str, method: str = "POST") -> int:
        return sum(seen.path == path and seen.method == method for seen in self.seen)

    def _bound(self, port: int) -> socket.socket:
        # Without its number asyncio does not know that it is TCP, and leaves Nagle's delay on.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    def _recording(self, app: App) -> App:
        async def recording(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            body, more = b"", True
            while more:
                event = await receive()
                body += event.get("body", b"")
                more = event.get("more_body", False)
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            seen = Seen(scope["method"], scope["path"], headers, body)
            self.seen.append(seen)
            canned = self.intercept(seen)
            if canned is not None:
                await _say(send, canned)
                return
            replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive_again() -> Any:
                found = next(replayed, None)
                return found if found is not None else await receive()

            await app(scope, receive_again, send)

        return recording


async def _say(send: Any, canned: Canned) -> None:
    headers = [(name.encode(), value.encode()) for name, value in canned.headers.items()]
    await send({"type": "http.response.start", "status": canned.status, "headers": headers})
    await send({"type": "http.response.body", "body": canned.body})
