"""The HTTP side of a runtime: its TCP socket, and uvicorn on it without habits of its own.

uvicorn neither installs signal handlers nor logs requests here, and its ten wake-ups a second are
left out. Importing this module is dear: `serve/app.py` does it once the unix socket answers.
"""

import logging
import socket

import anyio
import anyio.abc
import uvicorn

from octave.serve.api import build
from octave.serve.control import Control
from octave.serve.guard import Guard
from octave.serve.socket import ACCEPTS_AT_ONCE, BACKLOG

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that it is not us who break one in use."""

GRACE_S = 2
"""For answers on their way; calls in flight were waited for when the servers were stopped."""

CONNECTIONS_LIMIT = 512
"""Of local programs; beyond it 503, so that the unix socket still finds descriptors."""


async def serve_http(
    listener: socket.socket,
    control: Control,
    token: str,
    allowed_hosts: tuple[str, ...],
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API on `listener` until cancelled, then close it."""
    port = listener.getsockname()[1]
    guard = Guard(build(control), port=port, token=token, allowed_hosts=allowed_hosts)
    # Without a handler Python would print uvicorn's remarks about broken requests.
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    config = uvicorn.Config(
        guard,
        interface="asgi3",
        http="h11",
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
    await server.startup(sockets=[listener])
    listener.listen(BACKLOG)
    task_status.started()
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await server.shutdown(sockets=[listener])
