"""One server: when it lives, who waits for it, what became of its calls.

One task (`Server.run`) owns the process and the connection for their whole life and is the only
one to start and stop them. Callers never wait for that task while the server is ready: a call goes
straight to the connection. What happens next is decided by `lifecycle.decide` alone.
"""

import logging
import random
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio

from octave.errors import NotRunning, OctaveError, ServerBusy, ServerDied, StartFailed
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.runtime import lifecycle
from octave.runtime.availability import Availability
from octave.runtime.calls import Calls
from octave.runtime.connection import Callbacks, Connection, connect
from octave.runtime.course import Course
from octave.runtime.events import Clock, Event, Listeners
from octave.runtime.health import Checkup
from octave.runtime.lifecycle import Action
from octave.runtime.logs import ServerLog, stamp
from octave.runtime.metrics import CallFigures, is_error_result
from octave.runtime.probe import read_lists
from octave.runtime.replay import cut_off, is_harmless
from octave.runtime.wire import Message, Path

CALLS_AT_ONCE = 256
"""Calls one server may have waiting and in flight together; more are refused as busy."""
CALLS_BYTES = 64 * 2**20
"""As above, by size; a single call always fits. Four of the largest: a call is kept until it is
answered, since the next process may have to be asked."""
PATIENCE_S = 1.5
"""A call waits for the next attempt if it is this near, else it is told at once what is wrong. Two
attempts are, so that whoever calls a server that cannot start knows within 3 s."""
DRAIN_S = 5.0
"""How long an ordered stop waits for calls in flight."""
REQUEST_TIMEOUT_S = 30.0
"""For the runtime's own questions, which servers answer from memory."""
_log = logging.getLogger(__name__)

_KILLED = {"message": "it ended neither with its input nor on SIGTERM, and was killed (signal 9)"}
_LIVE = frozenset({"starting", "ready", "stopping"})
"""States with a process, or with one on its way."""


class Server:
    """A server as everybody else sees it. Made by `Supervisor`, which runs `run`.

    `spec` may be replaced at any time and counts from the next start on; `replaced` makes that
    soon. `offered` is what the gateway last learned of it.
    """

    def __init__(
        self,
        spec: LaunchSpec,
        log: ServerLog,
        listeners: Listeners,
        *,
        clock: Clock,
        availability: Availability,
        is_stopped: bool = False,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.offered: Offered | None = None
        self.figures = CallFigures()
        self.pid: int | None = None
        """Of the process that is up, or on its way down; also the id of its group."""
        self.was_killed = False
        """The last ordered stop had to end in SIGKILL."""
        self._log = log
        self._listeners = listeners
        self._clock = clock
        first: lifecycle.Kind = "stopped" if is_stopped else "idle"
        self._course = Course(spec.name, first, clock.monotonic_s, availability, self.tell)
        self._closed = anyio.Event()
        self._is_closing = False
        self._start_scope = anyio.CancelScope()
        self._connection: Connection | None = None
        self._answered = False
        self._overdue_starts = 0
        self._calls = Calls(clock.monotonic_s)
        self._checkup = Checkup(self._calls, clock.monotonic_s, self._outgrown)

    @property
    def state(self) -> lifecycle.Kind:
        """Where it is: idle, starting, ready, backoff, failed, stopping or stopped."""
        return self._course.kind

    @property
    def uptime_s(self) -> float | None:
        """How long it has been ready; None when it is not."""
        return self._course.since_s if self._course.kind == "ready" else None

    # Calls.

    async def forward(
        self,
        message: Message,
        changes: Mapping[Path, bytes],
        on_progress: Callable[[bytes], None] | None = None,
    ) -> Message:
        """Send a client's request as `Connection.forward` does, starting the server if need be.

        Counted in `figures`. A request that never reached a dying server goes to the next process,
        once; one that may have reached it only if the policy and its tool allow that.

        Raises:
            StartFailed: it could not be started, or waits too long for its next attempt.
            NotRunning: a person stopped it; ``sent`` in `details`, if at all, as below.
            ServerDied, CallTimedOut: no answer; `details` as `Connection.forward` has them.
            ServerBusy: too many calls wait.
        """
        count, size_bytes = self._calls.count, len(message.line)
        too_much = self._calls.size_bytes + size_bytes > CALLS_BYTES
        if count and (count >= CALLS_AT_ONCE or too_much):
            raise ServerBusy(
                f"`{self.name}` is busy: {count} calls wait already", hint="try again later"
            )
        with self._calls.taking(size_bytes):
            return await self._counted(message, changes, on_progress)

    async def _counted(
        self,
        message: Message,
        changes: Mapping[Path, bytes],
        on_progress: Callable[[bytes], None] | None,
    ) -> Message:
        began_s = self._clock.monotonic_s()
        failed: bool | None = True  # None: it was refused, which is no call
        try:
            connection = self._connection
            if connection is None or connection.closed.is_set():
                connection = await self._ready()
                began_s = self._clock.monotonic_s()
            answer = await self._answer(connection, message, changes, on_progress)
            self._answered = True
            failed = answer.result is None or is_error_result(answer.result)
            return answer
        except (NotRunning, ServerBusy) as error:
            failed = True if error.details.get("sent") else None
            raise
        except anyio.get_cancelled_exc_class():
            # The client no longer wants it: no fault of the server's.
            failed = False
            raise
        finally:
            self._calls.used()
            if failed is not None:
                self.figures.add((self._clock.monotonic_s() - began_s) * 1000, failed=failed)

    async def _answer(
        self,
        connection: Connection,
        message: Message,
        changes: Mapping[Path, bytes],
        on_progress: Callable[[bytes], None] | None,
    ) -> Message:
        """Return the answer of this process, or of the next where asking it can do no harm."""
        policy = self.spec.policy
        times_s = policy.call_timeout_s, policy.call_timeout_max_s

        async def asked(connection: Connection) -> Message:
            return await connection.forward(message, changes, on_progress, *times_s)

        try:
            try:
                return await asked(connection)
            except ServerDied as error:
                if error.details.get("sent") is not False and not (
                    policy.replay and is_harmless(message, changes, self.offered)
                ):
                    raise
                return await asked(await self._ready())
        except ServerDied as error:
            is_ordered = self._course.kind in {"stopping", "stopped"}
            raise cut_off(error, message, self.name if is_ordered else None) from error

    def notify(self, line: bytes) -> None:
        """Pass a client's notification on, as it came; nobody hears it while the server sleeps."""
        if self._connection is not None:
            self._connection.send(line)

    async def request(self, method: str, params: bytes | None) -> Message:
        """Ask a question of the runtime's own, starting the server if need be.

        Neither counted nor taken as a sign of use. Raises as `forward` does.
        """
        with self._calls.taking():
            return await (await self._ready()).request(method, params, REQUEST_TIMEOUT_S)

    async def ask(self) -> Offered:
        """Ask the server what it offers, starting it if need be. Raises as `request` does."""
        with self._calls.taking():
            connection = await self._ready()
            return await read_lists(
                connection.initialize_result,
                partial(connection.request, timeout_s=REQUEST_TIMEOUT_S),
                connection.masked,
            )

    async def _ready(self) -> Connection:
        """Return the live connection, as soon as there is one.

        The caller must use it without awaiting anything in between: an idle stop waits for calls
        in flight only.
        """
        overdue_starts = self._overdue_starts
        with self._calls.waiting_for_it():
            while True:
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

    async def restart(self) -> None:
        """Give it a fresh process; return when that is ready. Raises as `forward` does."""
        await self._ordered(lifecycle.RestartAsked())

    async def stop(self) -> None:
        """Stop it until `start`, calls in flight first; return when it is down."""
        self._apply(lifecycle.StopAsked())
        while self._course.kind == "stopping" and not self._closed.is_set():
            await self._course.change()

    def replaced(self) -> None:
        """Say that `spec` has changed in more than its environment."""
        self._apply(lifecycle.Replaced())

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
        with self._calls.taking():
            await self._ready()

    # What is known.

    def snapshot(self, memory_bytes: int | None = None) -> dict[str, Any]:
        """Return the server's object of `octave status --json`; null where nothing is known."""
        figures, uptime_s = self.figures, self.uptime_s
        return {
            "name": self.name,
            "state": self._course.kind,
            "pid": self.pid,
            "uptimeSeconds": None if uptime_s is None else round(uptime_s, 3),
            "memoryBytes": memory_bytes,
            "restarts": self._course.restarts,
            **self._course.availability.snapshot(),
            "instances": 0 if self.pid is None else 1,
            "calls": figures.count,
            "errors": figures.errors,
            "p50Ms": figures.percentile_ms(50),
            "p95Ms": figures.percentile_ms(95),
            "p99Ms": figures.percentile_ms(99),
            "tools": None if self.offered is None else len(self.offered.tools),
            "dropped": self._log.dropped,
            "noise": self._log.noise_lines,
            "lastError": self._course.last_error,
        }

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
                    case "idle" if self.spec.problem is not None:
                        # It fails at once, and says why, before anybody calls it.
                        self._apply(lifecycle.Called())
                    case _:
                        self._log.rest()
                        await self._pause()
        finally:
            self._is_closing = True
            self._log.close()
            self._closed.set()
            self._course.announce()

    async def _live(self) -> None:
        """One process, from its start until nothing of it is left."""
        callbacks = Callbacks(
            on_notification=partial(self._listeners.notification, self.name),
            on_noise=self._log.noise,
            on_stderr=partial(self._log.feed, "err"),
        )
        try:
            with anyio.CancelScope() as self._start_scope:
                self.was_killed = False
                async with connect(self.spec, callbacks) as connection:
                    await self._serve(connection)
                status = connection.exit_status
                self.was_killed = status is None or status.signal == signal.SIGKILL
        except OctaveError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug here must not end the other servers
            _log.exception("`%s` met a bug in Octave", self.name)
            self._failed(StartFailed(f"`{self.name}` met a bug in Octave: {error!r}"))
        finally:
            self._connection = None
            self.pid = None
            self._log.end_lines()

    async def _serve(self, connection: Connection) -> None:
        self._connection = connection
        self.pid = connection.pid
        self._answered = False
        self._calls.begin()
        self._apply(lifecycle.Handshook(), {"pid": self.pid})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, connection)
            tasks.start_soon(self._look_after, connection)
            while self._course.kind == "ready":
                await self._pause()
            tasks.cancel_scope.cancel()
        if self._course.kind == "stopping":
            await self._calls.drain(DRAIN_S)

    async def _watch(self, connection: Connection) -> None:
        await connection.closed.wait()
        self._connection = None
        self._failed(connection.refused(connection.how_it_ended))

    async def _look_after(self, connection: Connection) -> None:
        connection.abandon(await self._checkup.watch(connection, self.spec.policy))

    def _outgrown(self, memory_bytes: int) -> None:
        limit_bytes = self.spec.policy.memory_limit_bytes or 0
        text = f"uses {memory_bytes:,} bytes of memory, its `memory_limit` is {limit_bytes:,}"
        self._apply(lifecycle.Outgrown(), {"message": text, "memoryBytes": memory_bytes})

    async def _pause(self) -> None:
        """Wait for a change of state, or for time to bring one."""
        await self._course.change_or_time(self.spec.policy, self._calls.quiet_since_s)
        self._apply(lifecycle.Tick(self._calls.waiting > 0, self._calls.quiet_since_s))

    def _failed(self, error: OctaveError) -> None:
        """A start, or a process that was ready, came to nothing without being told to."""
        jitter = random.uniform(*lifecycle.JITTER)
        details = {"message": error.message, **error.details}
        match self._course.kind:
            case "starting":
                self._overdue_starts += error.details.get("phase") == "timeout"
                self._course.failed(error, stamp(self._clock.wall_s()))
                # Not the word of a connection: it never came to a process, something is wrong here.
                permanent = error.details.get("permanent", True)
                event = lifecycle.StartFailed(permanent, self._calls.waiting > 0, jitter)
                self._apply(event, details)
            case "ready":
                self._course.failed(error, stamp(self._clock.wall_s()))
                self.tell("died", details)
                self._apply(lifecycle.Died(self._answered, self._calls.waiting > 0, jitter))

    def _apply(self, event: lifecycle.Event, details: Mapping[str, Any] | None = None) -> None:
        was_starting = self._course.kind == "starting"
        if self._course.apply(event, self.spec.policy, details) is Action.STOP:
            # From here on calls wait for the next process, or are refused.
            self._connection = None
            if was_starting:
                self._start_scope.cancel()

    def tell(self, kind: str, details: Mapping[str, Any]) -> None:
        """Write that something happened into its log, and tell who listens."""
        message = details.get("message")
        self._log.event(f"{kind}: {message}" if message else kind)
        self._listeners.event(Event(stamp(self._clock.wall_s()), self.name, kind, details))
