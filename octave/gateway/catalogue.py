"""The lists of every server, in memory and on disk: a sleeping server still shows its tools.

A server is asked anew when it became ready, when it says that a list changed, and when it is awake,
never says so, and was last asked a while ago. Whoever listens is told which lists changed. One
server that cannot be asked takes away only its own items. What is wrong with the lists of a server
is a warning in its log.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from octave.errors import Bug, NotRunning, OctaveError, ServerNotFound, did_you_mean
from octave.gateway.approving import Approving, process_of
from octave.gateway.listing import Listing, listing
from octave.gateway.shelf import Kept, Key, Shelf
from octave.packages.offered import LISTS, Offered
from octave.runtime import wire, worker
from octave.runtime.instance import Instance
from octave.runtime.server import Server
from octave.runtime.supervisor import Supervisor

FIRST_LISTS_S = 5.0
"""How long a list waits for servers that must be asked first; the rest follows by list_changed."""
DEBOUNCE_S = 0.05
"""Servers send several list_changed in a row; one look answers them all."""
LOOKS_APART_S = 0.5
"""From one look for list_changed to the next: a server that never ceases to change is passed on,
but neither costs the processor nor has its clients read all the time."""
WARNINGS = 50
"""So many of one look at a server are written; whoever has more need not read them all."""
CAPABILITIES: Mapping[str, str] = {
    "tools": "tools",
    "prompts": "prompts",
    "resources": "resources",
    "resourceTemplates": "resources",
}
"""The capability under which a server announces each list (MCP 2025-11-25)."""

_log = logging.getLogger(__name__)

Changed = Callable[[str, frozenset[str]], None]
"""Takes a server's name and the keys of `LISTS` that changed; must neither block nor raise."""


@dataclass(slots=True)
class _Look:
    """One time a server is asked; everybody who wants the answer waits for the same."""

    server: Server
    noticed: set[str] = field(default_factory=set)
    listed: anyio.Event = field(default_factory=anyio.Event)
    """The lists are there; what else is to be known of the server follows."""
    done: anyio.Event = field(default_factory=anyio.Event)
    error: OctaveError | None = None


class Catalogue:
    """What each server of a supervisor offers.

    Of each server up to `probe.LISTS_BYTES` of items are kept, of each list up to `probe.ITEMS`;
    tools and prompts twice, as the server wrote them and under their qualified names.

    Args:
        path_of: where a server's lists are kept on disk.
        tool_cache_s: how long the lists of an awake server without list_changed hold.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        path_of: Callable[[str], Path],
        *,
        tool_cache_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_changed: Changed = lambda _server, _lists: None
        self._supervisor = supervisor
        self._shelf = Shelf(supervisor.servers, path_of)
        self._tool_cache_s = tool_cache_s
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._noticed: dict[str, set[str]] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self.approving = Approving(
            self._shelf,
            self._is_asking,
            self.refresh,
            self._warn,
            lambda server: self.on_changed(server, frozenset({"tools"})),
        )
        supervisor.on_learned = self.learned
        supervisor.on_removed = self._shelf.forget

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own every look at a server, until cancelled; what it learned is on disk then."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                try:
                    await anyio.sleep_forever()
                finally:
                    self._tasks = None
        finally:
            with anyio.CancelScope(shield=True):
                for server in self._shelf.unsaved:
                    await self._apart(self._shelf.save, server)

    def listing(self, name: str) -> Listing | None:
        """Return what is known of the server; None when it was never asked, or is not there."""
        server = self._supervisor.servers.get(name)
        if server is None:
            return None
        return self._shelf.of(server).listing

    def get(self, name: str) -> Offered | None:
        """Return what is known of the server, as it was received."""
        known = self.listing(name)
        return known.offered if known else None

    async def refresh(self, name: str) -> Offered:
        """Ask the server, starting it if need be, and return what it offers now.

        Callers at the same time share one look. A look goes on when its callers leave.

        Raises:
            ServerNotFound: no server of that name.
            OctaveError: it cannot be started or asked.
        """
        while True:
            look = self._begin(name)
            await look.listed.wait()
            if not self._is_overtaken(look):
                return self._found(name, look)

    def _is_overtaken(self, look: _Look) -> bool:
        """Whether another version has taken over since, of which nothing is known yet."""
        is_known = self.get(look.server.name) is not None
        return look.error is None and not is_known and self._shelf.has(look.server)

    def _is_asking(self, name: str) -> bool:
        look = self._looks.get(name)
        return name in self._noticed or (look is not None and not look.listed.is_set())

    async def know_eras(self, name: str) -> None:
        """Find out which eras the server speaks, starting it if need be, unless that is known.

        It stays unknown where it cannot be asked without harm. Raises as `refresh` does.
        """
        known, server = self.get(name), self._supervisor.servers.get(name)
        if known is not None and known.eras:
            return
        if known is not None and server is not None and server.is_awake:
            await server.asker.era_probe.learn()
            return
        while True:
            look = self._looks.get(name) or self._begin(name)
            await look.done.wait()
            if not self._is_overtaken(look):
                self._found(name, look)
                return

    def _found(self, name: str, look: _Look) -> Offered:
        found = self.get(name)
        if look.error is not None:
            raise look.error
        if found is None:
            raise NotRunning(f"`{name}` was replaced while it was asked", hint="try again")
        return found

    async def gather(self, names: Iterable[str]) -> list[Listing]:
        """Return the listings of `names`, in that order, without those that cannot be had.

        Servers never asked before are started, and those whose lists are due are asked again,
        all at once and for at most `FIRST_LISTS_S`; once they answer, listeners are told.
        """
        wanted = list(names)
        looks = [look for name in wanted if (look := self._due(name)) is not None]
        with anyio.move_on_after(FIRST_LISTS_S):
            for look in looks:
                await look.listed.wait()
        return [known for name in wanted if (known := self.listing(name)) is not None]

    def discovered(self, name: str, result: bytes) -> None:
        """Keep what a server of both eras answered to `server/discover`, if it still is one."""
        known = self.get(name)
        if known is not None and "modern" in known.eras:
            self._amend(name, discover=result)

    def learned(self, name: str) -> None:
        """Keep what a process of the server has learned: that it asks its client, its eras."""
        server = self._supervisor.servers.get(name)
        now = None if server is None else server.offered
        if now is not None:
            self._amend(name, eras=now.eras, discover=now.discover, asks=now.asks)

    def _amend(self, name: str, **known: Any) -> None:
        server = self._supervisor.servers.get(name)
        if server is None or self._tasks is None or not self._shelf.amend(server, **known):
            return
        if name not in self._looks:
            self._tasks.start_soon(self._apart, self._shelf.save, server)

    def became_ready(self, name: str) -> None:
        """Ask the server, which has just answered its handshake, what it offers now."""
        if self._tasks is not None and name in self._supervisor.servers:
            self._begin(name)

    def noticed(self, name: str, lists: Iterable[str]) -> None:
        """Ask the server anew, since it said that `lists` changed; soon, and once for many."""
        if self._tasks is None or name not in self._supervisor.servers:
            return
        waiting = self._noticed.get(name)
        if waiting is None:
            self._noticed[name] = set(lists)
            self._tasks.start_soon(self._apart, self._settle, self._supervisor.servers[name])
        else:
            waiting.update(lists)

    async def _settle(self, server: Server) -> None:
        name, lists = server.name, set[str]()
        try:
            await anyio.sleep(max(DEBOUNCE_S, _rest_s(self._shelf.of(server))))
            running = self._looks.get(name)
            if running is not None:
                # It may have read the list before the change.
                await running.listed.wait()
        finally:
            lists = self._noticed.pop(name, lists)
        if self._shelf.has(server) and server.is_awake:
            self._shelf.of(server).noticed_at_s = anyio.current_time()
            self._begin(name, lists)
        else:
            self.on_changed(name, frozenset(lists))

    async def _apart(self, work: Callable[[Server], Awaitable[None]], server: Server) -> None:
        """Do what concerns one server, so that a bug in it takes no other with it."""
        try:
            await work(server)
        except Exception:  # noqa: BLE001 - one server's trouble must not end the runtime
            _log.exception("a bug while the lists of `%s` were looked after", server.name)

    def _due(self, name: str) -> _Look | None:
        server = self._supervisor.servers.get(name)
        if server is None:
            return None
        kept = self._shelf.of(server)
        if kept.listing is None:
            look = self._begin(name)
            now_s = self._clock()
            if kept.wanted_at_s is None:
                kept.wanted_at_s = now_s
            # A server that is slow, or never comes up, holds back the first lists and no others.
            return look if now_s - kept.wanted_at_s < FIRST_LISTS_S else None
        if not server.is_awake:
            return None
        old = self._clock() - kept.asked_at_s >= self._tool_cache_s
        if name in self._noticed and not _rest_s(kept):
            kept.noticed_at_s = anyio.current_time()
            return self._begin(name)
        return self._begin(name) if old and not announces_changes(kept.listing.offered) else None

    def _begin(self, name: str, noticed: Iterable[str] = ()) -> _Look:
        server = self._supervisor.servers.get(name)
        if server is None:
            raise ServerNotFound(
                f"no server `{name}`",
                hint=did_you_mean(name, self._supervisor.servers) or f"octave install {name}",
            )
        look = self._looks.get(name)
        if look is None or look.server is not server or look.listed.is_set():
            # One that has its lists knows nothing of what changed since.
            if self._tasks is None:
                raise NotRunning("the runtime is stopping")
            look = self._looks[name] = _Look(server)
            self._tasks.start_soon(self._look, look)
        look.noticed.update(noticed)
        return look

    async def _look(self, look: _Look) -> None:
        server = look.server
        look.error = NotRunning("the runtime is stopping")
        try:
            await self._look_at(look.server, look)
        except OctaveError as error:
            look.error = error
        except Exception as error:  # noqa: BLE001 - one server's trouble must not end the runtime
            _log.exception("a bug while `%s` was asked what it offers", server.name)
            if not look.listed.is_set():
                look.error = Bug(f"the lists of `{server.name}` met a bug in Octave: {error!r}")
        finally:
            if self._looks.get(server.name) is look:
                del self._looks[server.name]
            look.listed.set()
            look.done.set()

    async def _look_at(self, server: Server, look: _Look) -> None:
        try:
            changed = await self._ask(server)
        except OctaveError as error:
            if self._shelf.has(server) and server.is_awake:
                self._warn(server, [f"its lists are not to be had: {error.message}"])
            self._tell(server, look.noticed)
            raise
        # Before anybody else can run: who is shown the new lists needs not be told of them.
        self._tell(server, changed | look.noticed)
        look.error = None
        look.listed.set()
        await self._learn_eras(server)
        await self._shelf.save(server)

    async def _learn_eras(self, server: Server) -> None:
        known = self._shelf.of(server).listing
        if known is not None and not known.offered.eras:
            await server.asker.era_probe.learn()

    def _tell(self, server: Server, changed: set[str]) -> None:
        if changed:
            self.on_changed(server.name, frozenset(changed))

    async def _ask(self, server: Server) -> set[str]:
        """Take what the server offers now; return which lists that changes."""
        while True:
            asker = server.asker
            changed = await self._ask_of(asker, server)
            if changed is not None:
                return changed
            # Another version has taken over meanwhile.

    async def _ask_of(self, asker: Instance, server: Server) -> set[str] | None:
        """Do as `_ask`, of that process; None: it serves nobody any more, and nothing is taken."""
        key = (server.spec.version, server.spec.digest)
        now_s = self._clock()
        # The server is told what is known of it already.
        self._shelf.of(server)
        offered = await asker.exchange.ask()
        asked_of = process_of(server)
        elsewhere = await self.approving.elsewhere(server, asker)
        if self._is_left(asker, server, key):
            return None
        before = self._shelf.of(server)
        old = before.listing
        if old is not None and old.offered == offered:
            before.asked_at_s, before.asked_of = now_s, asked_of
            self._shelf.settle(server)
            self._warn(server, (*offered.warnings, *old.news, *old.warnings, *elsewhere))
            return set()
        # In a thread: thousands of definitions take longer than a call may wait.
        spec = server.spec
        new = await worker.run(listing, server.name, offered, spec.tools, spec.approvals)
        if self._is_left(asker, server, key):
            return None
        self._shelf.put(server, key, new, now_s)
        self._shelf.of(server).asked_of = asked_of
        self._shelf.settle(server)
        self._warn(server, (*offered.warnings, *new.news, *new.warnings, *elsewhere))
        return {
            kind
            for kind in LISTS
            if offered.lists.get(kind, ()) != (old.offered.lists.get(kind, ()) if old else ())
        }

    @staticmethod
    def _is_left(asker: Instance, server: Server, key: Key) -> bool:
        # Both are others each time they are looked at, which a type checker does not expect.
        return asker.is_retired or (server.spec.version, server.spec.digest) != key

    def _warn(self, server: Server, warnings: Sequence[str]) -> None:
        """Write into the log of a server what its last look did not find to be wrong already."""
        kept = self._shelf.of(server)
        news = [text for text in warnings if text not in kept.warned]
        kept.warned = frozenset(warnings)
        more = [f"{len(news) - WARNINGS} more warnings"] if len(news) > WARNINGS else []
        for text in (*news[:WARNINGS], *more):
            server.tell("warning", {"message": text})


def _rest_s(kept: Kept) -> float:
    """Return in how many seconds the server may be asked again for list_changed."""
    return max(0.0, LOOKS_APART_S - (anyio.current_time() - kept.noticed_at_s))


def announces_changes(offered: Offered) -> bool:
    """Whether the server promises list_changed for every list it has."""
    return all(
        wire.member(offered.initialize, "capabilities", CAPABILITIES[kind], "listChanged")
        == b"true"
        for kind in offered.lists
    )
