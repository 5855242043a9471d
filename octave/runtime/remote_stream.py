"""Messages out of HTTP bodies: whole ones, and streams of server-sent events. Pure.

The SDK reads a stream too, to know where it can be resumed and when it is done. It is given what
that takes: of each event its id and, in place of an answer, `DONE`. So a message is parsed once,
arrives as the bytes it was sent as, and may be longer than the SDK allows.
Source: HTML Living Standard, server-sent events, 9.2.6.
"""

from collections.abc import Callable

from octave.runtime import wire
from octave.runtime.wire import Oversize

DONE = b'{"jsonrpc":"2.0","id":0,"result":{}}'
"""What the SDK sees of any answer; it puts in the id of its request."""

RETRY_MS = (100, 60_000)
"""How soon a server may want its clients back, at least and at most: it must not drive them."""

_OURS = (b"", b"message")


def flat(text: bytes) -> bytes:
    """Return JSON as one line: line breaks are white space there, and never part of a string."""
    return text.replace(b"\r", b" ").replace(b"\n", b" ").strip()


def messages(body: bytes) -> list[bytes]:
    """Return the messages of a JSON body, each as a line; of a batch (MCP 2025-03-26) all."""
    text = flat(body)
    return wire.elements(text) if text.startswith(b"[") else [text]


class EventStream:
    """One stream, of which one event at most is held.

    Args:
        limit_bytes: of one event.
        on_message: takes the data of a message event as a line, or both ends of one over the
            limit; tells whether it is an answer.
        on_event: takes the name and data of any other event; tells whether to pass it on.
    """

    def __init__(
        self,
        limit_bytes: int,
        on_message: Callable[[bytes | Oversize], bool],
        on_event: Callable[[bytes, bytes], bool],
    ) -> None:
        self._limit_bytes = limit_bytes
        self._on_message = on_message
        self._on_event = on_event
        self._framer = wire.Framer(limit_bytes + len(b"data: "))
        self._line_began = False
        self._had_return = False
        self._event = b""
        self._data: list[bytes] = []
        self._size_bytes = 0
        self._others: dict[bytes, bytes] = {}
        """Of each field the last line, which is the one that counts."""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they come; return what is to be seen of them."""
        *complete, rest = self._with_newlines(chunk).split(b"\n")
        seen = b""
        for end in complete:
            if end or self._line_began:
                for line in self._framer.feed(end + b"\n"):
                    self._take(line)
            else:
                seen += self._dispatched()
            self._line_began = False
        if rest:
            self._framer.feed(rest)
            self._line_began = True
        return seen

    def _with_newlines(self, chunk: bytes) -> bytes:
        """Return `chunk` with one newline for each end of a line: CR, LF or both."""
        if self._had_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._had_return = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _take(self, line: bytes | Oversize) -> None:
        head = line.head if isinstance(line, Oversize) else line
        name, _, value = head.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            size_bytes = line.size_bytes if isinstance(line, Oversize) else len(value)
            # What joins the lines counts: there may be any number of empty ones.
            size_bytes += 1 if self._data else 0
            if self._size_bytes + size_bytes > self._limit_bytes:
                # Both ends of it, for the id.
                value = value[: wire.HEAD_BYTES]
                tail = line.tail if isinstance(line, Oversize) else line[-wire.TAIL_BYTES :]
                self._data = [*self._data[:1], value, tail]
            else:
                self._data.append(value)
            self._size_bytes += size_bytes
        elif name == b"event":
            self._event = value
        elif name == b"id":
            self._others[name] = head
        elif name == b"retry" and value.isdigit():
            # Of a number that long only the length counts.
            wait_ms = min(max(int(value[:9]), RETRY_MS[0]), RETRY_MS[1])
            self._others[name] = b"retry: %d" % wait_ms

    def _dispatched(self) -> bytes:
        event, data, size_bytes = self._event, self._data, self._size_bytes
        others = [*self._others.values()]
        self._event, self._data, self._size_bytes, self._others = b"", [], 0, {}
        if event not in _OURS:
            shown = [b"event: " + event, *(b"data: " + line for line in data)]
            others += shown if self._on_event(event, b"\n".join(data)) else []
        elif size_bytes > self._limit_bytes:
            head, tail = data[0][: wire.HEAD_BYTES], data[-1][-wire.TAIL_BYTES :]
            if self._on_message(Oversize(head, size_bytes, tail)):
                others.append(b"data: " + DONE)
        elif any(data) and self._on_message(flat(b" ".join(data))):
            others.append(b"data: " + DONE)
        return b"\n".join((*others, b"", b"")) if others else b""
