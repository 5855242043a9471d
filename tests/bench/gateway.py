"""What passing through `octave proxy` and the runtime adds to a call, and how many pass.

    .venv/bin/python -m tests.bench.gateway [ROUNDS [WORD ...]]

A raw client (here) and a raw server (`tests/bench/echo.py`) talk directly, then through one
server's proxy, then through the aggregated face of eleven servers, in turns, so that a busy machine
slows all of them; ratios within one run say more than times. `WORD`s choose rows by their names.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.echo import LARGE_BYTES

OCTAVE = str(Path(sys.executable).parent / "octave")
ECHO = [sys.executable, "-S", str(Path(__file__).parent / "echo.py")]
SERVERS, TOOLS = 10, 100
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}\n'
)
SHORT_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call",'
    b'"params":{"name":"%b","arguments":{"a":"hello"}}}\n'
)
"""100 bytes."""
LARGE_RESULT = SHORT_CALL.replace(b"hello", b"large")
LARGE_ARGUMENT = SHORT_CALL.replace(b"hello", b"x" * LARGE_BYTES)
LIST = b'{"jsonrpc":"2.0","id":%d,"method":"tools/list","params":{}}\n'

IN_FLIGHT = 64
CALLS = 200
"""One after the other, in one round; of large ones a tenth."""
PIPELINED_CALLS = 10_000
"""In one round."""


class Peer:
    """A process that speaks MCP on its pipes, and the name of its tool."""

    def __init__(self, words: list[str], environ: dict[str, str], tool: bytes) -> None:
        self.process = subprocess.Popen(
            words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.tool = tool
        self._id = 0
        self.ask(INITIALIZE)

    def call(self, form: bytes) -> bytes:
        """Make one call and wait for its answer."""
        self._id += 1
        return self.ask(form % ((self._id, self.tool) if b"%b" in form else self._id))

    def ask(self, line: bytes) -> bytes:
        """Write a line, and read one."""
        self._write(line)
        pieces: list[bytes] = []
        while not pieces or not pieces[-1].endswith(b"\n"):
            pieces.append(os.read(self._from, 2**20))
            assert pieces[-1], "the other side ended"
        return b"".join(pieces)

    def pipeline(self, form: bytes, calls: int) -> None:
        """Make so many calls, `IN_FLIGHT` at any time until the last ones."""
        sent, answered = 0, 0
        while answered < calls:
            fresh = min(answered + IN_FLIGHT, calls) - sent
            if fresh:
                first, self._id = self._id + 1, self._id + fresh
                lines = [form % (number, self.tool) for number in range(first, first + fresh)]
                self._write(b"".join(lines))
                sent += fresh
            data = os.read(self._from, 2**20)
            assert data, "the other side ended"
            answered += data.count(b"\n")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._to, view) :]


Measure = Callable[[Peer], list[float]]
"""Returns figures of one round."""


@dataclass(frozen=True)
class Row:
    """What is measured, of whom, and how far it may go in any unit (what was asked for)."""

    name: str
    unit: str
    measure: Measure
    target: str


def one_by_one(form: bytes, calls: int) -> Measure:
    """Measure the time of each call, in ms."""

    def measure(peer: Peer) -> list[float]:
        took_ms = []
        for _ in range(calls):
            began_s = time.perf_counter()
            peer.call(form)
            took_ms.append((time.perf_counter() - began_s) * 1000)
        return took_ms

    return measure


def in_flight(peer: Peer) -> list[float]:
    """Measure how many calls pass in a second."""
    began_s = time.perf_counter()
    peer.pipeline(SHORT_CALL, PIPELINED_CALLS)
    return [PIPELINED_CALLS / (time.perf_counter() - began_s)]


ROWS = (
    Row("100 B calls", "ms", one_by_one(SHORT_CALL, CALLS), "0.2 ms added at the median"),
    Row("1 MB results", "ms", one_by_one(LARGE_RESULT, CALLS // 10), "5 ms"),
    Row("1 MB arguments", "ms", one_by_one(LARGE_ARGUMENT, CALLS // 10), "none"),
    Row("64 in flight", "calls/s", in_flight, "15,000 calls/s to one server"),
    Row("tools/list", "ms", one_by_one(LIST, CALLS // 10), f"5 ms for {SERVERS} x {TOOLS} tools"),
)


def main(rounds: int, words: list[str]) -> None:
    rows = [row for row in ROWS if not words or any(word in row.name for word in words)]
    with runtime() as environ, ExitStack() as stack:
        peers = {
            "direct": Peer(ECHO, environ, b"tool0"),
            "one server": Peer([OCTAVE, "proxy", "echo"], environ, b"tool0"),
            "all servers": Peer([OCTAVE, "proxy"], environ, b"echo__tool0"),
        }
        for peer in peers.values():
            stack.callback(peer.close)
            peer.pipeline(SHORT_CALL, IN_FLIGHT)
        for row in rows:
            show(row, compare(row.measure, peers, rounds))


def compare(measure: Measure, peers: dict[str, Peer], rounds: int) -> dict[str, list[list[float]]]:
    """Return the figures of each round by peer; the peers take turns."""
    figures: dict[str, list[list[float]]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            figures[name].append(measure(peer))
    return figures


def show(row: Row, figures: dict[str, list[list[float]]]) -> None:
    """Print a row for each peer: the median, the tail, and the median of the rounds' ratios."""
    print(f"{row.name}, to reach: {row.target}")
    direct = [statistics.median(each) for each in figures["direct"]]
    for name, rounds in figures.items():
        values = sorted(value for each in rounds for value in each)
        p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
        medians = [statistics.median(each) for each in rounds]
        pairs = list(zip(medians, direct, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        added = statistics.median(one - other for one, other in pairs)
        line = f"  {name:<12} median {statistics.median(values):10.3f}  p99 {p99:10.3f}"
        if row.unit == "ms":
            line += f"  added {added:8.3f}"
        print(f"{line}  {ratio:5.2f} x direct  {row.unit}", flush=True)


@contextmanager
def runtime() -> Iterator[dict[str, str]]:
    """A runtime in a home of its own, its servers awake; the environment that leads to it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        text = f"[runtime]\nport = 0\n\n[servers.echo]\ncommand = {json.dumps(ECHO)}\n"
        for number in range(SERVERS):
            command = json.dumps([*ECHO, str(TOOLS)])
            text += f"\n[servers.many{number}]\ncommand = {command}\n"
        (home / "octave.toml").write_text(text, encoding="utf-8")
        environ = {**os.environ, "OCTAVE_HOME": str(home)}
        run([OCTAVE, "serve", "--detach"], environ)
        try:
            run([OCTAVE, "start", "echo", *(f"many{number}" for number in range(SERVERS))], environ)
            yield environ
        finally:
            run([OCTAVE, "shutdown"], environ)


def run(words: list[str], environ: dict[str, str]) -> None:
    subprocess.run(words, env=environ, check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:])
