"""One child process: its own group, its three pipes, its end. Mechanism only.

Pipes are always drained, whatever the child writes; its end is noticed whoever still holds them;
writing never blocks. Leaving `Process.running` leaves nothing behind, neither of its process group
nor of what has left that, known by a mark in the environment. All callbacks run in the event loop
that started it.
"""

import asyncio
import contextlib
import errno
import functools
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from subprocess import Popen  # noqa: TID251 - handed over by `command.start`

import anyio

from octave.background import PROCESS_MARK
from octave.errors import ServerBusy, StartFailed
from octave.runtime import guardian, marker, worker
from octave.runtime.command import Command, start
from octave.runtime.masking import Mask
from octave.runtime.outbox import Outbox, widen
from octave.runtime.pace import PipeReader

QUEUE_MESSAGES = 256
"""A server that is so far behind is stuck; more waiting would only cost memory."""
QUEUE_BYTES = 4 * 2**20
"""As above, by size; a single message always fits."""
DRAIN_S = 0.05
"""Between the end and its report: last words may be in the pipes. Calls in flight wait so long."""
END_OF_INPUT_GRACE_S = 2.0
"""To leave by itself once its stdin is closed, as MCP asks of servers."""
TERMINATE_GRACE_S = 3.0
"""To clean up after SIGTERM, so that a stop as a whole stays below 6 s."""
KILL_GRACE_S = 2.0
"""The kernel needs milliseconds; a process stuck in the disk may never go, and is left behind."""
LEFTOVER_GRACE_S = 0.5
"""For grandchildren between SIGTERM and SIGKILL, and for last words in the pipes."""
TAIL_LINES = 20
TAIL_LINE_BYTES = 500
"""Enough for a traceback's end in an error message, whatever the server writes."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who hears of it. `on_end` comes once, when nothing more can be expected of the process."""

    on_stdout: Callable[[bytes], None]
    on_stderr: Callable[[bytes], None]
    on_end: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How it ended: an exit code, or the signal that killed it."""

    code: int | None
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed (signal {self.signal})"
        return f"exit code {self.code}"


class Tail:
    """The last lines of a stream, bounded in number and length."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._partial = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = self._partial + complete[0]
            self._partial = b""
            self._lines.extend(line[:TAIL_LINE_BYTES] for line in complete[-TAIL_LINES:])
        self._partial = (self._partial + rest[:TAIL_LINE_BYTES])[:TAIL_LINE_BYTES]

    def lines(self) -> list[str]:
        """Return the last lines, oldest first, empty ones left out; undecodable bytes replaced."""
        texts = (line.decode(errors="replace").rstrip() for line in (*self._lines, self._partial))
        return [text for text in texts if text][-TAIL_LINES:]


class Process:
    """A child, alive within `running`."""

    def __init__(self, command: Command, callbacks: Callbacks, mask: Mask | None = None) -> None:
        mark = marker.new_id()
        self.command = replace(command, environ={**command.environ, PROCESS_MARK: mark})
        self.pid = 0
        """Also the id of its process group; 0 before it runs."""
        self.exit_status: ExitStatus | None = None
        self.stdout_closed = False
        self.is_given_up = False
        """Whoever owns it expects nothing more: it is not asked to leave by itself."""
        self.failure: StartFailed | None = None
        """Of a process its `exit_status` tells."""
        self._mark = f"{PROCESS_MARK}={mark}".encode()
        self._callbacks = callbacks
        self._loop = asyncio.get_running_loop()
        self._tail = Tail()
        self._masked = (mask or Mask()).stream()
        self._outbox: Outbox | None = None
        self._readers: list[PipeReader] = []
        self._open = {"stdout", "stderr", "process"}
        self._ending: asyncio.TimerHandle | None = None
        self._ended = False
        self._exited = anyio.Event()
        self._drained = anyio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start it in a session of its own; leaving the scope stops it. To be entered once.

        Raises:
            StartFailed: it cannot be started, see `command.start`.
        """
        popen = start(self.command)
        self.pid = popen.pid
        with contextlib.ExitStack() as watch:
            watch.callback(self._close_pipes, popen)
            try:
                _watch_exit(self, popen, watch)
                self._open_pipes(popen)
                yield
            finally:
                await self.stop()

    @property
    def stderr_tail(self) -> list[str]:
        """The last lines it wrote to stderr, oldest first."""
        return self._tail.lines()

    def write(self, line: bytes) -> int:
        """Send `line` and a newline, now or when the process reads again; never blocks.

        Returns:
            A ticket, counted from 1: the line has begun to leave once `written` reached it.

        Raises:
            ServerBusy: `QUEUE_MESSAGES` or `QUEUE_BYTES` wait already.
            BrokenPipeError: its stdin is closed, the line was not sent.
        """
        outbox = self._outbox
        if outbox is None or outbox.is_closed:
            raise BrokenPipeError(errno.EPIPE, "stdin is closed")
        waiting = outbox.waiting
        too_much = outbox.waiting_bytes + len(line) > QUEUE_BYTES
        if waiting and (waiting >= QUEUE_MESSAGES or too_much):
            raise ServerBusy(
                f"`{self.command.name}` does not keep up: {waiting} messages wait already",
                hint=f"`octave restart {self.command.name}`, if it is stuck",
            )
        return outbox.put(line)

    @property
    def written(self) -> int:
        """Tickets up to this one have at least begun to leave."""
        return 0 if self._outbox is None else self._outbox.written

    def has_sent(self, ticket: int) -> bool:
        """Whether the line may have reached the process."""
        return 0 < ticket <= self.written

    def withdraw(self, ticket: int) -> bool:
        """Take a line back; False when it has begun to leave already."""
        return self._outbox is not None and self._outbox.withdraw(ticket)

    def heed(self) -> None:
        """Say, within `on_stdout`, that somebody waits for these bytes: see `Pace.heed`."""
        if self._readers:
            self._readers[0].heed()

    def end_soon(self) -> None:
        """Report the end after `DRAIN_S` at the latest, as nothing more is expected of it."""
        if self._ending is None:
            self._ending = self._loop.call_later(DRAIN_S, self._end)

    async def stop(self) -> ExitStatus | None:
        """End the process and its group: close stdin, wait unless given up, SIGTERM, wait, SIGKILL.

        Not interrupted by cancellation, and bounded by the graces above. None when it is still
        there after that. Its group is signalled even when it went by itself, and so is all that
        it started, in whatever group.
        """
        with anyio.CancelScope(shield=True):
            self._close_stdin()
            if not await self._exits_within(0.0 if self.is_given_up else END_OF_INPUT_GRACE_S):
                self._signal_group(signal.SIGTERM)
                if not await self._exits_within(TERMINATE_GRACE_S):
                    self._signal_group(signal.SIGKILL)
                    await self._exits_within(KILL_GRACE_S)
            self._signal_group(signal.SIGTERM)
            await self._end_descendants()
            with anyio.move_on_after(LEFTOVER_GRACE_S):
                await self._drained.wait()
            self._signal_group(signal.SIGKILL)
        return self.exit_status

    # What the operating system reports.

    def _stdout_received(self, data: bytes) -> None:
        if not self._ended:
            self._callbacks.on_stdout(data)

    def _stderr_received(self, data: bytes) -> None:
        self._tell_stderr(self._masked.feed(data))

    def _tell_stderr(self, data: bytes) -> None:
        if data:
            self._tail.feed(data)
            self._callbacks.on_stderr(data)

    def _exit_noticed(self, code: int) -> None:
        self.exit_status = ExitStatus(code, None) if code >= 0 else ExitStatus(None, -code)
        self._exited.set()
        for reader in self._readers:
            reader.hurry()
        self._closed("process")

    def _closed(self, part: str) -> None:
        """One of stdout, stderr and the process itself is gone."""
        self._open.discard(part)
        if part == "stderr":
            self._tell_stderr(self._masked.end())
        if part == "stdout":
            self.stdout_closed = True
        if self._open.isdisjoint({"stdout", "stderr"}):
            self._drained.set()
        if not self._open:
            self._end()
        elif part != "stderr":
            self.end_soon()

    def _end(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        if not self._ended:
            for reader in self._readers:
                reader.flush()
            self._ended = True
            self._callbacks.on_end()

    def _stdin_lost(self) -> None:
        # Lines that wait will never be read. If none does, an answer may still come.
        if self._outbox is not None and (self._outbox.waiting or self._outbox.is_blocked):
            self.end_soon()

    # Beginning and end.

    def _open_pipes(self, popen: Popen[bytes]) -> None:
        stdin, stdout, stderr = popen.stdin, popen.stdout, popen.stderr
        assert stdin is not None
        assert stdout is not None
        widen(stdout.fileno())
        self._outbox = Outbox(stdin, self._stdin_lost)
        for part, pipe, received in (
            ("stdout", stdout, self._stdout_received),
            ("stderr", stderr, self._stderr_received),
        ):
            assert pipe is not None
            ended = functools.partial(self._closed, part)
            self._readers.append(PipeReader(pipe, received, ended))

    def _close_stdin(self) -> None:
        if self._outbox is not None:
            self._outbox.close()

    def _close_pipes(self, popen: Popen[bytes]) -> None:
        self._ended = True
        if self._ending is not None:
            self._ending.cancel()
        self._close_stdin()
        for reader in self._readers:
            reader.close()
        self._tell_stderr(self._masked.end())
        # Only a start that was interrupted leaves pipes that no transport has closed.
        for pipe in (popen.stdin, popen.stdout, popen.stderr):
            if pipe is not None:
                pipe.close()

    async def _exits_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._exited.wait()
        return self._exited.is_set()

    async def _end_descendants(self) -> None:
        # In a thread: it looks at every process of the machine, and waits.
        end = functools.partial(guardian.end_marked, [self._mark], grace_s=LEFTOVER_GRACE_S)
        await worker.run(end)

    def _signal_group(self, number: signal.Signals) -> None:
        # A group outlives its leader, and while it does its number is not given away. Once the
        # leader is reaped, a process of that number can only be a stranger with a group of its own.
        if self.exit_status is not None and _exists(self.pid):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _watch_exit(process: Process, popen: Popen[bytes], watch: contextlib.ExitStack) -> None:
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(popen.pid)
    except (AttributeError, OSError):  # not Linux, or a sandbox without it
        _watch_exit_in_thread(process, popen, loop)
        return

    def exited() -> None:
        loop.remove_reader(descriptor)
        process._exit_noticed(popen.wait())

    loop.add_reader(descriptor, exited)
    watch.callback(os.close, descriptor)
    watch.callback(loop.remove_reader, descriptor)


def _watch_exit_in_thread(
    process: Process, popen: Popen[bytes], loop: asyncio.AbstractEventLoop
) -> None:
    def wait() -> None:
        code = popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested
            loop.call_soon_threadsafe(process._exit_noticed, code)

    threading.Thread(target=wait, name=f"wait-{popen.pid}", daemon=True).start()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
