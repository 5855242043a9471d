"""The unix socket: MCP sessions and control connections, framed as on stdio.

The first line of a connection says who is there and is answered with one line; after it an MCP
session never reaches the runtime's own methods, and a control connection nothing else. No byte
waits without a bound: a peer that does not read is read no more, and cut when that does not help.
"""

import asyncio
import logging
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import msgspec

from octave import __version__
from octave.errors import OctaveError, UsageError
from octave.gateway.session import SessionOverflow
from octave.runtime import wire
from octave.runtime.pace import PIECE_BYTES, Pace, at_end_of_turn

HELLO_LIMIT_BYTES = 64 * 1024
HELLO_TIMEOUT_S = 10.0
"""Whoever connects says at once who it is."""

HIGH_WATER_BYTES = 2**20
"""More than this unread, and the peer's own lines wait until it has read some."""

CUT_AFTER_BYTES = 32 * 2**20
"""Twice the largest message: a peer that far behind does not read at all."""

LONG_BYTES = 64 * 1024
"""A line from here on is written without another copy, at the price of a second call."""

SEND_BUFFER_BYTES = 2**20
"""As far as the system permits: a large answer then leaves at once, not piece by piece."""

FINISH_S = 5.0
"""After the end of a client's input its open requests get this long."""

BACKLOG = 128

ACCEPTS_AT_ONCE = 1
"""Without a file to be had asyncio fails as often as its `backlog`, and each failure leads to a try
a second later that fails as often: it ends up doing nothing else. The backlog of the system is set
apart from that. Needed until every supported Python has github.com/python/cpython/issues/151615."""

_log = logging.getLogger(__name__)


class _Proxy(msgspec.Struct):
    servers: list[str] | None = None
    profile: str | None = None


class _Hello(msgspec.Struct):
    version: int
    proxy: _Proxy | None = None
    control: dict[str, msgspec.Raw] | None = None


class _FirstLine(msgspec.Struct):
    octave: _Hello


@dataclass(frozen=True, slots=True)
class Wish:
    """Which servers an AI tool's proxy asked for."""

    servers: tuple[str, ...]
    """Empty: all."""
    profile: str | None


def read_hello(line: bytes) -> Wish | None:
    """Return what a proxy wants by its first line; None for a control connection.

    Raises:
        UsageError: it is neither, or of a version this runtime does not speak.
    """
    try:
        hello = msgspec.json.decode(line, type=_FirstLine).octave
    except msgspec.DecodeError as error:
        raise UsageError(f"not the first line of an Octave connection: {error}") from error
    if hello.version != 1 or (hello.proxy is None) == (hello.control is None):
        raise UsageError(
            "this kind of connection is unknown to the runtime",
            hint="run `octave shutdown`, then start the newer runtime",
        )
    if hello.proxy is None:
        return None
    return Wish(tuple(hello.proxy.servers or ()), hello.proxy.profile)


def bind(path: Path) -> socket.socket:
    """Return a listening socket at `path`, 0600; a stale one is replaced.

    Only for the holder of the runtime's lock: whatever lies at `path` belonged to a dead runtime.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


def peer_uid(peer: socket.socket) -> int:
    """Return the user id of the process at the other end (unix(7), SO_PEERCRED)."""
    if hasattr(socket, "SO_PEERCRED"):
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[1])
    # macOS, sys/un.h: LOCAL_PEERCRED (1) at SOL_LOCAL (0) begins with a version and the uid.
    return int(struct.unpack("II", peer.getsockopt(0, 1, 8))[1])


class Conversation(Protocol):
    """What a connection carries once it is known: an MCP session, or control."""

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own what goes on until it is closed; started once lines may be received."""

    def receive(self, line: bytes | wire.Oversize) -> None:
        """Take one line of the peer."""

    def finish(self) -> None:
        """The peer sends no more."""

    def close(self) -> None:
        """The peer is gone."""


Send = Callable[[bytes], None]
"""Takes one line without newline; raises `SessionOverflow` when the peer does not read."""


class Door:
    """Serves every connection of one listening socket.

    Args:
        open_conversation: for what a proxy wishes, or control (None), makes what the connection
            carries; an `OctaveError` refuses the peer.
        max_message_bytes: the longest line a peer may send.
    """

    def __init__(
        self, open_conversation: Callable[[Wish | None, Send], Conversation], max_message_bytes: int
    ) -> None:
        self.connections: set[Connection] = set()
        self.tasks: anyio.abc.TaskGroup
        self.open_conversation = open_conversation
        self.max_message_bytes = max_message_bytes
        self._server: asyncio.Server | None = None

    async def run(
        self,
        listener: socket.socket,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until cancelled; then every connection is closed."""
        async with anyio.create_task_group() as self.tasks:
            await self.listen(listener)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self.shut()
                for connection in list(self.connections):
                    connection.close()

    async def listen(self, listener: socket.socket) -> None:
        """Accept from `listener`, and no more from the one before; open connections go on."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Connection(self), sock=listener, backlog=ACCEPTS_AT_ONCE
        )
        listener.listen(BACKLOG)
        self.shut()
        self._server = server

    def shut(self) -> None:
        """Accept nobody any more; open connections go on."""
        if self._server is not None:
            self._server.close()


class Connection(asyncio.BufferedProtocol):
    """One accepted connection, from its first line to its end."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport
        self._first = bytearray()
        self._framer = wire.Framer(door.max_message_bytes)
        self._piece = bytearray(PIECE_BYTES)
        self._pace = Pace(self._take, partial(self._hold, "pace"), partial(self._release, "pace"))
        self._holds: set[str] = set()
        """Why it is not read now."""
        self._conversation: Conversation | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._together: list[bytes] = []
        """Lines that leave at the end of the turn."""
        self._together_bytes = 0
        self._is_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in the own user only; anybody else is gone at once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer: socket.socket = transport.get_extra_info("socket")
        if peer_uid(peer) != os.getuid():
            transport.abort()
            return
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._door.connections.add(self)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._close_after(HELLO_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the peer had asked for and is not done."""
        self._door.connections.discard(self)
        self._cancel_timer()
        self._pace.end()
        if self._conversation is not None:
            self._conversation.close()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where the next piece goes; it is small, so that the others have their turn."""
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the peer wrote."""
        data = bytes(memoryview(self._piece)[:nbytes])
        if self._conversation is None:
            self._take_hello(data)
        else:
            self._pace.take(data)

    def eof_received(self) -> bool:
        """Keep our half open for a while: unless the peer is gone, it may wait for answers."""
        watch = select.poll()
        watch.register(self._transport.get_extra_info("socket"), 0)
        # POLLHUP of poll(2): both halves are closed. macOS says so of one half, too.
        if sys.platform == "linux" and watch.poll(0):
            return False
        self._close_after(FINISH_S)
        if self._conversation is None:
            return False
        self._conversation.finish()
        return True

    def pause_writing(self) -> None:
        """Take no more from a peer that is behind."""
        self._hold("behind")

    def resume_writing(self) -> None:
        """Go on: it has read."""
        self._release("behind")

    def send(self, line: bytes) -> None:
        """Write one line, given without newline; nothing happens once the connection closes.

        Raises:
            SessionOverflow: the peer does not read; the connection is cut.
        """
        if self._transport.is_closing():
            return
        if len(line) >= LONG_BYTES:
            self._flush()
            # Each copy of the longest would cost milliseconds; of a view none is made on the way.
            self._transport.write(memoryview(line))
            self._transport.write(b"\n")
        elif not self._is_due:
            self._is_due = True
            if at_end_of_turn(self._turn_ends):
                self._together.append(line)
                self._together_bytes += len(line)
            else:
                # One that is alone does not wait, those that follow it leave together.
                asyncio.get_running_loop().call_soon(self._turn_ends)
                self._transport.write(line + b"\n")
        else:
            self._together.append(line)
            self._together_bytes += len(line)
            if self._together_bytes < LONG_BYTES:
                return
            self._flush()
        if self._transport.get_write_buffer_size() > CUT_AFTER_BYTES:
            self._transport.abort()
            raise SessionOverflow

    def close(self) -> None:
        """Write what is still to be written, then close; idempotent."""
        self._flush()
        self._transport.close()

    def _turn_ends(self) -> None:
        self._is_due = False
        self._flush()

    def _flush(self) -> None:
        if self._together:
            lines, self._together, self._together_bytes = self._together, [], 0
            self._transport.write(b"\n".join((*lines, b"")))

    def _close_after(self, delay_s: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.close)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _hold(self, reason: str) -> None:
        self._holds.add(reason)
        self._transport.pause_reading()

    def _release(self, reason: str) -> None:
        self._holds.discard(reason)
        if not self._holds:
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        assert self._conversation is not None
        # It waits itself: for answers, of which it may have so many open.
        self._pace.heed()
        for line in self._framer.feed(data):
            self._conversation.receive(line)

    def _take_hello(self, data: bytes) -> None:
        self._first += data
        line, newline, rest = self._first.partition(b"\n")
        if len(line) > HELLO_LIMIT_BYTES:
            self._transport.abort()
        elif newline:
            self._cancel_timer()
            # What follows waits in the kernel until there is somebody to take it.
            self._hold("greeting")
            self._door.tasks.start_soon(self._serve, bytes(line), bytes(rest))

    async def _serve(self, hello: bytes, rest: bytes) -> None:
        try:
            conversation = self._door.open_conversation(read_hello(hello), self.send)
            async with anyio.create_task_group() as tasks:
                await tasks.start(conversation.run)
                self._conversation = conversation
                self.send(msgspec.json.encode({"octave": {"version": 1, "runtime": __version__}}))
                self._pace.take(rest)
                self._release("greeting")
                if self._transport.is_closing():
                    conversation.close()
        except OctaveError as error:
            refused = {"code": error.code, "message": error.message, "hint": error.hint}
            self.send(msgspec.json.encode({"octave": {"error": refused}}))
        except Exception:  # noqa: BLE001 - the edge to one client, whose bug is not the others'
            _log.exception("a bug while serving a connection")
        finally:
            self.close()
