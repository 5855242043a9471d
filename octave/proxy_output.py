"""Standard output of `octave proxy`, written without ever waiting for the AI tool to read.

The file behind it may be shared with others, who rely on writes that block: its mode is left alone.
Linux opens a pipe a second time for us (proc(5), /proc/self/fd), and sockets know non-blocking
writes one by one; whatever else it is takes a little at a time, after `select` promised room for
that much (pipe(7), PIPE_BUF).
"""

import os
import select
import socket
import stat
from collections.abc import Callable

_PIPE_BYTES = 2**20
"""Of the pipe, where the system lets it grow: a large answer then leaves at once."""
_SET_PIPE_SIZE = 1031
"""fcntl(2), F_SETPIPE_SZ; the module `fcntl` names it from Python 3.10 on, on Linux only."""


class Output:
    """What the client has still to read."""

    def __init__(self) -> None:
        self.waiting = bytearray()
        self._put, self.is_ready = _way()

    def add(self, data: bytes) -> None:
        """Write what can be written at once; the rest waits for `write`.

        Raises:
            OSError: the client is gone.
        """
        if data and self.is_ready and not self.waiting:
            data = data[self._taken(data) :]
        self.waiting += data

    def write(self) -> None:
        """Write more of what waits; to be called when the descriptor 1 takes something.

        Raises:
            OSError: the client is gone.
        """
        size_bytes = len(self.waiting) if self.is_ready else select.PIPE_BUF
        with memoryview(self.waiting) as waiting:
            taken = self._taken(waiting[:size_bytes])
        del self.waiting[:taken]

    def _taken(self, data: bytes | memoryview) -> int:
        try:
            return self._put(data)
        except BlockingIOError:
            return 0


def _way() -> tuple[Callable[[bytes | memoryview], int], bool]:
    """Return what writes to standard output, and whether it never blocks."""
    mode = os.fstat(1).st_mode
    try:
        if stat.S_ISFIFO(mode):
            pipe = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK)
            _widen(pipe)
            return lambda data: os.write(pipe, data), True
        if stat.S_ISSOCK(mode):
            peer = socket.socket(fileno=os.dup(1))
            return lambda data: peer.send(data, socket.MSG_DONTWAIT), True
    except OSError:
        pass
    return lambda data: os.write(1, data), False


def _widen(pipe: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)
    except (ImportError, OSError):
        pass
