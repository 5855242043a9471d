"""Composition root of a runtime: builds everything, owns the outermost task group.

`serve` reads as start-up, run, shutdown; of what it takes of the machine it takes the lock first
and gives it back last. Nothing is printed here; whoever calls is told.
"""

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.abc
import filelock
import psutil

from octave import __version__
from octave.errors import Locked, NotFound, OctaveError, PortTaken, did_you_mean, ungrouped
from octave.gateway.audience import Scope
from octave.gateway.session import Session
from octave.home import Workspace
from octave.packages import manifest
from octave.packages.launch import LaunchSpec
from octave.packages.specs import launch_specs
from octave.runtime import allocator, open_files, worker
from octave.runtime.events import Event
from octave.runtime.marker import Run
from octave.runtime.supervisor import Supervisor
from octave.serve import claim
from octave.serve.address import Address
from octave.serve.control import Control, Runtime
from octave.serve.jobs import Jobs
from octave.serve.methods import ControlConversation
from octave.serve.parts import assemble, supervise
from octave.serve.socket import Conversation, Door, Send, Wish
from octave.serve.troubles import Troubles
from octave.serve.use import Use
from octave.serve.verbs import Verbs
from octave.settings import Settings

WATCH_S = 1.0
"""How often it is looked whether the manifest has changed, and whether we can be reached."""

PORT_RETRY_S = 30.0
"""How often a background runtime whose port is taken tries again."""

START_LINES_S = 5.0
"""`ready` waits this long for `auto_start` servers to show what becomes of them."""

UNUSED_S = 30.0
"""A background runtime that has let nobody in by then was started for nothing."""

_ACTIVE = frozenset({"starting", "ready", "backoff", "stopping"})
_SETTLED = frozenset({"ready", "backoff", "failed", "stopped"})
_APART = ("session", "next")
"""Processes that say nothing of what everybody is served by."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a runtime; None: as the manifest says."""

    background: bool = False
    host: str | None = None
    port: int | None = None
    allow_remote: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Who is told what happens. Called in the event loop; must neither block nor raise."""

    event: Callable[[Event], None] = lambda _: None
    """Whatever happens to a server, its start-up included."""
    ready: Callable[[Mapping[str, object]], None] = lambda _: None
    """Once, with the content of runtime.json, when everything can be reached."""
    warning: Callable[[str], None] = lambda _: None
    """A sentence: something does not work and the runtime goes on without it."""


async def serve(
    workspace: Workspace, environ: Mapping[str, str], options: Options, report: Report
) -> None:
    """Run a runtime for the workspace until it is told to end; SIGINT, SIGTERM or `shutdown` do.

    Raises:
        Locked: one runs already.
        PortTaken: and it is not a background runtime, which goes on without.
        ManifestError, NotTrusted, UsageError: it cannot run like this. Nothing was started.
        OSError: the state folder cannot be written.
    """
    workspace.prepare()
    lock = claim.take_lock(workspace)
    try:
        claim.sweep(workspace)
        open_files.raise_limit()
        settings = manifest.load(workspace.manifest).settings
        host = options.host or settings.host
        claim.check_host(host, settings, allow_remote=options.allow_remote)
        serving = _Serving(_Order(workspace, environ, options, report), settings, host)
        with ungrouped():
            await serving.run(lock)
    finally:
        lock.release(force=True)


@dataclass(frozen=True, slots=True)
class _Order:
    workspace: Workspace
    environ: Mapping[str, str]
    options: Options
    report: Report


class _Serving:
    """One runtime from its first socket to its last."""

    def __init__(self, order: _Order, settings: Settings, host: str) -> None:
        self._order = order
        self._settings = settings
        self._host = host
        self._token = claim.make_token(order.workspace, settings, order.environ)
        self._run = Run(order.workspace.run, order.environ)
        self._parts = assemble(order.workspace, self._specs(), settings)
        self._parts.supervisor.on_event = self._heard
        self._unsettled = {
            server.name
            for server in self._parts.supervisor.servers.values()
            if server.spec.policy.auto_start and server.state != "stopped"
        }
        runtime = Runtime(self._specs, self._describe, self._begin_stop, self._profiles)
        self._control = Control(self._parts.supervisor, self._parts.router, runtime)
        self._jobs = Jobs(Verbs(order.workspace, order.environ))
        self._door = Door(self._open_conversation, settings.max_message_bytes)
        self._over_http: Sized = ()
        self._http_use = Use()
        self._stop = anyio.Event()
        self._was_used = False
        self._servers_ended = anyio.Event()
        self._settled = anyio.Event()
        self._began_s = time.monotonic()
        self._troubles = Troubles(order.report.warning)
        self._facts: dict[str, object] = {
            "pid": os.getpid(),
            "url": None,
            "port": None,
            "socket": None,
            "version": __version__,
            "startedAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "background": order.options.background,
        }

    async def run(self, lock: filelock.BaseFileLock) -> None:
        """Start up, run until told to stop, shut down; then give everything back."""
        asyncio.get_running_loop().set_exception_handler(self._troubles.hear)
        # Before any server starts: a taken port may be the end of it.
        listener = self._bind_port()
        self._address = Address(self._order.workspace, self._order.environ, lock)
        self._facts["socket"] = os.fspath(self._address.path)
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._take_signals)
                await self._start_up(tasks, listener)
                await self._stop.wait()
                self._door.shut()
                self._parts.supervisor.close()
                await self._servers_ended.wait()
                # Whoever asked for the shutdown waits for the end of its connection, which comes
                # with the cancellation: the workspace is free by then.
                self._address.give_back()
                tasks.cancel_scope.cancel()
        finally:
            if listener is not None:
                listener.close()
            self._address.give_back()

    async def _start_up(self, tasks: anyio.abc.TaskGroup, listener: socket.socket | None) -> None:
        await tasks.start(self._parts.catalogue.run)
        await tasks.start(supervise, self._parts, self._run, self._servers_ended)
        await tasks.start(self._door.run, self._address.listen())
        self._publish()
        self._troubles.count_files(len(self._parts.supervisor.servers))
        tasks.start_soon(self._keep_up)
        if listener is not None:
            await self._serve_http(tasks, listener)
        else:
            tasks.start_soon(self._retry_port, tasks)
        if self._order.options.background:
            tasks.start_soon(self._watch_idleness)
        elif self._unsettled:
            with anyio.move_on_after(START_LINES_S):
                await self._settled.wait()
        # What there is by now stays: nobody has to look again and again whether it is garbage.
        gc.freeze()
        self._order.report.ready(dict(self._facts))

    def _bind_port(self) -> socket.socket | None:
        port = self._order.options.port
        if port is None:
            port = claim.default_port(self._order.workspace, self._settings)
        try:
            listener = claim.bind_port(self._host, port)
        except PortTaken as error:
            if not self._order.options.background:
                raise
            self._troubles.begin("port", f"{error.message}; reachable through the socket alone")
            return None
        self._troubles.end("port")
        return listener

    async def _retry_port(self, tasks: anyio.abc.TaskGroup) -> None:
        listener = None
        while listener is None:
            await anyio.sleep(PORT_RETRY_S)
            listener = self._bind_port()
        try:
            await self._serve_http(tasks, listener)
        except OSError as error:
            self._troubles.begin("address", f"the port cannot be made known: {error}")

    async def _serve_http(self, tasks: anyio.abc.TaskGroup, listener: socket.socket) -> None:
        # In a thread: proxies are served meanwhile, and for some AI tools half a second counts.
        http = await worker.run(importlib.import_module, "octave.serve.http")
        face = http.Face(self._parts.router, self._scope, self._settings.max_message_bytes)
        admission = http.Admission(self._token, self._settings.allowed_hosts, self._http_use)
        order = (listener, self._control, face, self._jobs, admission)
        self._over_http = await tasks.start(http.serve_http, *order)
        port = listener.getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._facts |= {"port": port, "url": f"http://{host}:{port}"}
        self._publish()

    def _publish(self) -> None:
        self._address.publish(self._facts, self._token if self._facts["url"] else None)

    def _specs(self) -> list[LaunchSpec]:
        return self._run.marked(launch_specs(self._order.workspace, self._order.environ))

    def _describe(self) -> dict[str, object]:
        return {
            "running": True,
            **self._facts,
            "uptimeSeconds": round(time.monotonic() - self._began_s, 3),
            "memoryBytes": _memory_bytes(),
            "openFiles": {"used": open_files.used(), "limit": open_files.limit()},
            "warning": self._troubles.text,
        }

    def _begin_stop(self) -> None:
        self._stop.set()
        # Nobody waits any more for what becomes of the servers.
        self._settled.set()

    def _open_conversation(self, wish: Wish | None, send: Send) -> Conversation:
        if wish is None:
            self._was_used = True
            return ControlConversation(self._control, send)
        return Session(self._parts.router, self._scope(wish), send)

    def _scope(self, wish: Wish) -> Scope:
        for name in wish.servers:
            self._parts.router.server(name)
        self._was_used = True
        if wish.profile is None:
            return Scope(wish.servers or None, single=len(wish.servers) == 1)
        profiles = self._profiles()
        if wish.profile not in profiles:
            hint = did_you_mean(wish.profile, profiles)
            raise NotFound(f"no profile `{wish.profile}` in octave.toml", hint=hint)
        return Scope.of(wish.profile, profiles[wish.profile], wish.servers)

    def _profiles(self) -> Mapping[str, tuple[str, ...]]:
        return manifest.load(self._order.workspace.manifest).profiles

    def _heard(self, event: Event) -> None:
        if event.kind == "ready" and event.details.get("instance") not in _APART:
            self._parts.catalogue.became_ready(event.server)
        if event.kind in ("idle", "stopped"):
            allocator.give_back()
        if event.kind in _SETTLED:
            self._unsettled.discard(event.server)
            if not self._unsettled:
                self._settled.set()
        self._order.report.event(event)

    async def _take_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with anyio.open_signal_receiver(*wanted) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP:
                    await self._reload()
                elif self._stop.is_set():
                    _kill(self._parts.supervisor)
                else:
                    self._begin_stop()

    async def _reload(self) -> None:
        try:
            await self._control.reload()
        except (OctaveError, OSError) as error:
            self._troubles.begin("manifest", f"the old manifest stays in force: {error}")
        else:
            self._troubles.end("manifest")
            self._troubles.count_files(len(self._parts.supervisor.servers))

    async def _keep_up(self) -> None:
        seen = _stamp(self._order.workspace.manifest)
        while True:
            await anyio.sleep(WATCH_S)
            if self._stop.is_set():
                return
            await self._mend()
            found = _stamp(self._order.workspace.manifest)
            if found != seen:
                seen = found
                await self._reload()
            self._troubles.look_again()

    async def _mend(self) -> None:
        try:
            listener = self._address.mend()
            self._run.mend()
        except Locked:
            self._troubles.begin(
                "address", "the workspace has another runtime by now, this one ends"
            )
            self._begin_stop()
        except OSError as error:
            self._troubles.begin("address", f"what was removed cannot be made again: {error}")
        else:
            self._troubles.end("address")
            if listener is not None:
                await self._door.listen(listener)
                self._order.report.warning("somebody removed the socket; it is there again")

    async def _watch_idleness(self) -> None:
        active_s, asked, over_http = time.monotonic(), 0, self._http_use
        while time.monotonic() - active_s < self._idle_limit_s:
            await anyio.sleep(min(WATCH_S, self._idle_limit_s))
            busy = (server.state in _ACTIVE for server in self._parts.supervisor.servers.values())
            clients = self._door.connections or len(self._over_http) or len(self._jobs)
            if clients or any(busy) or over_http.in_flight or over_http.count > asked:
                active_s, asked = time.monotonic(), over_http.count
        self._stop.set()

    @property
    def _idle_limit_s(self) -> float:
        limit_s = self._settings.runtime_idle_s
        was_used = self._was_used or self._http_use.count
        return limit_s if was_used else min(limit_s, UNUSED_S)


def _memory_bytes() -> int | None:
    try:
        return int(psutil.Process().memory_info().rss)
    except OSError:  # too many files are open to look
        return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _kill(supervisor: Supervisor) -> None:
    """End every server without asking; their tasks then end by themselves."""
    for server in supervisor.servers.values():
        for pid in server.pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
