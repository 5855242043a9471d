"""The conversations that are carried over HTTP: who has them, what is open in each, how they end.

A client of the handshake era has a session of its own, which ends when it says so or stays away;
those of the modern era have none, see `mcp_modern`. Calls live in tasks here, not in the HTTP
request that began them: it may be lost before the call ends, and be resumed.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.abc

from octave.errors import NotFound, NotRunning, OctaveError
from octave.gateway.audience import Scope
from octave.gateway.listing import text_of
from octave.gateway.session import Session
from octave.runtime import wire
from octave.runtime.interests import LISTEN
from octave.serve.mcp_modern import ModernClients, Shared
from octave.serve.socket import Wish
from octave.serve.sse import Reader, Stream

IDLE_S = 30 * 60.0
"""A client that is away for so long has forgotten its session; many never end it."""
LOOK_S = 60.0
"""How often such sessions are looked for; they may keep servers of their own running."""
SESSIONS_LIMIT = 1000
"""Clients on one machine: more can only be ones that open a session and forget it."""
SCOPE_S = 1.0
"""How long a profile may be served as it was; reading the manifest takes milliseconds."""
FINISHED_STREAMS = 16
FINISHED_BYTES = 4 * 2**20
"""Of a session, kept for clients that lost the connection before they had read everything."""

REQUEST_CANCELLED = -32800
"""As the SDK answers; before MCP 2026-07-28 the stream of a request ends with an answer, always."""

EVENT_DIGITS = 18
"""Of an event's number; no stream has that many."""

LOOSE = "0"
"""The name of the stream of what belongs to no request."""

_log = logging.getLogger(__name__)

OpenSession = Callable[[Scope, Callable[[bytes], None]], Session]


class Call:
    """One request on its way to its answer, which is the last thing in its stream."""

    def __init__(self, session: Session, message: wire.Message, stream: Stream) -> None:
        self.stream = stream
        self.scope = anyio.CancelScope()
        self.message = message
        self._session = session

    async def run(self) -> bytes:
        """Return the answer, which may be that there is none; it is in the stream by then."""
        identifier = self.message.id or b"null"
        answer = wire.error(identifier, REQUEST_CANCELLED, "ended before it was answered")
        try:
            with self.scope:
                answer = await self._session.serve(self.message, self._say)
        finally:
            self.stream.put(answer, is_answer=True)
        return answer

    def _say(self, line: bytes) -> None:
        # A session that is closed answers its subscriptions like this, and no longer by `serve`.
        is_answer = self.message.method == LISTEN and wire.member(line, "method") is None
        self.stream.put(line, is_answer=is_answer)


class LegacySession:
    """The conversation that an `Mcp-Session-Id` stands for.

    Args:
        wish: the endpoint it belongs to; its id means nothing at others.
        tasks: own what is open in it.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        wish: Wish,
        open_session: Callable[[Callable[[bytes], None]], Session],
        tasks: anyio.abc.TaskGroup,
        clock: Callable[[], float],
    ) -> None:
        # 256 bit, of letters that a header may hold.
        self.id = secrets.token_urlsafe(32)
        self.wish = wish
        self.version = ""
        """What is spoken; empty until the client was told."""
        self.loose = Stream(LOOSE)
        self._session = open_session(self.loose.put)
        self._tasks = tasks
        self._clock = clock
        self._calls: dict[Stream, Call] = {}
        self._streams = {LOOSE: self.loose}
        self._named = 0
        self._readers = 0
        self._used_at_s = clock()

    @property
    def is_forgotten(self) -> bool:
        """Whether the client has been away for too long."""
        return not self._readers and self._clock() - self._used_at_s >= IDLE_S

    async def start(self) -> None:
        """Begin the conversation; it goes on until `close`."""
        await self._tasks.start(_own, self._session)

    def take(self, message: wire.Message) -> None:
        """Take a notification, or an answer to what a server asked."""
        self._used_at_s = self._clock()
        self._session.take(message)

    def begin(self, message: wire.Message) -> Reader:
        """Begin to answer a request; return what reads the answer, and all that comes before."""
        self._named += 1
        name = str(self._named)
        stream = self._streams[name] = Stream(name)
        self._calls[stream] = Call(self._session, message, stream)
        self._tasks.start_soon(self._answer, self._calls[stream])
        return self.read(stream)

    def read(self, stream: Stream, after: int | None = None) -> Reader:
        """Return what reads the stream from now on, or from `after` that event; to be `left`."""
        self._readers += 1
        return stream.attach(after)

    def find(self, event_id: str) -> tuple[Stream, int] | None:
        """Return the stream of an event and its place there; None when nothing is kept of it."""
        name, _, number = event_id.partition("-")
        stream = self._streams.get(name)
        if stream is None or not stream.is_resumable:
            return None
        is_place = number.isascii() and number.isdigit() and len(number) <= EVENT_DIGITS
        return (stream, int(number)) if is_place else None

    def left(self, reader: Reader) -> None:
        """Take note that a response is over, or its connection lost.

        A call whose answer nobody can come back for is cancelled: the client cannot do it now.
        """
        reader.close()
        self._readers -= 1
        self._used_at_s = self._clock()
        stream = reader.stream
        if stream in self._calls and not stream.is_resumable and not stream.has_reader:
            self._calls[stream].scope.cancel()
        self._tidy()

    def close(self) -> None:
        """End it and everything that is open in it; idempotent."""
        self._session.close()
        for call in self._calls.values():
            call.scope.cancel()
        self.loose.end()

    async def _answer(self, call: Call) -> None:
        try:
            answer = await call.run()
        finally:
            del self._calls[call.stream]
            self._tidy()
        if call.message.method == "initialize":
            self.version = text_of(answer, "result", "protocolVersion") or self.version

    def _tidy(self) -> None:
        """Forget the streams that nobody can come back to, or that are too many."""
        finished = [
            (name, stream)
            for name, stream in self._streams.items()
            if stream.is_over and not stream.has_reader
        ]
        kept_bytes = sum(stream.size_bytes for _, stream in finished)
        for left, (name, stream) in zip(range(len(finished), 0, -1), finished, strict=True):
            is_too_much = left > FINISHED_STREAMS or (left > 1 and kept_bytes > FINISHED_BYTES)
            if is_too_much or not stream.is_resumable:
                del self._streams[name]
                kept_bytes -= stream.size_bytes


@dataclass(slots=True)
class _Seen:
    scope: Scope
    at_s: float


class Conversations:
    """All of them, by session id and by endpoint.

    Args:
        scope_of: says which servers an endpoint shows; an `OctaveError` refuses the client.
    """

    def __init__(
        self,
        open_session: OpenSession,
        scope_of: Callable[[Wish], Scope],
        clock: Callable[[], float],
    ) -> None:
        self._open_session = open_session
        self._scope_of = scope_of
        self._clock = clock
        self._sessions: dict[str, LegacySession] = {}
        self._modern = ModernClients(self._start, clock, IDLE_S)
        self._seen: dict[Wish, _Seen] = {}
        self._calls = 0
        self._closing = anyio.Event()
        self._tasks: anyio.abc.TaskGroup

    def __len__(self) -> int:
        """How many there are: sessions, and modern requests without an answer."""
        return len(self._sessions) + self._calls

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own every conversation until `close`; what is open ends with an answer of its own."""
        # Cancelled from outside, calls would end before their sessions could answer them.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._look)
                task_status.started()
                await self._closing.wait()
                for session in list(self._sessions.values()):
                    self.end(session)
                self._modern.close()
                self._tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Let nobody in any more, and let `run` end."""
        self._closing.set()

    @property
    def is_full(self) -> bool:
        """Whether no further session can be had."""
        self.expire()
        return len(self._sessions) >= SESSIONS_LIMIT

    def scope(self, wish: Wish) -> Scope:
        """Return which servers an endpoint shows.

        Raises:
            NotFound: there is no such server or profile.
            NotRunning: the runtime ends.
            OctaveError: the manifest cannot be read, and was never.
        """
        if self._closing.is_set():
            raise NotRunning("the runtime is stopping")
        seen = self._seen.get(wish)
        if seen is not None and self._clock() - seen.at_s < SCOPE_S:
            return seen.scope
        try:
            scope = self._scope_of(wish)
        except NotFound:
            self._seen.pop(wish, None)
            raise
        except OctaveError:
            if seen is None:
                raise
            scope = seen.scope
        self._seen[wish] = _Seen(scope, self._clock())
        return scope

    async def open(self, wish: Wish) -> LegacySession:
        """Return a new session of the handshake era at that endpoint.

        Raises:
            OctaveError: as `scope`.
        """
        scope = self.scope(wish)
        session = LegacySession(
            wish, lambda send: self._open_session(scope, send), self._tasks, self._clock
        )
        self._sessions[session.id] = session
        await session.start()
        return session

    def find(self, identifier: str, wish: Wish) -> LegacySession | None:
        """Return the session of that id at that endpoint, if it has not ended."""
        session = self._sessions.get(identifier)
        if session is None or session.wish != wish:
            return None
        if session.is_forgotten:
            self.end(session)
            return None
        return session

    def end(self, session: LegacySession) -> None:
        """End a session; idempotent."""
        self._sessions.pop(session.id, None)
        session.close()

    def expire(self) -> None:
        """End the sessions whose clients are away for too long."""
        for session in list(self._sessions.values()):
            if session.is_forgotten:
                self.end(session)
        self._modern.expire()

    async def begin(self, wish: Wish, message: wire.Message) -> Call:
        """Begin to answer a modern request; cancelling its scope cancels it at the server.

        Raises:
            ServerBusy: too many clients wait for answers.
            OctaveError: as `scope`.
        """
        shared = await self._modern.begin(wish, self.scope(wish), message)
        call = Call(shared.session, message, Stream())
        self._calls += 1
        self._tasks.start_soon(self._answer, shared, call)
        return call

    async def _answer(self, shared: Shared, call: Call) -> None:
        try:
            await call.run()
        finally:
            self._modern.end(shared)
            self._calls -= 1

    async def _start(self, scope: Scope) -> Session:
        session = self._open_session(scope, lambda _: None)
        await self._tasks.start(_own, session)
        return session

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            self.expire()


async def _own(
    session: Session, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    try:
        await session.run(task_status=task_status)
    except Exception:  # noqa: BLE001 - the edge to one client, whose bug is not the others'
        _log.exception("a bug while serving a session over HTTP")
