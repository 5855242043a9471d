"""One MCP conversation with one server: handshake, pending calls, progress, cancellation.

Raw JSON in, raw JSON out: of a message only its envelope is read. Every request goes out under an
id of this link's own; a call ends with the server's answer or an error of Octave's, always: when
the process dies, its answer is broken or too large, or time is up. It needs no task of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from octave.errors import CallTimedOut, OctaveError, ServerBusy, ServerDied, StartFailed
from octave.packages.launch import LaunchSpec
from octave.runtime import handshake, process, wire, worker
from octave.runtime.handshake import Greeting, Opening
from octave.runtime.incoming import Ears, Incoming
from octave.runtime.pending import Call, Cancel, Done, Pending, outcome_of
from octave.runtime.questions import Caller
from octave.runtime.remote_server import link_of
from octave.runtime.wire import Message

PERMANENT_EXIT_CODES = {126, 127}
"""A program could not be executed, or was not found: what shells and `env` say."""

TOLD_S = 30.0
"""For the answer to a question that nobody waits for; later ones are strays."""

_PROGRESS = "notifications/progress"
_CANCELLED = "notifications/cancelled"


def _ignore(_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who hears what is no answer. Called in the event loop, in the order it arrived."""

    on_notification: Callable[[Message], None] = _ignore
    """Everything but the progress of a pending call."""
    on_request: Callable[[Message], None] | None = None
    """The server asks its client something, other than `ping`; answer with `Connection.send`.
    None: every such request is refused as an unknown method."""
    on_noise: Callable[[bytes], None] = _ignore
    """A line on stdout that is no message, at most `NOISE_BYTES` of it; of a too long one the
    head."""
    on_stderr: Callable[[bytes], None] = _ignore
    """Bytes as they came but for the values of secrets, not cut into lines."""


class Connection:
    """An open conversation, made by `connect`."""

    def __init__(self, spec: LaunchSpec, callbacks: Callbacks) -> None:
        ears = process.Callbacks(self._on_stdout, self._on_stderr, self._end)
        self._process, self._mask = link_of(spec, ears)
        self.name = spec.name
        self._explain = spec.explain
        self.greeting = Greeting(b"{}", "", "legacy")
        """What the server said when the conversation was opened."""
        self.closed = anyio.Event()
        """Set when nothing more can come: the process ended, or closed its stdout."""
        self._callbacks = callbacks
        self._pending = Pending(self._overdue)
        self._incoming = Incoming(
            spec.name,
            spec.policy.max_message_bytes,
            Ears(self._route, self._pending.fail, self._noise),
        )
        self._loop = asyncio.get_running_loop()
        self.last_heard_s = self._loop.time()
        """When its last byte arrived, on stdout or stderr; the event loop's clock."""
        self._abandoned: str | None = None

    @property
    def pid(self) -> int:
        """The server's process, and the id of its group; 0 for a remote one."""
        return self._process.pid

    @property
    def exit_status(self) -> process.ExitStatus | None:
        """How the process ended; None while it lives."""
        return self._process.exit_status

    @property
    def stderr_tail(self) -> list[str]:
        """The last lines the server wrote to stderr, oldest first."""
        return self._process.stderr_tail

    @property
    def noise(self) -> int:
        """Lines on stdout that were no messages."""
        return self._incoming.noise

    @property
    def strays(self) -> int:
        """Answers and progress nobody asked for."""
        return self._pending.strays

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return len(self._pending)

    @property
    def how_it_ended(self) -> str:
        """What became of it, as the words that follow its name."""
        if self._abandoned is not None:
            return self._abandoned
        if self._process.failure is not None:
            return self._process.failure.message.removeprefix(f"`{self.name}` ")
        status = self.exit_status
        if status is not None:
            return f"ended with {status}" if status.signal is None else f"was {status}"
        return "closed its stdout" if self._process.stdout_closed else "closed its stdin"

    def refused(self, reason: str, phase: str = "initialize") -> StartFailed:
        """Return the error of a start that came to nothing; `reason` follows the name."""
        status = self.exit_status
        permanent = status is not None and status.code in PERMANENT_EXIT_CODES
        details = self._circumstances() | {"phase": phase, "permanent": permanent}
        failure = self._process.failure
        if failure is not None:
            return type(failure)(failure.message, failure.hint, details | failure.details)
        # A server's own words may be among the reasons.
        told = StartFailed(self._mask.text(f"`{self.name}` {reason}"), details=details)
        return self._explain(told)

    def masked(self, text: str) -> str:
        """Return `text` without values of secrets, where the server may have a say in it."""
        return self._mask.text(text)

    async def request(self, method: str, params: bytes | None, timeout_s: float) -> Message:
        """Ask a question of Octave's own and return the answer, error answers included.

        `params` is raw JSON, without a modern envelope. Raises as `forward` does.
        """
        if self.greeting.era == "modern" or method == handshake.DISCOVER:
            params = handshake.with_envelope(params)

        def submit(done: Done) -> Cancel:
            link_id = self._pending.next_id()
            call = Call(method, timeout_s, timeout_s, done, is_awaited=True)
            return self._submit(link_id, wire.request(link_id, method, params), call)

        return await outcome_of(submit)

    def tell(self, method: str, params: bytes) -> None:
        """Ask something of Octave's own whose answer nobody waits for."""
        link_id = self._pending.next_id()
        call = Call(method, TOLD_S, TOLD_S, _ignore)
        with contextlib.suppress(ServerBusy, ServerDied):
            self._submit(link_id, wire.request(link_id, method, params), call)

    async def forward(
        self,
        message: Message,
        changes: Mapping[wire.Path, bytes],
        caller: Caller,
        times_s: tuple[float, float],
    ) -> Message:
        """Do what `submit` does, and return the answer or raise the error.

        Leaving early cancels the request at the server; an answer that comes later is dropped.
        """

        def submit(done: Done) -> Cancel:
            call = Call(message.method or "", *times_s, done, caller, is_awaited=True)
            cancel = self._forward(message, changes, call)
            caller.on_submitted(cancel)
            return cancel

        return await outcome_of(submit)

    def submit(
        self,
        message: Message,
        changes: Mapping[wire.Path, bytes],
        caller: Caller,
        times_s: tuple[float, float],
        done: Done,
    ) -> Cancel:
        """Send a client's request; `done` gets the server's answer, error answers included.

        Its line goes out as it came, but for `changes` (see `wire.splice`), the id and the
        progress token; the answer still carries the id of this link. Each progress message starts
        the first of `times_s` anew, up to the second in all, and is handed to `caller` as a line
        with the client's own token. What is returned takes the request back: `done` then gets
        nothing, and the server is told.

        `done` may also get:
            ServerDied: the process ended or closed its stdout; `details` hold exitCode, signal,
                stderrTail, and ``sent``: the request may have reached it.
            CallTimedOut: no answer in time.
            OctaveError: the answer is too large, or no JSON.

        Raises:
            ServerBusy: the queue to the server is full; nothing was sent.
            ServerDied: it is gone already.
        """
        call = Call(message.method or "", *times_s, done, caller)
        return self._forward(message, changes, call)

    def _forward(self, message: Message, changes: Mapping[wire.Path, bytes], call: Call) -> Cancel:
        link_id = self._pending.next_id()
        edits = {**changes, ("id",): link_id}
        token = _progress_token(message)
        if token is not None:
            edits["params", "_meta", "progressToken"] = link_id
            call.token = token
        return self._submit(link_id, wire.rewrite(message, edits), call)

    def send(self, line: bytes) -> None:
        """Send an answer or notification; dropped when the queue is full or the server gone."""
        with contextlib.suppress(ServerBusy, BrokenPipeError):
            self._process.write(line)

    def cancelled(self, message: Message) -> bool:
        """Take a `notifications/cancelled` of the server; False when it is about none of ours."""
        return self._pending.cancelled(message)

    def be_patient(self, *, is_so: bool) -> None:
        """Let calls take their whole time while the server waits for its client."""
        self._pending.be_patient(is_so=is_so)

    def abandon(self, reason: str) -> None:
        """Expect nothing more of a process that lives; `reason` is what `how_it_ended` then says.

        Whoever waits for an answer is told as if it had died.
        """
        if not self.closed.is_set():
            self._abandoned = reason
            self._process.is_given_up = True
            self._end()

    # Asking.

    def _submit(self, link_id: bytes, line: bytes, call: Call) -> Cancel:
        if self.closed.is_set():
            raise self._death(call)
        # Before it is written: what the operating system refuses may end everything at once.
        self._pending.add(link_id, call)
        try:
            call.ticket = self._process.write(line)
        except BrokenPipeError:
            # It is dying, or lives and cannot be talked to any more: `_end` will say which.
            self._process.end_soon()
        except ServerBusy:
            self._pending.take_back(link_id)
            raise
        return partial(self._cancel, link_id)

    def _cancel(self, link_id: bytes) -> Call | None:
        call = self._pending.take_back(link_id)
        if call is None or self.closed.is_set() or self._process.withdraw(call.ticket):
            return call
        if call.method != handshake.METHOD:  # the one request that must not be cancelled
            message = call.caller.cancellation()
            if message is None:
                self.send(wire.notification(_CANCELLED, b'{"requestId":%b}' % link_id))
            else:
                self.send(wire.splice(message.line, {("params", "requestId"): link_id}))
        return call

    def _overdue(self, link_id: bytes) -> None:
        call = self._cancel(link_id)
        if call is None:
            return
        call.done(
            CallTimedOut(
                f"`{self.name}` did not answer `{call.method}` in time",
                hint="raise `call_timeout` in the [runtime] table of octave.toml, if it needs"
                " longer",
                details={"method": call.method, "timeoutSeconds": call.timeout_s},
            )
        )

    # Hearing.

    def _on_stderr(self, data: bytes) -> None:
        self.last_heard_s = self._loop.time()
        self._callbacks.on_stderr(data)

    def _on_stdout(self, data: bytes) -> None:
        self.last_heard_s = self._loop.time()
        self._incoming.feed(data)

    def _route(self, message: Message) -> bool:
        if message.method is None:
            call = self._pending.answered(message)
            if call is None:
                return False
            self._process.heed()
            return call.is_awaited
        if message.id is not None:
            self._asked(message)
        elif message.method == _PROGRESS:
            self._pending.progressed(message)
        else:
            self._callbacks.on_notification(message)
        return False

    def _asked(self, message: Message) -> None:
        identifier = message.id or b"null"
        if message.method == "ping":
            self.send(wire.result(identifier, b"{}"))
        elif self._callbacks.on_request is not None:
            self._callbacks.on_request(message)
        else:
            text = f"Method not found: {message.method}"
            self.send(wire.error(identifier, wire.METHOD_NOT_FOUND, text))

    def _noise(self, line: bytes) -> None:
        self._callbacks.on_noise(self._mask.whole(line))

    # The end.

    def _end(self) -> None:
        self._incoming.end()
        self.closed.set()
        self._pending.fail_all(self._death)

    def _death(self, call: Call) -> ServerDied:
        return ServerDied(
            f"`{self.name}` {self.how_it_ended} before it answered `{call.method}`",
            hint=f"`octave logs {self.name}` shows what it wrote",
            details=self._circumstances() | {"sent": self._process.has_sent(call.ticket)},
        )

    def _circumstances(self) -> dict[str, Any]:
        status = self.exit_status
        return {
            "exitCode": None if status is None else status.code,
            "signal": None if status is None else status.signal,
            "stderrTail": self.stderr_tail,
        }

    # The beginning.

    async def _shake_hands(self, opening: Opening, timeout_s: float) -> None:
        method = handshake.DISCOVER if opening.era == "modern" else handshake.METHOD
        try:
            self.greeting = await self._greet(opening, timeout_s)
        except handshake.Refused as error:
            raise self.refused(str(error)) from error
        except CallTimedOut as error:
            reason = f"did not answer `{method}` within {timeout_s:g} s"
            raise self.refused(reason, phase="timeout") from error
        except ServerDied as error:
            raise self.refused(f"{self.how_it_ended} before it answered `{method}`") from error
        except OctaveError as error:
            raise self.refused(f"did not start: {error.message}") from error
        if self.greeting.era == "legacy":
            self.send(wire.notification(handshake.DONE))

    async def _greet(self, opening: Opening, timeout_s: float) -> Greeting:
        if opening.era != "modern":
            answer = await self.request(handshake.METHOD, opening.params, timeout_s)
            if opening.era == "legacy" or not handshake.wants_modern(answer):
                return handshake.read(answer)
        discovered = await self.request(handshake.DISCOVER, None, timeout_s)
        if discovered.result is None and opening.era != "modern":
            # It speaks no other era: what it said first is why.
            return handshake.read(answer)
        return handshake.read_discover(discovered)


@contextlib.asynccontextmanager
async def connect(
    spec: LaunchSpec,
    callbacks: Callbacks,
    start_timeout_s: float | None = None,
    opening: Opening = Opening(),  # noqa: B008 - frozen
) -> AsyncIterator[Connection]:
    """Start the server and open a conversation; leaving the scope stops it, however it is left.

    `start_timeout_s` stands in for the policy's. What is still pending then fails as if the server
    had died.

    Raises:
        StartFailed: it cannot be started, ended, did not answer in time or refused. `details`:
            ``phase`` ("start", "initialize", "timeout"), ``exitCode``, ``signal``, ``stderrTail``
            (lines) and ``permanent`` (trying again is no use).
        OctaveError: `spec.problem`, when there is one.
    """
    if spec.problem is not None:
        raise spec.problem
    # In a thread: other servers' calls do not wait until somebody has unlocked a keyring.
    spec = await worker.run_apart(spec.resolved)
    if spec.endpoint is None:
        spec.before_start()
    connection = Connection(spec, callbacks)
    async with connection._process.running():
        try:
            timeout_s = spec.policy.start_timeout_s if start_timeout_s is None else start_timeout_s
            await connection._shake_hands(opening, timeout_s)
            yield connection
        finally:
            connection._end()


def _progress_token(message: Message) -> bytes | None:
    params = message.params
    # Most requests have none: a search for the word is cheaper than a look at every member.
    if params is None or not (wire.BACKSLASH in params or b"progressToken" in params):
        return None
    return wire.member(params, "_meta", "progressToken")
