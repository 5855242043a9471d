"""The HTTP side of a runtime: its TCP socket, and uvicorn on it without habits of its own.

uvicorn neither installs signal handlers nor logs requests here, and its ten wake-ups a second are
left out. Importing this module is dear: `serve/app.py` does it once the unix socket answers.
"""

import asyncio
import logging
import socket
from typing import Any

import anyio
import anyio.abc
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from octave.serve.api import build
from octave.serve.api_packages import package_routes
from octave.serve.control import Control
from octave.serve.guard import Admission, Guard
from octave.serve.jobs import Jobs
from octave.serve.mcp_http import ABORT, Endpoint, Face
from octave.serve.mcp_sessions import Conversations
from octave.serve.socket import ACCEPTS_AT_ONCE, BACKLOG

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is not us who break one in use."""

HEAD_S = 10.0
"""For the head of a request, from its first byte or that of the connection: who is connected and
asks nothing takes the place of somebody else, and needs no token for that."""

GRACE_S = 2
"""For answers on their way; calls in flight were waited for when the servers were stopped."""

CONNECTIONS_LIMIT = 512
"""Of local programs; beyond it 503, so that the unix socket still finds descriptors."""


async def serve_http(
    listener: socket.socket,
    control: Control,
    face: Face,
    jobs: Jobs,
    admission: Admission,
    *,
    task_status: anyio.abc.TaskStatus[Conversations] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API, and MCP, on `listener` until cancelled, then close it.

    Whoever starts it is given the conversations, whose length tells how many clients are there.
    """
    endpoint = Endpoint(face)
    guard = Guard(
        build(control, endpoint, package_routes(jobs)),
        port=listener.getsockname()[1],
        token=admission.token,
        allowed_hosts=admission.allowed_hosts,
        max_message_bytes=face.max_message_bytes,
        use=admission.use,
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(endpoint.conversations.run)
        await tasks.start(jobs.run)
        try:
            await _listen(listener, guard, endpoint.conversations, task_status)
        finally:
            endpoint.conversations.close()


async def _listen(
    listener: socket.socket,
    guard: Guard,
    conversations: Conversations,
    task_status: anyio.abc.TaskStatus[Conversations],
) -> None:
    # Without a handler Python would print uvicorn's remarks about broken requests.
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    config = uvicorn.Config(
        guard,
        interface="asgi3",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=CONNECTIONS_LIMIT,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        backlog=ACCEPTS_AT_ONCE,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Accepted sockets inherit it. A response is written in two pieces, and with Nagle's algorithm
    # the second one waits for the client's delayed acknowledgement: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await server.startup(sockets=[listener])
    listener.listen(BACKLOG)
    task_status.started(conversations)
    try:
        await anyio.sleep_forever()
    finally:
        # Streams end now: uvicorn would wait for them.
        conversations.close()
        with anyio.CancelScope(shield=True):
            await server.shutdown(sockets=[listener])


class _Protocol(H11Protocol):
    """A connection that the application can drop: one that is not read never closes by itself.

    Nor would one over which nothing is asked.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        served = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {ABORT: self.transport.abort}
            await served(scope, receive, send)

        self.app = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch_head(self) -> None:
        # Nothing is being answered: what comes, or shall come, is a head.
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
