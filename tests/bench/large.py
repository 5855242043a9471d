"""How long a call takes whose text is large, there and back: it should grow as the text does.

    .venv/bin/python -m tests.bench.large [RUNS]

Through the unix socket of a runtime, and directly to the server. Linux only.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.accomplice import INITIALIZE, Line
from tests.bench.neighbour import GOOD, OFFENDERS, runtime

SIZES_MB = (1, 2, 5, 10, 15)
CALL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
    b'"params":{"name":"echo","arguments":{"text":"%b"}}}\n'
)


def main(runs: int) -> None:
    with (
        runtime(OFFENDERS["nobody"]) as (_, home),
        subprocess.Popen(GOOD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as twin,
    ):
        facts = json.loads((home / "run" / "runtime.json").read_bytes())
        line = Line(Path(facts["socket"]), "good")
        through = line.socket.fileno(), line.socket.fileno()
        assert twin.stdin is not None
        assert twin.stdout is not None
        direct = twin.stdin.fileno(), twin.stdout.fileno()
        ask(*direct, INITIALIZE)
        for size in SIZES_MB:
            call = CALL % (b"x" * size * 10**6)
            took = [
                statistics.median(ask(*way, call) for _ in range(runs)) for way in (through, direct)
            ]
            print(f"{size:3d} MB  through {took[0]:7.0f} ms  direct {took[1]:7.0f} ms")
        twin.stdin.close()


def ask(to: int, back: int, line: bytes) -> float:
    """Return how many ms it takes until the answer is there."""
    began = time.perf_counter()
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(to, rest[: 2**16]) :]
    while not os.read(back, 2**20).endswith(b"\n"):
        pass
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
