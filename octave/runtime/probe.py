"""Ask a server what it offers: of a running one, or by starting it once and stopping it again.

The second is what an installation learns from before it counts as one, and what the lockfile pins.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import anyio

from octave.errors import CallTimedOut, OctaveError, ServerDied
from octave.packages.launch import LaunchSpec
from octave.packages.offered import LISTS, Offered
from octave.runtime import wire
from octave.runtime.connection import Callbacks, Connection, connect
from octave.runtime.wire import Message

PAGES = 100
"""A list that is longer still never ends; nobody reads so many tools."""
PROBE_TIMEOUT_S = 120.0
"""A first start compiles and fills caches; later ones are quicker."""

CAPABILITIES = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "resourceTemplates": "resources",
}
"""The capability under which a server announces each list (MCP 2025-11-25)."""

Request = Callable[[str, bytes | None], Awaitable[Message]]
"""Takes a method and raw params, gives the answer."""


async def read_lists(initialize: bytes, request: Request) -> Offered:
    """Fetch every page of every list that the `initialize` result has a capability for.

    A list ends at its last page, at a cursor seen before, or after `PAGES` pages. One that is
    refused counts as empty, unless it is the list of tools.

    Raises:
        OctaveError: the tools are refused, or what `request` raises.
    """
    capabilities = wire.member(initialize, "capabilities") or b"{}"
    lists: dict[str, tuple[bytes, ...]] = {}
    for kind, method in LISTS.items():
        if wire.member(capabilities, CAPABILITIES[kind]) in (None, b"null"):
            continue
        items: list[bytes] = []
        async for page in _pages(method, request):
            items += wire.elements(wire.member(page, kind) or b"[]")
        lists[kind] = tuple(items)
    return Offered(initialize, lists)


async def ask(connection: Connection, timeout_s: float) -> Offered:
    """Do `read_lists` over a connection, in `timeout_s` in all.

    Raises:
        StartFailed: it ended, was too slow, or does not list its tools; `details` as `connect`
            gives them, ``phase`` being "tools/list" or "timeout".
    """

    async def request(method: str, params: bytes | None) -> Message:
        return await connection.request(method, params, timeout_s)

    try:
        with anyio.fail_after(timeout_s):
            return await read_lists(connection.initialize_result, request)
    except (TimeoutError, CallTimedOut) as error:
        reason = f"did not list what it offers within {timeout_s:g} s"
        raise connection.refused(reason, phase="timeout") from error
    except ServerDied as error:
        reason = f"{connection.how_it_ended} before it listed what it offers"
        raise connection.refused(reason, phase="tools/list") from error
    except OctaveError as error:
        raise connection.refused(error.message, phase="tools/list") from error


def probe(spec: LaunchSpec, timeout_s: float = PROBE_TIMEOUT_S) -> Offered:
    """Start the server in a throw-away process, ask it, stop it. Blocks, up to `timeout_s`.

    Raises:
        StartFailed: as `connect` and `ask`.
        OctaveError: `spec.problem`, when there is one.
    """
    return anyio.run(partial(_probe, spec, timeout_s))


async def _probe(spec: LaunchSpec, timeout_s: float) -> Offered:
    ends_at_s = anyio.current_time() + timeout_s
    async with connect(spec, Callbacks(), start_timeout_s=timeout_s) as connection:
        return await ask(connection, ends_at_s - anyio.current_time())


async def _pages(method: str, request: Request) -> AsyncIterator[bytes]:
    cursor: bytes | None = None
    seen: set[bytes] = set()
    while len(seen) < PAGES:
        answer = await request(method, None if cursor is None else b'{"cursor":%b}' % cursor)
        if answer.result is None:
            if method == LISTS["tools"]:
                reason = (answer.error or b"").decode(errors="replace")
                raise OctaveError(f"refused `{method}`: {reason}")
            return
        yield answer.result
        cursor = wire.member(answer.result, "nextCursor")
        if cursor is None or cursor == b"null" or cursor in seen:
            return
        seen.add(cursor)
