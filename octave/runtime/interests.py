"""What a server is to tell of without being asked, whichever process of it is up.

Legacy servers say by themselves when a list changes, and are asked for the updates of each resource
(MCP 2025-11-25, resources). A modern one says nothing but in answer to `subscriptions/listen`: one
is kept open for all that is wanted, and replaced when that changes (MCP 2026-07-28, subscriptions).
"""

import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping

import anyio

from octave.errors import OctaveError
from octave.runtime import json_text, wire
from octave.runtime.connection import Connection
from octave.runtime.pending import LISTEN as LISTEN
from octave.runtime.wire import Message

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
TIMEOUT_S = 30.0
"""For a question that servers answer from memory."""
ACKNOWLEDGED_S = 2.0
"""A subscription is acknowledged at once, or not at all."""
AGAIN_S, AGAIN_AT_MOST_S = 1.0, 60.0
"""From the end of a subscription to the next: the first time, and the longest pause."""
OVERLAP_S = 1.0
"""The old subscription ends that long after the new one began: between the two nothing is lost."""
_SET_LEVEL = "logging/setLevel"
_KINDS = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}
"""The capability whose `listChanged` promises it, and its name in the filter."""
Told = tuple[bytes | None, frozenset[str]]
"""The log level that a process was told, as params, and the resources."""
NOTHING: Told = (None, frozenset())


class Interests:
    """The resources whose updates somebody wants, and log lines; true while there are resources.

    They outlive the process that they were told: the next one is told anew.

    Args:
        live: gives the connection that takes requests now.
        ready: starts the server if need be.
    """

    def __init__(
        self, live: Callable[[], Connection | None], ready: Callable[[], Awaitable[object]]
    ) -> None:
        self.live = live
        self.ready = ready
        """Both are another process's, once that has taken over."""
        self.level: str | None = None
        """The least severe log level that it was asked for, by whoever wants the most."""
        self._wanted: dict[str, int] = {}
        self._others: dict[object, Mapping[str, bytes]] = {}
        self._granted: set[str] = set()
        self._accepted: dict[str, bytes] = {}
        self._answered = anyio.Event()
        self._changed = anyio.Event()

    def __bool__(self) -> bool:
        return bool(self._wanted or self._others)

    def add(self, uri: str) -> None:
        """Count one more who wants it, whom somebody else told the server of."""
        self._wanted[uri] = self._wanted.get(uri, 0) + 1

    def has(self, uri: str) -> bool:
        """Whether anybody wants it."""
        return uri in self._wanted

    def drop(self, uri: str, *, is_told: bool = False) -> None:
        """Count one less, without waiting for what the server says to that.

        `is_told` says that a legacy one need not be told: somebody else does, or it has refused.
        """
        connection = self.live()
        if not self._remove(uri) or connection is None:
            return
        if connection.greeting.era == "modern":
            self._poke()
        elif not is_told:
            connection.tell("resources/unsubscribe", _params(uri))

    def _remove(self, uri: str) -> bool:
        left = self._wanted.pop(uri, 0) - 1
        if left > 0:
            self._wanted[uri] = left
        return left == 0

    async def subscribe(self, uri: str) -> None:
        """Have the server tell of updates of a resource, starting it if need be.

        As often as it was called, `unsubscribe` must be.

        Raises:
            OctaveError: it refuses, does not answer, or cannot be started.
        """
        if self.live() is None:
            await self.ready()
        self.add(uri)
        try:
            await self.ask_for(uri)
        except BaseException:
            self._remove(uri)
            raise

    async def ask_for(self, uri: str) -> None:
        """Tell the server of a resource that was added, if it is up; raises as `subscribe` does."""
        connection = self.live()
        if connection is not None and self._wanted.get(uri) == 1:
            await self._ask_for(connection, uri)

    async def unsubscribe(self, uri: str) -> None:
        """Take one `subscribe` back."""
        connection = self.live()
        if self._remove(uri) and connection is not None:
            await self._ask_no_more_for(connection, uri)

    async def subscribe_to(self, owner: object, filters: Mapping[str, bytes]) -> dict[str, bytes]:
        """Have a modern server tell of what nobody here knows, until `forget` of the same owner.

        `filters` are raw members of a subscription's filter. Returns those that the server has
        acknowledged, as it did. Raises as `subscribe` does.
        """
        if self.live() is None:
            await self.ready()
        self._others[owner] = filters
        answered = self._answered
        self._poke()
        with anyio.move_on_after(ACKNOWLEDGED_S):
            await answered.wait()
        return {name: value for name, value in self._accepted.items() if name in filters}

    def forget(self, owner: object) -> None:
        """Take a `subscribe_to` back."""
        if self._others.pop(owner, None) is not None:
            self._poke()

    async def set_level(self, level: str) -> None:
        """Have the server write log lines of `level` and above, now and after each start."""
        self.level = level
        connection = self.live()
        if connection is not None:
            await self._ask_for_level(connection)

    async def _ask_for(self, connection: Connection, uri: str) -> None:
        if connection.greeting.era == "modern":
            self._poke()
            await self._grant(connection, uri)
            return
        answer = await connection.request("resources/subscribe", _params(uri), TIMEOUT_S)
        if answer.error is not None:
            reason = (wire.member(answer.error, "message") or b"no reason").decode(errors="replace")
            raise OctaveError(f"`{connection.name}` refused a subscription: {reason}")

    async def _ask_no_more_for(self, connection: Connection, uri: str) -> None:
        if connection.greeting.era == "modern":
            self._poke()
            return
        with contextlib.suppress(OctaveError):
            await connection.request("resources/unsubscribe", _params(uri), TIMEOUT_S)

    async def _ask_for_level(self, connection: Connection) -> None:
        params = self._level_of(connection)
        if params is not None:
            with contextlib.suppress(OctaveError):
                await connection.request(_SET_LEVEL, params, TIMEOUT_S)

    def _level_of(self, connection: Connection) -> bytes | None:
        # A modern one is told with each request.
        if self.level is None or connection.greeting.era == "modern":
            return None
        if wire.member(connection.greeting.result, "capabilities", "logging") is None:
            return None
        return b'{"level":"%b"}' % self.level.encode()

    def tell(self, connection: Connection, told: Told = NOTHING) -> Told:
        """Tell a server what is wanted by now and was not `told`; return what it knows then.

        At its greeting, in front of every call, and again when it takes over from another that was
        told meanwhile. A modern one learns it from `keep`.
        """
        level, (level_before, before) = self._level_of(connection), told
        if level is not None and level != level_before:
            connection.tell(_SET_LEVEL, level)
        wanted = frozenset(self._wanted)
        if connection.greeting.era == "legacy":
            for verb, uris in (("subscribe", wanted - before), ("unsubscribe", before - wanted)):
                for uri in sorted(uris):
                    connection.tell(f"resources/{verb}", _params(uri))
        return level, wanted

    async def keep(self, connection: Connection) -> None:
        """Keep a modern server's subscription in line with what is wanted."""
        self._granted = set()
        if connection.greeting.era == "modern":
            await self._listen(connection)

    def acknowledged(self, message: Message) -> None:
        """Take the acknowledgement of a subscription that was opened here."""
        self._accepted = _members(wire.member(message.params or b"{}", "notifications"))
        uris = self._accepted.get("resourceSubscriptions", b"[]")
        # Anything but a string may be there: it is not looked for, and must not be hashed.
        self._granted = set(filter(None, map(_string, wire.elements(uris))))
        self._answered.set()
        self._answered = anyio.Event()

    async def _grant(self, connection: Connection, uri: str) -> None:
        with anyio.move_on_after(ACKNOWLEDGED_S):
            while uri not in self._granted:
                await self._answered.wait()
        if uri not in self._granted:
            raise OctaveError(f"`{connection.name}` acknowledged no subscription of `{uri}`")

    def _poke(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _listen(self, connection: Connection) -> None:
        async with anyio.create_task_group() as tasks:
            before = anyio.CancelScope()
            while True:
                changed, scope = self._changed, anyio.CancelScope()
                params = self._filter(connection.greeting.result)
                if params is not None:
                    tasks.start_soon(_subscribe, connection, params, scope)
                before.deadline = anyio.current_time() + OVERLAP_S
                await changed.wait()
                before = scope

    def _filter(self, discovered: bytes) -> bytes | None:
        wanted: dict[str, bytes] = {
            name: b"true"
            for capability, name in _KINDS.items()
            if wire.member(discovered, "capabilities", capability, "listChanged") == b"true"
        }
        if self._wanted:
            wanted["resourceSubscriptions"] = json.dumps(list(self._wanted)).encode()
        for filters in self._others.values():
            for name, value in filters.items():
                wanted[name] = _union(wanted.get(name), value)
        if not wanted:
            return None
        members = (b"%b:%b" % (wire.text(name), value) for name, value in wanted.items())
        return b'{"notifications":{%b}}' % b",".join(members)


async def _subscribe(connection: Connection, params: bytes, scope: anyio.CancelScope) -> None:
    pause_s = AGAIN_S
    with scope:
        while not connection.closed.is_set():
            began_s = anyio.current_time()
            with contextlib.suppress(OctaveError):
                answer = await connection.request(LISTEN, params, math.inf)
                if answer.error is not None:
                    # Refused, it is begun anew with the next change, or the next process.
                    return
            # It may have lost its stream alone, as those of remote servers do.
            if anyio.current_time() - began_s > AGAIN_AT_MOST_S:
                pause_s = AGAIN_S
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_AT_MOST_S)


def _union(value: bytes | None, other: bytes) -> bytes:
    """Return what covers two filters of one name: of lists all elements, else the later one."""
    if value is None or not (value.startswith(b"[") and other.startswith(b"[")):
        return other
    each = dict.fromkeys((*wire.elements(value), *wire.elements(other)))
    return b"[%b]" % b",".join(each)


def _members(text: bytes | None) -> dict[str, bytes]:
    if text is None or not text.startswith(b"{"):
        return {}
    return json_text.members_by_name(text)


def _params(uri: str) -> bytes:
    return json.dumps({"uri": uri}).encode()


def _string(raw: bytes) -> str | None:
    return json.loads(raw) if raw.startswith(b'"') else None
