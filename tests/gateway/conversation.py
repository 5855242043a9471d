"""Both ends of a conversation, as raw lines: through a session, and with the server itself."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.abc

from octave.gateway.audience import Scope
from octave.gateway.catalogue import Catalogue
from octave.gateway.router import Router
from octave.gateway.session import Session
from octave.packages.launch import LaunchSpec, Policy
from octave.runtime import wire
from octave.runtime.events import Event
from octave.runtime.logs import ServerLog
from octave.runtime.supervisor import Supervisor

BOUND_S = 5.0
ODD = Path(__file__).with_name("odd_server.py")
SERVERS = Path(__file__).parent.parent / "servers"
CALL = b'{"name":"%b","arguments":{"x":1.10,"big":12345678901234567890123,"u":"\\u2028"},"own":1E2}'


def call(name: bytes) -> bytes:
    """Params of `tools/call` that no library would write back the same."""
    return CALL % name


def error_code(answer: bytes) -> int:
    return int(wire.member(answer, "error", "code") or b"0")


def texts(answer: bytes) -> str:
    return "".join(block["text"] for block in json.loads(answer)["result"]["content"])


def odd(name: str, *arguments: str, **policy: float) -> LaunchSpec:
    """The server of odd_server.py."""
    return spec(name, ODD, name, *arguments, **policy)


def spec(name: str, script: Path, *arguments: str, **policy: float) -> LaunchSpec:
    return LaunchSpec(
        name,
        (sys.executable, "-S", str(script), *arguments),
        script.parent,
        lambda: {"PYTHONUTF8": "1"},
        version="1",
        digest="d",
        policy=Policy(**policy),  # type: ignore[arg-type] # only seconds are given
    )


def missing(name: str) -> LaunchSpec:
    """A server whose program is not there."""
    return replace(spec(name, ODD), argv=("/nonexistent/program",))


def directly(launch: LaunchSpec, *lines: bytes) -> list[bytes]:
    """What the server writes when it is given these lines, and nothing stands between."""
    done = subprocess.run(
        launch.argv,
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        timeout=BOUND_S,
        env=launch.environment(),
        check=True,
    )
    return done.stdout.splitlines()


class Desk:
    """A supervisor with its gateway, and clients that come and go."""

    def __init__(self, folder: Path, tasks: anyio.abc.TaskGroup, *specs: LaunchSpec) -> None:
        self.supervisor = Supervisor(specs, lambda name: ServerLog(folder / f"{name}.log"))
        self.now_s = 0.0
        self.catalogue = Catalogue(
            self.supervisor, lambda name: folder / f"{name}.json", clock=lambda: self.now_s
        )
        self.router = Router(self.supervisor, self.catalogue)
        self.supervisor.on_notification = self.router.heard
        self.supervisor.on_event = self._happened
        self.tasks = tasks

    def _happened(self, event: Event) -> None:
        if event.kind == "ready":
            self.catalogue.became_ready(event.server)

    async def client(self, *servers: str, single: bool = False) -> "Client":
        client = Client(self.router, Scope(servers or None, single=single))
        await self.tasks.start(client.session.run)
        return client


@asynccontextmanager
async def desk(folder: Path, *specs: LaunchSpec) -> AsyncIterator[Desk]:
    """A desk that runs; left, it leaves no process behind."""
    async with anyio.create_task_group() as tasks:
        found = Desk(folder, tasks, *specs)
        await tasks.start(found.supervisor.run)
        await tasks.start(found.catalogue.run)
        yield found
        tasks.cancel_scope.cancel()


class Client:
    """Sends lines into a session and waits, bounded, for what comes out."""

    def __init__(self, router: Router, scope: Scope) -> None:
        self.lines: list[bytes] = []
        self._news = anyio.Event()
        self.session = Session(router, scope, self._take)

    def _take(self, line: bytes) -> None:
        self.lines.append(line)
        self._news.set()
        self._news = anyio.Event()

    def say(self, line: bytes) -> None:
        self.session.receive(line)

    async def line(self, wanted: Callable[[wire.Message], bool]) -> bytes:
        """The first line, of those that came and come, that is wanted."""
        read = 0
        with anyio.fail_after(BOUND_S):
            while True:
                for line in self.lines[read:]:
                    if wanted(wire.decode(line)):
                        return line
                read = len(self.lines)
                await self._news.wait()

    async def heard(self, method: str) -> bytes:
        return await self.line(lambda message: message.method == method)

    async def answer(self, identifier: bytes) -> bytes:
        return await self.line(lambda message: message.is_answer and message.id == identifier)

    async def ask(self, identifier: bytes, method: str, params: bytes | None = None) -> bytes:
        self.say(wire.request(identifier, method, params))
        return await self.answer(identifier)

    async def open(self) -> bytes:
        params = b'{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t"}}'
        answer = await self.ask(b'"open"', "initialize", params)
        self.say(wire.notification("notifications/initialized"))
        return answer
