"""A runtime at work for a long time, and whether it grows: open files, threads, memory.

    .venv/bin/python -m tests.bench.soak [--minutes 10]

Servers are called, crash, are killed, fall asleep and change their lists; clients come, go and
leave in the middle of a call; the HTTP API is asked. Exits with 1 when a figure is more than 5 %
higher in the last third than in the first, the warm-up left out. Linux only.
"""

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil

from octave.home import Home, Workspace
from octave.remote import Remote
from tests.bench.campaign import HELLO, LIMIT_BYTES, every, serving
from tests.bench.overhead import INITIALIZE

SERVERS = Path(__file__).parent.parent / "servers"
TABLES = {
    "steady": ("good", "auto_start = true"),
    "lazy": ("good", 'idle_timeout = "1s"'),
    "changing": ("changing_tools", 'idle_timeout = "1s"'),
    "crashing": ("crash_on_call", ""),
}
CALL_EVERY_S = 0.05
COME_EVERY_S = 0.5
LEAVE_EVERY_S = 2.0
ASK_EVERY_S = 1.0
WAKE_EVERY_S = 3.0
"""Longer than the idle time of the servers that are woken."""
DIE_EVERY_S = 7.0
"""Below ten deaths a minute, so that a server that answers is restarted at once."""
SAMPLE_EVERY_S = 1.0
WARM_UP = 0.2
"""Of the whole time: caches fill, the allocator finds its size."""
GROWTH = 0.05
BOUND_S = 30.0


class Session:
    """One MCP session on the runtime's socket, a request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, workspace: Workspace) -> AsyncIterator["Session"]:
        """Connect and shake hands; leave with the block."""
        path = os.fspath(workspace.socket())
        reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT_BYTES)
        writer.write(HELLO + INITIALIZE)
        try:
            for _ in range(2):
                await reader.readline()
            yield cls(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    def send(self, method: str, params: object) -> int:
        """Send a request and return its id."""
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self._writer.write(json.dumps(message).encode() + b"\n")
        return number

    async def ask(self, method: str, params: object) -> Any:
        """Return the answer to a request; what comes meanwhile is passed over."""
        number = self.send(method, params)
        async with asyncio.timeout(BOUND_S):
            while True:
                answer = json.loads(await self._reader.readline())
                if answer.get("id") == number:
                    return answer

    async def call(self, tool: str, **arguments: object) -> Any:
        """Call a tool by its qualified name; return the answer, errors too."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments})


class Soak:
    """What goes on, and what was done how often."""

    def __init__(self, workspace: Workspace, pid: int, seconds: float) -> None:
        self.done: Counter[str] = Counter()
        self.samples: list[dict[str, float]] = []
        self._workspace = workspace
        self._runtime = psutil.Process(pid)
        self._until_s = asyncio.get_running_loop().time() + seconds

    async def run(self) -> None:
        """Return when the time is over."""
        habits: dict[Callable[[], Coroutine[Any, Any, None]], float] = {
            self._come_and_go: COME_EVERY_S,
            self._leave_in_a_call: LEAVE_EVERY_S,
            self._ask_http: ASK_EVERY_S,
            self._wake_sleepers: WAKE_EVERY_S,
            self._crash: DIE_EVERY_S,
            self._kill: DIE_EVERY_S,
            self._sample: SAMPLE_EVERY_S,
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._call())
            for habit, period_s in habits.items():
                tasks.create_task(self._again(habit, period_s))

    async def _again(self, habit: Callable[[], Coroutine[Any, Any, None]], period_s: float) -> None:
        async for _ in every(period_s, self._until_s):
            await habit()
            self.done[habit.__name__.removeprefix("_").replace("_", " ")] += 1

    async def _call(self) -> None:
        async with Session.open(self._workspace) as session:
            async for _ in every(CALL_EVERY_S, self._until_s):
                answer = await session.call("steady__echo", text="x" * 1000)
                self.done["calls" if "result" in answer else "calls cut off"] += 1

    async def _come_and_go(self) -> None:
        async with Session.open(self._workspace) as session:
            await session.ask("tools/list", {})
            await session.call("steady__echo", text="hello")

    async def _leave_in_a_call(self) -> None:
        async with Session.open(self._workspace) as session:
            session.send("tools/call", {"name": "crashing__pid", "arguments": {}})
            await session.ask("ping", {})

    async def _ask_http(self) -> None:
        await asyncio.to_thread(self._get, "/mcp/status")

    def _get(self, path: str) -> None:
        token = (self._workspace.run / "token").read_text(encoding="ascii").strip()
        port = int(str(self._workspace.runtime()["url"]).rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            assert connection.getresponse().status == 200

    async def _wake_sleepers(self) -> None:
        async with Session.open(self._workspace) as session:
            await session.call("lazy__echo", text="hello")
            # Its lists change with the first call of each process.
            await session.call("changing__add", a=1, b=2)
            await session.ask("tools/list", {})

    async def _crash(self) -> None:
        async with Session.open(self._workspace) as session:
            await session.call("crashing__echo", text="hello")
            assert "error" in await session.call("crashing__crash")

    async def _kill(self) -> None:
        pid = (await asyncio.to_thread(self._status, "steady"))["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def _status(self, name: str) -> Any:
        with Remote.connect(self._workspace) as remote:
            return remote.request("octave/status", {"names": [name]})["servers"][0]

    async def _sample(self) -> None:
        self.samples.append(
            {
                "open files": self._runtime.num_fds(),
                "threads": self._runtime.num_threads(),
                "MB RSS": self._runtime.memory_info().rss / 1e6,
            }
        )


def judge(samples: list[dict[str, float]]) -> list[str]:
    """Print first and last third of each figure, as medians; return what has grown."""
    samples = samples[int(len(samples) * WARM_UP) :]
    third = len(samples) // 3
    grown = []
    for what in samples[0]:
        first = statistics.median(sample[what] for sample in samples[:third])
        last = statistics.median(sample[what] for sample in samples[-third:])
        worst = max(sample[what] for sample in samples)
        print(f"{what:<12} first third {first:8.1f}  last third {last:8.1f}  max {worst:8.1f}")
        if last > first * (1 + GROWTH):
            grown.append(what)
    return grown


async def soak(workspace: Workspace, pid: int, minutes: float) -> list[str]:
    """Work and return what has grown."""
    run = Soak(workspace, pid, minutes * 60)
    await run.run()
    print(", ".join(f"{count} {what}" for what, count in run.done.items()))
    return judge(run.samples)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.of_home(Home(Path(folder) / "home"))
        workspace.prepare()
        lines = ["[runtime]\nport = 0\n"]
        for name, (script, table) in TABLES.items():
            command = json.dumps([sys.executable, str(SERVERS / f"{script}.py")])
            lines.append(f"[servers.{name}]\ncommand = {command}\n{table}\n")
        workspace.manifest.write_text("\n".join(lines), encoding="utf-8")
        with serving(workspace) as pid:
            grown = asyncio.run(soak(workspace, pid, minutes))
    for what in grown:
        print(f"GROWN: {what}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
