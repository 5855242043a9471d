"""The lines of one HTTP response: kept until they are read, and for a while to be read again.

Whoever answers writes without waiting; one response at a time reads. Memory is bounded: a reader
that is too far behind is cut off, and of what nobody reads the oldest is forgotten. Framing:
server-sent events (HTML standard, 9.2), resumed by event id (MCP 2025-11-25, transports).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

CUT_AFTER_BYTES = 32 * 2**20
"""Twice the largest message: a client that far behind does not read at all."""

KEPT_BYTES = 2**20
"""Of lines that were read, or that nobody reads now; the newest is kept whatever its size."""

RETRY_MS = 1000
"""How long a client shall wait before it comes again for the rest."""

COMMENT = b":\n\n"
"""Nothing to a client; to everything in between, a sign of life."""

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One line, and where it stands in its stream; the first is number 1."""

    number: int
    line: bytes
    is_answer: bool = False
    """To the request that the stream is about: nothing follows it."""


class Stream:
    """What one request, or nobody's, has to say.

    Args:
        name: unique in its session, and the first half of its events' ids. None: it cannot be read
            again, and its events have no ids.
    """

    def __init__(self, name: str | None = None) -> None:
        self.is_over = False
        self.is_resumable = False
        """The client has been told an id that it can come back with."""
        self._name = name
        self._events: deque[Event] = deque()
        self._size_bytes = 0
        self._unread_bytes = 0
        self._newest = 0
        self._read = 0
        """The number of the last event that was read."""
        self._reader: Reader | None = None
        self._news = anyio.Event()

    @property
    def size_bytes(self) -> int:
        """How much is kept."""
        return self._size_bytes

    @property
    def has_reader(self) -> bool:
        """Whether a response is open on it."""
        return self._reader is not None

    def put(self, line: bytes, *, is_answer: bool = False) -> None:
        """Add a line, given without newline; never raises, and does nothing once it is over."""
        if self.is_over:
            return
        self._newest += 1
        self._events.append(Event(self._newest, line, is_answer))
        self._size_bytes += len(line)
        self._unread_bytes += len(line)
        self.is_over = is_answer
        self._wake()
        if self._reader is None:
            self._forget(self._newest - 1)
        elif self._unread_bytes > CUT_AFTER_BYTES and self._read < self._newest - 1:
            self._reader.close(cut=True)

    def end(self) -> None:
        """Nothing follows; idempotent."""
        self.is_over = True
        self._wake()

    def attach(self, after: int | None = None) -> "Reader":
        """Return a reader of what was not read yet, or of all that is kept `after` that event.

        A reader that was there before reads no more: its connection is lost, we only do not know.
        """
        if self._reader is not None:
            self._reader.close()
        if after is not None:
            self._read = min(after, self._newest)
            unread = (event for event in self._events if event.number > self._read)
            self._unread_bytes = sum(len(event.line) for event in unread)
        self._reader = Reader(self)
        return self._reader

    def prime(self, first: Event | None = None) -> bytes:
        """Return an event without a message, to be sent in front of `first`.

        With its id a client can come back before it has been sent anything, and misses nothing.
        Only MCP 2025-11-25 has it; older clients would take the empty text for a message.
        """
        self.is_resumable = True
        place = self._read if first is None else first.number - 1
        return b"id: %b\nretry: %d\ndata:\n\n" % (self._id(place), RETRY_MS)

    def encode(self, event: Event) -> bytes:
        """Return an event as it is sent."""
        # Between its values JSON may hold a CR, which would end the line here.
        data = event.line.replace(b"\r", b" ") if b"\r" in event.line else event.line
        if self._name is None:
            return b"event: message\ndata: %b\n\n" % data
        self.is_resumable = True
        return b"id: %b\nevent: message\ndata: %b\n\n" % (self._id(event.number), data)

    def _id(self, number: int) -> bytes:
        return f"{self._name}-{number}".encode()

    def _wake(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    def _next(self) -> Event | None:
        if self._read == self._newest:
            return None
        # What is between was forgotten.
        place = max(0, len(self._events) - (self._newest - self._read))
        event = self._events[place]
        self._read = event.number
        self._unread_bytes -= len(event.line)
        self._forget(self._read - 1)
        return event

    def _forget(self, up_to: int) -> None:
        """Forget the oldest events, up to that number at most, until few enough bytes are kept."""
        kept_bytes = 0 if self._name is None else KEPT_BYTES
        read_bytes = self._size_bytes - (self._unread_bytes if self._reader is not None else 0)
        while read_bytes > kept_bytes and self._events and self._events[0].number <= up_to:
            size_bytes = len(self._events[0].line)
            if self._events.popleft().number > self._read:
                self._unread_bytes -= size_bytes
            self._size_bytes -= size_bytes
            read_bytes -= size_bytes


class Reader:
    """One response that reads a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.on_cut: Callable[[], None] = lambda: None
        """Called when the client is too far behind."""

    async def next(self) -> Event | None:
        """Wait for the next event; None when none follows, or somebody else reads now."""
        stream = self.stream
        while stream._reader is self:
            event = stream._next()
            if event is not None:
                return event
            if stream.is_over:
                return None
            await stream._news.wait()
        return None

    def close(self, *, cut: bool = False) -> None:
        """Read no more; idempotent."""
        if self.stream._reader is self:
            self.stream._reader = None
            self.stream._wake()
            self.stream._forget(self.stream._newest - 1)
            if cut:
                self.on_cut()
