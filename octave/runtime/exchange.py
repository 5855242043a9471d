"""How calls get to the process of a server and back: counted, bounded, and repeated where allowed.

A call goes straight to the connection while there is one. What has to be waited for, the next
process above all, is the instance's.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import anyio

from octave.errors import NotRunning, OctaveError, ServerBusy, ServerDied, StartFailed
from octave.packages.offered import LISTS, Offered
from octave.runtime import probe
from octave.runtime.calls import Calls
from octave.runtime.connection import Connection
from octave.runtime.handshake import Era
from octave.runtime.metrics import is_error_result
from octave.runtime.pace import at_end_of_turn
from octave.runtime.pending import NOBODY as NOBODY
from octave.runtime.pending import Cancel, Done, Outcome
from octave.runtime.questions import Caller, Questions
from octave.runtime.replay import cut_off, is_harmless
from octave.runtime.subject import Subject
from octave.runtime.wire import Message, Path

CALLS_AT_ONCE = 256
"""Calls one server may have waiting and in flight together; more are refused as busy."""
CALLS_BYTES = 64 * 2**20
"""As above, by size; a single call always fits. Four of the largest: a call is kept until it is
answered, since the next process may have to be asked."""
REQUEST_TIMEOUT_S = 30.0
"""For the runtime's own questions, which servers answer from memory."""
_NO_CALLS = frozenset(LISTS.values())
"""What clients ask by themselves, all the time, and a sleeping server need not answer."""


class Moved(Exception):
    """Leaves `ready` of a process that another has taken over from: nothing was asked of it."""


class OtherEra(Exception):
    """Leaves `forward` where what is up by now speaks the other era: nothing was asked of it."""


class Exchange:
    """The calls of one exchange.

    Args:
        calls: where they are counted.
        live: gives the connection that takes calls now; None when there is none.
        ready: waits for one, as `Instance` says.
        is_ordered_down: whether somebody wants it to be down.
    """

    def __init__(
        self,
        subject: Subject,
        calls: Calls,
        questions: Questions,
        live: Callable[[], Connection | None],
        ready: Callable[[], Awaitable[Connection]],
        is_ordered_down: Callable[[], bool],
    ) -> None:
        self.subject = subject
        self.calls = calls
        self.questions = questions
        self.has_answered = False
        """Whether the process has answered a call; for its owner to reset."""
        self.successor: Callable[[], Exchange] | None = None
        """Where calls go that find the process to be retired."""
        self._live = live
        self._ready = ready
        self._is_ordered_down = is_ordered_down

    async def forward(
        self,
        message: Message,
        changes: Mapping[Path, bytes],
        caller: Caller = NOBODY,
        era: Era | None = None,
    ) -> Message:
        """Send a client's request as `Connection.forward` does, starting the server if need be.

        Counted in `figures`. A request that never reached a dying server goes to the next process,
        once; one that may have reached it only if the policy and its tool allow that. `era` is the
        one that it is written in; None: it goes to any process.

        Raises:
            OtherEra: it has to be written anew.
            StartFailed: it could not be started, or waits too long for its next attempt.
            NotRunning: a person stopped it; ``sent`` in `details`, if at all, as below.
            ServerDied, CallTimedOut: no answer; `details` as `Connection.forward` has them.
            ServerBusy: too many calls wait.
        """
        size_bytes = len(message.line)
        self._refuse_if_full(size_bytes)
        try:
            with self.calls.taking(size_bytes):
                return await self._counted(message, changes, caller, era)
        except Moved:
            return await self._next.forward(message, changes, caller, era)

    def submit(
        self,
        message: Message,
        changes: Mapping[Path, bytes],
        caller: Caller,
        done: Done,
        again: Callable[[], None],
    ) -> Cancel | None:
        """Do what `forward` does at once, where nothing has to be waited for before; else None.

        `done` gets the answer, or an error, while it is read: before anything that the server says
        afterwards. `again` is called instead where the next process is to be asked, by `forward`.
        What is returned takes the call back; then neither is called.
        """
        connection, size_bytes = self._live(), len(message.line)
        if connection is None or self._is_full(size_bytes):
            return None
        if self.subject.spec.policy.replay:
            return None
        flight = _Flight(self, message, caller, done, again)
        try:
            cancel = connection.submit(message, changes, caller, self._times_s, flight.ended)
        except OctaveError:
            flight.never_was()
            return None
        return partial(flight.left, cancel)

    def told(self, error: ServerDied, message: Message) -> OctaveError:
        """Return what the caller is told of a process that ended before it answered."""
        name = self.subject.spec.name if self._is_ordered_down() else None
        return cut_off(error, message, name)

    def _refuse_if_full(self, size_bytes: int) -> None:
        if self._is_full(size_bytes):
            raise ServerBusy(
                f"`{self.subject.spec.name}` is busy: {self.calls.count} calls wait already",
                hint="try again later",
            )

    def _is_full(self, size_bytes: int) -> bool:
        calls = self.calls
        too_much = calls.size_bytes + size_bytes > CALLS_BYTES
        return calls.count > 0 and (calls.count >= CALLS_AT_ONCE or too_much)

    @property
    def _times_s(self) -> tuple[float, float]:
        policy = self.subject.spec.policy
        return policy.call_timeout_s, policy.call_timeout_max_s

    async def _counted(
        self,
        message: Message,
        changes: Mapping[Path, bytes],
        caller: Caller,
        era: Era | None,
    ) -> Message:
        began_s = self.subject.clock.monotonic_s()
        failed: bool | None = True  # None: it was refused, which is no call
        is_call = message.method not in _NO_CALLS
        try:
            connection = self._live()
            if connection is None or connection.closed.is_set():
                with self.questions.waiting(caller):
                    connection = await self._ready()
                began_s = self.subject.clock.monotonic_s()
            with self.questions.calling(caller):
                answer = await self._answer(connection, message, changes, caller, era)
            self.has_answered = True
            failed = answer.result is None or is_error_result(answer.result)
            return answer
        except (Moved, OtherEra):
            failed = None
            raise
        except (NotRunning, ServerBusy) as error:
            failed = True if error.details.get("sent") else None
            raise
        except anyio.get_cancelled_exc_class():
            # The client no longer wants it: no fault of the server's.
            failed = False
            raise
        finally:
            self.calls.used()
            if failed is not None and is_call:
                self.subject.figures.add(
                    (self.subject.clock.monotonic_s() - began_s) * 1000, failed=failed
                )

    async def _answer(
        self,
        connection: Connection,
        message: Message,
        changes: Mapping[Path, bytes],
        caller: Caller,
        era: Era | None,
    ) -> Message:
        """Return the answer of this process, or of the next where asking it can do no harm."""
        policy = self.subject.spec.policy

        async def asked(connection: Connection) -> Message:
            if era not in (None, connection.greeting.era):
                raise OtherEra
            return await connection.forward(message, changes, caller, self._times_s)

        try:
            try:
                return await asked(connection)
            except ServerDied as error:
                if error.details.get("sent") is not False and not (
                    policy.replay and is_harmless(message, changes, self.subject.offered)
                ):
                    raise
                return await asked(await self._ready())
        except ServerDied as error:
            raise self.told(error, message) from error

    async def greeting(self) -> bytes:
        """Return what the server said when it was opened, starting it if need be.

        That is the raw result of `initialize` or `server/discover`. Raises as `forward` does.
        """
        try:
            with self.calls.taking():
                return (await self._ready()).greeting.result
        except Moved:
            return await self._next.greeting()

    async def reach(self, message: Message, caller: Caller = NOBODY) -> None:
        """Wait until the process is up that `message` is for; raises as `forward` does.

        Where it cannot be had, that counts as the call that it would have been.
        """
        began_s, size_bytes = self.subject.clock.monotonic_s(), len(message.line)
        self._refuse_if_full(size_bytes)
        try:
            with self.calls.taking(size_bytes), self.questions.waiting(caller):
                await self._ready()
        except Moved:
            await self._next.reach(message, caller)
        except StartFailed:
            if message.method not in _NO_CALLS:
                took_ms = (self.subject.clock.monotonic_s() - began_s) * 1000
                self.subject.figures.add(took_ms, failed=True)
            raise

    async def ask(self) -> Offered:
        """Ask the server what it offers, starting it if need be. Raises as `request` does."""
        try:
            return await self._ask()
        except Moved:
            return await self._next.ask()

    @property
    def _next(self) -> "Exchange":
        assert self.successor is not None
        return self.successor()

    async def _ask(self) -> Offered:
        with self.calls.taking():
            connection = await self._ready()
            request = partial(connection.request, timeout_s=REQUEST_TIMEOUT_S)
            offered = await probe.read_lists(connection.greeting, request, connection.masked)
            known = self.subject.offered
            if known is not None and known.eras:
                discover = offered.discover or known.discover
                offered = replace(offered, eras=known.eras, discover=discover)
            return replace(offered, asks=self.subject.asks)


class _Flight:
    """One call that was submitted, and what is counted of it."""

    __slots__ = ("_again", "_began_s", "_caller", "_done", "_exchange", "_message", "_number")

    def __init__(
        self,
        exchange: Exchange,
        message: Message,
        caller: Caller,
        done: Done,
        again: Callable[[], None],
    ) -> None:
        self._exchange = exchange
        self._message = message
        self._caller = caller
        self._done = done
        self._again = again
        self._began_s = exchange.subject.clock.monotonic_s()
        self._number = exchange.calls.begin_one(len(message.line))
        exchange.questions.begin(caller)

    def ended(self, outcome: Outcome) -> None:
        exchange = self._exchange
        exchange.calls.end_one(self._number, len(self._message.line), outcome)
        exchange.questions.end_of(self._caller)
        if isinstance(outcome, ServerDied):
            if outcome.details.get("sent") is False:
                self._again()
                return
            outcome = exchange.told(outcome, self._message)
        self._done(outcome)
        # He has his answer before anything is counted.
        count = partial(self._count_outcome, outcome)
        if not at_end_of_turn(count):
            count()

    def left(self, cancel: Cancel) -> None:
        cancel()
        self._exchange.calls.left_one(self._number, len(self._message.line))
        self._exchange.questions.end_of(self._caller)
        self._count(failed=False)

    def never_was(self) -> None:
        self._exchange.questions.end_of(self._caller)
        self._exchange.calls.end_one(self._number, len(self._message.line))

    def _count_outcome(self, outcome: Outcome) -> None:
        failed = True
        if isinstance(outcome, Message):
            self._exchange.has_answered = True
            failed = outcome.result is None or is_error_result(outcome.result)
        self._count(failed=failed)

    def _count(self, *, failed: bool) -> None:
        subject = self._exchange.subject
        self._exchange.calls.used()
        took_ms = (subject.clock.monotonic_s() - self._began_s) * 1000
        subject.figures.add(took_ms, failed=failed)
