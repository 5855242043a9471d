"""Servers whose every word the test says itself, in a world where time passes only in sleep.

All but the operating system's process is real: the lines go through pipes, and through everything
that stands between a server's stdout and a client. A puppet greets, lists its one tool and answers
probes by itself; calls wait in it until it is told what to do with them.
"""

import asyncio
import contextlib
import itertools
import json
import os
import selectors
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import anyio.abc

from octave.errors import StartFailed
from octave.gateway.catalogue import Catalogue
from octave.gateway.router import Router
from octave.packages import offered as offered_file
from octave.packages.launch import LaunchSpec, Policy
from octave.packages.offered import Offered
from octave.runtime import connection, handshake, wire, worker
from octave.runtime.events import Clock, Event
from octave.runtime.handshake import MODERN_VERSION
from octave.runtime.logs import ServerLog
from octave.runtime.masking import Mask
from octave.runtime.outbox import Outbox
from octave.runtime.pace import PipeReader
from octave.runtime.process import Callbacks, ExitStatus
from octave.runtime.supervisor import Supervisor

TOOL = b'{"name":"do","inputSchema":{"type":"object"}}'
INITIALIZE = b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}}}'
DISCOVER = (
    b'{"supportedVersions":["%b"],"capabilities":{"tools":{}},"resultType":"complete","ttlMs":0,'
    b'"cacheScope":"private"}' % MODERN_VERSION.encode()
)
LISTS = {"tools": (TOOL,)}
KNOWN = {
    "legacy": Offered(INITIALIZE, LISTS, eras=("legacy",)),
    "modern": Offered(
        handshake.as_initialize(DISCOVER), LISTS, discover=DISCOVER, eras=("modern",)
    ),
    "both": Offered(INITIALIZE, LISTS, discover=DISCOVER, eras=("legacy", "modern")),
}
"""What was learned earlier of a server that speaks those eras."""


_NUMBERS = itertools.count(1)


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock moves on only when nothing is left to be done."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.at_rest: list[asyncio.Future[None]] = []
        """Who is to be told before the clock moves on."""
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now_s


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout != 0:
            waiting, self._loop.at_rest = self._loop.at_rest, []
            for each in waiting:
                each.set_result(None)
            if not waiting:
                assert timeout is not None, "nothing will ever happen again"
                self._loop.now_s += timeout
        return ready


async def rest() -> None:
    """Wait until nothing more happens by itself at this moment."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    done = loop.create_future()
    loop.at_rest.append(done)
    await done


@dataclass(eq=False)
class Given:
    """One call that has arrived at a puppet."""

    id: bytes
    method: str
    params: dict[str, Any]
    number: int
    """Of all that arrived anywhere."""
    is_cancelled: bool = False


@dataclass(eq=False)
class Puppet:
    """One process of a server, from its start until it is dead."""

    server: str
    eras: str
    reads: int
    writes: int
    on_call: Callable[["Puppet", Given], None]
    on_answer: Callable[["Puppet", wire.Message], None]
    is_modern: bool = False
    """It was opened so."""
    is_alive: bool = True
    heard: list[wire.Message] = field(default_factory=list)
    """All that it was told."""
    calls: dict[bytes, Given] = field(default_factory=dict)
    """Those not answered yet, by their ids on the link."""
    rest: bytes = b""

    def __post_init__(self) -> None:
        asyncio.get_running_loop().add_reader(self.reads, self._read)

    def say(self, line: bytes) -> None:
        if self.is_alive:
            # Nobody may be left who reads it.
            with contextlib.suppress(BrokenPipeError):
                os.write(self.writes, line + b"\n")

    @property
    def can_ask(self) -> bool:
        """Whether it can ask whenever it likes."""
        return self.is_alive and not self.is_modern

    @property
    def answers(self) -> list[wire.Message]:
        """What it was told in answer to its questions."""
        return [message for message in self.heard if message.is_answer]

    def answer(self, given: Given, result: Mapping[str, object]) -> None:
        """End a call with that result."""
        del self.calls[given.id]
        self.say(wire.result(given.id, json.dumps(result).encode()))

    def ask(self, identifier: object, method: str = "elicitation/create", **params: object) -> None:
        """Ask the client something, as a legacy server does."""
        raw = json.dumps(identifier).encode()
        self.say(wire.request(raw, method, json.dumps(params).encode()))

    def withdraw(self, identifier: object) -> None:
        params = json.dumps({"requestId": identifier}).encode()
        self.say(wire.notification("notifications/cancelled", params))

    def die(self, last_words: bytes = b"") -> None:
        """End, whatever is open; in the middle of a line if there are last words."""
        if self.is_alive:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.writes, last_words)
            self.is_alive = False
            asyncio.get_running_loop().remove_reader(self.reads)
            os.close(self.reads)
            os.close(self.writes)

    def _read(self) -> None:
        data = os.read(self.reads, 2**16)
        if not data:
            self.die()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if self.is_alive:
                self._take(wire.decode(line))

    def _take(self, message: wire.Message) -> None:
        identifier, method = message.id or b"null", message.method
        self.heard.append(message)
        if message.is_answer:
            self.on_answer(self, message)
        elif method == "notifications/cancelled":
            given = self.calls.get(wire.member(message.params or b"{}", "requestId") or b"")
            if given is not None:
                given.is_cancelled = True
        elif method == "initialize" and self.eras != "modern":
            self.say(wire.result(identifier, INITIALIZE))
        elif method == "server/discover" and self.eras != "legacy":
            self.is_modern = True
            self.say(wire.result(identifier, DISCOVER))
        elif method in ("initialize", "server/discover"):
            self.say(wire.error(identifier, wire.METHOD_NOT_FOUND, "never heard of it"))
        elif method == "tools/list":
            self.say(wire.result(identifier, b'{"tools":[%b],"resultType":"complete"}' % TOOL))
        elif method == "ping":
            self.say(wire.result(identifier, b"{}"))
        elif message.is_request:
            params = json.loads(message.params or b"{}")
            given = Given(identifier, method or "", params, next(_NUMBERS))
            self.calls[identifier] = given
            self.on_call(self, given)


class _Strings:
    """The link to a puppet, with the face that `Process` has."""

    pid = 0
    stderr_tail: list[str] = []  # noqa: RUF012 - never changes

    def __init__(self, callbacks: Callbacks, begin: Callable[[int, int], Puppet]) -> None:
        self.exit_status: ExitStatus | None = None
        self.stdout_closed = False
        self.is_given_up = False
        self.failure: StartFailed | None = None
        self._callbacks = callbacks
        self._begin = begin
        self._outbox: Outbox
        self._reader: PipeReader
        self._is_over = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        reads, to_server = os.pipe()
        from_server, writes = os.pipe()
        self._outbox = Outbox(os.fdopen(to_server, "wb", buffering=0), self.end_soon)
        pipe = os.fdopen(from_server, "rb", buffering=0)
        self._reader = PipeReader(pipe, self._callbacks.on_stdout, self._ended)
        puppet = self._begin(reads, writes)
        try:
            yield
        finally:
            self._is_over = True
            self._outbox.close()
            self._reader.close()
            puppet.die()

    def write(self, line: bytes) -> int:
        return self._outbox.put(line)

    def withdraw(self, ticket: int) -> bool:
        return self._outbox.withdraw(ticket)

    def heed(self) -> None:
        self._reader.heed()

    def has_sent(self, ticket: int) -> bool:
        return 0 < ticket <= self._outbox.written

    def end_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._ended)

    def _ended(self) -> None:
        if not self._is_over:
            self._is_over = self.stdout_closed = True
            self.exit_status = ExitStatus(3, None)
            self._callbacks.on_end()


class Stage:
    """A gateway in front of puppets.

    Args:
        eras: what each server speaks, a key of `KNOWN`.
        policies: of servers that have one of their own.
    """

    def __init__(
        self, folder: Path, eras: dict[str, str], policies: dict[str, Policy] | None = None
    ) -> None:
        self.tasks: anyio.abc.TaskGroup
        self.puppets: list[Puppet] = []
        """All there ever were, oldest first."""
        self.on_call: Callable[[Puppet, Given], None] = lambda _, __: None
        self.on_answer: Callable[[Puppet, wire.Message], None] = lambda _, __: None
        self._eras = eras
        specs = [
            LaunchSpec(
                name,
                ("puppet",),
                folder,
                dict,
                version="1",
                digest="d",
                policy=(policies or {}).get(name, Policy()),
            )
            for name in eras
        ]
        for name, spoken in eras.items():
            path = folder / f"{name}.json"
            if not path.exists():
                offered_file.save(path, KNOWN[spoken], "1", "d")
        loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(
            specs, lambda _: ServerLog(Path(os.devnull)), clock=Clock(loop.time, lambda: 0.0)
        )
        self.catalogue = Catalogue(
            self.supervisor, lambda name: folder / f"{name}.json", clock=loop.time
        )
        self.router = Router(self.supervisor, self.catalogue)
        self.supervisor.on_notification = self.router.heard
        self.supervisor.on_event = self._happened

    def _happened(self, event: Event) -> None:
        if event.kind == "ready":
            self.catalogue.became_ready(event.server)

    def link_of(self, spec: LaunchSpec, callbacks: Callbacks) -> tuple[_Strings, Mask]:
        """Stand in for `remote_server.link_of`."""
        return _Strings(callbacks, partial(self._enter, spec.name)), Mask()

    async def call(self, server: str) -> tuple[Puppet, Given]:
        """Return the newest call that waits in the server, and who has it."""
        await rest()
        waiting = [
            (puppet, given)
            for puppet in self.puppets
            if puppet.server == server
            for given in puppet.calls.values()
        ]
        return max(waiting, key=lambda found: found[1].number)

    def _enter(self, server: str, reads: int, writes: int) -> Puppet:
        puppet = Puppet(
            server,
            self._eras[server],
            reads,
            writes,
            lambda puppet, given: self.on_call(puppet, given),
            lambda puppet, message: self.on_answer(puppet, message),
        )
        self.puppets.append(puppet)
        return puppet

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[anyio.abc.TaskGroup]:
        """Run it; left, nothing of it is there any more."""
        with _without_disk_and_threads(), mock.patch.object(connection, "link_of", self.link_of):
            async with anyio.create_task_group() as tasks:
                await tasks.start(self.supervisor.run)
                await tasks.start(self.catalogue.run)
                self.tasks = tasks
                yield tasks
                tasks.cancel_scope.cancel()


@contextlib.contextmanager
def _without_disk_and_threads() -> Iterator[None]:
    """Neither knows of the time in here, nor does the processor's clock."""

    async def run(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        return function(*arguments)

    with (
        mock.patch.object(worker, "run", run),
        mock.patch.object(worker, "run_apart", run),
        mock.patch.object(offered_file, "save"),
        mock.patch.object(ServerLog, "event"),
        # What a line costs depends on the machine, and nobody may be paused for it.
        mock.patch.object(time, "thread_time", lambda: 0.0),
    ):
        yield
