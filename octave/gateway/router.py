"""Which server a message is for, and what its names are called there.

A name tells its server, whose table, built with the lists, has what it is called there. What is
asked of an aggregated face and belongs to no server, or to two, is refused by naming what is there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from octave.errors import (
    Ambiguous,
    NotFound,
    ServerNotFound,
    ToolNotFound,
    UsageError,
    did_you_mean,
)
from octave.gateway import bridge
from octave.gateway.audience import LIST_CHANGES, Audience, Scope
from octave.gateway.catalogue import Catalogue
from octave.gateway.listing import Entry, Listing, Table, require_approved, text_of, uris_in
from octave.gateway.naming import server_in
from octave.packages.definitions import Finding
from octave.runtime import wire
from octave.runtime.handshake import Era
from octave.runtime.server import Server
from octave.runtime.subject import Speaker
from octave.runtime.supervisor import Supervisor

SEEN_LIMIT = 10_000
"""Of URIs that are remembered; the oldest go. A model reads what it was just told of."""

_BY_URI = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})


class Route(msgspec.Struct, frozen=True):
    """Where a request goes, and the values that are called otherwise there."""

    server: Server
    changes: Mapping[wire.Path, bytes]


class Router:
    """Finds the server for what is asked by name, URI or reference."""

    def __init__(self, supervisor: Supervisor, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.audience = Audience()
        self._supervisor = supervisor
        self._seen: dict[str, str] = {}
        """Servers by the URIs that they named in results, the latest last."""
        self._notices: dict[str, dict[str, bytes]] = {}
        catalogue.on_changed = self._changed
        supervisor.on_moved = self.audience.moved

    def heard(self, speaker: Speaker, message: wire.Message) -> None:
        """Take a notification of a server: for the supervisor's `on_notification`."""
        method = message.method or ""
        lists = LIST_CHANGES.get(method)
        if lists is None:
            self.audience.heard(speaker, message)
        elif speaker.name in self._supervisor.servers:
            self._notices.setdefault(speaker.name, {})[method] = bridge.untagged(message)
            self.catalogue.noticed(speaker.name, lists)

    def _changed(self, server: str, lists: frozenset[str]) -> None:
        # In the server's own words, where it said so itself.
        self.audience.lists_changed(server, lists, self._notices.pop(server, {}))

    def names(self, scope: Scope) -> list[str]:
        """Return the servers of the scope that exist, in the order of their lists."""
        there = self._supervisor.servers
        return [
            name for name in (there if scope.servers is None else scope.servers) if name in there
        ]

    def all_servers(self) -> list[Server]:
        """Return every server there is."""
        return list(self._supervisor.servers.values())

    def server(self, name: str) -> Server:
        """Return the server of that name.

        Raises:
            ServerNotFound: there is none.
        """
        found = self._supervisor.servers.get(name)
        if found is None:
            raise ServerNotFound(
                f"no server `{name}`",
                hint=did_you_mean(name, self._supervisor.servers) or f"octave install {name}",
            )
        return found

    def saw(self, server: str, answer: bytes) -> None:
        """Remember which resources a server named in its answer to a call, a line.

        Templates and lists need not show them, so nothing else would lead there.
        """
        for uri in uris_in(answer):
            self._seen.pop(uri, None)
            self._seen[uri] = server
            if len(self._seen) > SEEN_LIMIT:
                del self._seen[next(iter(self._seen))]

    async def reach(self, server: Server, era: Era) -> None:
        """Find out what must be known of the server before a request of `era` can cross to it.

        Raises as `Catalogue.refresh` does.
        """
        if era == "modern":
            await self.know_eras(server)
        elif server.offered is None:
            await self.catalogue.refresh(server.name)

    def route_now(self, scope: Scope, method: str, params: bytes | None) -> Route | None:
        """Return where a request goes whose name is in the lists already; None: `route` knows."""
        kind = {"tools/call": "tool", "prompts/get": "prompt"}.get(method)
        name = None if kind is None else text_of(params, "name")
        if kind is None or name is None:
            return None
        server = server_in(name)
        known = self.catalogue.listing(server) if scope.includes(server) else None
        found = () if known is None else _table(known, kind).get(name, ())
        if len(found) != 1 or known is None:
            return None
        if known.approvals.blocks and kind == "tool":
            if not self.catalogue.approving.is_current(self.server(server)):
                return None
            require_approved(found[0])
        return self._to(found[0], ("name",))

    async def _approved(self, entry: Entry) -> Entry:
        """Return the entry of a tool as its server offers it now, if it may be called."""
        await self.catalogue.approving.settle(self.server(entry.server))
        known = self.catalogue.listing(entry.server)
        if known is None or not known.approvals.blocks:
            return entry
        now = known.entry_of(entry.name)
        if now is None:
            raise ToolNotFound(f"`{entry.server}` has no tool `{entry.name}` any more")
        require_approved(now)
        return now

    async def know_eras(self, server: Server) -> None:
        """Find out which eras the server speaks, unless that is known.

        Raises as `Catalogue.know_eras` does.
        """
        await self.catalogue.know_eras(server.name)

    async def listings(self, scope: Scope) -> list[Listing]:
        """Return what the servers of the scope offer; one that cannot be asked is left out."""
        return await self.catalogue.gather(self.names(scope))

    async def route(self, scope: Scope, method: str, params: bytes | None) -> Route | None:
        """Return where a request at an aggregated face goes; None for a method without a target.

        Raises:
            NotFound: no server offers what is named, or (Ambiguous) several do.
            NotApproved: it is a tool that is blocked, as it is not as it was approved.
            UsageError: nothing is named.
        """
        if method == "tools/call":
            return await self._by_name(scope, "tool", params, ("name",))
        if method == "prompts/get":
            return await self._by_name(scope, "prompt", params, ("name",))
        if method in _BY_URI:
            return await self._by_uri(scope, _needed(params, "uri"))
        if method == "completion/complete":
            if text_of(params, "ref", "type") == "ref/prompt":
                return await self._by_name(scope, "prompt", params, ("ref", "name"))
            return await self._by_uri(scope, _needed(params, "ref", "uri"))
        return None

    async def merged_tools(
        self, servers: Sequence[str] | None = None
    ) -> list[tuple[str, bytes, str | None, Finding | None]]:
        """Return server and raw definition of every tool of `servers` (None: all), as listed.

        Third, the words that follow its name, why an aggregated face does not show it; last, how
        it differs from what was approved; or None.

        Raises:
            ServerNotFound: one of `servers` does not exist.
            OctaveError: the only one asked for cannot be started.
        """
        for name in servers or ():
            self.server(name)
        if servers is not None and len(servers) == 1 and self.catalogue.get(servers[0]) is None:
            await self.catalogue.refresh(servers[0])
        known = await self.listings(Scope(None if servers is None else tuple(servers)))
        # An item that is no object has no name to be called by.
        return [
            (each.server, tool, each.problems.get(position), each.unapproved.get(position))
            for each in known
            for position, tool in enumerate(each.offered.tools)
            if tool.startswith(b"{") and position not in each.denied
        ]

    async def find_tool(self, name: str, server: str | None = None) -> tuple[str, str]:
        """Return the server and its own name of the tool that `name` means.

        `name` is the server's own, or the qualified one of an aggregated face.

        Raises:
            ServerNotFound: `server` does not exist.
            ToolNotFound: no server, or not `server`, offers it; the hint names similar tools.
            NotApproved: its definition is another than was approved, and that blocks it.
            Ambiguous: several servers do; `details` hold their names under `servers`.
            OctaveError: `server` cannot be started.
        """
        if server is not None:
            self.server(server)
            if self.catalogue.get(server) is None:
                await self.catalogue.refresh(server)
        known = await self.listings(Scope(None if server is None else (server,)))
        entries = [entry for each in known for twins in each.tools.values() for entry in twins]
        found = _named([each.tools for each in known], name)
        own = [entry for entry in entries if entry.name == name]
        # Within one server its own names come first, among all the qualified ones do.
        matches = (own or found) if server is not None else (found or own)
        if not matches:
            where = "" if server is None else f" of `{server}`"
            shown = [entry.name for entry in entries]
            raise ToolNotFound(f"unknown tool `{name}`{where}", hint=did_you_mean(name, shown))
        entry = await self._approved(_only("tool", name, matches))
        return entry.server, entry.name

    async def _by_name(
        self, scope: Scope, kind: str, params: bytes | None, path: wire.Path
    ) -> Route:
        name = _needed(params, *path)
        server = server_in(name)
        is_there = server in self.names(scope)
        known = self.catalogue.listing(server) if is_there else None
        matches = [] if known is None else _named([_table(known, kind)], name)
        tables: list[Table] = []
        if not matches:
            if is_there and known is None:
                # If it cannot be asked, that is the answer.
                await self.catalogue.refresh(server)
            tables = [_table(each, kind) for each in await self.listings(scope)]
            matches = _named(tables, name)
        if not matches:
            candidates = [key for table in tables for key in table]
            error = ToolNotFound if kind == "tool" else NotFound
            raise error(f"unknown {kind} `{name}`", hint=did_you_mean(name, candidates))
        entry = _only(kind, name, matches)
        return self._to(await self._approved(entry) if kind == "tool" else entry, path)

    def _to(self, entry: Entry, path: wire.Path) -> Route:
        return Route(self.server(entry.server), {("params", *path): entry.name_json})

    async def _by_uri(self, scope: Scope, uri: str) -> Route:
        known = await self.listings(scope)
        # For completion a template is named by its very text.
        owners = (
            [each.server for each in known if uri in each.resources]
            or [each.server for each in known if uri in each.template_texts]
            or [each.server for each in known if each.has_template_for(uri)]
        )
        seen = self._seen.get(uri)
        if not owners and seen is not None and scope.includes(seen):
            owners = [seen]
        if not owners:
            owners = [each.server for each in known if "resources" in each.offered.lists]
            if len(owners) != 1:
                raise NotFound(f"unknown resource `{uri}`", details={"uri": uri})
        if len(owners) == 1:
            return Route(self.server(owners[0]), {})
        raise Ambiguous(
            f"resource `{uri}` is offered by {_enumerated(owners)}",
            hint="use the endpoint of one of them",
            details={"uri": uri, "servers": owners},
        )


def _needed(params: bytes | None, *path: str) -> str:
    found = text_of(params, *path)
    if found is None:
        raise UsageError(f"`params.{'.'.join(path)}` is missing, or not a string")
    return found


def _table(known: Listing, kind: str) -> Table:
    return known.tools if kind == "tool" else known.prompts


def _named(tables: Iterable[Table], name: str) -> list[Entry]:
    return [entry for table in tables for entry in table.get(name, ())]


def _only(kind: str, name: str, matches: Sequence[Entry]) -> Entry:
    if len(matches) == 1:
        return matches[0]
    servers = list(dict.fromkeys(entry.server for entry in matches))
    if len(servers) == 1:
        owners = _enumerated(json.dumps(entry.name) for entry in matches)
        raise Ambiguous(f"{kind} `{name}` of `{servers[0]}` may be {owners}")
    raise Ambiguous(
        f"{kind} `{name}` is offered by {_enumerated(servers)}",
        hint=f"name the server, for example `{servers[0]}`",
        details={"servers": servers},
    )


def _enumerated(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
