"""The client side of an offence: it connects to a runtime and does what argv[2] names until killed.

    python -m tests.bench.accomplice SOCKET DEED

A process of its own, so that the one that measures has nothing else to do.
"""

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SERVER = "worst"
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}\n'
)
PIECE_BYTES = 2**18


class Line:
    """One MCP session at the unix socket of a runtime."""

    def __init__(self, path: Path, *servers: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        hello = {"octave": {"version": 1, "proxy": {"servers": list(servers)}}}
        self.socket.sendall(json.dumps(hello).encode() + b"\n" + INITIALIZE)
        self._lines = self.received()
        for _ in range(2):
            next(self._lines)

    def received(self) -> Iterator[bytes]:
        """Give each line, of a long one the first bytes only."""
        begun = b""
        while piece := self.socket.recv(PIECE_BYTES):
            *whole, rest = piece.split(b"\n")
            for line in whole:
                yield begun + line[:1000]
                begun = b""
            begun = (begun + rest[:1000])[:1000]

    def read_on(self) -> None:
        """Read all there is, until the end."""
        while self.socket.recv(PIECE_BYTES):
            pass

    def call(self, tool: str, identifier: int, **arguments: str) -> None:
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": identifier}}
        self.send({"id": identifier, "method": "tools/call", "params": params})

    def send(self, members: dict[str, object]) -> None:
        self.socket.sendall(json.dumps({"jsonrpc": "2.0"} | members).encode() + b"\n")

    def until_answered(self, identifier: int) -> None:
        for line in self._lines:
            if line.startswith(b'{"jsonrpc":"2.0","id":%d,' % identifier):
                return


def call_once(path: Path) -> None:
    """Set the server going, and read whatever comes."""
    line = Line(path, SERVER)
    line.call("go", 1)
    line.read_on()


def call_and_listen_to_all(path: Path) -> None:
    """As above, as a client that sees all servers."""
    line = Line(path)
    line.call(f"{SERVER}__go", 1)
    line.read_on()


def call_and_hear_nothing(path: Path) -> None:
    """Set the server going, and read nothing."""
    line = Line(path, SERVER)
    line.call("go", 1)
    time.sleep(600)


def call_again_and_again(path: Path) -> None:
    """One call after the other."""
    line = Line(path, SERVER)
    for number in range(1, 10**9):
        line.call("go", number)
        line.until_answered(number)


def call_often(path: Path) -> None:
    """As many calls as there is room for wait at a server that does not read."""
    line = Line(path, SERVER)
    line.call("go", 1)
    line.until_answered(1)
    for number in range(2, 257):
        line.call("echo", number, text="x" * 10_000)
    line.read_on()


def send_too_much(path: Path) -> None:
    """Lines of 20 MB."""
    line = Line(path, SERVER)
    text = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"%b"}}\n' % (b"x" * 20 * 10**6)
    while True:
        line.socket.sendall(text)


def send_a_lot(path: Path) -> None:
    """Calls of 10 MB, one after the other."""
    line = Line(path, SERVER)
    for number in range(1, 10**9):
        line.call("echo", number, text="x" * 10**7)
        line.until_answered(number)


def ask_and_never_read(path: Path) -> None:
    """Asks for 10 MB a hundred times, and reads none of it; then once more from the start."""
    while True:
        line = Line(path, SERVER)
        with contextlib.suppress(OSError):
            for number in range(1, 100):
                line.call("go", number)
            time.sleep(2)
        line.socket.close()


def ping_without_end(path: Path) -> None:
    """Pings as fast as the runtime takes them, and reads its answers."""
    send_without_end(
        Line(path, SERVER).socket, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n' * 1000
    )


def talk_nonsense(path: Path) -> None:
    """Lines that are no messages."""
    send_without_end(Line(path, SERVER).socket, b"x\n" * 10_000)


def send_without_end(link: socket.socket, text: bytes) -> None:
    threading.Thread(target=read_without_end, args=(link,), daemon=True).start()
    while True:
        link.sendall(text)


def read_without_end(link: socket.socket) -> None:
    while link.recv(PIECE_BYTES):
        pass


def watch(_: Path) -> None:
    """Nothing at all: the server needs nobody."""
    time.sleep(600)


DEEDS: dict[str, Callable[[Path], None]] = {
    deed.__name__: deed
    for deed in (
        call_once,
        call_and_listen_to_all,
        call_and_hear_nothing,
        call_again_and_again,
        call_often,
        send_too_much,
        send_a_lot,
        ask_and_never_read,
        ping_without_end,
        talk_nonsense,
        watch,
    )
}

if __name__ == "__main__":
    DEEDS[sys.argv[2]](Path(sys.argv[1]))
