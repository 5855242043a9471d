"""`octave run` beside `npx -y` and `uvx`, each from a warm cache, in turn in one run.

    python -m tests.bench.one_off [ROUNDS]

Needs npm, uv and the registries they are set to for the first round, which does not count. Tells
the medians: until `initialize` is answered, CPU of all processes, memory (PSS) of those that stay.
Wall times mean little on a busy machine; CPU and memory do.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}\n'
)
SETTLE_S = 0.5
BIN = Path(sys.executable).parent
CASES: dict[str, Sequence[str]] = {
    "octave run everything": (str(BIN / "octave"), "run", "everything"),
    "npx -y everything": ("npx", "-y", "@modelcontextprotocol/server-everything"),
    "octave run time": (str(BIN / "octave"), "run", "time"),
    "uvx time": (str(BIN / "uvx"), "mcp-server-time"),
}


def started(argv: Sequence[str]) -> tuple[float, float, float, float]:
    """Return seconds until the answer, CPU seconds, MB of memory, and how many processes stay."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with subprocess.Popen(
        argv,
        cwd=tempfile.gettempdir(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(HELLO)
        child.stdin.flush()
        answer = child.stdout.readline()
        wall_s = time.monotonic() - began
        assert b'"id":1' in answer, answer
        time.sleep(SETTLE_S)
        root = psutil.Process(child.pid)
        tree = [root, *root.children(recursive=True)]
        pss_bytes = sum(process.memory_full_info().pss for process in tree)
        child.stdin.close()
        child.wait(30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s, pss_bytes / 1e6, len(tree)


def main() -> None:
    """Measure and tell."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, argv in CASES.items():
            figures = started(argv)
            if number:
                found[name].append(figures)
    for name, rows in found.items():
        wall_s, cpu_s, mb, count = (statistics.median(column) for column in zip(*rows, strict=True))
        sys.stdout.write(
            f"{name:24} answers in {wall_s:5.2f} s   CPU {cpu_s:5.2f} s   {mb:4.0f} MB   "
            f"{count:.0f} processes\n"
        )


if __name__ == "__main__":
    main()
