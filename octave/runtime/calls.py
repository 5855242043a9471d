"""The calls of one server that are not over: how many wait, how many are in flight, since when.

Counts and tells, decides nothing. The runtime's own questions are among them; probes are not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from octave.errors import CallTimedOut, OctaveError

GIVEN_UP_AFTER_S = 30.0
"""A caller who has waited so long before he leaves had a deadline of his own: many clients have one
of a minute, and a server that hangs would never see ours. Sooner, he only changed his mind."""


class Calls:
    """Who wants something of a server right now. `clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self.waiting = 0
        """How many of them wait for the server to be ready."""
        self.overdue_s: float | None = None
        """When a call ran out of time, the first since the server was last seen to be well. A
        caller who gives up counts if he came after another had: one may leave it at work."""
        self.ever = 0
        """How many there have been in all."""
        self.size_bytes = 0
        """Of what they ask, together: it is kept until the answer is there."""
        self._clock_s = clock_s
        self._begun_s: dict[int, float] = {}
        self._fresh_s = self._quiet_since_s = clock_s()
        self._given_up_s: float | None = None
        self._ran_out = anyio.Event()
        self._drained: anyio.Event | None = None
        self._when_free: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many there are, waiting or in flight."""
        return len(self._begun_s)

    @property
    def in_flight(self) -> int:
        """How many were handed to the server and have no answer yet."""
        return self.count - self.waiting

    @property
    def oldest_s(self) -> float | None:
        """When the oldest of them began; None when there is none."""
        return next(iter(self._begun_s.values()), None)

    @property
    def quiet_since_s(self) -> float | None:
        """Since when nobody used the server; None while somebody does."""
        return None if self.count else self._quiet_since_s

    @contextmanager
    def taking(self, size_bytes: int = 0) -> Iterator[None]:
        """Count one for as long as the block runs; note it when its time runs out."""
        number = self.begin_one(size_bytes)
        try:
            yield
        except CallTimedOut as error:
            self.end_one(number, size_bytes, error)
            raise
        except anyio.get_cancelled_exc_class():
            self.left_one(number, size_bytes)
            raise
        except BaseException:
            self._end(number, size_bytes)
            raise
        self.end_one(number, size_bytes)

    def begin_one(self, size_bytes: int) -> int:
        """Count one more; what is returned names it until it ends, or is left."""
        self.ever += 1
        self.size_bytes += size_bytes
        self._begun_s[self.ever] = self._clock_s()
        return self.ever

    def end_one(self, number: int, size_bytes: int, outcome: object = None) -> None:
        """Count one less; `outcome` is the error it ended with, if any."""
        if isinstance(outcome, CallTimedOut):
            self._time_ran_out()
        elif not isinstance(outcome, OctaveError):
            self._given_up_s = None
        self._end(number, size_bytes)

    def left_one(self, number: int, size_bytes: int) -> None:
        """Count one less whose caller did not wait for it."""
        self._left(self._begun_s[number])
        self._end(number, size_bytes)

    def _end(self, number: int, size_bytes: int) -> None:
        del self._begun_s[number]
        self.size_bytes -= size_bytes
        if not self.in_flight:
            if self._drained is not None:
                self._drained.set()
            if self._when_free is not None:
                self._do_when_free()

    def _time_ran_out(self) -> None:
        if self.overdue_s is None:
            self.overdue_s = self._clock_s()
        self._ran_out.set()

    def _left(self, begun_s: float) -> None:
        now_s = self._clock_s()
        if now_s - max(begun_s, self._fresh_s) < GIVEN_UP_AFTER_S:
            return
        if self._given_up_s is None:
            self._given_up_s = now_s
        elif begun_s >= self._given_up_s:
            self._time_ran_out()

    @contextmanager
    def waiting_for_it(self) -> Iterator[None]:
        """Count one that was taken as waiting for as long as the block runs."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def used(self) -> None:
        """Start the time without use anew."""
        self._quiet_since_s = self._clock_s()

    def begin(self) -> None:
        """Forget what was known of an earlier process: a fresh one is ready."""
        self.used()
        self._fresh_s = self._clock_s()
        self._given_up_s = self.overdue_s = None
        self._when_free = None

    def when_free(self, do: Callable[[], None]) -> None:
        """Call `do` as soon as none is in flight: now, or before the next can begin."""
        self._when_free = do
        if not self.count:
            self._do_when_free()

    def _do_when_free(self) -> None:
        do, self._when_free = self._when_free, None
        if do is not None:
            do()

    async def drain(self, at_most_s: float) -> None:
        """Wait until none is in flight."""
        if self.in_flight:
            self._drained = anyio.Event()
            with anyio.move_on_after(at_most_s):
                await self._drained.wait()

    async def time_or_overdue(self, seconds: float) -> None:
        """Wait `seconds`, or until a call runs out of time."""
        self._ran_out = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._ran_out.wait()
