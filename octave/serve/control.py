"""What one can ask of a runtime, each operation once; the socket and the HTTP API share them.

Plain functions over the supervisor and the router. Definitions and results stay the bytes that the
server wrote. Whatever cannot be done is an `OctaveError`.
"""

import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec

from octave.errors import CallTimedOut, NotApproved, OctaveError, UsageError
from octave.gateway import bridge, schemas
from octave.gateway.eras import Envelope
from octave.gateway.listing import text_of
from octave.gateway.naming import qualified
from octave.gateway.router import Router
from octave.packages.launch import LaunchSpec
from octave.runtime import wire, worker
from octave.runtime.exchange import OtherEra
from octave.runtime.handshake import CLIENT_INFO, Opening
from octave.runtime.questions import Caller
from octave.runtime.server import Server, Visitor
from octave.runtime.supervisor import Result, Supervisor, is_same_launch

OnProgress = Callable[[bytes], None]
"""Takes the raw params of one progress notification; must neither block nor raise."""

_NOBODY = Visitor("legacy", Caller(), can_answer=False, opening=Opening())
_REQUEST_ID = 1
"""Only links the line below to its progress; the server sees an id of the connection's own."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to be called."""

    tool: str
    """The server's own name for it, or the qualified one."""
    arguments: bytes = b"{}"
    """A raw JSON object, passed on as it is."""
    server: str | None = None
    """None: whichever server offers it."""
    timeout_s: float | None = None
    """From now to the answer, starting the server included; None: the server's own limits."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the operations need of the process around them."""

    specs: Callable[[], Iterable[LaunchSpec]]
    """Reads the manifest and the records anew; blocks, for as long as a keyring asks a person."""
    describe: Callable[[], dict[str, object]]
    """The `runtime` part of `status`."""
    shut_down: Callable[[], None]
    """Begins the ordered stop and returns at once."""
    profiles: Callable[[], Mapping[str, tuple[str, ...]]] = dict
    """Reads those of the manifest anew, with the servers of each."""


class Control:
    """The operations of one runtime."""

    def __init__(self, supervisor: Supervisor, router: Router, runtime: Runtime) -> None:
        self._supervisor = supervisor
        self._router = router
        self._runtime = runtime
        self._reloading = anyio.Lock()

    async def status(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return ``{"runtime", "servers"}`` as FORMATS has it, for all servers when none is named.

        Raises:
            ServerNotFound: one of `names` does not exist.
        """
        for name in names:
            self._router.server(name)
        servers = await self._supervisor.snapshot(names or None)
        for server in servers:
            known = self._router.catalogue.listing(server["name"])
            figures = self._router.server(server["name"]).figures
            server["tools"] = None if known is None else len(known.offered.tools)
            server["unapproved"] = None if known is None else len(known.unapproved)
            server |= {"lastMs": figures.last_ms, "averageMs": figures.average_ms}
        return {"runtime": self._runtime.describe(), "servers": servers}

    async def start(self, names: Sequence[str], *, every: bool = False) -> dict[str, Any]:
        """Start servers and wait until each is ready; ``{"results", "tookSeconds"}``."""
        return await self._several(self._supervisor.start, names, every=every)

    async def stop(self, names: Sequence[str], *, every: bool = False) -> dict[str, Any]:
        """Stop servers until they are started by name; ``{"results", "tookSeconds"}``."""
        return await self._several(self._supervisor.stop, names, every=every)

    async def restart(self, names: Sequence[str], *, every: bool = False) -> dict[str, Any]:
        """Give servers a fresh process; ``{"results", "tookSeconds"}``."""
        return await self._several(self._supervisor.restart, names, every=every)

    async def reload(self) -> dict[str, list[str]]:
        """Read the manifest anew; ``{"added", "removed", "changed"}`` names of servers.

        Raises:
            OctaveError: it cannot be read, or is not trusted; nothing has changed then.
        """
        return await self._reload()

    async def swap(self, name: str) -> dict[str, Any]:
        """Have a server run what manifest and lockfile mean by now, without a gap.

        Where it is up the new process is up before the old one goes. Returns ``{"name", "status",
        "pid"}``.

        Raises:
            ServerNotFound: there is none of that name.
            ManifestError, NotTrusted: nothing has changed.
            OctaveError: the new process does not become ready; the old one serves on.
        """
        if name not in self._supervisor.servers:
            # The manifest was edited, and nobody told the runtime.
            await self._reload()
        server = self._router.server(name)
        spec = next((each for each in await self._specs() if each.name == name), server.spec)
        profiles, swapped = self._runtime.profiles(), list[str]()
        if not is_same_launch(server.spec, spec):
            await self._supervisor.swap(spec)
            swapped.append(name)
        # Who asked for it may leave; whoever is served by it must know all the same.
        with anyio.CancelScope(shield=True):
            try:
                await self._reload(swapped)
            except OctaveError:
                if not swapped:
                    raise
                # Edited badly meanwhile: what was asked for is done all the same.
                self._reloaded({"added": [], "removed": [], "changed": swapped}, profiles)
        return {"name": name, "status": server.state, "pid": server.pid}

    async def _reload(self, swapped: Iterable[str] = ()) -> dict[str, list[str]]:
        async with self._reloading:
            profiles = self._runtime.profiles()
            touched = await self._supervisor.reload(await self._specs())
            touched["changed"] += [name for name in swapped if name not in touched["changed"]]
        self._reloaded(touched, profiles)
        return touched

    def _reloaded(
        self, touched: Mapping[str, Sequence[str]], profiles: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._router.catalogue.approving.respecified(self._supervisor.servers)
        audience = self._router.audience
        for name in touched["added"]:
            self._router.server(name).asker.interests.level = audience.most_verbose(name)
        audience.reloaded(touched, profiles)

    async def _specs(self) -> Iterable[LaunchSpec]:
        # In a thread: secrets among the arguments are looked up for it.
        return await worker.run_apart(self._runtime.specs)

    async def tools(self, server: str | None = None, *, fresh: bool = False) -> bytes:
        """Return a raw JSON array of ``{"server", "qualifiedName", ...the definition}``.

        Before the definition stand `_problem`, why AI tools are not shown it, and `_approval`, how
        it differs from what was approved ("new", "changed", "annotations", "unreadable"), where
        that is so.
        With `fresh` the `server` is asked now, whatever is known of it.

        Raises:
            ServerNotFound: `server` does not exist.
            OctaveError: `server` cannot be started.
        """
        if fresh and server is not None:
            self._router.server(server)
            await self._router.catalogue.refresh(server)
        found = await self._router.merged_tools(None if server is None else [server])
        return _array(
            _with_members(
                tool if problem is None else schemas.readable(tool),
                {"server": name, "qualifiedName": qualified(name, text_of(tool, "name") or "")}
                | ({} if problem is None else {"_problem": problem})
                | ({} if finding is None else {"_approval": finding}),
                first=True,
            )
            for name, tool, problem, finding in found
        )

    async def api_tools(self) -> bytes:
        """Return the same as ``{"tools": [...]}`` with `_serverId` and `_serverName` at the end."""
        servers = self._supervisor.servers
        tools = _array(
            _with_members(
                tool, {"_serverId": name, "_serverName": servers[name].spec.title or name}
            )
            for name, tool, _, finding in await self._router.merged_tools()
            if finding is None or not servers[name].spec.approvals.blocks
        )
        return b'{"tools":%b}' % tools

    async def call(self, call: Call, on_progress: OnProgress | None = None) -> bytes:
        """Call a tool, starting its server if need be, and return the raw result.

        A result with `isError` is a result.

        Raises:
            NotFound: no server, or more than one, offers the tool.
            StartFailed, ServerDied, ServerBusy, NotRunning: the server could not answer.
            CallTimedOut: nor did it within the time allowed; the call is cancelled.
            OctaveError: it answered with a JSON-RPC error, which `details` hold under `answer`.
        """
        with anyio.move_on_after(call.timeout_s):
            return await self._call(call, on_progress)
        raise CallTimedOut(
            f"`{call.tool}` did not answer within {call.timeout_s:g} s",
            hint="allow more time with `--timeout`",
        )

    async def shutdown(self) -> dict[str, Any]:
        """Begin the ordered stop of the runtime; ``{}``."""
        self._runtime.shut_down()
        return {}

    async def _call(self, call: Call, on_progress: OnProgress | None) -> bytes:
        try:
            server, tool = await self._router.find_tool(call.tool, call.server)
        except NotApproved as error:
            refused = self._router.server(error.details["server"])
            approving = self._router.catalogue.approving
            error.details["diff"] = await approving.difference(refused, error.details["tool"])
            raise
        params = b'{"name":%b,"arguments":%b}' % (json.dumps(tool).encode(), call.arguments)
        if on_progress is not None:
            params = b'%b,"_meta":{"progressToken":%d}}' % (params[:-1], _REQUEST_ID)
        message = wire.decode(wire.request(_REQUEST_ID, "tools/call", params))

        def heard(line: bytes) -> None:
            told = wire.decode(line).params
            if on_progress is not None and told is not None:
                on_progress(told)

        answer = await self._asked(self._router.server(server), message, Caller(on_message=heard))
        result: bytes | None = answer.result
        if result is None:
            raise _refused(server, tool, answer.error or b"{}")
        if bridge.is_input_required(result):
            raise OctaveError(
                f"`{tool}` of `{server}` asks its client something, which cannot be answered here",
                hint="call it from an AI tool",
            )
        return result

    async def _asked(self, server: Server, message: wire.Message, caller: Caller) -> wire.Message:
        """Return the answer as it came, whichever era the server speaks."""
        await self._router.reach(server, "legacy")
        while True:
            instance = server.instance_for(_NOBODY)
            if not instance.is_era_known:
                await instance.exchange.reach(message, caller)
            era, written = instance.era, message
            if era == "modern":
                written = bridge.to_modern_request(message, Envelope(b"{}", CLIENT_INFO, None))
            with contextlib.suppress(OtherEra):
                return await instance.exchange.forward(written, {}, caller, era)

    async def _several(
        self,
        work: Callable[[Sequence[str]], Awaitable[list[Result]]],
        names: Sequence[str],
        *,
        every: bool,
    ) -> dict[str, Any]:
        if not names and not every:
            raise UsageError("no server is named", hint="name one, or say `--all`")
        began_s = time.monotonic()
        results = await work(list(self._supervisor.servers) if every else names)
        return {"results": results, "tookSeconds": round(time.monotonic() - began_s, 3)}


def _refused(server: str, tool: str, error: bytes) -> OctaveError:
    text = text_of(error, "message") or "no reason given"
    try:
        details = {"answer": json.loads(error)}
    except (ValueError, RecursionError):
        details = {}
    return OctaveError(f"`{server}` refused to run `{tool}`: {text}", details=details)


def _array(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _with_members(text: bytes, members: dict[str, str], *, first: bool = False) -> bytes:
    """Return the JSON object `text`, every byte kept, with `members` before or after its own."""
    added = msgspec.json.encode(members)[1:-1]
    body = text.strip()[1:-1]
    if not body.strip():
        return b"{%b}" % added
    return b"{%b,%b}" % ((added, body) if first else (body, added))
