"""One process of a server: when it lives, who waits for it, what became of its calls.

One task (`Instance.run`) owns the process and the connection for their whole life and is the only
one to start and stop them. Callers never wait for that task while the server is ready: a call goes
straight to the connection. What happens next is decided by `lifecycle.decide` alone.
"""

import logging
import math
import random
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio

from octave.errors import NotRunning, OctaveError, StartFailed
from octave.runtime import lifecycle
from octave.runtime.availability import Availability
from octave.runtime.calls import Calls
from octave.runtime.connection import Callbacks, Connection, connect
from octave.runtime.course import Course
from octave.runtime.era_probe import EraProbe
from octave.runtime.exchange import Exchange, Moved
from octave.runtime.handshake import Era
from octave.runtime.health import Checkup
from octave.runtime.interests import ACKNOWLEDGED, NOTHING, Interests
from octave.runtime.lifecycle import Action
from octave.runtime.logs import stamp
from octave.runtime.openings import Openings
from octave.runtime.questions import OPEN_LIMIT, Questions
from octave.runtime.subject import Role, Subject
from octave.runtime.wire import Message

PATIENCE_S = 1.5
"""A call waits for the next attempt if it is this near, else it is told at once what is wrong. Two
attempts are, so that whoever calls a server that cannot start knows within 3 s."""
DRAIN_S = 5.0
"""How long an ordered stop waits for calls in flight."""
REPLACED_DRAIN_S = 60.0
"""The same where another version or another configuration takes over: as long as most AI tools wait
for an answer. Another version serves meanwhile; for another configuration later calls wait."""
_log = logging.getLogger(__name__)

_KILLED = {"message": "it ended neither with its input nor on SIGTERM, and was killed (signal 9)"}
_LIVE = frozenset({"starting", "ready", "stopping"})
"""States with a process, or with one on its way."""


class Instance:
    """A process that may run. Made by `Server`, which runs `run`."""

    def __init__(
        self,
        subject: Subject,
        role: Role,
        availability: Availability,
        *,
        is_stopped: bool = False,
        before: "Instance | None" = None,
    ) -> None:
        self.subject = subject
        self.role = role
        self.name = subject.spec.name
        self.pid: int | None = None
        """Of the process that is up, or on its way down; also the id of its group."""
        self.was_killed = False
        """The last ordered stop had to end in SIGKILL."""
        self._clock = subject.clock
        first: lifecycle.Kind = "stopped" if is_stopped else "idle"
        self._course = Course(self.name, first, self._clock.monotonic_s, availability, self._tell)
        self._closed = anyio.Event()
        self._is_closing = False
        self._start_scope = anyio.CancelScope()
        self._is_outdated = False
        """Its process is to be followed by another as soon as nobody uses it."""
        self._connection: Connection | None = None
        self._overdue_starts = 0
        self._calls = Calls(self._clock.monotonic_s)
        self._checkup = Checkup(self._calls, self._clock.monotonic_s, self._outgrown)
        # What is wanted outlives a process; those of `before` are its own until it is retired.
        own = Interests(self._live_now, lambda: self.exchange.greeting())
        self.interests: Interests = before.interests if before else own
        self._told = NOTHING
        self._open: Connection | None = None
        """The conversation, also while it is being ended."""
        self._unsent: list[bytes] = []
        self._openings = Openings(subject, role)
        self.era_probe = EraProbe(subject, self._calls, self._live_now)
        self._questions = Questions(role.owner, self._send, self._asked, lambda: self._open is None)
        self.exchange = Exchange(
            subject,
            self._calls,
            self._questions,
            self._live_now,
            self._ready,
            lambda: self._course.kind in {"stopping", "stopped"},
        )

    @property
    def era(self) -> Era:
        """The era of the conversation that is open, or of the next as far as it is known."""
        return self._openings.era if self._open is None else self._open.greeting.era

    @property
    def is_era_known(self) -> bool:
        """Whether `era` is no guess."""
        return self._open is not None or self._openings.is_sure

    @property
    def state(self) -> lifecycle.Kind:
        """Where it is: idle, starting, ready, backoff, failed, stopping or stopped."""
        return self._course.kind

    @property
    def uptime_s(self) -> float | None:
        """How long it has been ready; None when it is not."""
        return self._course.since_s if self._course.kind == "ready" else None

    @property
    def is_ordered_down(self) -> bool:
        """Whether a person wants it to be down."""
        state = self._course.state
        is_ending = state.kind == "stopping" and state.after_stop == "stopped"
        return state.kind == "stopped" or is_ending

    @property
    def is_retired(self) -> bool:
        """Whether another process has taken over from it."""
        return self.exchange.successor is not None

    def notify(self, line: bytes, *, wakes: bool = False) -> None:
        """Pass a client's notification on, as it came.

        One that does not wake it is heard by nobody while it sleeps.
        """
        if wakes and self._course.kind == "idle" and not self._is_closing:
            self._apply(lifecycle.Called())
        if self._connection is not None or (wakes and self._course.kind == "starting"):
            self._send(line)

    def knows_roots_of(self, session: object) -> bool:
        """Whether the roots of the session were the last that it asked for."""
        return self._questions.knows_roots_of(session)

    def forget(self, session: object) -> None:
        """Ask that session no more: it is over."""
        self._questions.forget(session)

    def _send(self, line: bytes) -> None:
        if self._open is not None:
            self._open.send(line)
        elif self._course.kind == "starting" and len(self._unsent) < OPEN_LIMIT:
            # It asked before it had greeted.
            self._unsent.append(line)

    def _live_now(self) -> Connection | None:
        return self._connection

    async def _ready(self) -> Connection:
        """Return the live connection, as soon as there is one.

        The caller must use it without awaiting anything in between: an idle stop waits for calls
        in flight only.
        """
        overdue_starts = self._overdue_starts
        with self._calls.waiting_for_it():
            while True:
                if self.is_retired:
                    raise Moved
                if not self._is_closing:
                    self._apply(lifecycle.Called())
                connection = self._connection
                if connection is not None and not connection.closed.is_set():
                    return connection
                if self._is_closing:
                    raise NotRunning(f"`{self.name}` is being shut down")
                # After a start that was overdue the next would take the whole time-out again.
                patience_s = PATIENCE_S if self._overdue_starts == overdue_starts else 0.0
                self._course.refuse(patience_s)
                await self._course.change()

    # Orders.

    async def start(self) -> None:
        """Start it unless it is up; return when it is ready. Raises as `forward` does."""
        await self._ordered(lifecycle.StartAsked())

    def revive(self) -> None:
        """Start it as `start` does, without waiting for it."""
        self._apply(lifecycle.StartAsked())

    async def restart(self) -> None:
        """Give it a fresh process; return when that is ready. Raises as `forward` does."""
        await self._ordered(lifecycle.RestartAsked())

    async def stop(self) -> None:
        """Stop it until `start`, calls in flight first; return when it is down."""
        self._apply(lifecycle.StopAsked())
        await self._course.until(lambda: self._course.kind != "stopping" or self._closed.is_set())

    def replaced(self) -> None:
        """Say that `spec` has changed in more than its environment."""
        self._is_outdated = True
        self._apply(lifecycle.Replaced())

    def take_over(self, before: "Instance", successor: Callable[[], "Instance"]) -> None:
        """Be what `before` was, which this one was made for, and which is retired by it."""
        self.interests.live, self.interests.ready = self._live_now, self.exchange.greeting
        if self._connection is not None:
            self._told = self.interests.tell(self._connection, self._told)
        self._course.succeed(before._course)
        before.retire(successor)

    def retire(self, successor: Callable[[], "Instance"]) -> None:
        """Let it end with its calls in flight; all others go to its successor. Ends `run`."""
        self.exchange.successor = lambda: successor().exchange
        self._is_closing = self._is_outdated = True
        self._apply(lifecycle.Retired())
        self._course.announce()

    async def close(self) -> None:
        """Stop it for good and end `run`."""
        self._is_closing = True
        if self._course.kind in _LIVE:
            self._apply(lifecycle.StopAsked())
        self._course.announce()
        await self._closed.wait()

    async def _ordered(self, event: lifecycle.Event) -> None:
        if not self._is_closing:
            self._apply(event)
        # Taken like a call, since it waits like one: what is in flight is the rest.
        await self.exchange.greeting()

    # The task.

    async def run(self) -> None:
        """Own the process and the connection, until `close`; when cancelled, stop them at once."""
        try:
            while not self._is_closing or self._course.kind in _LIVE:
                match self._course.kind:
                    case "starting":
                        await self._live()
                    case "stopping":
                        self._apply(lifecycle.Stopped(), _KILLED if self.was_killed else None)
                    case "idle" if self.subject.spec.problem is not None:
                        # It fails at once, and says why, before anybody calls it.
                        self._apply(lifecycle.Called())
                    case "idle" if self._is_listened_to:
                        self._apply(lifecycle.Called())
                    case _:
                        self.subject.log.rest()
                        await self._pause()
        finally:
            self._is_closing = True
            self._closed.set()
            self._course.announce()

    async def _live(self) -> None:
        """One process, from its start until nothing of it is left."""
        log = self.subject.log
        callbacks = Callbacks(
            on_notification=self._heard,
            on_request=self._questions.asked,
            on_noise=log.noise,
            on_stderr=partial(log.feed, "err", source=id(self)),
        )
        try:
            with anyio.CancelScope() as self._start_scope:
                self.was_killed = self._is_outdated = False
                opening = self._openings.next
                async with connect(self.subject.spec, callbacks, opening=opening) as connection:
                    await self._serve(connection)
                status = connection.exit_status
                self.was_killed = status is None or status.signal == signal.SIGKILL
        except OctaveError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug here must not end the other servers
            _log.exception("`%s` met a bug in Octave", self.name)
            self._failed(StartFailed(f"`{self.name}` met a bug in Octave: {error!r}"))
        finally:
            if self._open is not None:
                self.subject.open.remove(self._open.greeting.era)
            self._connection = self._open = None
            self.pid = None
            self._questions.end()
            self._unsent.clear()
            log.end_lines(source=id(self))

    def _heard(self, message: Message) -> None:
        if message.method == "notifications/cancelled":
            if self._open is None or not self._open.cancelled(message):
                self._questions.cancelled(message)
        elif message.method == ACKNOWLEDGED:
            self.interests.acknowledged(message)
        else:
            self.subject.listeners.notification(self, message)

    def _asked(self, number: int) -> None:
        if self._open is not None:
            self._open.be_patient(is_so=number > 0)
        subject = self.subject
        if not subject.asks and self.role.owner is None:
            subject.asks = True
            subject.learned(asks=True)

    async def _serve(self, connection: Connection) -> None:
        self._connection = self._open = connection
        self.subject.open.append(connection.greeting.era)
        self.pid = connection.pid or None
        self._told = self.interests.tell(connection)
        for line in self._unsent:
            connection.send(line)
        self._unsent.clear()
        connection.be_patient(is_so=self._questions.count > 0)
        self._openings.opened(connection.greeting.era)
        self.exchange.has_answered = False
        self._calls.begin()
        self._apply(lifecycle.Handshook(), {"pid": self.pid})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, connection)
            tasks.start_soon(self._look_after, connection)
            tasks.start_soon(self.interests.keep, connection)
            while self._course.kind == "ready":
                await self._pause()
            tasks.cancel_scope.cancel()
        if self._course.kind == "stopping":
            await self._calls.drain(DRAIN_S)
            if self._is_outdated and self._calls.in_flight:
                with anyio.move_on_after(REPLACED_DRAIN_S - DRAIN_S) as patience:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._until_ordered_down, patience)
                        await self._calls.drain(math.inf)
                        tasks.cancel_scope.cancel()

    async def _until_ordered_down(self, scope: anyio.CancelScope) -> None:
        await self._course.until(lambda: self.is_ordered_down)
        scope.cancel()

    async def _watch(self, connection: Connection) -> None:
        await connection.closed.wait()
        self._connection = None
        self._failed(connection.refused(connection.how_it_ended))

    async def _look_after(self, connection: Connection) -> None:
        connection.abandon(await self._checkup.watch(connection, self.subject.spec.policy))

    def _outgrown(self, memory_bytes: int) -> None:
        limit_bytes = self.subject.spec.policy.memory_limit_bytes or 0
        text = f"uses {memory_bytes:,} bytes of memory, its `memory_limit` is {limit_bytes:,}"
        self._apply(lifecycle.Outgrown(), {"message": text, "memoryBytes": memory_bytes})

    async def _pause(self) -> None:
        """Wait for a change of state, or for time to bring one."""
        await self._course.change_or_time(self.subject.spec.policy, self._quiet_since_s)
        self._apply(lifecycle.Tick(self._calls.waiting > 0, self._quiet_since_s))

    @property
    def _is_listened_to(self) -> bool:
        # Asleep it could not tell of anything.
        may_restart = self.subject.spec.policy.auto_restart or not self._course.state.crashed
        return bool(self.interests) and may_restart

    @property
    def _quiet_since_s(self) -> float | None:
        # Asleep it could not tell of anything.
        return None if self.interests else self._calls.quiet_since_s

    def _failed(self, error: OctaveError) -> None:
        """A start, or a process that was ready, came to nothing without being told to."""
        jitter = random.uniform(*lifecycle.JITTER)
        details = {"message": error.message, **error.details}
        match self._course.kind:
            case "starting":
                self._overdue_starts += error.details.get("phase") == "timeout"
                if self._openings.failed(error):
                    # Of the two the more telling one.
                    self._course.failed(error, stamp(self._clock.wall_s()))
                # Not the word of a connection: it never came to a process, something is wrong here.
                permanent = error.details.get("permanent", True)
                event = lifecycle.StartFailed(permanent, self._calls.waiting > 0, jitter)
                self._apply(event, details)
            case "ready":
                self._course.failed(error, stamp(self._clock.wall_s()))
                self._tell("died", details)
                self._apply(
                    lifecycle.Died(self.exchange.has_answered, self._calls.waiting > 0, jitter)
                )

    def _apply(self, event: lifecycle.Event, details: Mapping[str, Any] | None = None) -> None:
        was_starting = self._course.kind == "starting"
        if self._course.apply(event, self.subject.spec.policy, details) is Action.STOP:
            # From here on calls wait for the next process, or are refused.
            self._connection = None
            self.era_probe.cancel()
            if was_starting:
                self._start_scope.cancel()

    def _tell(self, kind: str, details: Mapping[str, Any]) -> None:
        """Write that something happened into its log, and tell who listens."""
        self.subject.tell(kind, details, self.role.title)

    @property
    def snapshot(self) -> dict[str, Any]:
        """What `octave status --json` says of this process; null where nothing is known."""
        uptime_s = self.uptime_s
        return {
            "state": self._course.kind,
            "pid": self.pid,
            "uptimeSeconds": None if uptime_s is None else round(uptime_s, 3),
            "restarts": self._course.restarts,
            **self._course.availability.snapshot(),
            "lastError": self._course.last_error,
        }
