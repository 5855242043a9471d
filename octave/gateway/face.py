"""What a client sees: one server as if nothing stood between, or several as if they were one.

A face answers what needs no server, and says for all else which server it is for. Both eras see the
same; greetings and lists come from the catalogue where a server sleeps.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import anyio
import msgspec

from octave import __version__
from octave.errors import OctaveError, ToolNotFound, UsageError
from octave.gateway import bridge, capabilities
from octave.gateway.audience import LIST_CHANGES, Scope
from octave.gateway.catalogue import announces_changes
from octave.gateway.crossing import Crossing
from octave.gateway.eras import MODERN_VERSIONS, SERVER_INFO_KEY
from octave.gateway.listing import Listing, refuse_denied, require_approved, shown, text_of
from octave.gateway.request import Request
from octave.gateway.router import Route, Router
from octave.gateway.tasks import Tasks
from octave.packages.offered import LISTS
from octave.runtime import wire
from octave.runtime.server import Server

KINDS: Mapping[str, str] = {method: kind for kind, method in LISTS.items()}
"""The key of `LISTS` for each method."""
LIST_PATIENCE_S = 2.0
"""So long a server that is up may take to list itself, before the catalogue answers for it."""
TTL_MS = 60_000
"""How long a list holds that changes are told of, for clients that keep lists."""

FILTER: Mapping[str, str] = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
"""What a modern client can listen to, and the notification it means (2026-07-28)."""
_CAPABILITY = {method: method.split("/")[1] for method in LIST_CHANGES}


class Face(Protocol):
    """The servers of one scope."""

    async def initialize(self, version: bytes) -> bytes:
        """Return the raw result of `initialize` at the protocol version, which is raw JSON."""

    async def discover(self, request: Request) -> bytes:
        """Return the raw result of `server/discover`."""

    async def listed(self, request: Request, kind: str) -> bytes | None:
        """Return the answer's line for a list (key of `LISTS`); None: a server has to say."""

    async def route(self, request: Request) -> Route | None:
        """Return where a request goes; None for a method without a target."""

    def route_now(self, request: Request) -> Route | None:
        """Return the same where nothing has to be found out for it; else None."""

    def saw(self, server: str, answer: bytes) -> None:
        """Take notice of what a server answered to a call, as a line."""

    def concerns(self, server: str, message: wire.Message) -> bool:
        """Whether what a server said of itself is for the client, if it is no log line."""

    async def listenable(self, methods: Iterable[str]) -> frozenset[str]:
        """Return those of `methods` (keys of `LIST_CHANGES`) that are told of here."""

    def servers(self) -> list[Server]:
        """Return the servers of the scope that exist."""


class SingleFace:
    """One server."""

    def __init__(self, router: Router, scope: Scope, crossing: Crossing) -> None:
        (self._name,) = scope.servers or ()
        self._router = router
        self._scope = scope
        self._crossing = crossing

    async def initialize(self, version: bytes) -> bytes:
        """Return what the server answered, at the version asked for."""
        catalogue = self._router.catalogue
        offered = catalogue.get(self._name) or await catalogue.refresh(self._name)
        return wire.splice(offered.initialize, {("protocolVersion",): version})

    async def discover(self, request: Request) -> bytes:
        """Return what the server answers, or what its `initialize` comes to in this era."""
        server, catalogue = self._server(), self._router.catalogue
        await self._router.know_eras(server)
        offered = catalogue.get(self._name) or await catalogue.refresh(self._name)
        if offered.discover is None and "modern" in offered.eras:
            instance = self._crossing.instance(request, server)
            discovered = await instance.exchange.greeting()
            if instance.era == "modern":
                catalogue.discovered(self._name, discovered)
                return discovered
            # It has turned out to lack that era.
            offered = catalogue.get(self._name) or offered
        return offered.discover or bridge.as_discover(offered.initialize)

    async def listed(self, request: Request, kind: str) -> bytes | None:
        """Let the server say itself while it is up; else say what is known of it."""
        server = self._server()
        known = self._router.catalogue.listing(self._name)
        has_cursor = _has_cursor(request)
        approvals = server.spec.approvals
        if kind == "tools" and approvals.blocks and server.is_awake:
            await self._router.catalogue.approving.settle(server)
        if known is None and not (server.spec.tools.is_open and not approvals.blocks):
            await self._router.catalogue.refresh(self._name)
            known = self._router.catalogue.listing(self._name)
        if known is None or kind not in known.offered.lists:
            return None
        is_cut = known.is_cut(kind)
        if is_cut and has_cursor:
            raise UsageError("`params.cursor` is unknown: the list is one page")
        if not is_cut and (has_cursor or self._crossing.instance(request, server).state == "ready"):
            # Where it cannot, what is known of it is better than nothing.
            with anyio.move_on_after(LIST_PATIENCE_S), contextlib.suppress(OctaveError):
                line = await self._crossing.over(request, server, {})
                if kind == "tools":
                    await self._router.catalogue.approving.passed(server, line)
                return line
        await self._router.listings(self._scope)
        known = self._router.catalogue.listing(self._name) or known
        return request.result(_list_result(request, kind, known.shown(kind), [known]))

    async def route(self, request: Request) -> Route | None:
        """Return the server, whatever is asked."""
        if request.method == "tools/call":
            await self._router.catalogue.approving.settle(self._server())
        return self._route(request, self._server())

    def route_now(self, request: Request) -> Route | None:
        """Return the server, unless it has to be asked first what it offers now."""
        server = self._server()
        if request.method == "tools/call" and server.spec.approvals.blocks:
            is_current = self._router.catalogue.approving.is_current(server)
            return self._route(request, server) if is_current else None
        return self._route(request, server)

    def _route(self, request: Request, server: Server) -> Route:
        blocks = server.spec.approvals.blocks
        if request.method != "tools/call" or (server.spec.tools.is_open and not blocks):
            return Route(server, {})
        refuse_denied(server.name, server.spec.tools, request.params)
        if blocks:
            self._refuse_unapproved(text_of(request.params, "name"))
        name = wire.member(request.params, "name")
        # Given twice, one of the names may be of another tool: the server must see but this one.
        return Route(server, {} if name is None else {("params", "name"): name})

    def _refuse_unapproved(self, name: str | None) -> None:
        known = self._router.catalogue.listing(self._name)
        entry = None if name is None or known is None else known.entry_of(name)
        if name is not None and entry is None:
            # Listed or not, a server may run it: nobody has seen what it says it does.
            raise ToolNotFound(
                f"`{self._name}` lists no tool {shown(name)}", hint=f"octave tools {self._name}"
            )
        if entry is not None:
            require_approved(entry)

    def saw(self, server: str, answer: bytes) -> None:
        """Do nothing: there is but one server."""

    def concerns(self, server: str, message: wire.Message) -> bool:
        """Tell that it is for the client, as everything that the server says."""
        return True

    async def listenable(self, methods: Iterable[str]) -> frozenset[str]:
        """Return those that the server promises."""
        catalogue = self._router.catalogue
        offered = catalogue.get(self._name) or await catalogue.refresh(self._name)
        promised = offered.initialize
        return frozenset(
            method
            for method in methods
            if wire.member(promised, "capabilities", _CAPABILITY[method], "listChanged") == b"true"
        )

    def servers(self) -> list[Server]:
        """Return the one."""
        return [self._server()]

    def _server(self) -> Server:
        return self._router.server(self._name)


class MergedFace:
    """Several servers, or all, in one list each."""

    def __init__(self, router: Router, scope: Scope) -> None:
        self._router = router
        self._scope = scope
        self._tasks = Tasks()

    async def initialize(self, version: bytes) -> bytes:
        """Return what all of them have, without waiting for those that were never asked."""
        merged = self._merged()
        return msgspec.json.encode({"protocolVersion": msgspec.Raw(version), **merged})

    async def discover(self, request: Request) -> bytes:
        """Return the same in the words of the other era."""
        merged = self._merged()
        meta = {SERVER_INFO_KEY: merged.pop("serverInfo")}
        return msgspec.json.encode(
            {
                "resultType": "complete",
                "supportedVersions": MODERN_VERSIONS,
                **merged,
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": meta,
            }
        )

    async def listed(self, request: Request, kind: str) -> bytes | None:
        """Return all there is, in one page."""
        if _has_cursor(request):
            raise UsageError("`params.cursor` is unknown: every list is one page")
        known = await self._router.listings(self._scope)
        items = (item for each in known for item in each.definitions(kind))
        return request.result(_list_result(request, kind, items, known))

    async def route(self, request: Request) -> Route | None:
        """Return the server that has what is named."""
        task = text_of(request.params, "taskId") if request.method.startswith("tasks/") else None
        if task is not None:
            return Route(self._router.server(self._tasks.server_of(task)), {})
        return await self._router.route(self._scope, request.method, request.message.params)

    def route_now(self, request: Request) -> Route | None:
        """Return the server that is known to have it."""
        return self._router.route_now(self._scope, request.method, request.message.params)

    def saw(self, server: str, answer: bytes) -> None:
        """Remember what the server named: later it may be asked for by its name alone."""
        self._router.saw(server, answer)
        self._tasks.saw(server, answer)

    def concerns(self, server: str, message: wire.Message) -> bool:
        """Whether it is about a task of the client; the rest may be about anything."""
        is_about_task = (message.method or "").startswith("notifications/tasks")
        return is_about_task and self._tasks.is_of(server, text_of(message.params, "taskId"))

    async def listenable(self, methods: Iterable[str]) -> frozenset[str]:
        """Return all: servers come and go."""
        return frozenset(methods)

    def servers(self) -> list[Server]:
        """Return all of the scope."""
        return [self._router.server(name) for name in self._router.names(self._scope)]

    def _merged(self) -> dict[str, object]:
        instructions: list[str] = []
        can: list[bytes] = []
        listings = map(self._router.catalogue.listing, self._router.names(self._scope))
        for each in listings:
            if each is None:
                continue
            initialize = each.offered.initialize
            can.append(wire.member(initialize, "capabilities") or b"{}")
            text = text_of(initialize, "instructions")
            if text:
                instructions.append(f"## {each.server}\n{text}")
        merged: dict[str, object] = {
            "capabilities": msgspec.Raw(capabilities.union(can)),
            "serverInfo": {"name": "octave", "title": "Octave", "version": __version__},
        }
        if instructions:
            merged["instructions"] = "\n\n".join(instructions)
        return merged


def face(router: Router, scope: Scope, crossing: Crossing) -> Face:
    """Return the face of a scope."""
    return SingleFace(router, scope, crossing) if scope.single else MergedFace(router, scope)


def _has_cursor(request: Request) -> bool:
    # Some clients write every member that they could have.
    return wire.member(request.params, "cursor") not in {None, b"null"}


def _list_result(
    request: Request, kind: str, items: Iterable[bytes], known: Iterable[Listing]
) -> bytes:
    result = b'{"%b":[%b]}' % (kind.encode(), b",".join(items))
    if request.era == "legacy":
        return result
    told = all(announces_changes(each.offered) for each in known)
    return bridge.to_modern_result(request.method, result, TTL_MS if told else 0)
