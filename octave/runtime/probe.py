"""Ask a server what it offers: of a running one, or by starting it once and stopping it again.

The second is what an installation learns from before it counts as one, and what the lockfile pins.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import anyio

from octave.errors import CallTimedOut, OctaveError, ServerDied
from octave.packages.launch import LaunchSpec
from octave.packages.offered import LISTS, Offered
from octave.runtime import handshake, wire, worker
from octave.runtime.connection import Callbacks, Connection, connect
from octave.runtime.handshake import Greeting
from octave.runtime.incoming import Unreadable
from octave.runtime.nesting import is_deeper, pruned
from octave.runtime.wire import Message

PAGES = 100
"""Of one list. One that is longer still never ends; nobody reads so many tools."""
ITEMS = 5000
"""Of one list, for the same reason."""
LISTS_BYTES = 16 * 1024 * 1024
"""The items of all lists of one server, in the memory of the runtime and on disk; as much as one
message may have."""
CURSOR_BYTES = 64 * 1024
"""Cursors are kept to notice one that comes again, and sent back to the server."""
LISTS_TIME_S = 60.0
"""From the first page to the last; beyond it a server that is slow with each is asked no more."""
LEVELS = 200
"""So deep an item may be nested; what lies deeper becomes null. Clients refuse less than that, and
every reader of our own takes it."""
RESCUE_BYTES = 4 * 1024 * 1024
"""A page that no parser takes is cut to `LEVELS` in Python, which takes a second for this much."""
REASON_BYTES = 1000
"""So much of the reason for a refusal is told."""
ERA_TIMEOUT_S = 2.0
"""Some servers say nothing to a method they do not know."""
PROBE_TIMEOUT_S = 120.0
"""A first start compiles and fills caches; later ones are quicker."""
LOOK_S = 0.1
"""How long it may go unnoticed that nobody wants to know any more."""

CAPABILITIES = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "resourceTemplates": "resources",
}
"""The capability under which a server announces each list (MCP 2025-11-25)."""

Request = Callable[[str, bytes | None], Awaitable[Message]]
"""Takes a method and raw params, gives the answer."""


async def read_lists(
    greeting: Greeting, request: Request, masked: Callable[[str], str] = str
) -> Offered:
    """Fetch every page of every list that the server announced a capability for.

    A list ends at its last page, at a cursor seen before, or at one of the bounds above; the
    warnings of what is returned say so. One that is refused counts as empty, unless it is the
    list of tools. What the server says of that is quoted as `masked` gives it.

    Raises:
        OctaveError: the tools are refused, or what `request` raises.
    """
    capabilities = wire.member(greeting.result, "capabilities") or b"{}"
    reading = _Reading(request, masked)
    lists: dict[str, tuple[bytes, ...]] = {}
    for kind in LISTS:
        if wire.member(capabilities, CAPABILITIES[kind]) not in (None, b"null"):
            lists[kind] = tuple(await reading.items(kind))
    if greeting.era == "modern":
        initialize = handshake.as_initialize(greeting.result)
        return Offered(initialize, lists, tuple(reading.warnings), greeting.result)
    return Offered(greeting.result, lists, tuple(reading.warnings))


async def with_eras(connection: Connection, offered: Offered) -> Offered:
    """Return `offered` with the eras that the server speaks, which takes `ERA_TIMEOUT_S` at most.

    Asked after the handshake and the lists, as some servers end at a method they do not know: only
    where that harms nobody.
    """
    if connection.greeting.era == "modern":
        return replace(offered, eras=("modern",))
    try:
        answer = await connection.request(handshake.DISCOVER, None, ERA_TIMEOUT_S)
    except OctaveError:
        return replace(offered, eras=("legacy",))
    if not handshake.speaks_modern(answer):
        return replace(offered, eras=("legacy",))
    return replace(offered, eras=("legacy", "modern"), discover=answer.result)


async def ask(connection: Connection, timeout_s: float) -> Offered:
    """Do `read_lists` over a connection, in `timeout_s` in all, then `with_eras`.

    Raises:
        StartFailed: it ended, was too slow, or does not list its tools; `details` as `connect`
            gives them, ``phase`` being "tools/list" or "timeout".
    """

    async def request(method: str, params: bytes | None) -> Message:
        return await connection.request(method, params, timeout_s)

    try:
        with anyio.fail_after(timeout_s):
            offered = await read_lists(connection.greeting, request)
    except (TimeoutError, CallTimedOut) as error:
        reason = f"did not list what it offers within {timeout_s:g} s"
        raise connection.refused(reason, phase="timeout") from error
    except ServerDied as error:
        reason = f"{connection.how_it_ended} before it listed what it offers"
        raise connection.refused(reason, phase="tools/list") from error
    except OctaveError as error:
        raise connection.refused(error.message, phase="tools/list") from error
    return await with_eras(connection, offered)


def probe(spec: LaunchSpec, timeout_s: float = PROBE_TIMEOUT_S) -> Offered:
    """Start the server in a throw-away process, ask it, stop it. Blocks, up to `timeout_s`.

    Raises:
        StartFailed: as `connect` and `ask`.
        OctaveError: `spec.problem`, when there is one.
    """
    # In a thread of its own: Ctrl-C is raised in the main one alone, never in the middle of what
    # has to see to it that the server ends.
    over = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        try:
            return beside.submit(anyio.run, _probe, spec, timeout_s, over).result()
        finally:
            over.set()


async def _probe(spec: LaunchSpec, timeout_s: float, over: threading.Event) -> Offered:
    with anyio.CancelScope() as scope:
        _cancel_once(over, scope)
        ends_at_s = anyio.current_time() + timeout_s
        async with connect(spec, Callbacks(), start_timeout_s=timeout_s) as connection:
            return await ask(connection, ends_at_s - anyio.current_time())
    raise KeyboardInterrupt


def _cancel_once(over: threading.Event, scope: anyio.CancelScope) -> None:
    """Cancel `scope` soon after `over` is set."""
    if over.is_set():
        scope.cancel()
    else:
        asyncio.get_running_loop().call_later(LOOK_S, _cancel_once, over, scope)


class _Reading:
    """The lists of one server while they are read."""

    def __init__(self, request: Request, masked: Callable[[str], str]) -> None:
        self.warnings: list[str] = []
        self._request = request
        self._masked = masked
        self._size_bytes = 0
        self._ends_at_s = anyio.current_time() + LISTS_TIME_S

    async def items(self, kind: str) -> list[bytes]:
        """Return the items of a list, every page of it."""
        found: list[bytes] = []
        cursors: list[bytes] = []
        while True:
            page = await self._page(LISTS[kind], cursors[-1] if cursors else None)
            if page is None:
                return found
            items, cursor = await worker.run(_taken_apart, page, kind)
            if items is None:
                self.warnings.append(f"`{LISTS[kind]}` is answered without an array of `{kind}`")
            end = self._keep(items or (), found) or self._reason_to_end(cursor, cursors)
            if end is not None:
                self.warnings.append(f"`{LISTS[kind]}` {end}; what follows is left out")
            if cursor is None or end is not None:
                return found
            cursors.append(cursor)

    async def _page(self, method: str, cursor: bytes | None) -> bytes | None:
        """Return the result for one page; None where the server refuses."""
        params = None if cursor is None else b'{"cursor":%b}' % cursor
        try:
            answer = await self._request(method, params)
        except OctaveError as error:
            answer = await worker.run(_rescued, error)
        if answer.result is None:
            reason = self._masked((answer.error or b"")[:REASON_BYTES].decode(errors="replace"))
            if method == LISTS["tools"]:
                raise OctaveError(f"refused `{method}`: {reason}")
            if cursor is not None:
                self.warnings.append(f"`{method}` refused a page: {reason}")
        return answer.result

    def _keep(self, items: Iterable[bytes], found: list[bytes]) -> str | None:
        """Add to `found` what there is room for; return why that is not all."""
        for item in items:
            if len(found) >= ITEMS:
                return f"has more than {ITEMS:,} items"
            if self._size_bytes + len(item) > LISTS_BYTES:
                return f"makes the lists longer than {LISTS_BYTES:,} bytes"
            self._size_bytes += len(item)
            found.append(item)
        return None

    def _reason_to_end(self, cursor: bytes | None, cursors: Sequence[bytes]) -> str | None:
        """Return why the page after `cursor` is not asked for, though there is one."""
        if cursor is None:
            return None
        if len(cursor) > CURSOR_BYTES:
            return f"gives a cursor of {len(cursor):,} bytes"
        if cursor in cursors:
            return "comes back to a page it gave before"
        if len(cursors) + 1 >= PAGES:
            return f"has more than {PAGES} pages"
        if anyio.current_time() > self._ends_at_s:
            return f"takes longer than {LISTS_TIME_S:g} s"
        return None


def _rescued(error: OctaveError) -> Message:
    """Return the page without what is nested too deep, if only that made it unreadable.

    One definition that no parser takes must not take the others with it.

    Raises:
        OctaveError: the same, it was something else.
    """
    line = error.__cause__.line if isinstance(error.__cause__, Unreadable) else b""
    if len(line) <= RESCUE_BYTES and is_deeper(line, LEVELS):
        with contextlib.suppress(wire.Malformed):
            return wire.decode(pruned(line, LEVELS))
    raise error


def _taken_apart(page: bytes, kind: str) -> tuple[list[bytes] | None, bytes | None]:
    """Return the items of a page, None for what is no array, and the cursor of the next page."""
    array = wire.member(page, kind)
    cursor = wire.member(page, "nextCursor")
    items = None
    if array is not None and array.startswith(b"["):
        items = [
            pruned(item, LEVELS) if is_deeper(item, LEVELS) else item
            for item in wire.elements(array)
        ]
    return items, None if cursor == b"null" else cursor
