"""What is known of each server, in memory and on disk, of the version that is to run.

Who is listed and called reads here; what is read anew is put here, unless the server was replaced
meanwhile. Of one that is there no more nothing is kept.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from octave.errors import NotRunning
from octave.gateway.listing import Listing, listing
from octave.packages import approvals as approvals_file
from octave.packages import offered as offered_file
from octave.packages.definitions import Approved, pins_of
from octave.packages.offered import Offered
from octave.runtime import worker
from octave.runtime.server import Server

_log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Version and digest."""


@dataclass(slots=True)
class Kept:
    """What is known of one server. Times are in seconds, as the clock of whoever notes them."""

    key: Key
    listing: Listing | None
    asked_at_s: float = float("-inf")
    warned: frozenset[str] = frozenset()
    """What the last look found to be wrong."""
    wanted_at_s: float | None = None
    """When somebody first waited for it, while there were no lists."""
    noticed_at_s: float = float("-inf")
    """When it was last asked because it had said that a list changed."""
    is_saved: bool = True
    spec: object = None
    """Of the server, when it was last looked whether the rest still holds."""
    hidden: frozenset[int] = frozenset()
    """The tools that were held when listeners were last told of the lists."""
    asked_of: object = None
    """The process that was last asked."""


class Shelf:
    """What is known of the servers that there are.

    Args:
        servers: those, by name, as they are at each moment.
        path_of: where a server's lists are kept on disk.
    """

    def __init__(self, servers: Mapping[str, Server], path_of: Callable[[str], Path]) -> None:
        self._servers = servers
        self._path_of = path_of
        self._kept: dict[str, Kept] = {}

    def of(self, server: Server) -> Kept:
        """Return what is known of the server, which is told the same."""
        spec, kept = server.spec, self._kept.get(server.name)
        if kept is not None and kept.spec is spec and server.offered is not None:
            return kept
        key, shown, approvals = (spec.version, spec.digest), spec.tools, spec.approvals
        if kept is None or kept.key != key:
            found = offered_file.load(self._path_of(server.name), *key)
            new = listing(server.name, found, shown, approvals) if found else None
            kept = Kept(key, new, hidden=frozenset(new.held if new else ()))
            server.offered = found
            if self.has(server):
                self._kept[server.name] = kept
        elif kept.listing is not None and (kept.listing.filter, kept.listing.approvals) != (
            shown,
            approvals,
        ):
            kept.listing = listing(server.name, kept.listing.offered, shown, approvals)
        if server.offered is None and kept.listing is not None:
            server.offered = kept.listing.offered
        kept.spec = spec
        return kept

    def has(self, server: Server) -> bool:
        """Whether the server is still there."""
        return self._servers.get(server.name) is server

    def put(self, server: Server, key: Key, new: Listing, asked_at_s: float) -> None:
        """Keep what the server of that version said.

        Raises:
            NotRunning: it was replaced meanwhile.
        """
        kept, known = self.of(server), server.offered
        if kept.key != key or not self.has(server):
            raise NotRunning(f"`{server.name}` was replaced while it was asked", hint="try again")
        if known is not None:
            new = replace(new, offered=_with_what_was_learned(new.offered, known))
        kept.listing, kept.asked_at_s, kept.is_saved = new, asked_at_s, False
        kept.hidden = frozenset(new.held)
        # It was made with what the spec said when the server was asked.
        kept.spec = None
        server.offered = new.offered

    def settle(self, server: Server) -> None:
        """Let what is known of the server count as approved, if nothing was before.

        What blocks is approved by a person alone; where nothing is looked at, nothing counts.
        """
        known, approvals = self.of(server).listing, server.spec.approvals
        if known is None or approvals.tools is not None or approvals.mode != "warn":
            return
        approved = {pin.name: pin for pin in pins_of(known.offered.tools)}
        server.spec = replace(server.spec, approvals=replace(approvals, tools=approved))
        self.of(server).is_saved = False

    def amend(self, server: Server, **known: Any) -> bool:
        """Keep more of a server whose lists are known, as fields of `Offered`; else return False.

        Nothing is saved by it.
        """
        kept = self.of(server)
        if kept.listing is None:
            return False
        server.offered = replace(kept.listing.offered, **known)
        kept.listing = replace(kept.listing, offered=server.offered)
        kept.is_saved = False
        return True

    def approved_text(self, server: Server, tool: str) -> bytes | None:
        """Return the definition of a tool as it was approved; None where its text is not known.

        Reads a file.
        """
        spec = server.spec
        kept = approvals_file.texts(self._path_of(server.name), spec.version, spec.digest) or {}
        before, pin = kept.get(tool), (spec.approvals.tools or {}).get(tool)
        return before if before is not None and pins_of([before]) == (pin,) else None

    def forget(self, name: str) -> None:
        """Keep nothing in memory of a server that is there no more."""
        self._kept.pop(name, None)

    @property
    def unsaved(self) -> list[Server]:
        """The servers of which there is more in memory than on disk."""
        names = [name for name, kept in self._kept.items() if not kept.is_saved]
        return [self._servers[name] for name in names if name in self._servers]

    async def save(self, server: Server) -> None:
        """Write what is not on disk yet, as long as the server is there."""
        while self.has(server) and not (kept := self.of(server)).is_saved:
            kept.is_saved = True
            if kept.listing is None:
                return
            known, path = kept.listing, self._path_of(server.name)
            save = partial(_save, path, kept.key, known.offered, known.approvals.tools)
            # A server that is removed meanwhile leaves but what is being written.
            del kept, known
            try:
                # Writing it safely takes tens of milliseconds, during which no call would move.
                await worker.run(save)
            except OSError as error:
                _log.warning("cannot keep the lists of `%s`: %s", server.name, error)
            except BaseException:
                if self.has(server):
                    self.of(server).is_saved = False
                raise


def _save(path: Path, key: Key, offered: Offered, approved: Approved | None) -> None:
    if approved is not None:
        # Before the lists are written: else the old text of what has changed would be lost.
        approvals_file.keep(path, *key, approved, offered.tools)
    offered_file.save(path, offered, *key)


def _with_what_was_learned(new: Offered, known: Offered) -> Offered:
    """Return `new` with what was found out since the server was asked."""
    discover = new.discover if new.eras == known.eras else known.discover
    return replace(new, eras=known.eras, discover=discover, asks=new.asks or known.asks)
