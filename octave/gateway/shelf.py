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
from octave.packages import offered as offered_file
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
        key, shown = (spec.version, spec.digest), spec.tools
        if kept is None or kept.key != key:
            found = offered_file.load(self._path_of(server.name), *key)
            kept = Kept(key, listing(server.name, found, shown) if found else None)
            server.offered = found
            if self.has(server):
                self._kept[server.name] = kept
        elif kept.listing is not None and kept.listing.filter != shown:
            kept.listing = listing(server.name, kept.listing.offered, shown)
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
        server.offered = new.offered

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
            path = self._path_of(server.name)
            save = partial(offered_file.save, path, kept.listing.offered, *kept.key)
            try:
                # Writing it safely takes tens of milliseconds, during which no call would move.
                await worker.run(save)
            except OSError as error:
                _log.warning("cannot keep the lists of `%s`: %s", server.name, error)
            except BaseException:
                kept.is_saved = False
                raise


def _with_what_was_learned(new: Offered, known: Offered) -> Offered:
    """Return `new` with what was found out since the server was asked."""
    discover = new.discover if new.eras == known.eras else known.discover
    return replace(new, eras=known.eras, discover=discover, asks=new.asks or known.asks)
