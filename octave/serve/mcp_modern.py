"""The conversations of clients that have no sessions: each request says whose it is.

Requests at one endpoint whose envelopes say the same of their client share a conversation, and with
it the processes that are for it alone. Two clients that say the very same cannot be told apart:
what a server asks during the call of one is never asked of the other all the same, as a call is
answered where it was made.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from octave.errors import ServerBusy
from octave.gateway.audience import Scope
from octave.gateway.session import Session
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, CLIENT_INFO_KEY
from octave.serve.socket import Wish

CLIENTS_LIMIT = 256
"""On one machine: more can only be one that says something else of itself each time."""

_Key = tuple[Wish, bytes]


@dataclass(slots=True, eq=False)
class Shared:
    """The conversation of one client."""

    scope: Scope
    session: Session
    used_at_s: float
    calls: int = 0
    is_replaced: bool = False

    def end_if_done(self) -> None:
        """End it once it has been replaced, and the last call here is answered."""
        if self.is_replaced and not self.calls:
            self.session.close()


class ModernClients:
    """All of them.

    Args:
        start: opens and starts a conversation at an endpoint that shows these servers.
        clock: monotonic, in seconds.
        idle_s: for how long a client that is away is remembered; longer than a call is parked.
    """

    def __init__(
        self,
        start: Callable[[Scope], Awaitable[Session]],
        clock: Callable[[], float],
        idle_s: float,
    ) -> None:
        self._start = start
        self._clock = clock
        self._idle_s = idle_s
        self._clients: dict[_Key, Shared] = {}
        self._starting = anyio.Lock()

    async def begin(self, wish: Wish, scope: Scope, message: wire.Message) -> Shared:
        """Return the conversation that a request belongs to, which counts it until `end`.

        Raises:
            ServerBusy: there are too many, and none of them rests.
        """
        key = wish, _said_of_client(message)
        async with self._starting:
            shared = self._clients.get(key)
            if shared is None or shared.scope != scope:
                if shared is None:
                    self._make_room()
                session = await self._start(scope)
                if shared is not None:
                    shared.is_replaced = True
                    shared.end_if_done()
                shared = Shared(scope, session, self._clock())
            # To the end: the first one is the one that was used least lately.
            self._clients.pop(key, None)
            self._clients[key] = shared
            shared.calls += 1
        return shared

    def end(self, shared: Shared) -> None:
        """Take note that a request is answered."""
        shared.calls -= 1
        shared.used_at_s = self._clock()
        shared.end_if_done()

    def expire(self) -> None:
        """End the conversations of clients that are away for too long."""
        for key, shared in list(self._clients.items()):
            if not shared.calls and self._clock() - shared.used_at_s >= self._idle_s:
                self._forget(key)

    def close(self) -> None:
        """End all of them; what is open in them is answered."""
        for shared in self._clients.values():
            shared.session.close()

    def _make_room(self) -> None:
        if len(self._clients) < CLIENTS_LIMIT:
            return
        resting = (key for key, shared in self._clients.items() if not shared.calls)
        oldest = next(resting, None)
        if oldest is None:
            raise ServerBusy(f"{CLIENTS_LIMIT} clients wait for answers", hint="try again later")
        self._forget(oldest)

    def _forget(self, key: _Key) -> None:
        self._clients.pop(key).session.close()


def _said_of_client(message: wire.Message) -> bytes:
    meta = wire.member(message.params or b"{}", "_meta") or b"{}"
    said = (wire.member(meta, CAPABILITIES_KEY), wire.member(meta, CLIENT_INFO_KEY))
    return hashlib.sha256(repr(said).encode()).digest()
