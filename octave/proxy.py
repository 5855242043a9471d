"""`octave proxy`: standard input and output of an AI tool, joined to the runtime's socket.

A byte pump that decodes nothing. An AI tool starts one for each of its windows and waits little,
so it imports nothing but what the interpreter has at hand: `octave.home` alone would double its
memory. Work that needs more, starting a runtime first, is done by a process of its own.
"""

import os
import select
import socket
import sys
from collections.abc import Mapping, Sequence

USAGE = """Usage: octave proxy [OPTIONS] [NAME ...]

Speak MCP on standard input and output: the servers of this machine for an AI tool.
With one NAME its tools keep their own names; with several, or none (all servers),
they are called SERVER__TOOL.

Options:
  --server NAME    the same as NAME
  --profile P      the servers of a profile of octave.toml
  --manifest PATH  another octave.toml than the one in ~/.octave
  -h, --help       show this text
"""

_PIECE_BYTES = 65536
_BUFFER_LIMIT_BYTES = 2**20
"""Per direction; above it the source is not read until the other side has taken some."""

_WATCH_S = 2.0
"""How often to look, while nothing moves, whether the AI tool that started us still lives."""

_DRAIN_S = 5.0
"""After the end of input and this long without an answer nobody waits for one any more."""

_ANSWER_S = 10.0
"""A runtime answers the first line within milliseconds; one that hangs never does."""

_DONE = 0
_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130


class Request:
    """What the command line asked for, and who did."""

    __slots__ = ("client_pid", "manifest", "profile", "servers")

    def __init__(self, servers: Sequence[str], profile: str | None, manifest: str | None) -> None:
        self.servers = servers
        self.profile = profile
        self.manifest = manifest
        self.client_pid = os.getppid()


def main(argv: Sequence[str]) -> int:
    """Run the proxy with the words after `octave proxy` and return its exit code."""
    if "-h" in argv or "--help" in argv:
        os.write(1, USAGE.encode())
        return 0
    try:
        request = _parse(argv)
        link, received = _connect(request, os.environ)
        with link:
            return _Pump(link, received, request.client_pid).run()
    except _Ended as end:
        return end.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED


class _Ended(Exception):
    """The proxy cannot go on; whatever there is to say has been said."""

    def __init__(self, exit_code: int, message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        if message:
            lines = f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
            os.write(2, lines.encode(errors="replace"))


def _parse(argv: Sequence[str]) -> Request:
    names: list[str] = []
    options: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            names.append(word)
            continue
        option, assigned, value = word.partition("=")
        if option not in {"--server", "--profile", "--manifest"}:
            raise _Ended(_USAGE, f"no such option: `{option}`", "octave proxy --help")
        if not assigned:
            value = next(words, "")
        if not value:
            raise _Ended(_USAGE, f"option `{option}` needs a value", "octave proxy --help")
        if option == "--server":
            names.append(value)
        else:
            options[option] = value
    return Request(names, options.get("--profile"), options.get("--manifest"))


def _hello(request: Request) -> bytes:
    members = [f'"clientPid":{request.client_pid}']
    if request.servers:
        members.insert(0, '"servers":[' + ",".join(map(_quote, request.servers)) + "]")
    if request.profile:
        members.insert(0, f'"profile":{_quote(request.profile)}')
    return ('{"octave":{"version":1,"proxy":{' + ",".join(members) + "}}}\n").encode()


def _quote(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text)


def _connect(request: Request, environ: Mapping[str, str]) -> tuple[socket.socket, bytes]:
    """Return a connection that lets us in, and what came on it after the first line."""
    hello = _hello(request)
    try:
        return _greet(usual_socket(request.manifest, environ), hello)
    except OSError:
        # No runtime, one just ending, or its socket lies elsewhere because of a long path.
        path = _find_or_start(request.manifest)
    try:
        return _greet(path, hello)
    except OSError as error:
        raise _Ended(_FAILED, f"cannot reach the runtime: {error}", "octave status") from error


def _greet(path: str, hello: bytes) -> tuple[socket.socket, bytes]:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_ANSWER_S)
    try:
        link.connect(path)
        link.sendall(hello)
        received = bytearray()
        while b"\n" not in received:
            piece = link.recv(_PIECE_BYTES)
            if not piece:
                raise ConnectionResetError("it closed the connection")
            received += piece
    except BaseException:
        link.close()
        raise
    line, _, rest = received.partition(b"\n")
    _check_answer(bytes(line))
    return link, bytes(rest)


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


def _find_or_start(manifest: str | None) -> str:
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
        path = pipe.read()
    exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if exit_code:
        raise _Ended(exit_code if exit_code > 0 else _FAILED)
    return os.fsdecode(path)


class _Pump:
    """Moves bytes both ways; a full pipe one way never holds up the other.

    Standard output stays blocking, because others may share it: at most PIPE_BUF bytes are
    written after `select` promised room for as many (pipe(7)).
    """

    def __init__(self, link: socket.socket, received: bytes, client_pid: int) -> None:
        self._link = link
        self._link.settimeout(0)
        self._to_runtime = bytearray()
        self._to_client = bytearray(received)
        self._takes_input = True
        self._is_client_done = False
        self._client_pid = client_pid

    def run(self) -> int:
        """Pump until one side ends and return the exit code."""
        while True:
            patience_s = _DRAIN_S if self._is_client_done else _WATCH_S
            readable, writable, _ = select.select(*self._waiting_for(), [], patience_s)
            if self._link in writable:
                self._send()
            if 0 in readable:
                self._read()
            if 1 in writable and not self._write():
                return _DONE
            if self._link in readable and not self._receive():
                return self._finish()
            is_quiet = not readable and not writable
            if is_quiet and (self._is_client_done or os.getppid() != self._client_pid):
                return _DONE

    def _waiting_for(self) -> tuple[list[int | socket.socket], list[int | socket.socket]]:
        readers: list[int | socket.socket] = []
        writers: list[int | socket.socket] = []
        if self._takes_input and len(self._to_runtime) < _BUFFER_LIMIT_BYTES:
            readers.append(0)
        if len(self._to_client) < _BUFFER_LIMIT_BYTES:
            readers.append(self._link)
        if self._to_runtime:
            writers.append(self._link)
        if self._to_client:
            writers.append(1)
        return readers, writers

    def _read(self) -> None:
        try:
            piece = os.read(0, _PIECE_BYTES)
        except OSError:
            piece = b""
        if piece:
            self._to_runtime += piece
        else:
            self._is_client_done = True
            self._takes_input = False
        self._send()

    def _send(self) -> None:
        try:
            if self._to_runtime:
                del self._to_runtime[: self._link.send(self._to_runtime)]
            if self._is_client_done and not self._to_runtime:
                self._link.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            # The runtime closed; what it still had to say is there to be received.
            self._to_runtime.clear()
            self._takes_input = False

    def _receive(self) -> bool:
        """Take what came from the runtime; False at its end."""
        try:
            piece = self._link.recv(_PIECE_BYTES)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self._to_client += piece
        return bool(piece)

    def _write(self) -> bool:
        """Hand the client what its pipe takes without blocking; False when it is gone."""
        try:
            del self._to_client[: os.write(1, self._to_client[: select.PIPE_BUF])]
        except OSError:
            return False
        return True

    def _finish(self) -> int:
        while self._to_client and select.select([], [1], [], _DRAIN_S)[1] and self._write():
            pass
        if self._is_client_done:
            return _DONE
        raise _Ended(_FAILED, "the runtime ended", "start the AI tool's connection anew")


def _check_answer(line: bytes) -> None:
    """Raise what the runtime answered to our first line, unless it let us in."""
    if b'"octave"' not in line:
        raise _Ended(_FAILED, "what listens on the socket is no Octave runtime", "octave status")
    if b'"error"' not in line:
        return
    import json

    from octave.errors import from_json

    error = from_json(json.loads(line)["octave"]["error"])
    raise _Ended(error.exit_code, error.message, error.hint)
