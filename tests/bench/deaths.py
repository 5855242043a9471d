"""What failing servers cost: time to tell callers of a death, CPU of a crash loop, large answers.

    .venv/bin/python -m tests.bench.deaths [SECONDS]

A supervisor in this process over real children; the crash loop is called ten times a second for
SECONDS (60). CPU of its children is theirs, start of the interpreter included.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import anyio

from octave.errors import OctaveError, ServerDied
from octave.runtime import wire
from octave.runtime.server import Server
from tests.bench.overhead import show
from tests.runtime.fleet import Run, call, launch, running

SERVERS = 5
DEATHS = 9
"""Of each: one that dies more often within a minute has to wait."""
LARGE_RUNS = 5


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        mortals = [launch(state, "hang_on_call", name=f"mortal-{n}") for n in range(SERVERS)]
        others = launch(state, "good"), launch(state, "crash_loop", "0")
        async with running(state, *mortals, *others) as run:
            await deaths([run[spec.name] for spec in mortals])
            for megabytes in (1, 5, 10):
                await large(run["good"], megabytes)
            await crash_loop(run, seconds)


async def deaths(servers: list[Server]) -> None:
    """`kill -9` in the middle of a call: when is its caller told, when is the next answered."""
    told, recovered = [], []
    for server in servers * DEATHS:
        pid = int(await call(server, "pid"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(killed, pid)
            began_s = time.perf_counter()
            try:
                await call(server, "hang")
            except ServerDied:
                told.append((time.perf_counter() - began_s) * 1000)
        await call(server, "echo")
        recovered.append((time.perf_counter() - began_s) * 1000)
    show("from `kill -9` to the error of the call", "ms", told)
    show("from `kill -9` to the next answer", "ms", recovered)


async def killed(pid: int) -> None:
    os.kill(pid, 9)


async def large(server: Server, megabytes: int) -> None:
    params = {"name": "echo", "arguments": {"text": "x" * megabytes * 10**6}}
    message = wire.decode(wire.request(1, "tools/call", json.dumps(params).encode()))
    times = []
    for _ in range(LARGE_RUNS):
        began_s = time.perf_counter()
        await server.forward(message, {})
        times.append((time.perf_counter() - began_s) * 1000)
    show(f"{megabytes} MB there and back", "ms", times)


async def crash_loop(run: Run, seconds: float) -> None:
    began_s, before = time.monotonic(), cpu_s()
    while time.monotonic() - began_s < seconds:
        try:
            await call(run["crash-loop"], "echo")
        except OctaveError:
            await anyio.sleep(0.1)
    own_s, children_s = (now - then for now, then in zip(cpu_s(), before, strict=True))
    show("crash loop, runtime", "% CPU", [own_s / seconds * 100])
    show("crash loop, its processes", "% CPU", [children_s / seconds * 100])
    show(f"crash loop, starts in {seconds:g} s", "", [run.happened("crash-loop", "start")])


def cpu_s() -> tuple[float, float]:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


if __name__ == "__main__":
    anyio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
