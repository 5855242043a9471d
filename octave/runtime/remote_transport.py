"""Carries the lines of a `RemoteLink` over the official SDK's client transports.

Streamable HTTP; where the first POST is refused as such, HTTP+SSE of MCP 2024-11-05. The SDK sees
to sessions, streams, resumption and redirects within the origin. Loaded with it, see
`remote_server`.
"""

import contextlib
import json
import logging
from typing import Any

import anyio
import httpx2  # noqa: TID253 - this module is loaded late itself
from mcp.client.sse import sse_client  # noqa: TID253
from mcp.client.streamable_http import streamable_http_client  # noqa: TID253
from mcp_types import JSONRPCError  # noqa: TID253

from octave.errors import StartFailed
from octave.runtime import remote_failures, wire
from octave.runtime.remote_client import Client
from octave.runtime.remote_oauth import Bearer
from octave.runtime.remote_server import Post, RemoteLink
from octave.runtime.remote_talk import Talk

for _name in ("mcp", "httpx2", "httpcore2"):
    # They write down what they send, and count as a fault what is told in an error here.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


async def carry(link: RemoteLink) -> None:
    """Carry lines until the link is to close, or breaks."""
    if link.make_auth is not None:
        auth: Any = link.make_auth()
    elif link.endpoint.tokens is not None:
        auth = Bearer(link.name, link.endpoint, link.mask)
    else:
        auth = None
    talk = Talk(link)
    async with (
        Client(talk, auth) as client,
        streamable_http_client(link.endpoint.url, http_client=client, max_sse_event_size=None) as (
            read,
            write,
        ),
    ):
        await _exchange(talk, read, write)
    if talk.wants_older.is_set() and not link.closing.is_set():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_at, link.closing, tasks.cancel_scope)
            await _carry_older(talk, auth)
            tasks.cancel_scope.cancel()


async def _carry_older(talk: Talk, login: Any) -> None:
    """Carry on over the transport of MCP 2024-11-05, beginning with the line that was refused."""
    link = talk.link
    older = Talk(link, is_older=True)
    is_open = False

    def make_client(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        return Client(older, login)

    try:
        async with sse_client(link.endpoint.url, httpx_client_factory=make_client) as (read, write):
            is_open = True
            await _exchange(older, read, write, first=talk.refused_post)
    except* (httpx2.HTTPError, anyio.BrokenResourceError):
        link.broke(_no_server(talk))
    except* RuntimeError:
        # Of a stream that ends before it says where messages go the SDK knows nothing else to say.
        if is_open:
            raise
        link.broke(_no_server(talk))


def _no_server(talk: Talk) -> StartFailed:
    # What it answered later is beside the point: it is no server of either kind.
    link = talk.link
    return StartFailed(
        f"`{link.name}` at `{link.host}` answered {talk.refusal}, so it is no MCP server",
        hint="check the `url` in octave.toml",
        details={"permanent": True},
    )


async def _exchange(talk: Talk, read: Any, write: Any, first: Post | None = None) -> None:
    """Move messages between the link and the SDK until there is a reason not to."""
    async with anyio.create_task_group() as tasks:
        for event in (talk.link.closing, talk.wants_older):
            tasks.start_soon(_cancel_at, event, tasks.cancel_scope)
        tasks.start_soon(_listen, talk, read)
        if first is not None:
            await write.send(talk.stand_in(first))
        async for post in talk.link.posts():
            with contextlib.suppress(wire.Malformed):
                await write.send(talk.stand_in(post))


async def _listen(talk: Talk, read: Any) -> None:
    link = talk.link
    async for item in read:
        # All that the server said has arrived by another way. What is left is the SDK's own.
        message = getattr(item, "message", None)
        if isinstance(message, JSONRPCError) and not link.closing.is_set():
            error = message.error
            identifier = json.dumps(message.id).encode()
            link.heard(wire.error(identifier, error.code, link.mask.text(error.message)))
    link.broke(remote_failures.lost(link, "closed its stream of events"))


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
