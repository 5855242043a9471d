"""What a good server's callers feel while another server, or client, does its worst.

    .venv/bin/python -m tests.bench.neighbour [SECONDS [ROUNDS [WORD ...]]]

For each offender (those whose name has one of the WORDs; all) a fresh runtime of its own. A good
server behind it is called 200 times a second, whether earlier calls are answered or not, and a
call counts from the moment it was due: what stalls is felt by all the calls that were due
meanwhile. A twin of that server, called directly at the same moments, shows what is the machine's
doing. Before each offence the same is measured in peace. Figures are medians of the rounds;
memory is the highest. Linux only.
"""

import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.accomplice import INITIALIZE, SERVER, Line

OCTAVE = str(Path(sys.executable).parent / "octave")
SERVERS = Path(__file__).parent.parent / "servers"
GOOD = [sys.executable, str(SERVERS / "good.py")]
EVERY_S = 0.005
PEACE_S = 3.0
SETTLE_S = 1.0
"""Of an offence: its first second is not measured, the server starts then."""
PATIENCE_S = 10.0
"""For answers that come after the end."""
CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call",'
    b'"params":{"name":"echo","arguments":{"text":"hello"}}}\n'
)


@dataclass(frozen=True)
class Offender:
    """A server (its argv after the interpreter), and what a client does to set it going."""

    server: tuple[str, ...]
    deed: str
    table: str = ""


def worst(kind: str, deed: str = "call_once", table: str = "") -> Offender:
    return Offender(("worst.py", kind), deed, table)


OFFENDERS = {
    "nobody": Offender(("good.py",), "watch"),
    "binary garbage on stdout": worst("binary"),
    "garbage in lines on stdout": worst("lines"),
    "short lines on stdout": worst("short lines"),
    "empty lines on stdout": worst("empty lines"),
    "JSON numbers on stdout": worst("scalars"),
    "JSON objects on stdout": worst("objects"),
    "one endless line on stdout": worst("one endless line"),
    "answers of 100 MB": worst("100 MB answers", "call_again_and_again"),
    "answers of 10 MB": worst("10 MB answers", "call_again_and_again"),
    "10 MB of other than ASCII": worst("10 MB of text", "call_again_and_again"),
    "10 MB with a lone surrogate": worst("10 MB of surrogates", "call_again_and_again"),
    "10 MB that are no UTF-8": worst("10 MB not UTF-8", "call_again_and_again"),
    "10 MB of small members": worst("10 MB of members", "call_again_and_again"),
    "10 MB, broken at the end": worst("10 MB broken at the end", "call_again_and_again"),
    "answers nested 100,000 deep": worst("deep answers", "call_again_and_again"),
    "answers nested 400 deep": worst("answers as deep as allowed", "call_again_and_again"),
    "the same with a surrogate": worst("surrogates and deep", "call_again_and_again"),
    "stderr flood": worst("stderr"),
    "stderr flood of short lines": worst("short stderr"),
    "stderr flood past a secret": worst("stderr", table="env = { KEY = { env = 'BENCH_KEY' } }"),
    "endless line on stderr": worst("endless stderr line"),
    "never reads, 256 calls wait": worst("never reads", "call_often"),
    "slow reader, 256 calls wait": Offender(("slow_reader.py",), "call_often"),
    "crash loop": Offender(("crash_loop.py", "0"), "watch", "auto_start = true"),
    "fork bomb of 50 children": worst("forks", "call_again_and_again"),
    "1,000 tools that change": worst("thousand tools", "call_and_listen_to_all"),
    "endless pages": worst("pages", "call_and_listen_to_all"),
    "schema bombs": worst("bombs", "call_and_listen_to_all"),
    "flood of progress": worst("progress"),
    "flood of progress, not read": worst("progress", "call_and_hear_nothing"),
    "flood of log messages": worst("notifications", "call_and_listen_to_all"),
    "the same, not read": worst("notifications", "call_and_hear_nothing"),
    "flood of unknown notifications": worst("short notifications"),
    "flood of updated resources": worst("updates"),
    "flood of requests to the client": worst("requests"),
    "flood of pings to the client": worst("pings"),
    "flood of unknown ids": worst("strays"),
    "flood of broken answers": worst("broken answers"),
    "client that sends 20 MB": Offender(("good.py",), "send_too_much"),
    "client that sends 10 MB": Offender(("good.py",), "send_a_lot"),
    "client that does not read": worst("10 MB answers", "ask_and_never_read"),
    "client that pings": Offender(("good.py",), "ping_without_end"),
    "client that talks nonsense": Offender(("good.py",), "talk_nonsense"),
}


@dataclass(frozen=True)
class Figures:
    """Of one stretch of time; latencies in ms, in order."""

    through: list[float]
    direct: list[float]
    lost: int
    growth_mb: float
    cpu: float
    """Of one processor, in percent."""


def main(seconds: float, rounds: int, words: list[str]) -> None:
    chosen = [name for name in OFFENDERS if not words or any(word in name for word in words)]
    print(
        f"{'':<32} {'in peace':>8} {'the offence':>25} {'direct':>8}\n"
        f"{'':<32} {'p99':>8} {'p50':>8} {'p99':>8} {'max':>7} {'p99':>8}"
        f" {'lost':>5} {'MB':>7} {'CPU %':>6}"
    )
    for name in chosen:
        pairs = [offence(OFFENDERS[name], seconds) for _ in range(rounds)]
        show(name, [peace for peace, _ in pairs], [war for _, war in pairs])


def show(name: str, peace: list[Figures], war: list[Figures]) -> None:
    def middle(values: Iterator[float]) -> float:
        return statistics.median(values)

    print(
        f"{name:<32} {middle(percentile(each.through, 99) for each in peace):8.1f}"
        f" {middle(percentile(each.through, 50) for each in war):8.1f}"
        f" {middle(percentile(each.through, 99) for each in war):8.1f}"
        f" {middle(each.through[-1] for each in war):7.0f}"
        f" {middle(percentile(each.direct, 99) for each in war):8.1f}"
        f" {sum(each.lost for each in war):5d} {max(each.growth_mb for each in war):7.1f}"
        f" {middle(each.cpu for each in war):6.0f}",
        flush=True,
    )


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def offence(offender: Offender, seconds: float) -> tuple[Figures, Figures]:
    """Return the figures before and while it happens."""
    with (
        runtime(offender) as (environ, home),
        subprocess.Popen(GOOD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as twin,
    ):
        facts = json.loads((home / "run" / "runtime.json").read_bytes())
        line = Line(Path(facts["socket"]), "good")
        calls = Calls(line.socket.fileno(), twin)
        peace = stretch(calls, int(facts["pid"]), PEACE_S)
        deed = (sys.executable, "-m", "tests.bench.accomplice", facts["socket"], offender.deed)
        with subprocess.Popen(deed, env=environ) as accomplice:
            try:
                calls.run(SETTLE_S)
                war = stretch(calls, int(facts["pid"]), seconds)
            finally:
                accomplice.kill()
        assert twin.stdin is not None
        twin.stdin.close()
    return peace, war


@contextmanager
def runtime(offender: Offender) -> Iterator[tuple[dict[str, str], Path]]:
    """A runtime of its own with the good server and the offender; its environment and home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        argv = [sys.executable, str(SERVERS / offender.server[0]), *offender.server[1:]]
        text = (
            f"[runtime]\nport = 0\n\n[servers.good]\ncommand = {json.dumps(GOOD)}\n\n"
            f"[servers.{SERVER}]\ncommand = {json.dumps(argv)}\n{offender.table}\n"
        )
        (home / "octave.toml").write_text(text, encoding="utf-8")
        key = "sk-0123456789abcdef0123456789"
        environ = {**os.environ, "OCTAVE_HOME": str(home), "BENCH_KEY": key}
        run([OCTAVE, "serve", "--detach"], environ)
        try:
            run([OCTAVE, "start", "good"], environ)
            yield environ, home
        finally:
            run([OCTAVE, "shutdown"], environ)


def run(words: list[str], environ: dict[str, str]) -> None:
    subprocess.run(words, env=environ, check=True, capture_output=True, timeout=60)


def stretch(calls: "Calls", pid: int, seconds: float) -> Figures:
    """Measure the calls, and the runtime of that pid, for so long."""
    # proc_pid_clear_refs(5): the highest memory is counted from here.
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    before_mb, before_s, began_s = memory_mb(pid, "VmRSS"), cpu_s(pid), time.monotonic()
    calls.run(seconds)
    busy = (cpu_s(pid) - before_s) / (time.monotonic() - began_s)
    growth_mb = memory_mb(pid, "VmHWM") - before_mb
    return Figures(*calls.figures(), growth_mb, busy * 100)


def memory_mb(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {field} of process {pid}")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Calls:
    """The same call, again and again, to the server behind the runtime and to its twin."""

    def __init__(self, through: int, twin: "subprocess.Popen[bytes]") -> None:
        assert twin.stdin is not None
        assert twin.stdout is not None
        os.write(twin.stdin.fileno(), INITIALIZE)
        os.read(twin.stdout.fileno(), 65536)
        self._writes = (through, twin.stdin.fileno())
        self._reads = (through, twin.stdout.fileno())
        self._rests = [b"", b""]
        self._due_s: list[dict[int, float]] = [{}, {}]
        self._took_ms: list[list[float]] = [[], []]
        self._number = 0
        self._selector = selectors.DefaultSelector()
        for which, descriptor in enumerate(self._reads):
            self._selector.register(descriptor, selectors.EVENT_READ, which)

    def run(self, seconds: float) -> None:
        """Call at a steady rate for so long, then wait for what is missing, and note it all."""
        self._took_ms = [[], []]
        self._due_s = [{}, {}]
        due_s = time.monotonic()
        end_s = due_s + seconds
        while due_s < end_s:
            while due_s <= time.monotonic():
                self._call(due_s)
                due_s += EVERY_S
            self._take(max(0.0, due_s - time.monotonic()))
        while any(self._due_s) and time.monotonic() < end_s + PATIENCE_S:
            self._take(0.1)

    def figures(self) -> tuple[list[float], list[float], int]:
        return sorted(self._took_ms[0]), sorted(self._took_ms[1]), len(self._due_s[0])

    def _call(self, due_s: float) -> None:
        self._number += 1
        for which, descriptor in enumerate(self._writes):
            os.write(descriptor, CALL % self._number)
            self._due_s[which][self._number] = due_s

    def _take(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            which: int = key.data
            *lines, self._rests[which] = (self._rests[which] + os.read(key.fd, 2**20)).split(b"\n")
            now_s = time.monotonic()
            for line in lines:
                due_s = self._due_s[which].pop(json.loads(line).get("id"), None)
                if due_s is not None:
                    self._took_ms[which].append((now_s - due_s) * 1000)


if __name__ == "__main__":
    # Whoever ends it ends the runtimes and servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 5.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        sys.argv[3:],
    )
