"""How fast a peer is heard, so that none of them keeps the event loop from the others.

Hearing it costs time of the loop that everybody shares. What it wrote is handed over in portions, a
few in each turn of the loop, and when it has cost more than its share it is left alone for a while:
what it writes meanwhile waits in the kernel, and then it waits itself. Nothing is dropped.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import IO

import anyio

PIECE_BYTES = 64 * 1024
"""Read at once, and so much waits here."""
PIECE_MAX_BYTES = 256 * 1024
"""As above, of a pipe that is found full each time: no pipe here holds more."""
PORTION_BYTES = 256
"""Handed over at once. Of the shortest lines that costs some milliseconds at worst."""
PORTION_MAX_BYTES = 64 * 1024
CHEAP_S = 0.0001
"""Portions that cost less grow up to the maximum. So large is one at once in which no line ends."""
TURN_S = 0.001
"""Of processor time in one turn of the loop: a call to a neighbour takes a handful of turns."""
SHARE = 0.25
"""Of one processor, for one peer in the long run: some 25 MB of log lines in a second. Old log
files are packed faster than that."""
WIDE_SHARE = 0.9
"""As above, of what somebody waits for (`heed`): how much of that comes is bounded by who waits."""
LONG_STEP_S = 0.005
"""What a step takes beyond that counts in full: nobody else has the loop before its end."""
BURST_S = 0.01
"""Of processor time, before the share counts: what a usual exchange costs is never held up."""


LONG_BYTES = 2 * 2**20
"""A line from here on costs tens of milliseconds until it has passed."""
BREATH_S = 0.002
"""For each megabyte, about as long as a step with it takes."""


class _Turn(threading.local):
    """Of this thread: what one peer wrote is being handed over."""

    later: list[Callable[[], None]] | None = None
    """What is done at its end; None outside of any."""


_TURN = _Turn()


def at_end_of_turn(do: Callable[[], None]) -> bool:
    """Have `do` called as soon as the peer that is heard right now has had its turn.

    So what comes of several lines leaves together, without another turn of the loop. It must not
    raise. Returns False, and does nothing, while nobody is heard.
    """
    later = _TURN.later
    if later is None:
        return False
    later.append(do)
    return True


async def breathe(line: bytes) -> None:
    """Between two steps with a long line, let others have the loop in the meantime."""
    if len(line) >= LONG_BYTES:
        await anyio.sleep(BREATH_S * len(line) / 10**6)


class Pace:
    """Hands over what one peer wrote.

    Args:
        received: takes the bytes, in order.
        pause: nothing may be read until `resume`, as something waits here or the peer has cost too
            much. Both may be called again.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self._received = received
        self._pause = pause
        self._resume = resume
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._at = 0
        """How much of that was handed over."""
        self._is_paused = False
        self._portion_bytes = PORTION_BYTES
        self._settled_at_s = 0.0
        """When what it has cost so far will have been its share, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_heeded = False
        self._is_hurried = False
        self._is_over = False

    def take(self, data: bytes) -> None:
        """Hand `data` over, now and in the next turns; to be called when nothing waits."""
        self._rest, self._at = data, 0
        self._turn()

    def heed(self) -> None:
        """Say, while the bytes are taken, that somebody waits for what they are."""
        self._is_heeded = True

    def hurry(self) -> None:
        """Wait no more between turns: what is still to come is little."""
        self._is_hurried = True
        if self._timer is not None:
            self._timer.cancel()
            self._turn()

    def flush(self) -> None:
        """Hand over what waits at once."""
        rest, self._rest = self._rest[self._at :], b""
        if rest:
            self._received(rest)

    def end(self) -> None:
        """Forget what waits, and neither pause nor resume any more."""
        self._rest = b""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        self._timer = None
        later: list[Callable[[], None]] = []
        outer = _TURN.later
        _TURN.later = later
        # Of the processor: what else a busy machine does meanwhile is not the peer's fault.
        began_s = now_s = time.thread_time()
        charge_s = 0.0
        try:
            while self._rest and now_s - began_s < TURN_S:
                before_s = now_s
                self._is_heeded = False
                self._received(self._portion())
                now_s = time.thread_time()
                cost_s = now_s - before_s
                charge_s += self._charge_s(cost_s)
                if cost_s >= CHEAP_S:
                    self._portion_bytes = PORTION_BYTES
                elif self._portion_bytes < PORTION_MAX_BYTES:
                    self._portion_bytes *= 2
        finally:
            _TURN.later = outer
            for do in later:
                do()
            self._wait(charge_s)

    def _charge_s(self, cost_s: float) -> float:
        """Return for how long a peer has had its share with that."""
        if not self._is_heeded:
            return cost_s / SHARE
        charge_s = cost_s / WIDE_SHARE
        return charge_s if cost_s < LONG_STEP_S else charge_s + (cost_s - LONG_STEP_S) / SHARE

    def _portion(self) -> bytes:
        rest, at = self._rest, self._at
        until = at + self._portion_bytes
        if until < len(rest):
            until = self._until(until)
        if until >= len(rest):
            self._rest = b""
            return rest[at:] if at else rest
        self._at = until
        return rest[at:until]

    def _until(self, until: int) -> int:
        """Return where a portion ends that would end at `until`."""
        rest, at = self._rest, self._at
        most = at + PORTION_MAX_BYTES
        if rest.find(b"\n", at, most) < 0:
            return most
        # Cut in two, a line has to be put together again.
        newline = rest.rfind(b"\n", (at + until) // 2, until)
        return until if newline < 0 else newline + 1

    def _wait(self, charge_s: float) -> None:
        if self._is_over:
            return
        now_s = self._loop.time()
        self._settled_at_s = max(self._settled_at_s, now_s) + charge_s
        wait_s = self._settled_at_s - now_s - BURST_S / SHARE
        if self._is_hurried:
            wait_s = 0.0
        if self._rest or wait_s > 0:
            self._is_paused = True
            self._pause()
            self._timer = self._loop.call_later(max(wait_s, 0.0), self._turn)
        elif self._is_paused:
            self._is_paused = False
            self._resume()


class PipeReader:
    """Reads the end of a pipe until it is closed, here or by the last process that holds it.

    Args:
        received: takes the bytes, in order.
        ended: called once, when nothing more will come; not after `close`.
    """

    def __init__(
        self, pipe: IO[bytes], received: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        self._pipe = pipe
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._piece_bytes = PIECE_BYTES
        self._pace = Pace(received, self._pause, self._resume)
        self.heed = self._pace.heed
        self.hurry = self._pace.hurry
        self.flush = self._pace.flush
        os.set_blocking(pipe.fileno(), False)
        self._resume()

    def close(self) -> None:
        """Hand over what was read, then close the pipe; idempotent."""
        if not self._pipe.closed:
            self._pause()
            self._pace.flush()
            self._pace.end()
            self._pipe.close()

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), self._piece_bytes)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            is_full = len(data) == self._piece_bytes
            self._piece_bytes = PIECE_MAX_BYTES if is_full else PIECE_BYTES
            self._pace.take(data)
        else:
            self.close()
            self._ended()

    def _pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._pipe.fileno())

    def _resume(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._loop.add_reader(self._pipe.fileno(), self._read)
