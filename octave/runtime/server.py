"""One server: the process that stands for it, and those that only some sessions use.

Every server has a first process, which serves whoever comes. Beside it there is one for the modern
era where the server speaks both, as a process speaks but one; and, of a server that asks its
client things, one for each session that can answer, which ends with that session.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc

from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.runtime import lifecycle
from octave.runtime.availability import Availability
from octave.runtime.events import Clock
from octave.runtime.exchange import NOBODY
from octave.runtime.handshake import Era, Opening
from octave.runtime.instance import Instance
from octave.runtime.logs import ServerLog
from octave.runtime.metrics import CallFigures
from octave.runtime.questions import Caller
from octave.runtime.subject import Listeners, Role, Subject
from octave.runtime.wire import Message, Path

_Key = tuple[Era | None, object | None]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who wants something of a server, as far as that decides which process it is."""

    era: Era
    """Of the request."""
    owner: Caller
    """Whom to ask, outside any request of his."""
    can_answer: bool
    """It was said that he can be asked something."""
    opening: Opening
    """How a process of his own is opened: as he would."""


class Server:
    """A server as everybody else sees it. Made by `Supervisor`, which runs `run`.

    `spec` may be replaced at any time and counts from the next start on; `replaced` makes that
    soon. `offered` is what the gateway last learned of it.
    """

    def __init__(
        self,
        spec: LaunchSpec,
        log: ServerLog,
        listeners: Listeners,
        *,
        clock: Clock,
        availability: Callable[[], Availability],
        is_stopped: bool = False,
    ) -> None:
        self.name = spec.name
        self._subject = Subject(spec, log, listeners, clock)
        self._availability = availability
        self._first = Instance(self._subject, Role(), availability(), is_stopped=is_stopped)
        self._others: dict[_Key, Instance] = {}
        self.when_own: dict[object, Callable[[Instance], None]] = {}
        """By session, until `dismiss`: called with each process of its own that it gets, in time to
        say what is wanted of that."""
        self._is_closing = False
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def spec(self) -> LaunchSpec:
        """How it is started."""
        return self._subject.spec

    @spec.setter
    def spec(self, spec: LaunchSpec) -> None:
        subject, before = self._subject, self._subject.spec
        subject.spec = spec
        if (before.version, before.digest) != (spec.version, spec.digest):
            # What another version was seen to do says nothing of this one.
            subject.asks, subject.offered = False, None

    @property
    def offered(self) -> Offered | None:
        """What the gateway last learned of it."""
        return self._subject.offered

    @offered.setter
    def offered(self, offered: Offered | None) -> None:
        self._subject.offered = offered
        if offered is not None and offered.asks:
            self._subject.asks = True

    @property
    def figures(self) -> CallFigures:
        """Of the calls of all its processes."""
        return self._subject.figures

    @property
    def state(self) -> lifecycle.Kind:
        """Where its first process is."""
        return self._first.state

    @property
    def asker(self) -> Instance:
        """The process that is asked what there is: one that is up; if none is, the first."""
        return self._awake or self._first

    @property
    def is_awake(self) -> bool:
        """Whether a process that serves everybody is ready."""
        return self._awake is not None

    @property
    def pid(self) -> int | None:
        """Of its first process, if that is up."""
        return self._first.pid

    @property
    def pids(self) -> list[int]:
        """Of all its processes that are up."""
        return [each.pid for each in self._instances if each.pid is not None]

    @property
    def uptime_s(self) -> float | None:
        """How long its first process has been ready; None when it is not."""
        return self._first.uptime_s

    @property
    def was_killed(self) -> bool:
        """The last ordered stop had to end in SIGKILL."""
        return self._first.was_killed

    # Use.

    def instance_for(self, visitor: Visitor) -> Instance:
        """Return the process that serves `visitor`, up or not."""
        key = self._key_for(visitor)
        is_down = self._tasks is None or self._is_closing or self._first.is_ordered_down
        if key == (None, None) or is_down:
            return self._first
        found = self._others.get(key)
        if found is None:
            # Whom it is to serve, the first one was told of.
            level = self._first.interests.level
            found = self._put(key, self._role_of(key, visitor), level)
            if key[1] in self.when_own:
                self.when_own[key[1]](found)
        return found

    def _put(self, key: _Key, role: Role, level: str | None) -> Instance:
        found = Instance(self._subject, role, self._availability())
        found.interests.level = level
        self._others[key] = found
        if self._tasks is not None:
            self._tasks.start_soon(found.run)
        return found

    def dismiss(self, session: object) -> None:
        """End the processes of a session that is over, and ask it no more; returns at once."""
        self.when_own.pop(session, None)
        for key in [key for key in self._others if key[1] is session]:
            gone = self._others.pop(key)
            if self._tasks is not None:
                self._tasks.start_soon(gone.close)
        for each in self._instances:
            each.forget(session)

    async def forward(
        self, message: Message, changes: Mapping[Path, bytes], caller: Caller = NOBODY
    ) -> Message:
        """Do what `Exchange.forward` does, at the first process."""
        return await self._first.exchange.forward(message, changes, caller)

    def roots_changed(self, line: bytes, session: object) -> None:
        """Pass on a client's notification that its roots changed, to those that asked for them."""
        for each in self._instances:
            if _is_of(each, session) or each.knows_roots_of(session):
                each.notify(line)

    async def ask(self) -> Offered:
        """Ask a process that is up what it offers; if none is, start the first."""
        return await self.asker.exchange.ask()

    def _key_for(self, visitor: Visitor) -> _Key:
        subject = self._subject
        policy, eras = subject.spec.policy.instance, subject.offered.eras if subject.offered else ()
        if policy == "shared":
            return None, None
        era: Era | None = None
        if visitor.era == "modern" and len(eras) > 1:
            era = "modern"
        # A modern server asks in its answers, which everybody gets for himself.
        asks = subject.asks and era is None and eras != ("modern",)
        is_private = policy == "session" or (asks and visitor.can_answer)
        return era, visitor.owner.session if is_private else None

    def _role_of(self, key: _Key, visitor: Visitor) -> Role:
        era, session = key
        return Role(era) if session is None else Role(era, visitor.owner, visitor.opening)

    # Orders.

    async def start(self) -> None:
        """Start it unless it is up; return when it is ready. Raises as `Instance.start` does.

        Of its other processes those come up of which somebody wants to hear.
        """
        self._allow_again()
        await self._first.start()

    async def restart(self) -> None:
        """Give it a fresh process; return when that is ready. Raises as `Instance.start` does.

        The others get theirs when they are used next, or as with `start`.
        """
        for each in self._others.values():
            if each.state != "idle":
                each.replaced()
        self._allow_again()
        self._subject.opened.clear()
        await self._first.restart()

    async def stop(self) -> None:
        """Stop it until `start`, calls in flight first; return when it is down."""
        async with anyio.create_task_group() as tasks:
            for each in self._instances:
                tasks.start_soon(each.stop)

    def _allow_again(self) -> None:
        """Let the other processes be used that were stopped along with the first."""
        for key, stopped in list(self._others.items()):
            if not stopped.is_ordered_down or self._tasks is None:
                continue
            if stopped.interests:
                stopped.revive()
            else:
                self._put(key, stopped.role, stopped.interests.level)
                self._tasks.start_soon(stopped.close)

    def replaced(self) -> None:
        """Say that `spec` has changed in more than its environment."""
        self._subject.opened.clear()
        for each in self._instances:
            each.replaced()

    async def close(self) -> None:
        """Stop it for good and end `run`."""
        self._is_closing = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._first.close)
            tasks.start_soon(self._end_others)

    async def run(self) -> None:
        """Own its processes, until `close`; when cancelled, stop them at once."""
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    await self._first.run()
                finally:
                    self._is_closing = True
                await self._end_others()
        finally:
            self._tasks = None
            self._subject.log.close()

    async def _end_others(self) -> None:
        others = list(self._others.values())
        self._others.clear()
        async with anyio.create_task_group() as tasks:
            for each in others:
                tasks.start_soon(each.close)

    # What is known.

    @property
    def snapshot(self) -> dict[str, Any]:
        """The server's object of `octave status --json`, but for its memory; null if not known."""
        subject, figures = self._subject, self.figures
        return {
            "name": self.name,
            **self._first.snapshot,
            "restarts": sum(each.snapshot["restarts"] for each in self._instances),
            "instances": sum(each.uptime_s is not None for each in self._instances),
            "calls": figures.count,
            "errors": figures.errors,
            "p50Ms": figures.percentile_ms(50),
            "p95Ms": figures.percentile_ms(95),
            "p99Ms": figures.percentile_ms(99),
            "tools": None if subject.offered is None else len(subject.offered.tools),
            "dropped": subject.log.dropped,
            "noise": subject.log.noise_lines,
        }

    def tell(self, kind: str, details: Mapping[str, Any]) -> None:
        """Write that something happened into its log, and tell who listens."""
        self._first.tell(kind, details)

    @property
    def _awake(self) -> Instance | None:
        shared = (each for each in self._instances if each.role.owner is None)
        return next((each for each in shared if each.state == "ready"), None)

    @property
    def _instances(self) -> list[Instance]:
        return [self._first, *self._others.values()]


def _is_of(instance: Instance, session: object) -> bool:
    owner = instance.role.owner
    return owner is not None and owner.session is session
