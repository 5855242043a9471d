"""Lines out of a stream of bytes: MCP 2025-11-25, transports, stdio.

Pure. Memory is bounded by the limit per line, time is linear in its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

HEAD_BYTES = 4096
"""How much of a too long line is kept: its id stands near the start."""

TAIL_BYTES = 256
"""Where the id of a message stands that ends with it."""

_NEWLINE = ord("\n")

_APART_BYTES = 4096
"""Smaller pieces of a line are not kept each for itself: that may take many times their size."""


@dataclass(frozen=True, slots=True)
class Oversize:
    """A line over the limit, dropped but for both ends; its length is without newline."""

    head: bytes
    size_bytes: int
    tail: bytes = field(default=b"", compare=False)


class Framer:
    """Cuts a stream of bytes into lines at ``\\n`` and nowhere else; holds one line at most."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._rest: list[bytes | bytearray] = []
        self._size_bytes = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes | Oversize]:
        """Take `data` and return the lines it completes, without newline; empty ones are dropped.

        One trailing ``\\r`` is stripped. A line over the limit becomes one `Oversize` when it ends.
        """
        if _NEWLINE not in data:
            # Much faster than `split`, which has to look at each byte of a long line.
            self._keep(data)
            return []
        if not self._size_bytes and data.find(b"\n") == len(data) - 1 <= self._limit_bytes:
            # Most of what comes: one line.
            line = data[:-1].removesuffix(b"\r")
            return [line] if line else []
        *complete, rest = data.split(b"\n")
        lines: Sequence[bytes | Oversize] = complete
        if self._size_bytes or len(data) > self._limit_bytes or b"\r" in data:
            lines = [self._whole(end) for end in complete]
        self._keep(rest)
        return [line for line in lines if line]

    def end(self) -> bytes:
        """Return what came after the last newline (its head, when it is over the limit)."""
        rest = b"".join(self._rest)
        self._rest.clear()
        self._size_bytes = 0
        return rest

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            kept = b"".join(self._rest)
            self._tail = ((self._tail or kept[-TAIL_BYTES:]) + data[-TAIL_BYTES:])[-TAIL_BYTES:]
            self._rest = [(kept + data[:HEAD_BYTES])[:HEAD_BYTES]]
        elif not self._rest or len(data) >= _APART_BYTES:
            # Put together once: what grows piece by piece is copied again and again.
            self._rest.append(data)
        elif isinstance(self._rest[-1], bytearray):
            self._rest[-1] += data
        else:
            self._rest.append(bytearray(data))

    def _whole(self, line: bytes) -> bytes | Oversize:
        size_bytes = len(line)
        if self._size_bytes:
            self._keep(line)
            size_bytes, line = self._size_bytes, self.end()
        if size_bytes > self._limit_bytes:
            tail, self._tail = self._tail or line[-TAIL_BYTES:], b""
            return Oversize(line[:HEAD_BYTES], size_bytes, tail)
        return line.removesuffix(b"\r")
