"""A kill campaign: `kill -9` of one server after the other while all are called, and what it costs.

    .venv/bin/python -m tests.bench.campaign [--seconds 60] [--servers 20] [--calls-per-s 50]
        [--kill-every-s 1] [--work-ms 20] [--start-ms 0] [--replay]

Starts the installed `octave serve` in a home of its own over servers that write down what they do,
and calls them through the unix socket as `octave proxy` does, whether or not earlier calls were
answered. Exits with 1 when a promise is broken.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from octave.home import Home, Workspace
from octave.remote import Remote
from tests.bench.overhead import INITIALIZE, OCTAVE
from tests.bench.verdict import Call, Facts, Journal, Kill, Shown, Terms, Verdict, judge

SERVER = Path(__file__).parent.parent / "servers" / "journal.py"
HELLO = b'{"octave":{"version":1,"proxy":{}}}\n'
LIMIT_BYTES = 2**20
UP_S = 60.0
"""For all servers to be up, and for the last calls to be answered."""
LOOK_S = 0.05
WITNESS_S = 0.01
"""After a kill its server is called, so that there is somebody to notice when it is back."""
PLAIN_START_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to whom."""

    seconds: float = 60.0
    servers: int = 20
    calls_per_s: float = 50.0
    kill_every_s: float = 1.0
    work_ms: float = 20.0
    """So long each call takes: what is on the wire when a server dies."""
    start_ms: float = 0.0
    """So much longer than it must each server takes to start."""
    replay: bool = False


class Fleet:
    """An installed runtime over its servers, in a folder of its own."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.names = [f"s{number:02}" for number in range(plan.servers)]
        self.workspace = Workspace.of_home(Home(folder / "home"))
        self.workspace.prepare()
        self._journals = {name: folder / f"{name}.journal" for name in self.names}
        self._plan = plan
        self.workspace.manifest.write_text(self._manifest(), encoding="utf-8")

    def _manifest(self) -> str:
        lines = ["[runtime]\nport = 0\n"]
        for name in self.names:
            command = json.dumps(self.command(self._journals[name]))
            replay = str(self._plan.replay).lower()
            lines.append(f"[servers.{name}]\ncommand = {command}\nauto_start = true")
            lines.append(f"replay = {replay}\n")
        return "\n".join(lines)

    def command(self, journal: Path) -> list[str]:
        """Return what starts one server."""
        words = [sys.executable, str(SERVER), str(journal), str(self._plan.start_ms)]
        return [*words, "read-only"] if self._plan.replay else words

    def running(self) -> contextlib.AbstractContextManager[int]:
        """Serve until the end of the block."""
        return serving(self.workspace)

    def status(self, names: Sequence[str] = ()) -> dict[str, Mapping[str, Any]]:
        """Return what the runtime says of its servers; blocks for some milliseconds."""
        with Remote.connect(self.workspace) as remote:
            found = remote.request("octave/status", {"names": list(names)}, timeout_s=UP_S)
        return {server["name"]: server for server in found["servers"]}

    async def all_up(self) -> dict[str, Mapping[str, Any]]:
        """Wait until every server is ready."""
        async with asyncio.timeout(UP_S):
            while True:
                found = await asyncio.to_thread(self.status)
                if all(server["state"] == "ready" for server in found.values()):
                    return found
                await asyncio.sleep(LOOK_S)

    def journals(self) -> dict[str, Journal]:
        """Return what the servers wrote down."""
        return {name: read_journal(path) for name, path in self._journals.items()}


@contextlib.contextmanager
def serving(workspace: Workspace) -> Iterator[int]:
    """Run the installed `octave serve` until the end of the block; yield its pid."""
    environ = {**os.environ, "OCTAVE_HOME": str(workspace.home.root)}
    process = subprocess.Popen([OCTAVE, "serve"], env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        while not process.stdout.readline().startswith(b"ready on"):
            assert process.poll() is None, "the runtime did not start"
        # Its further lines go to a pipe that somebody must read.
        with subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL):
            process.stdout.close()
            try:
                yield process.pid
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(UP_S)
    finally:
        process.kill()
        process.wait()


def read_journal(path: Path) -> Journal:
    """Return what the processes of one server wrote down."""
    journal = Journal({}, {}, Counter())
    for line in path.read_text(encoding="utf-8").splitlines():
        what, pid, at_s = line.split()
        if what == "start":
            journal.starts_s[int(pid)] = float(at_s)
        elif what == "ready":
            journal.ready_s[int(pid)] = float(at_s)
        else:
            journal.executed[what] += 1
    return journal


class Client:
    """One MCP session on the runtime's socket; calls go out whenever they are due."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._none_open = asyncio.Event()
        self._reader, self._writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, workspace: Workspace) -> AsyncIterator["Client"]:
        """Connect and shake hands; leave with the block."""
        path = os.fspath(workspace.socket())
        reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT_BYTES)
        writer.write(HELLO + INITIALIZE)
        for _ in range(2):
            assert b'"error"' not in await reader.readline()
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    def call(self, server: str, work_ms: float) -> None:
        """Send one call; its answer is awaited by `listen`."""
        call = Call(f"c{len(self.calls)}", server, time.monotonic())
        self.calls.append(call)
        self._by_id[call.id] = call
        self._none_open.clear()
        arguments = {"id": call.id, "ms": work_ms}
        params = {"name": f"{server}__note", "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": call.id, "method": "tools/call", "params": params}
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def listen(self) -> None:
        """Take answers until the end of the connection."""
        while line := await self._reader.readline():
            message = json.loads(line)
            call = self._by_id.pop(message.get("id", ""), None)
            if call is None:
                continue
            call.answered_s = time.monotonic()
            if not self._by_id:
                self._none_open.set()
            if "error" in message:
                details = message["error"].get("data", {}).get("octave", {}).get("details", {})
                call.error = message["error"]["message"]
                call.is_unknown = details.get("outcome") == "unknown"
            else:
                call.pid = int(message["result"]["content"][0]["text"])

    async def all_answered(self) -> None:
        """Wait until nothing is open, or for `UP_S`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_open.wait(), UP_S)


class Campaign:
    """Calls and kills, for the time planned."""

    def __init__(self, plan: Plan, fleet: Fleet, client: Client) -> None:
        self.kills: list[Kill] = []
        self.plain_starts_s: list[float] = []
        self._plan, self._fleet, self._client = plan, fleet, client

    async def run(self) -> None:
        """Return when it is over and every server is up again."""
        until_s = time.monotonic() + self._plan.seconds
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._client.listen())
            async with asyncio.TaskGroup() as work:
                work.create_task(self._call(until_s))
                work.create_task(self._kill(until_s))
                work.create_task(self._start_plainly(until_s))
            await self._fleet.all_up()
            await self._client.all_answered()
            listening.cancel()

    async def _call(self, until_s: float) -> None:
        names = itertools.cycle(self._fleet.names)
        async for _ in every(1 / self._plan.calls_per_s, until_s):
            self._client.call(next(names), self._plan.work_ms)

    async def _kill(self, until_s: float) -> None:
        names = itertools.cycle(self._fleet.names)
        async for _ in every(self._plan.kill_every_s, until_s):
            name = next(names)
            (server,) = (await asyncio.to_thread(self._fleet.status, [name])).values()
            if server["state"] != "ready":
                continue
            # Not in step with the calls: some are on the wire, some are not.
            await asyncio.sleep(random.uniform(0.0, self._plan.kill_every_s / 2))
            self.kills.append(Kill(name, server["pid"], time.monotonic()))
            os.kill(server["pid"], signal.SIGKILL)
            await asyncio.sleep(WITNESS_S)
            self._client.call(name, 0)

    async def _start_plainly(self, until_s: float) -> None:
        words = self._fleet.command(Path(os.devnull))
        async for _ in every(min(PLAIN_START_EVERY_S, self._plan.seconds / 3), until_s):
            began_s = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(INITIALIZE)
            await process.stdout.readline()
            self.plain_starts_s.append(time.monotonic() - began_s)
            process.stdin.close()
            await process.wait()


async def every(period_s: float, until_s: float) -> AsyncIterator[None]:
    """Come round at the times planned, however long each round took."""
    due_s = time.monotonic()
    while due_s < until_s:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield
        due_s += period_s


async def observe(plan: Plan, fleet: Fleet) -> Facts:
    """Carry the plan out and return what came of it."""
    await fleet.all_up()
    async with Client.open(fleet.workspace) as client:
        campaign = Campaign(plan, fleet, client)
        await campaign.run()
    found = await fleet.all_up()
    now_s = time.monotonic()
    shown = {
        name: Shown(server["availability"], server["downSeconds"], now_s)
        for name, server in found.items()
    }
    return Facts(client.calls, campaign.kills, fleet.journals(), shown, campaign.plain_starts_s)


def run(plan: Plan, terms: Terms) -> Verdict:
    """Carry the plan out in a folder of its own and judge it."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), plan)
        with fleet.running():
            facts = asyncio.run(observe(plan, fleet))
        return judge(facts, terms)


def show(verdict: Verdict) -> None:
    """Print the table and what is broken."""
    for what, value in verdict.figures:
        print(f"{what:<48} {value}")
    for sentence in verdict.broken:
        print(f"BROKEN: {sentence}")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.campaign")
    for field in fields(Plan):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            parser.add_argument(flag, dest=field.name, action="store_true")
        else:
            parser.add_argument(flag, dest=field.name, type=field.type, default=field.default)
    plan = Plan(**vars(parser.parse_args()))
    verdict = run(plan, Terms(replay=plan.replay))
    show(verdict)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
