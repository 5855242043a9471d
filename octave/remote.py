"""The CLI's client of a running runtime: JSON-RPC on the control socket, standard library only.

One request at a time on a blocking socket. What goes wrong in the runtime is raised here as the
error it was there.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from octave.errors import CallTimedOut, OctaveError, RuntimeNotRunning, RuntimeSilent, from_json
from octave.home import Workspace

HELLO = b'{"octave":{"version":1,"control":{}}}\n'
HELLO_TIMEOUT_S = 10.0
"""A runtime answers the first line within milliseconds; one that is stopped never does."""
RETURN_S = 3.0
"""A runtime needs less to begin to listen, or to see that somebody removed its socket."""
RETURN_POLL_S = 0.05

_PIECE_BYTES = 2**18
_METHOD_NOT_FOUND = -32601
UNKNOWN = {"unknownOperation": True}
"""The `details` of an error that says that the runtime does not know what it is asked for."""
OnNotification = Callable[[str, Any], None]
"""Takes the method and the parsed params of a notification."""


class Remote:
    """A control connection to the runtime of one workspace; a context manager."""

    def __init__(self, link: socket.socket) -> None:
        self.version = ""
        """The runtime's."""
        self._link = link
        self._received = bytearray()
        self._requests = 0

    @classmethod
    def connect(cls, workspace: Workspace) -> Self:
        """Return a connection the runtime has answered.

        Blocks up to `RETURN_S` for one that exists and cannot be reached, else for milliseconds.

        Raises:
            RuntimeNotRunning: no runtime answers for the workspace.
            RuntimeSilent: it does not answer at all.
            OctaveError: it refused.
        """
        remote = cls(_reach(workspace))
        link = remote._link
        try:
            remote._greet()
        except CallTimedOut as error:
            link.close()
            pid = workspace.runtime().get("pid")
            raise RuntimeSilent(
                f"the runtime (pid {pid}) does not answer",
                hint=f"try again; if it stays like this, `kill -9 {pid}` ends it and its servers",
            ) from error
        except BaseException:
            link.close()
            raise
        return remote

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave; what was asked for and is not done is cancelled by the runtime."""
        self._link.close()

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        on_notification: OnNotification | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the parsed result of `method`; as `request_raw`."""
        return json.loads(self.request_raw(method, params, on_notification, timeout_s))

    def request_raw(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        on_notification: OnNotification | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the JSON text of the result, every byte as the runtime sent it.

        Raises:
            OctaveError: what the runtime answered, of the class it had there.
            CallTimedOut: nothing came within `timeout_s` (None: no limit of our own).
            RuntimeNotRunning: it ended before it answered.
        """
        self._requests += 1
        request = {"jsonrpc": "2.0", "id": self._requests, "method": method, "params": params or {}}
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        success = b'{"jsonrpc":"2.0","id":%d,"result":' % self._requests
        self._send(json.dumps(request).encode() + b"\n")
        while True:
            line = self._read_line(deadline)
            if line.startswith(success):
                return line[len(success) : -1]
            message = json.loads(line)
            if "method" in message:
                if on_notification is not None:
                    on_notification(message["method"], message.get("params"))
            elif message.get("id") == self._requests:
                raise _error_of(message)

    def wait_until_closed(self, timeout_s: float) -> bool:
        """Wait for the runtime to end, its lock released; False when it still lives after that."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self._read_line(deadline)
        except RuntimeNotRunning:
            return True
        except CallTimedOut:
            return False

    def _greet(self) -> None:
        self._send(HELLO)
        line = self._read_line(time.monotonic() + HELLO_TIMEOUT_S)
        try:
            answer = json.loads(line)["octave"]
            error = answer.get("error")
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            raise OctaveError("what listens on the socket is no Octave runtime") from broken
        if error is not None:
            raise from_json(error)
        self.version = str(answer.get("runtime", ""))

    def _send(self, line: bytes) -> None:
        self._link.settimeout(None)
        try:
            self._link.sendall(line)
        except OSError as error:
            raise _gone() from error

    def _read_line(self, deadline: float | None) -> bytes:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            self._received += self._receive(deadline)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _receive(self, deadline: float | None) -> bytes:
        left_s = None if deadline is None else deadline - time.monotonic()
        try:
            if left_s is not None and left_s <= 0:
                raise TimeoutError
            self._link.settimeout(left_s)
            piece = self._link.recv(_PIECE_BYTES)
        except TimeoutError as error:
            raise CallTimedOut("the runtime did not answer in time") from error
        except OSError as error:
            raise _gone() from error
        if not piece:
            raise _gone()
        return piece


def is_claimed(workspace: Workspace) -> bool:
    """Whether the workspace has a runtime, be it one that only begins, ends or cannot be reached.

    Its lock tells, as long as the runtime lives and no longer.
    """
    try:
        lock = os.open(workspace.runtime_lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(lock)
    return False


def _reach(workspace: Workspace) -> socket.socket:
    deadline = time.monotonic() + RETURN_S
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(os.fspath(workspace.socket()))
        except OSError as error:
            link.close()
            if not is_claimed(workspace):
                raise RuntimeNotRunning(
                    f"no runtime is running for `{workspace.manifest}`",
                    hint="`octave start` brings it up in the background, `octave serve` in front",
                ) from error
            if time.monotonic() > deadline:
                raise _unreachable(workspace) from error
            time.sleep(RETURN_POLL_S)
        else:
            return link


def _unreachable(workspace: Workspace) -> RuntimeNotRunning:
    pid = workspace.runtime().get("pid")
    return RuntimeNotRunning(
        f"the runtime for `{workspace.manifest}`{f' (pid {pid})' if pid else ''} cannot be reached",
        hint="it only begins, or is about to end: try again in a few seconds",
    )


def _gone() -> RuntimeNotRunning:
    return RuntimeNotRunning("the runtime ended before it answered", hint="octave status")


def _error_of(message: Mapping[str, Any]) -> OctaveError:
    error = message.get("error") or {}
    data = error.get("data") or {}
    if "octave" in data:
        return from_json(data["octave"])
    text = str(error.get("message", "unknown error"))
    if error.get("code") == _METHOD_NOT_FOUND:
        # The runtime is older than this command.
        return OctaveError(text, hint="octave shutdown, then octave start", details=UNKNOWN)
    return OctaveError(text)
