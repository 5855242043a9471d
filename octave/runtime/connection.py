"""One MCP conversation with one server: handshake, pending calls, progress, cancellation.

Raw JSON in, raw JSON out: of a message only its envelope is read. Every request goes out under an
id of this link's own; a call ends with the server's answer or an error of Octave's, always: when
the process dies, its answer is broken or too large, or time is up. It needs no task of its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from octave.errors import CallTimedOut, OctaveError, ServerBusy, ServerDied, StartFailed
from octave.packages.launch import LaunchSpec
from octave.runtime import handshake, process, wire
from octave.runtime.command import Command
from octave.runtime.masking import Mask
from octave.runtime.pending import Call, Pending
from octave.runtime.wire import Message

PERMANENT_EXIT_CODES = {126, 127}
"""A program could not be executed, or was not found: what shells and `env` say."""

NOISE_BYTES = 64 * 1024
"""Of a line that is no message: as much as shows what it is."""

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


class Unreadable(Exception):
    """The cause of an error: an answer is too large, or no JSON; `line` has it, or its head."""

    def __init__(self, line: bytes) -> None:
        super().__init__(line[: wire.HEAD_BYTES])
        self.line = line


class Connection:
    """An open conversation, made by `connect`."""

    def __init__(self, spec: LaunchSpec, callbacks: Callbacks) -> None:
        command = Command(spec.name, spec.argv, spec.cwd, spec.environment())
        self._mask = Mask(spec.secrets_of(command.environ))
        ears = process.Callbacks(self._on_stdout, self._on_stderr, self._end)
        self._process = process.Process(command, ears, self._mask)
        self.name = spec.name
        self.initialize_result = b""
        """The `result` of `initialize` as the server wrote it."""
        self.protocol_version = ""
        self.noise = 0
        """Lines on stdout that were no messages."""
        self.closed = anyio.Event()
        """Set when nothing more can come: the process ended, or closed its stdout."""
        self._callbacks = callbacks
        self._limit_bytes = spec.policy.max_message_bytes
        self._framer = wire.Framer(self._limit_bytes)
        self._loop = asyncio.get_running_loop()
        self.last_heard_s = self._loop.time()
        """When its last byte arrived, on stdout or stderr; the event loop's clock."""
        self._abandoned: str | None = None
        self._pending = Pending()

    @property
    def pid(self) -> int:
        """The server's process, and the id of its group."""
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
        status = self.exit_status
        if status is not None:
            return f"ended with {status}" if status.signal is None else f"was {status}"
        return "closed its stdout" if self._process.stdout_closed else "closed its stdin"

    def refused(self, reason: str, phase: str = "initialize") -> StartFailed:
        """Return the error of a start that came to nothing; `reason` follows the name."""
        status = self.exit_status
        permanent = status is not None and status.code in PERMANENT_EXIT_CODES
        details = self._circumstances() | {"phase": phase, "permanent": permanent}
        # A server's own words may be among the reasons.
        return StartFailed(self._mask.text(f"`{self.name}` {reason}"), details=details)

    def masked(self, text: str) -> str:
        """Return `text` without values of secrets, where the server may have a say in it."""
        return self._mask.text(text)

    async def request(self, method: str, params: bytes | None, timeout_s: float) -> Message:
        """Ask a question of Octave's own and return the answer, error answers included.

        `params` is raw JSON. Raises as `forward` does.
        """
        link_id = self._pending.next_id()
        call = Call(method, timeout_s, timeout_s)
        return await self._exchange(link_id, wire.request(link_id, method, params), call)

    async def forward(
        self,
        message: Message,
        changes: Mapping[wire.Path, bytes],
        on_progress: Callable[[bytes], None] | None,
        timeout_s: float,
        timeout_max_s: float,
    ) -> Message:
        """Send a client's request and return the server's answer, error answers included.

        Its line goes out as it came, but for `changes` (see `wire.splice`), the id and the
        progress token; the answer still carries the id of this link. Each progress message starts
        `timeout_s` anew, up to `timeout_max_s` in all, and is handed to `on_progress` as a line
        with the client's own token. Leaving early, by time-out or cancellation, cancels the
        request at the server; an answer that comes later is dropped.

        Raises:
            ServerBusy: the queue to the server is full; nothing was sent.
            ServerDied: the process ended or closed its stdout; `details` hold exitCode, signal,
                stderrTail, and ``sent``: the request may have reached it.
            CallTimedOut: no answer in time.
            OctaveError: the answer is too large, or no JSON.
        """
        link_id = self._pending.next_id()
        call = Call(message.method or "", timeout_s, timeout_max_s)
        edits = {**changes, ("id",): link_id}
        token = _progress_token(message)
        if token is not None:
            edits["params", "_meta", "progressToken"] = link_id
            call.token, call.on_progress = token, on_progress
        return await self._exchange(link_id, wire.splice(message.line, edits), call)

    def send(self, line: bytes) -> None:
        """Send an answer or notification; dropped when the queue is full or the server gone."""
        with contextlib.suppress(ServerBusy, BrokenPipeError):
            self._process.write(line)

    def abandon(self, reason: str) -> None:
        """Expect nothing more of a process that lives; `reason` is what `how_it_ended` then says.

        Whoever waits for an answer is told as if it had died.
        """
        if not self.closed.is_set():
            self._abandoned = reason
            self._process.is_given_up = True
            self._end()

    # Asking.

    async def _exchange(self, link_id: bytes, line: bytes, call: Call) -> Message:
        self._write(line, call)
        try:
            with self._pending.waiting(link_id, call):
                return await call.answer
        finally:
            if not call.answer.done() or call.answer.cancelled():
                self._cancel(link_id, call)
            else:
                call.answer.exception()  # seen, also when a cancellation overtakes it
        raise CallTimedOut(
            f"`{self.name}` did not answer `{call.method}` in time",
            hint="raise `call_timeout` in the [runtime] table of octave.toml, if it needs longer",
            details={"method": call.method, "timeoutSeconds": call.timeout_s},
        )

    def _write(self, line: bytes, call: Call) -> None:
        if self.closed.is_set():
            raise self._death(call)
        try:
            call.ticket = self._process.write(line)
        except BrokenPipeError:
            # It is dying, or lives and cannot be talked to any more: `_end` will say which.
            self._process.end_soon()

    def _cancel(self, link_id: bytes, call: Call) -> None:
        if self.closed.is_set() or self._process.withdraw(call.ticket):
            return
        if call.method != handshake.METHOD:  # the one request that must not be cancelled
            self.send(wire.notification(_CANCELLED, b'{"requestId":%b}' % link_id))

    # Hearing.

    def _on_stderr(self, data: bytes) -> None:
        self.last_heard_s = self._loop.time()
        self._callbacks.on_stderr(data)

    def _on_stdout(self, data: bytes) -> None:
        self.last_heard_s = self._loop.time()
        for line in self._framer.feed(data):
            if isinstance(line, wire.Oversize):
                self._too_large(line)
                continue
            if not wire.is_object(line):
                self._noise(line)
                continue
            try:
                message = wire.decode(line)
            except wire.Malformed as error:
                self._broken(line, str(error))
                continue
            self._route(message)

    def _route(self, message: Message) -> None:
        if message.method is None:
            self._pending.answered(message)
        elif message.id is not None:
            self._asked(message)
        elif message.method == _PROGRESS:
            self._pending.progressed(message)
        else:
            self._callbacks.on_notification(message)

    def _asked(self, message: Message) -> None:
        identifier = message.id or b"null"
        if message.method == "ping":
            self.send(wire.result(identifier, b"{}"))
        elif self._callbacks.on_request is not None:
            self._callbacks.on_request(message)
        else:
            text = f"Method not found: {message.method}"
            self.send(wire.error(identifier, wire.METHOD_NOT_FOUND, text))

    def _too_large(self, line: wire.Oversize) -> None:
        self._failed(
            line.head,
            line.tail,
            f"`{self.name}` sent a message of {line.size_bytes:,} bytes, too large: the limit is"
            f" {self._limit_bytes:,}",
            "raise `max_message` in the [runtime] table of octave.toml",
        )

    def _broken(self, line: bytes, reason: str) -> None:
        self._failed(
            line,
            line,
            f"`{self.name}` sent an answer that cannot be read: {reason}",
            f"`octave logs {self.name}` shows the line",
        )

    def _failed(self, line: bytes, end: bytes, text: str, hint: str) -> None:
        self._noise(line)
        head = line[: wire.HEAD_BYTES]
        link_id = wire.scan_id(head) or wire.id_at_end(head, end[-wire.TAIL_BYTES :])
        error = OctaveError(text, hint)
        error.__cause__ = Unreadable(line)
        self._pending.fail(link_id or b"", error)

    def _noise(self, line: bytes) -> None:
        self.noise += 1
        self._callbacks.on_noise(self._mask.whole(line[:NOISE_BYTES]))

    # The end.

    def _end(self) -> None:
        self.closed.set()
        self._pending.fail_all(self._death)

    def _death(self, call: Call) -> ServerDied:
        return ServerDied(
            f"`{self.name}` {self.how_it_ended} before it answered `{call.method}`",
            hint=f"`octave logs {self.name}` shows what it wrote",
            details=self._circumstances() | {"sent": 0 < call.ticket <= self._process.written},
        )

    def _circumstances(self) -> dict[str, Any]:
        status = self.exit_status
        return {
            "exitCode": None if status is None else status.code,
            "signal": None if status is None else status.signal,
            "stderrTail": self.stderr_tail,
        }

    # The beginning.

    async def _shake_hands(self, timeout_s: float) -> None:
        try:
            answer = await self.request(handshake.METHOD, handshake.PARAMS, timeout_s)
            greeting = handshake.read(answer)
        except handshake.Refused as error:
            raise self.refused(str(error)) from error
        except CallTimedOut as error:
            reason = f"did not answer `initialize` within {timeout_s:g} s"
            raise self.refused(reason, phase="timeout") from error
        except ServerDied as error:
            raise self.refused(f"{self.how_it_ended} before it answered `initialize`") from error
        except OctaveError as error:
            raise self.refused(f"did not start: {error.message}") from error
        self.initialize_result = greeting.result
        self.protocol_version = greeting.protocol_version
        self.send(wire.notification(handshake.DONE))


@contextlib.asynccontextmanager
async def connect(
    spec: LaunchSpec, callbacks: Callbacks, start_timeout_s: float | None = None
) -> AsyncIterator[Connection]:
    """Start the server and shake hands; leaving the scope stops it, however it is left.

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
    connection = Connection(spec, callbacks)
    async with connection._process.running():
        try:
            timeout_s = spec.policy.start_timeout_s if start_timeout_s is None else start_timeout_s
            await connection._shake_hands(timeout_s)
            yield connection
        finally:
            connection._end()


def _progress_token(message: Message) -> bytes | None:
    params = message.params
    # Most requests have none: a search for the word is cheaper than a look at every member.
    if params is None or not (b"progressToken" in params or b"\\" in params):
        return None
    return wire.member(params, "_meta", "progressToken")
