"""Definitions of tools, as servers list them, against what was approved: told, and kept from use.

What is known of a server says of each tool how it differs. Here stands what a call, a list that
passes, a reload and a person who asks make of that.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from octave.errors import OctaveError
from octave.gateway.listing import listing
from octave.gateway.shelf import Shelf
from octave.packages.definitions import difference
from octave.packages.offered import Offered
from octave.runtime import wire, worker
from octave.runtime.nesting import is_deeper, pruned
from octave.runtime.probe import LEVELS
from octave.runtime.server import Server

DIFF_LINES = 300
"""So much of a definition is compared when a call is refused; `octave approve` shows all."""


class Approving:
    """Of the servers of one runtime.

    Args:
        is_asking: whether a server, by name, is asked just now what it offers, or is about to be.
        refresh: asks a server, by name, what it offers; starts it if need be.
        warn: tells sentences of a server, those alone that it was not found to deserve before.
        changed: told of each server, by name, of which other tools are shown now.
    """

    def __init__(
        self,
        shelf: Shelf,
        is_asking: Callable[[str], bool],
        refresh: Callable[[str], Awaitable[object]],
        warn: Callable[[Server, Sequence[str]], None],
        changed: Callable[[str], None],
    ) -> None:
        self._shelf = shelf
        self._is_asking = is_asking
        self._refresh = refresh
        self._warn = warn
        self._changed = changed

    def is_current(self, server: Server) -> bool:
        """Whether the process that is up was asked what it offers, and says nothing new."""
        is_known = self._shelf.of(server).asked_of == process_of(server)
        return server.is_awake and is_known and not self._is_asking(server.name)

    async def settle(self, server: Server) -> None:
        """See to it that what the server offers now is known, where approvals decide about calls.

        Raises as `Catalogue.refresh` does.
        """
        if server.spec.approvals.blocks and not self.is_current(server):
            await self._refresh(server.name)

    async def passed(self, server: Server, line: bytes) -> None:
        """Look at an answer to `tools/list` that goes past what is known here, whole or a page."""
        known = self._shelf.of(server).listing
        if known is None or known.approvals.mode != "warn":
            return
        listed = wire.elements(wire.member(line, "result", "tools") or b"[]")
        if set(listed).difference(known.offered.tools):
            # As what is known was read: of what lies deeper no client makes anything.
            read = (pruned(each, LEVELS) if is_deeper(each, LEVELS) else each for each in listed)
            page = Offered(b"{}", {"tools": tuple(read)})
            found = await worker.run(listing, server.name, page, known.filter, known.approvals)
            self._warn(server, (*self._shelf.of(server).warned, *found.news))

    async def elsewhere(self, server: Server, asked: object) -> list[str]:
        """Return what is to be told of the tools of the other era's process, if that is up.

        `asked` is the process that was asked already. Where tools are blocked nobody is shown
        definitions of another process, so that nothing is hidden by what this one finds.
        """
        spec, told = server.spec, list[str]()
        if spec.approvals.mode == "allow" or spec.approvals.tools is None:
            return told
        warns = replace(spec.approvals, mode="warn")
        for each in server.serving:
            if each is asked or each.role.owner is not None or each.state != "ready":
                continue
            with contextlib.suppress(OctaveError):
                found = await each.exchange.ask()
                read = await worker.run(listing, server.name, found, spec.tools, warns)
                told += [f"to clients of the {each.era} era, {text}" for text in read.news]
        return told

    def respecified(self, servers: Mapping[str, Server]) -> None:
        """Look at `servers` anew, by name: others may be approved now, and others hidden."""
        for name, server in servers.items():
            kept = self._shelf.of(server)
            hidden = frozenset(kept.listing.held if kept.listing else ())
            if hidden != kept.hidden:
                kept.hidden = hidden
                self._changed(name)

    async def difference(self, server: Server, tool: str) -> list[str]:
        """Return the lines of a diff of a tool's definition: as approved, and as it is."""
        known = self._shelf.of(server).listing
        definition = None if known is None else known.definition_of(tool)
        before = self._shelf.approved_text(server, tool)
        return await worker.run(difference, before, definition, DIFF_LINES)


def process_of(server: Server) -> object:
    """Return what is another one for each process that a server is asked through."""
    return server.asker, server.asker.pid
