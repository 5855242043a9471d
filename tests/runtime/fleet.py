"""A running supervisor over the small servers of tests/servers, for tests of the runtime."""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from octave.packages.launch import LaunchSpec, Policy
from octave.runtime import wire
from octave.runtime.events import Clock, Event
from octave.runtime.logs import ServerLog
from octave.runtime.server import Server
from octave.runtime.supervisor import Supervisor

SERVERS = Path(__file__).parents[1] / "servers"
REAL_CLOCK = Clock(time.monotonic, time.time)


def launch(
    state: Path, script: str, *args: str, policy: Policy | None = None, name: str = ""
) -> LaunchSpec:
    name = name or script.replace("_", "-")
    folder = state / name
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "HOSTILE_STATE": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return LaunchSpec(
        name=name,
        argv=(sys.executable, str(SERVERS / f"{script}.py"), *args),
        cwd=folder,
        environment=lambda: environment,
        version="1.0.0",
        policy=policy or Policy(),
    )


class Run:
    """A supervisor that runs, and what was heard of it."""

    def __init__(
        self,
        state: Path,
        specs: Iterable[LaunchSpec],
        stopped: Iterable[str],
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self.state = state
        self.choices: list[frozenset[str]] = []
        self.events: list[Event] = []
        self._heard = anyio.Event()
        self.supervisor = Supervisor(
            specs,
            lambda name: ServerLog(state / f"{name}.log"),
            stopped=stopped,
            on_choice=self.choices.append,
            clock=clock,
        )
        self.supervisor.on_event = self.hear

    def __getitem__(self, name: str) -> Server:
        return self.supervisor.servers[name]

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self._heard.set()
        self._heard = anyio.Event()

    async def until(self, is_true: Callable[[], bool], seconds: float = 5) -> None:
        """Wait, event by event."""
        with anyio.fail_after(seconds):
            while not is_true():
                await self._heard.wait()

    def kinds(self, name: str) -> list[str]:
        return [event.kind for event in self.events if event.server == name]

    def happened(self, name: str, what: str) -> int:
        """How often the server noted this in its own journal."""
        journal = self.state / name / "events.log"
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
        return sum(line.split()[0] == what for line in lines)


@asynccontextmanager
async def running(
    state: Path,
    *specs: LaunchSpec,
    stopped: Iterable[str] = (),
    clock: Clock = REAL_CLOCK,
) -> AsyncIterator[Run]:
    run = Run(state, specs, stopped, clock)
    async with anyio.create_task_group() as tasks:
        await tasks.start(run.supervisor.run)
        try:
            yield run
        finally:
            run.supervisor.close()


async def call(server: Server, tool: str, **arguments: object) -> str:
    params = json.dumps({"name": tool, "arguments": arguments}).encode()
    message = wire.decode(wire.request(7, "tools/call", params))
    answer = await server.forward(message, {})
    result = json.loads(answer.result or b"null")
    return str(result["content"][0]["text"])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
