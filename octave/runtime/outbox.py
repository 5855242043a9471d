"""What one process is to read: lines on their way into its stdin, in order, and how far they got.

Writing never blocks. What is written while one peer has its turn, or else within one turn of the
event loop, leaves together: each write costs as much as a short line does otherwise.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from typing import IO

from octave.runtime.pace import at_end_of_turn

TOGETHER_LINES = 64
TOGETHER_BYTES = 64 * 1024
"""So many leave in one write, and more than that do not wait for the end of the turn."""
PIPE_BYTES = 256 * 1024
"""Of a pipe, where the system lets it grow: with the usual 64 KiB the two sides of a message of a
megabyte wait for each other a dozen times. Linux lets an ordinary user have 64 MiB in all."""


class Outbox:
    """Lines for one pipe.

    Args:
        lost: called once, when the pipe is closed at the other end; `is_closed` then.
    """

    def __init__(self, pipe: IO[bytes], lost: Callable[[], None]) -> None:
        self.written = 0
        """Tickets up to this one have at least begun to leave."""
        self.waiting = 0
        """How many lines have not begun to leave."""
        self.waiting_bytes = 0
        self.is_closed = False
        self.is_blocked = False
        """The pipe takes no more for now; what it took to the middle of a line waits, too."""
        self._pipe = pipe
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._rest: list[memoryview] = []
        self._tickets = 0
        self._is_due = False
        os.set_blocking(pipe.fileno(), False)
        # A pipe that is only written to becomes readable when nobody reads it any more.
        self._loop.add_reader(pipe.fileno(), self._end)

    def put(self, line: bytes) -> int:
        """Send `line` and a newline as soon as the pipe takes it; return its ticket, from 1.

        Raises:
            BrokenPipeError: it is closed.
        """
        if self.is_closed:
            raise BrokenPipeError
        self._tickets += 1
        self._queue.append((self._tickets, line))
        self.waiting += 1
        self.waiting_bytes += len(line)
        if self.is_blocked:
            return self._tickets
        if not self._is_due:
            self._is_due = True
            if not at_end_of_turn(self._turn):
                # One that is alone does not wait, those that follow it leave together.
                self._loop.call_soon(self._turn)
                self._flush()
            elif self.waiting_bytes >= TOGETHER_BYTES:
                self._flush()
        elif self.waiting >= TOGETHER_LINES or self.waiting_bytes >= TOGETHER_BYTES:
            self._flush()
        return self._tickets

    def withdraw(self, ticket: int) -> bool:
        """Take a line back; False when it has begun to leave already."""
        for waiting in self._queue:
            if waiting[0] == ticket:
                self._queue.remove(waiting)
                self._forget(waiting[1])
                return True
        return False

    def close(self) -> None:
        """Close the pipe and forget what waits; idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._loop.remove_reader(self._pipe.fileno())
            self._loop.remove_writer(self._pipe.fileno())
            self._pipe.close()
        self._queue.clear()
        self._rest.clear()
        self.waiting = self.waiting_bytes = 0

    def _turn(self) -> None:
        self._is_due = False
        if not self.is_blocked:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._rest or self._queue:
                if self._rest:
                    self._write_rest()
                else:
                    self._write_lines()
        except BlockingIOError:
            if not self.is_blocked:
                self.is_blocked = True
                self._loop.add_writer(self._pipe.fileno(), self._flush)
        except OSError:
            # Nobody reads, which shows here first: nothing of what waits left.
            self._end()
        else:
            if self.is_blocked:
                self.is_blocked = False
                self._loop.remove_writer(self._pipe.fileno())

    def _write_rest(self) -> None:
        taken = os.writev(self._pipe.fileno(), self._rest)
        while self._rest and taken >= len(self._rest[0]):
            taken -= len(self._rest.pop(0))
        if taken:
            self._rest[0] = self._rest[0][taken:]

    def _write_lines(self) -> None:
        batch = self._next()
        text = batch[0][1] if len(batch) == 1 else b"\n".join([line for _, line in batch])
        taken = os.writev(self._pipe.fileno(), (text, b"\n"))
        if taken == len(text) + 1 and len(batch) == len(self._queue):
            self.written = batch[-1][0]
            self._queue.clear()
            self.waiting = self.waiting_bytes = 0
            return
        for ticket, line in batch:
            if taken <= 0:
                return
            self._queue.popleft()
            self._forget(line)
            self.written = ticket
            if taken <= len(line):
                self._rest = [memoryview(line)[taken:], memoryview(b"\n")]
            taken -= len(line) + 1

    def _next(self) -> list[tuple[int, bytes]]:
        """Return the lines that leave in the next write; they stay in the queue till then."""
        if len(self._queue) <= TOGETHER_LINES and self.waiting_bytes <= TOGETHER_BYTES:
            return list(self._queue)
        batch: list[tuple[int, bytes]] = []
        size_bytes = 0
        for waiting in self._queue:
            size_bytes += len(waiting[1]) + 1
            if batch and (size_bytes > TOGETHER_BYTES or len(batch) == TOGETHER_LINES):
                break
            batch.append(waiting)
        return batch

    def _forget(self, line: bytes) -> None:
        self.waiting -= 1
        self.waiting_bytes -= len(line)

    def _end(self) -> None:
        """Nobody reads any more. `lost` may look at what waits, before that is forgotten."""
        self._lost()
        self.close()


def widen(descriptor: int) -> None:
    """Let a pipe hold `PIPE_BYTES`, where the system permits it (fcntl(2), F_SETPIPE_SZ)."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
