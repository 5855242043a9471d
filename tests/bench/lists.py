"""What a thousand tools cost: time of a warm `tools/list`, growth of the runtime, time of a look.

    .venv/bin/python -m tests.bench.lists [TOOLS [BYTES]]

Ten pages of tools with schemas of BYTES each, behind the aggregated face. Linux only.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.overhead import INITIALIZE, OCTAVE, Peer, memory_mb, show

SERVERS = Path(__file__).parent.parent / "servers"
LIST = b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"}\n'
RUNS = 10
HOMES = 3
"""Memory is what a fresh process grows by, so that each figure takes a runtime of its own."""


def main(tools: int, size_bytes: int) -> None:
    grown: list[float] = []
    looks: list[float] = []
    firsts: list[float] = []
    warm: list[float] = []
    for _ in range(HOMES):
        with runtime(tools, size_bytes) as environ:
            pid = json.loads(octave(environ, "status", "--json"))["runtime"]["pid"]
            octave(environ, "call", "good", "echo")
            before = memory_mb(pid, "Rss")
            began = time.perf_counter()
            octave(environ, "call", "many", "echo")
            looks.append((time.perf_counter() - began) * 1000)
            proxy = Peer([OCTAVE, "proxy"], environ)
            proxy.ask(INITIALIZE)
            times = []
            for number in range(RUNS + 1):
                began = time.perf_counter()
                answer = proxy.ask(LIST % (number + 1))
                times.append((time.perf_counter() - began) * 1000)
                assert len(json.loads(answer)["result"]["tools"]) >= tools
            firsts.append(times[0])
            warm += times[1:]
            proxy.close()
            grown.append(memory_mb(pid, "Rss") - before)
    print(f"{tools} tools with schemas of {size_bytes} bytes, in ten pages; {HOMES} runtimes\n")
    show("`octave call`, server start and lists included", "ms", looks)
    show("the first tools/list of a client", "ms", firsts)
    show("tools/list, warm", "ms", warm)
    show("the runtime grows by", "MB RSS", grown)


@contextmanager
def runtime(tools: int, size_bytes: int) -> Iterator[dict[str, str]]:
    """A runtime with `many` and `good`, and the environment that leads to it."""
    many = [sys.executable, str(SERVERS / "paged_tools.py")]
    many += [str(tools), str(-(-tools // 10)), str(size_bytes)]
    good = [sys.executable, str(SERVERS / "good.py")]
    text = "[runtime]\nport = 0\n"
    for name, command in (("many", many), ("good", good)):
        text += f"\n[servers.{name}]\ncommand = {json.dumps(command)}\n"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "home"
        root.mkdir(mode=0o700)
        (root / "octave.toml").write_text(text, encoding="utf-8")
        environ = {**os.environ, "OCTAVE_HOME": str(root)}
        octave(environ, "serve", "--detach")
        try:
            yield environ
        finally:
            octave(environ, "shutdown")


def octave(environ: dict[str, str], *words: str) -> bytes:
    return subprocess.run([OCTAVE, *words], env=environ, check=True, capture_output=True).stdout


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:3] + ["1000", "2048"][len(sys.argv) - 1 :]])
