"""What a server writes: bytes in, messages out, and what is no message told apart.

An answer that is too large, or no JSON, fails its own call where its id can still be seen.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octave.errors import OctaveError
from octave.runtime import wire
from octave.runtime.wire import Message

NOISE_BYTES = 64 * 1024
"""Of a line that is no message: as much as shows what it is."""


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears of it, in the order it came."""

    message: Callable[[Message], bool]
    """Tells whether what follows has to wait: a task is to hear of this one first."""
    failure: Callable[[bytes, OctaveError], None]
    """Takes the raw id of a call and why its answer is none; the id is empty if it is not seen."""
    noise: Callable[[bytes], None]
    """Takes a line that is no message, at most `NOISE_BYTES` of it."""


class Unreadable(Exception):
    """The cause of an error: an answer is too large, or no JSON; `line` has it, or its head."""

    def __init__(self, line: bytes) -> None:
        super().__init__(line[: wire.HEAD_BYTES])
        self.line = line


class Incoming:
    """The lines of one server."""

    def __init__(self, name: str, limit_bytes: int, ears: Ears) -> None:
        self.noise = 0
        """Lines that were no messages."""
        self._name = name
        self._limit_bytes = limit_bytes
        self._ears = ears
        self._framer = wire.Framer(limit_bytes)
        self._loop = asyncio.get_running_loop()
        self._unread: list[bytes | wire.Oversize] = []
        """What came behind an answer that a task waits for."""
        self._is_held = False
        """Such a task has still to run."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        lines = self._framer.feed(data)
        if self._is_held:
            self._unread.extend(lines)
        else:
            self._read(lines)

    def end(self) -> None:
        """Read what waits: nothing more will come."""
        while self._unread:
            self._go_on()

    def _read(self, lines: Sequence[bytes | wire.Oversize]) -> None:
        for number, line in enumerate(lines, 1):
            if self._heard(line):
                # The task that waits for this answer runs first, and one that waits for that task:
                # also before what has not come yet.
                self._is_held = True
                self._unread.extend(lines[number:])
                self._loop.call_soon(self._loop.call_soon, self._go_on)
                return

    def _go_on(self) -> None:
        self._is_held = False
        lines, self._unread = self._unread, []
        self._read(lines)

    def _heard(self, line: bytes | wire.Oversize) -> bool:
        """Take one line; whether what follows has to wait a little."""
        if isinstance(line, wire.Oversize):
            self._too_large(line)
        elif not wire.is_object(line):
            self._is_noise(line)
        else:
            try:
                message = wire.decode(line)
            except wire.Malformed as error:
                self._broken(line, str(error))
            else:
                return self._ears.message(message)
        return False

    def _too_large(self, line: wire.Oversize) -> None:
        self._failed(
            line.head,
            line.tail,
            f"`{self._name}` sent a message of {line.size_bytes:,} bytes, too large: the limit is"
            f" {self._limit_bytes:,}",
            "raise `max_message` in the [runtime] table of octave.toml",
        )

    def _broken(self, line: bytes, reason: str) -> None:
        self._failed(
            line,
            line,
            f"`{self._name}` sent an answer that cannot be read: {reason}",
            f"`octave logs {self._name}` shows the line",
        )

    def _failed(self, line: bytes, end: bytes, text: str, hint: str) -> None:
        self._is_noise(line)
        head = line[: wire.HEAD_BYTES]
        link_id = wire.scan_id(head) or wire.id_at_end(head, end[-wire.TAIL_BYTES :])
        error = OctaveError(text, hint)
        error.__cause__ = Unreadable(line)
        self._ears.failure(link_id or b"", error)

    def _is_noise(self, line: bytes) -> None:
        self.noise += 1
        self._ears.noise(line[:NOISE_BYTES])
