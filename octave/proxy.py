"""`octave proxy`: standard input and output of an AI tool, joined to the runtime's socket.

A pump that decodes nothing. An AI tool starts one for each of its windows and waits little, so it
imports nothing but what the interpreter has at hand: `octave.home` alone would double its memory.
Work that needs more, starting a runtime first, is done by a process of its own. When the runtime
ends the proxy finds or starts another, and the AI tool keeps its conversation: `proxy_ledger`.
"""

import os
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from octave.proxy_ledger import Ledger
from octave.proxy_output import Output
from octave.proxy_request import USAGE as USAGE
from octave.proxy_request import Ended, Request, parse
from octave.proxy_watch import READABLE, WRITABLE, Wanted, Watch

_PIECE_BYTES = 64 * 1024
_HEARD_BYTES = 256 * 1024
"""Read at once; answers are larger than questions."""
_SEND_BUFFER_BYTES = 2**20
"""Of the socket, as far as the system permits: a large question then leaves at once."""
_BUFFER_LIMIT_BYTES = 2**20
"""Per direction; above it the source is not read until the other side has taken some."""

_WATCH_S = 2.0
"""How often to look, while nothing moves, whether the AI tool that started us still lives."""

_LULL_S = 0.001
"""While nothing moves for so long there is time to look at what has passed."""

_START_S = 60.0
"""`octave.background` gives up long before."""

_KEPT_BYTES = 2 * 2**20
"""glibc gives back what was freed of a large answer, and takes it anew, page by page, for the next.
After a block that large came and went untouched it keeps twice as much (mallopt(3),
M_MMAP_THRESHOLD)."""

_DRAIN_S = 5.0
"""After the end of input and this long without an answer nobody waits for one any more."""

_ANSWER_S = 10.0
"""A runtime answers the first line within milliseconds; one that hangs never does."""

_FIRST_DELAY_S, _LAST_DELAY_S = 0.1, 2.0
"""Between two attempts to reach a runtime again; doubled each time."""

_GRACE_S = 0.5
"""Whoever else looks after the runtime (a service, a person) has that long to bring it back."""

GIVE_UP_S = 30.0
"""Without a runtime that stays for so long, the AI tool has to be told."""

_HEALTHY_S = 10.0
"""A runtime that lived that long ends the trouble before it."""

_DONE, _FAILED, _LOCKED, _INTERRUPTED = 0, 1, 9, 130
_SIGTERM = 15
"""signal(7); the module `signal` costs a quarter of our start."""

_NONE = -1
"""No descriptor."""

Source = int | socket.socket
Wait = Callable[[Source, float], None]
"""Returns when there is something to read; `TimeoutError` after that many seconds."""

Joined = tuple[socket.socket, bytes]
"""A connection that let us in, and what came on it after the first line."""


def main(argv: Sequence[str]) -> int:
    """Run the proxy with the words after `octave proxy` and return its exit code."""
    if "-h" in argv or "--help" in argv:
        os.write(1, USAGE.encode())
        return 0
    try:
        return _Pump(parse(argv)).run()
    except Ended as end:
        end.tell()
        return end.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED


def _connect(path: str, manifest: str | None, hello: bytes, wait: Wait) -> Joined:
    """Reach the runtime whose socket should be at `path`, or start one."""
    try:
        return _greet(path, hello, wait)
    except OSError:
        # No runtime, one just ending, or its socket lies elsewhere because of a long path.
        pass
    try:
        return _greet(_find_or_start(manifest, wait), hello, wait)
    except OSError as error:
        raise Ended(_FAILED, f"cannot reach the runtime: {error}", "octave status") from error


def _greet(path: str, hello: bytes, wait: Wait) -> Joined:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_ANSWER_S)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    try:
        link.connect(path)
        link.sendall(hello)
        received = bytearray()
        while b"\n" not in received:
            wait(link, _ANSWER_S)
            piece = link.recv(_PIECE_BYTES)
            if not piece:
                raise ConnectionResetError("it closed the connection")
            received += piece
        line, _, rest = received.partition(b"\n")
        _check_answer(bytes(line))
    except BaseException:
        link.close()
        raise
    link.settimeout(0)
    return link, bytes(rest)


def _wait(source: Source, timeout_s: float) -> None:
    if not select.select([source], [], [], timeout_s)[0]:
        raise TimeoutError("timed out")


def usual_socket(manifest: str | None, environ: Mapping[str, str]) -> str:
    """Return what `Workspace.socket` says unless runtime.json names another place.

    Repeats the rule of octave/home.py, which costs more memory than the whole proxy; a test
    holds the two together.
    """
    home = os.path.abspath(os.path.expanduser(environ.get("OCTAVE_HOME") or "~/.octave"))  # noqa: PTH100, PTH111
    state = home
    if manifest:
        path = os.path.abspath(os.path.expanduser(manifest))  # noqa: PTH100, PTH111
        if os.path.isdir(path):  # noqa: PTH112
            path += "/octave.toml"
        path = os.path.realpath(path)
        if path != os.path.realpath(home + "/octave.toml"):
            state = os.path.dirname(path) + "/.octave"  # noqa: PTH120
    return state + "/run/octave.sock"


def _find_or_start(manifest: str | None, wait: Wait) -> str:
    """Return the path of a socket that answers; `octave.background` does the work."""
    answer, far_end = os.pipe()
    words = (sys.executable, "-m", "octave.background", *([manifest] if manifest else []))
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, far_end, 1),
    )
    child = os.posix_spawn(sys.executable, words, os.environ, file_actions=actions)
    os.close(far_end)
    with os.fdopen(answer, "rb") as pipe:
        try:
            wait(answer, _START_S)
            path = pipe.read()
        except BaseException:
            os.kill(child, _SIGTERM)
            raise
        finally:
            exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if exit_code:
        raise Ended(exit_code if exit_code > 0 else _FAILED)
    return os.fsdecode(path)


class _Pump:
    """Moves lines both ways; a full pipe one way never holds up the other."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._hello = request.hello()
        self._path = usual_socket(request.manifest, os.environ)
        self._ledger = Ledger()
        self._watch = Watch()
        self._link: socket.socket | None = None
        self._link_fd = _NONE
        self._output = Output()
        self._can_send = False
        self._is_client_done = False
        self._joined_s = self._trouble_s = time.monotonic()
        self._delay_s = _FIRST_DELAY_S

    def run(self) -> int:
        """Pump until `Ended`: by the client, or because there is no runtime any more."""
        bytes(_KEPT_BYTES)
        link = self._join(_connect(self._path, self._request.manifest, self._hello, _wait))
        while True:
            patience_s = _DRAIN_S if self._is_client_done else _WATCH_S
            if self._turn(link, patience_s) and not self._receive(link):
                self._lose(link)
                link = self._rejoin()

    def _join(self, joined: Joined) -> socket.socket:
        self._link, received = joined
        self._link_fd = self._link.fileno()
        self._can_send = True
        self._joined_s = time.monotonic()
        self._tell(self._ledger.hear(received))
        return self._link

    def _turn(self, source: Source | None, patience_s: float) -> bool:
        """Move what can be moved; return whether there is something to read at `source`."""
        ledger = self._ledger
        from_fd = self._link_fd if source is self._link else _number(source)
        if ledger.is_due:
            ledger.settle()
        wanted = self._wanted(from_fd)
        found: dict[int, int] = {}
        if not ledger.is_settled:
            found = self._watch.wait(wanted, _LULL_S)
            if not found:
                ledger.settle()
        if not found:
            found = self._watch.wait(wanted, patience_s)
        if not found:
            if self._is_client_done or os.getppid() != self._request.client_pid:
                raise Ended(_DONE)
            return False
        readers, writers = wanted
        # Whatever is moved may end the link.
        if self._link_fd in writers and found.get(self._link_fd, 0) & WRITABLE:
            self._send()
        if 0 in readers and found.get(0, 0) & READABLE:
            self._read()
        if 1 in writers and found.get(1, 0) & WRITABLE:
            self._write()
        return bool(from_fd in readers and found.get(from_fd, 0) & READABLE)

    def _wanted(self, from_fd: int) -> Wanted:
        unsent_bytes, waiting_bytes = self._ledger.unsent_bytes, len(self._output.waiting)
        readers: tuple[int, ...] = ()
        if not self._is_client_done and unsent_bytes < _BUFFER_LIMIT_BYTES:
            readers = (0,)
        is_behind = waiting_bytes >= _BUFFER_LIMIT_BYTES
        if from_fd != _NONE and not (is_behind and from_fd == self._link_fd):
            readers = (*readers, from_fd)
        writers: tuple[int, ...] = ()
        if unsent_bytes and self._link_fd != _NONE and self._can_send:
            writers = (self._link_fd,)
        return readers, (*writers, 1) if waiting_bytes else writers

    def _read(self) -> None:
        try:
            piece = os.read(0, _PIECE_BYTES)
        except OSError:
            piece = b""
        self._ledger.say(piece)
        self._is_client_done = not piece
        if self._is_client_done and self._link is None:
            raise Ended(_DONE)
        self._send()

    def _send(self) -> None:
        if self._link is None or not self._can_send:
            return
        try:
            if self._ledger.unsent_bytes:
                self._ledger.send(self._link.send)
            if self._is_client_done and not self._ledger.unsent_bytes:
                self._link.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            # The runtime closed; what it still had to say is there to be received.
            self._can_send = False

    def _receive(self, link: socket.socket) -> bool:
        """Take what came from the runtime; False at its end."""
        try:
            piece = link.recv(_HEARD_BYTES)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self._tell(self._ledger.hear(piece))
        return bool(piece)

    def _tell(self, lines: bytes) -> None:
        try:
            self._output.add(lines)
        except OSError:
            raise Ended(_DONE) from None

    def _write(self) -> None:
        """Hand the client what its pipe takes without blocking."""
        try:
            self._output.write()
        except OSError:
            raise Ended(_DONE) from None

    def _lose(self, link: socket.socket) -> None:
        link.close()
        self._link, self._link_fd = None, _NONE
        if self._is_client_done:
            while self._output.waiting and select.select([], [1], [], _DRAIN_S)[1]:
                self._write()
            raise Ended(_DONE)
        self._tell(self._ledger.lost())

    def _rejoin(self) -> socket.socket:
        """Return the connection to the next runtime, which then knows the client as it was."""
        lost_s = time.monotonic()
        if lost_s - self._joined_s >= _HEALTHY_S:
            self._trouble_s, self._delay_s = lost_s, _FIRST_DELAY_S
        while time.monotonic() < self._trouble_s + GIVE_UP_S:
            self._pause(self._delay_s)
            self._delay_s = min(self._delay_s * 2, _LAST_DELAY_S)
            is_alone = time.monotonic() - lost_s > _GRACE_S
            try:
                link = self._join(self._reach(is_alone=is_alone))
            except OSError:
                continue
            except Ended as end:
                if end.exit_code in {_FAILED, _LOCKED}:
                    continue
                raise
            self._tell(self._ledger.news())
            return link
        raise Ended(_FAILED, "the runtime ended and did not come back", "octave status")

    def _reach(self, *, is_alone: bool) -> Joined:
        hello = self._hello + self._ledger.anew()
        if is_alone:
            return _connect(self._path, self._request.manifest, hello, self._attend)
        return _greet(self._path, hello, self._attend)

    def _attend(self, source: Source, timeout_s: float) -> None:
        """Wait as `_wait` does, and look after the client meanwhile."""
        deadline_s = min(time.monotonic() + timeout_s, self._trouble_s + GIVE_UP_S)
        while not self._turn(source, min(_WATCH_S, max(0.0, deadline_s - time.monotonic()))):
            if time.monotonic() >= deadline_s:
                raise TimeoutError("timed out")

    def _pause(self, delay_s: float) -> None:
        deadline_s = time.monotonic() + delay_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._turn(None, left_s)


def _number(source: Source | None) -> int:
    """Return its descriptor."""
    if source is None:
        return _NONE
    return source if isinstance(source, int) else source.fileno()


def _check_answer(line: bytes) -> None:
    """Raise what the runtime answered to our first line, unless it let us in."""
    if b'"octave"' not in line:
        raise Ended(_FAILED, "what listens on the socket is no Octave runtime", "octave status")
    if b'"error"' not in line:
        return
    import json

    from octave.errors import from_json

    error = from_json(json.loads(line)["octave"]["error"])
    raise Ended(error.exit_code, error.message, error.hint)
