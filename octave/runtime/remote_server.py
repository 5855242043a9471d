"""The link to a server behind a URL, with the face that `process.Process` has for a local one.

Lines go out as HTTP requests through the official SDK, and what comes back arrives as lines. The
SDK costs 0.9 s and 63 MB, so it is imported in a thread when the first such link opens. Death is
whatever needs a new conversation: it cannot be reached, its session is gone, it wants a login.
"""

import contextlib
import errno
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol
from urllib.parse import urlsplit

import anyio

from octave.errors import OctaveError, ServerBusy, StartFailed
from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime import worker
from octave.runtime.command import Command
from octave.runtime.masking import Mask
from octave.runtime.process import (
    QUEUE_BYTES,
    QUEUE_MESSAGES,
    Callbacks,
    ExitStatus,
    Process,
)

UNSENT_LIMIT = 4096
"""Far more than can be on their way; what is older counts as sent, so that it is not sent again."""
FAREWELL_S = 2.0
"""For the DELETE that ends a session (MCP 2025-11-25, session management); it is a courtesy."""


class Link(Protocol):
    """What carries the lines of one conversation: a `Process`, or a `RemoteLink`."""

    pid: int
    exit_status: ExitStatus | None
    stdout_closed: bool
    is_given_up: bool
    failure: StartFailed | None

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Open it; leaving the scope closes it."""

    @property
    def stderr_tail(self) -> list[str]:
        """The last lines on stderr, oldest first."""

    def write(self, line: bytes) -> int:
        """Send a line, without newline; returns its ticket."""

    def withdraw(self, ticket: int) -> bool:
        """Take a line back; False when it has begun to leave already."""

    def heed(self) -> None:
        """Say that somebody waits for what is heard now."""

    def has_sent(self, ticket: int) -> bool:
        """Whether the line may have reached the server."""

    def end_soon(self) -> None:
        """Report the end, if it was not reported yet."""


@dataclass(frozen=True, slots=True)
class Post:
    """A line on its way to the server."""

    ticket: int
    line: bytes


class RemoteLink:
    """A conversation over HTTP, open within `running`.

    Args:
        name: of the server, for messages.
        endpoint: where it is.
        headers: what `endpoint.headers` gave.
        callbacks: who hears of it; `on_stdout` gets whole lines.
        limit_bytes: of one message of the server.
        mask: what must not be shown of what is said about it; learns the login.
    """

    pid = 0
    """There is no process."""
    stderr_tail: list[str] = []  # noqa: RUF012 - never changes
    """There is none."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        headers: dict[str, str],
        callbacks: Callbacks,
        limit_bytes: int,
        mask: Mask | None = None,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.headers = headers
        self.limit_bytes = limit_bytes
        self.mask = mask or Mask()
        self.callbacks = callbacks
        self.exit_status: ExitStatus | None = None
        self.stdout_closed = False
        self.is_given_up = False
        """Whoever owns it expects nothing more: it takes no leave of the server."""
        self.failure: StartFailed | None = None
        """Why it came to an end without being told to."""
        self.make_auth: Callable[[], object] | None = None
        """Makes the `httpx2.Auth` that stands in for the stored login."""
        self.closing = anyio.Event()
        """Set when it is to end, by whomever."""
        self._tickets = 0
        self._queue: deque[Post] = deque()
        self._queued_bytes = 0
        self._more = anyio.Event()
        self._unsent: dict[int, None] = {}
        self._ended = anyio.Event()

    @property
    def host(self) -> str:
        """Where it is, as far as messages may tell: the rest of a URL may hold a key."""
        return urlsplit(self.endpoint.url).netloc

    # The face of `Link`.

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the link; leaving the scope closes it. To be entered once.

        Whether anybody is there shows with the first line that is written.
        """
        transport = await worker.run(_load)
        error: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._carry, transport)
            try:
                yield
            except Exception as raised:  # noqa: BLE001 - raised below: a group would wrap it
                error = raised
            finally:
                self.closing.set()
                with anyio.move_on_after(0 if self.is_given_up else FAREWELL_S, shield=True):
                    await self._ended.wait()
                tasks.cancel_scope.cancel()
        if error is not None:
            raise error

    def write(self, line: bytes) -> int:
        """Send `line`, now or when those before it have left; never blocks.

        Raises:
            ServerBusy: `QUEUE_MESSAGES` or `QUEUE_BYTES` wait already.
            BrokenPipeError: it has ended, the line was not sent.
        """
        if self.closing.is_set():
            raise BrokenPipeError(errno.EPIPE, "the link has ended")
        waiting = len(self._queue)
        if waiting and (waiting >= QUEUE_MESSAGES or self._queued_bytes + len(line) > QUEUE_BYTES):
            raise ServerBusy(
                f"`{self.name}` does not keep up: {waiting} messages wait already",
                hint=f"`octave restart {self.name}`, if it is stuck",
            )
        self._tickets += 1
        self._unsent[self._tickets] = None
        if len(self._unsent) > UNSENT_LIMIT:
            del self._unsent[next(iter(self._unsent))]
        self._queue.append(Post(self._tickets, line))
        self._queued_bytes += len(line)
        self._more.set()
        return self._tickets

    def withdraw(self, ticket: int) -> bool:
        """Take a line back; False when it has begun to leave already."""
        for post in self._queue:
            if post.ticket == ticket:
                self._queue.remove(post)
                self._queued_bytes -= len(post.line)
                return True
        return False

    def heed(self) -> None:
        """Nothing happens: what comes over HTTP is not held up."""

    def has_sent(self, ticket: int) -> bool:
        """Whether the line may have reached the server, and may have been acted upon."""
        return 0 < ticket <= self._tickets and ticket not in self._unsent

    def end_soon(self) -> None:
        """Report the end, if it was not reported yet."""
        self.closing.set()

    # What carries it.

    async def posts(self) -> AsyncIterator[Post]:
        """Yield what is to be sent, for ever."""
        while True:
            while self._queue:
                post = self._queue.popleft()
                self._queued_bytes -= len(post.line)
                yield post
            self._more = anyio.Event()
            await self._more.wait()

    def left(self, ticket: int) -> None:
        """Take note that a line has begun to leave."""
        self._unsent.pop(ticket, None)

    def refused(self, ticket: int) -> None:
        """Take note that the server has not acted upon a line."""
        self._unsent[ticket] = None

    def heard(self, line: bytes) -> None:
        """Take a line of the server."""
        if not self._ended.is_set():
            self.callbacks.on_stdout(line + b"\n")

    def broke(self, failure: StartFailed) -> None:
        """End, and say why; the first reason counts."""
        if not self.closing.is_set():
            # The server, and that of its login, may have had a say in it.
            text = self.mask.text(failure.message)
            self.failure = type(failure)(text, failure.hint, failure.details)
            self.closing.set()

    async def _carry(self, transport: ModuleType) -> None:
        try:
            await transport.carry(self)
        except OctaveError as error:
            self.broke(error if isinstance(error, StartFailed) else StartFailed(error.message))
        finally:
            self.closing.set()
            self.exit_status = ExitStatus(None, None)
            self.stdout_closed = True
            self._ended.set()
            self.callbacks.on_end()


def link_of(spec: LaunchSpec, callbacks: Callbacks) -> tuple[Link, Mask]:
    """Return what carries the lines of `spec`, not yet running, and what its secrets are.

    Raises:
        StartFailed: a reference does not resolve, or a required variable is not set.
    """
    if spec.endpoint is None:
        command = Command(spec.name, spec.argv, spec.cwd, spec.environment())
        mask = Mask(spec.secrets_of(command.environ))
        return Process(command, callbacks, mask), mask
    headers = spec.endpoint.headers()
    secrets = [value for name, value in headers.items() if name in spec.endpoint.secret_headers]
    # `Bearer TOKEN`: the token alone is a secret, too.
    mask = Mask([*secrets, *(value.rpartition(" ")[2] for value in secrets)])
    limit_bytes = spec.policy.max_message_bytes
    return RemoteLink(spec.name, spec.endpoint, headers, callbacks, limit_bytes, mask), mask


def _load() -> ModuleType:
    from octave.runtime import remote_transport

    return remote_transport
