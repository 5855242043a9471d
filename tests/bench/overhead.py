"""What Octave costs: CPU of instant verbs, the proxy's size and first answer, latency of a call.

    .venv/bin/python -m tests.bench.overhead [CALLS]

Direct and proxied calls take turns in one run, so that a busy machine slows both. Linux only.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OCTAVE = str(Path(sys.executable).parent / "octave")
GOOD = Path(__file__).parent.parent / "servers" / "good.py"
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}\n'
)
CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call",'
    b'"params":{"name":"echo","arguments":{"text":"hello"}}}\n'
)
RUNS = 10
ROUND = 100
"""Calls in a row before the other side has its turn."""


class Peer:
    """A process that speaks MCP on its pipes."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()

    def ask(self, line: bytes) -> bytes:
        os.write(self._to, line)
        answer = b""
        while not answer.endswith(b"\n"):
            piece = os.read(self._from, 65536)
            assert piece, "the other side ended"
            answer += piece
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main(calls: int) -> None:
    with home() as environ:
        instant_verbs(environ)
        subprocess.run([OCTAVE, "serve", "--detach"], env=environ, check=True, capture_output=True)
        try:
            runtime_pid = json.loads(
                subprocess.run(
                    [OCTAVE, "status", "--json"], env=environ, check=True, capture_output=True
                ).stdout
            )["runtime"]["pid"]
            show("runtime without servers", "MB PSS", [memory_mb(runtime_pid, "Pss")])
            proxy_start(environ)
            latency(environ, calls)
            show("runtime after the calls", "MB PSS", [memory_mb(runtime_pid, "Pss")])
        finally:
            subprocess.run([OCTAVE, "shutdown"], env=environ, check=False, capture_output=True)


@contextmanager
def home() -> Iterator[dict[str, str]]:
    """A home with one server, `good`, and the environment that leads to it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "home"
        root.mkdir(mode=0o700)
        command = json.dumps([sys.executable, str(GOOD)])
        text = f"[runtime]\nport = 0\n\n[servers.good]\ncommand = {command}\n"
        (root / "octave.toml").write_text(text, encoding="utf-8")
        yield {**os.environ, "OCTAVE_HOME": str(root)}


def instant_verbs(environ: dict[str, str]) -> None:
    asks = {
        "completion of a verb": ("octave st", "1"),
        "completion of a server": ("octave call go", "2"),
        "completion of a tool": ("octave call good e", "3"),
    }
    measured: dict[str, Callable[[], float]] = {
        "octave --version": lambda: cpu_ms([OCTAVE, "--version"], environ),
        "octave list": lambda: cpu_ms([OCTAVE, "list"], environ),
    }
    for name, (words, number) in asks.items():
        asking = {
            **environ,
            "_OCTAVE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": number,
        }
        measured[name] = lambda asking=asking: cpu_ms([OCTAVE], asking)  # type: ignore[misc]
    for name, measure in measured.items():
        measure()
        show(name, "ms CPU", [measure() for _ in range(RUNS)])


def cpu_ms(words: list[str], environ: dict[str, str]) -> float:
    """Run to the end and return user and system time."""
    process = subprocess.Popen(
        words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (usage.ru_utime + usage.ru_stime) * 1000


def proxy_start(environ: dict[str, str]) -> None:
    firsts, sizes, shares = [], [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        proxy = Peer([OCTAVE, "proxy"], environ)
        proxy.ask(INITIALIZE)
        firsts.append((time.perf_counter() - began) * 1000)
        sizes.append(memory_mb(proxy.process.pid, "Rss"))
        shares.append(memory_mb(proxy.process.pid, "Pss"))
        proxy.close()
    show("proxy, spawn to `initialize`", "ms", firsts)
    show("proxy", "MB RSS", sizes)
    show("proxy", "MB PSS", shares)


def latency(environ: dict[str, str], calls: int) -> None:
    direct = Peer([sys.executable, str(GOOD)], environ)
    proxied = Peer([OCTAVE, "proxy", "good"], environ)
    peers = {"direct": direct, "proxied": proxied}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for peer in peers.values():
        peer.ask(INITIALIZE)
        for number in range(1, ROUND):
            peer.ask(CALL % number)
    for _ in range(0, calls, ROUND):
        for name, peer in peers.items():
            for number in range(ROUND):
                began = time.perf_counter()
                answer = peer.ask(CALL % (number + 1000))
                times[name].append((time.perf_counter() - began) * 1000)
                assert json.loads(answer)["id"] == number + 1000
    for name, measured in times.items():
        show(f"a call, {name}", "ms", measured)
    added = statistics.median(times["proxied"]) - statistics.median(times["direct"])
    show("added by proxy and runtime, of the medians", "ms", [added])
    for peer in peers.values():
        peer.close()


def memory_mb(pid: int, field: str) -> float:
    """Return Rss or Pss of a process (proc_pid_smaps_rollup(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {field} of process {pid}")


def show(what: str, unit: str, values: list[float]) -> None:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(
        f"{what:<44} median {statistics.median(ordered):8.2f}  min {ordered[0]:8.2f}"
        f"  p99 {p99:8.2f}  {unit}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
