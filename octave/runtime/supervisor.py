"""All servers of one runtime: their tasks, and what can be asked of several at once.

Every server has a task of its own and fails by itself. Starting, stopping and reloading happen in
parallel, so that one server that hangs delays no other.

All that waits in a runtime is bounded. What, how much, and what happens when it is full:

- calls of a server, until answered: 256 or 64 MiB, one always fits (`server`); busy
- lines to its stdin: 256 or 4 MiB, one always fits (`process`); a call is busy, others are dropped
- a line of its stdout: `max_message` (`wire`); its call fails, what follows goes on
- its last words for errors: 20 lines of 500 bytes (`process`); the oldest go
- its log: 64 KiB and an unfinished line a stream, then written (`logs`); what the disk does not
  take is dropped and counted, as is noise over 100 lines in 10 s
- looks at its lists: one, shared by all who want it (`gateway.catalogue`); list_changed joins it
- a client's open requests: 1,024, on a control connection 64; busy. HTTP: 512 connections, 503
- what a server asks: 256 of a process or in an answer (`questions`, `gateway.rounds`); refused
- calls parked until their client answers: 64 of a session (`gateway.parking`); the oldest goes
- lines to a client: over 1 MiB it is read no more, over 32 MiB it is cut (`serve.socket`)
- events: none waits, they are handed on as they happen
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.abc

from octave.errors import OctaveError, ServerNotFound, did_you_mean
from octave.packages.launch import LaunchSpec
from octave.runtime import worker
from octave.runtime.availability import BEAT_S, Availability, Awake
from octave.runtime.events import Clock, Event
from octave.runtime.logs import ServerLog
from octave.runtime.metrics import tree_memory_bytes
from octave.runtime.server import Server
from octave.runtime.subject import Listeners, Speaker
from octave.runtime.wire import Message

STARTS_AT_ONCE = 8
"""More would fight for the processor and all be late."""
SLOW_START_S = 5.0
"""An `auto_start` server slower than this no longer holds back those after it."""

_log = logging.getLogger(__name__)

Result = dict[str, Any]
"""``{"name", "status", "pid"}``, ``"error"`` as `OctaveError.as_json` where it failed, and
``"killed"`` (true) where a stop had to end in SIGKILL."""


class Supervisor:
    """The servers of a runtime, by name.

    Args:
        specs: what there is to run; those with a `problem` too.
        log_of: opens the log of a server, by name.
        stopped: names of the servers a person stopped earlier.
        on_choice: called with all names that a person wants stopped, whenever that changes.
        clock: monotonic and wall clock.

    `on_event`, `on_notification`, `on_learned` and `on_moved` (see `Listeners`) may be set before
    `run`, and
    `on_removed`, which takes the name of each server that is there no more.
    """

    def __init__(
        self,
        specs: Iterable[LaunchSpec],
        log_of: Callable[[str], ServerLog],
        *,
        stopped: Iterable[str] = (),
        on_choice: Callable[[frozenset[str]], None] = lambda _: None,
        clock: Clock = Clock(time.monotonic, time.time),  # noqa: B008 - frozen
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.on_event: Callable[[Event], None] = lambda _: None
        self.on_notification: Callable[[Speaker, Message], None] = lambda _, __: None
        self.on_learned: Callable[[str], None] = lambda _: None
        self.on_removed: Callable[[str], None] = lambda _: None
        self.on_moved: Callable[[str, object], None] = lambda _, __: None
        self._log_of = log_of
        self._stopped = set(stopped)
        self._on_choice = on_choice
        self._clock = clock
        self._awake = Awake(clock.monotonic_s)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._closing = anyio.Event()
        for spec in specs:
            self._add(spec)

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the task of every server until `close`; when cancelled, all processes are stopped.

        Reports started at once; `auto_start` servers come up meanwhile.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._run(list(self.servers.values()), self._tasks)
                self._tasks.start_soon(self._beat)
                task_status.started()
                await self._closing.wait()
                self._tasks.start_soon(self._close_all)
        finally:
            self._tasks = None
            self._closing.set()

    def close(self) -> None:
        """Stop all servers in parallel, calls in flight first, and end `run`. Within 12 s."""
        self._closing.set()

    async def start(self, names: Sequence[str]) -> list[Result]:
        """Start what is down; each result is there when it is ready, or cannot be."""
        return await self._for_each(names, self._start)

    async def stop(self, names: Sequence[str]) -> list[Result]:
        """Stop what is up, and keep it stopped until `start`."""
        return await self._for_each(names, self._stop)

    async def restart(self, names: Sequence[str]) -> list[Result]:
        """Give each a fresh process."""
        return await self._for_each(names, self._restart)

    async def reload(self, specs: Iterable[LaunchSpec]) -> dict[str, list[str]]:
        """Make `specs` what there is to run and touch only what changed.

        A changed server is stopped, and starts anew with its next call, or at once when it is
        `auto_start`. Returns the names ``{"added", "removed", "changed"}``, when all is done.
        """
        new = {spec.name: spec for spec in specs}
        added = [name for name in new if name not in self.servers]
        removed = [name for name in self.servers if name not in new]
        changed = [
            name
            for name, server in self.servers.items()
            if name in new
            and not server.is_changing_over
            and not is_same_launch(server.spec, new[name])
        ]
        # Shielded: whoever leaves meanwhile must not leave processes that nobody knows of.
        with anyio.CancelScope(shield=True):
            await self._replace(new, removed, changed)
        self._forget(removed)
        for name in removed:
            self.on_removed(name)
        if self._closing.is_set():
            # Nobody would run them, nor close them any more.
            added = []
        servers = [self._add(new[name]) for name in added]
        if self._tasks is not None:
            self._run(servers, self._tasks)
        return {"added": added, "removed": removed, "changed": changed}

    async def _replace(
        self, new: Mapping[str, LaunchSpec], removed: Iterable[str], changed: Iterable[str]
    ) -> None:
        async with anyio.create_task_group() as tasks:
            for name in removed:
                tasks.start_soon(self.servers.pop(name).close)
            for name, server in self.servers.items():
                # The environment is resolved by the newest spec, also where nothing else changed.
                if not server.is_changing_over:
                    server.spec = new[name]
                if name in changed:
                    server.replaced()

    async def swap(self, spec: LaunchSpec) -> None:
        """Make `spec` what its server is run by; raises as `Server.change_over` does.

        Meanwhile `reload` leaves that server alone.
        """
        await self.servers[spec.name].change_over(spec)

    async def snapshot(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return `Server.snapshot` of the named servers, all for None, with their memory.

        Memory is measured now, in a worker thread. Unknown names are left out.
        """
        wanted = list(self.servers) if names is None else list(names)
        servers = [self.servers[name] for name in wanted if name in self.servers]
        pids = [pid for server in servers for pid in server.pids]
        memory: Mapping[int, int] = {}
        if pids:
            memory = await worker.run(tree_memory_bytes, pids)
        found = [[memory[pid] for pid in server.pids if pid in memory] for server in servers]
        return [
            server.snapshot | {"memoryBytes": sum(parts) if parts else None}
            for server, parts in zip(servers, found, strict=True)
        ]

    def _add(self, spec: LaunchSpec) -> Server:
        server = Server(
            spec,
            self._log_of(spec.name),
            Listeners(
                lambda event: self.on_event(event),
                lambda instance, message: self.on_notification(instance, message),
                lambda name: self.on_learned(name),
                lambda name, session: self.on_moved(name, session),
            ),
            clock=self._clock,
            availability=lambda: Availability(self._awake),
            is_stopped=spec.name in self._stopped,
        )
        self.servers[spec.name] = server
        return server

    def _run(self, servers: list[Server], tasks: anyio.abc.TaskGroup) -> None:
        for server in servers:
            tasks.start_soon(_alone, server.name, server.run)
        tasks.start_soon(self._start_automatically, servers)

    async def _start_automatically(self, servers: list[Server]) -> None:
        limit = anyio.CapacityLimiter(STARTS_AT_ONCE)

        async def start(server: Server) -> None:
            async with limit:
                with anyio.move_on_after(SLOW_START_S):
                    await _alone(server.name, partial(_result_of, server, server.start))

        async with anyio.create_task_group() as tasks:
            for server in servers:
                if server.spec.policy.auto_start and server.state != "stopped":
                    tasks.start_soon(start, server)

    async def _beat(self) -> None:
        while not self._closing.is_set():
            with anyio.move_on_after(BEAT_S):
                await self._closing.wait()
            self._awake()

    async def _close_all(self) -> None:
        async with anyio.create_task_group() as tasks:
            for server in self.servers.values():
                tasks.start_soon(server.close)

    async def _for_each(
        self, names: Sequence[str], work: Callable[[Server], Awaitable[Result]]
    ) -> list[Result]:
        results: dict[str, Result] = {}

        async def one(name: str) -> None:
            server = self.servers.get(name)
            if server is None:
                error = ServerNotFound(
                    f"no server `{name}`", hint=did_you_mean(name, self.servers) or "octave list"
                )
                results[name] = {"name": name, "status": "unknown", "error": error.as_json()}
            else:
                results[name] = await work(server)

        async with anyio.create_task_group() as tasks:
            for name in dict.fromkeys(names):
                tasks.start_soon(one, name)
        return [results[name] for name in dict.fromkeys(names)]

    async def _start(self, server: Server) -> Result:
        self._forget([server.name])
        return await _result_of(server, server.start)

    async def _stop(self, server: Server) -> Result:
        if server.name not in self._stopped:
            self._stopped.add(server.name)
            self._on_choice(frozenset(self._stopped))
        was_up = server.pid is not None
        result = await _result_of(server, server.stop)
        return result | {"killed": True} if was_up and server.was_killed else result

    async def _restart(self, server: Server) -> Result:
        self._forget([server.name])
        return await _result_of(server, server.restart)

    def _forget(self, names: Iterable[str]) -> None:
        before = len(self._stopped)
        self._stopped.difference_update(names)
        if len(self._stopped) != before:
            self._on_choice(frozenset(self._stopped))


def is_same_launch(one: LaunchSpec, other: LaunchSpec) -> bool:
    """Whether both say the same; of the environment only what `fingerprint` tells of it."""
    return _launch(one) == _launch(other)


def _launch(spec: LaunchSpec) -> tuple[object, ...]:
    problem = spec.problem.as_json() if spec.problem else None
    return (
        spec.argv,
        spec.cwd,
        spec.version,
        spec.digest,
        spec.title,
        spec.policy,
        spec.fingerprint,
        problem,
    )


async def _alone(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do what concerns one server, so that what goes wrong with it ends no other."""
    try:
        await work()
    except Exception:  # noqa: BLE001 - a bug here must not end the other servers
        _log.exception("`%s` met a bug in Octave", name)


async def _result_of(server: Server, work: Callable[[], Awaitable[None]]) -> Result:
    try:
        await work()
    except OctaveError as error:
        return {"name": server.name, "status": server.state, "error": error.as_json()}
    return {"name": server.name, "status": server.state, "pid": server.pid}
