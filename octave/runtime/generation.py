"""The processes of one version of a server: the first, and those that only some sessions use.

The first serves whoever comes. Beside it there is one for the modern era where the server speaks
both, as a process speaks but one; and, of a server that asks its client things, one for each
session that can answer, which ends with that session.
"""

from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.abc

from octave.runtime.availability import Availability
from octave.runtime.handshake import Era, Opening
from octave.runtime.instance import Instance
from octave.runtime.questions import Caller
from octave.runtime.subject import Role, Subject

_Key = tuple[Era | None, object | None]

WhenOwn = dict[object, Callable[[Instance], None]]
"""By session: called with each process of its own that it gets, in time to say what is wanted of
that."""


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


class Generation:
    """The processes of one version. Made by `Server`, which runs `run`."""

    def __init__(
        self,
        subject: Subject,
        availability: Callable[[], Availability],
        when_own: WhenOwn,
        *,
        is_stopped: bool = False,
    ) -> None:
        self.subject = subject
        self.first = Instance(subject, Role(), availability(), is_stopped=is_stopped)
        self._availability = availability
        self._when_own = when_own
        self._others: dict[_Key, Instance] = {}
        self._is_closing = False
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def instances(self) -> list[Instance]:
        """All of them, up or not."""
        return [self.first, *self._others.values()]

    @property
    def awake(self) -> Instance | None:
        """One that is ready and serves everybody."""
        shared = (each for each in self.instances if each.role.owner is None)
        return next((each for each in shared if each.state == "ready"), None)

    def instance_for(self, visitor: Visitor) -> Instance:
        """Return the process that serves `visitor`, up or not."""
        key = self._key_for(visitor)
        is_down = self._tasks is None or self._is_closing or self.first.is_ordered_down
        if key == (None, None) or is_down:
            return self.first
        found = self._others.get(key)
        if found is None:
            # Whom it is to serve, the first one was told of.
            level = self.first.interests.level
            found = self._put(key, self._role_of(key, visitor), level)
            if key[1] in self._when_own:
                self._when_own[key[1]](found)
        return found

    def _put(self, key: _Key, role: Role, level: str | None) -> Instance:
        found = Instance(self.subject, role, self._availability())
        found.interests.level = level
        self._others[key] = found
        if self._tasks is not None:
            self._tasks.start_soon(found.run)
        return found

    def _key_for(self, visitor: Visitor) -> _Key:
        subject = self.subject
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

    def dismiss(self, session: object) -> None:
        """End the processes of a session that is over, and ask it no more; returns at once."""
        for key in [key for key in self._others if key[1] is session]:
            gone = self._others.pop(key)
            if self._tasks is not None:
                self._tasks.start_soon(gone.close)
        for each in self.instances:
            each.forget(session)

    async def start(self) -> None:
        """Start the first unless it is up; return when it is ready. Raises as `Instance.start`.

        Of the others those come up of which somebody wants to hear.
        """
        self._allow_again()
        await self.first.start()

    async def restart(self) -> None:
        """Give the first a fresh process; return when that is ready. Raises as `Instance.start`.

        The others get theirs when they are used next, or as with `start`.
        """
        for each in self._others.values():
            if each.state != "idle":
                each.replaced()
        self._allow_again()
        self.subject.opened.clear()
        await self.first.restart()

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
        """Say that the spec has changed in more than its environment."""
        self.subject.opened.clear()
        for each in self.instances:
            each.replaced()

    async def close(self) -> None:
        """Stop all for good and end `run`."""
        self._is_closing = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.first.close)
            tasks.start_soon(self._end_others)

    async def run(self) -> None:
        """Own the processes, until `close`; when cancelled, stop them at once."""
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    await self.first.run()
                finally:
                    self._is_closing = True
                await self._end_others()
        finally:
            self._tasks = None

    async def _end_others(self) -> None:
        others = list(self._others.values())
        self._others.clear()
        async with anyio.create_task_group() as tasks:
            for each in others:
                tasks.start_soon(each.close)
