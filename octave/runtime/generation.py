"""The processes of one version of a server: the first, and those that only some sessions use.

The first serves whoever comes. Beside it there is one for the modern era where the server speaks
both, as a process speaks but one; and, of a server that asks its client things, one for each
session that can answer, which ends with that session.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.abc

from octave.errors import OctaveError
from octave.runtime.availability import Availability
from octave.runtime.handshake import Era, Opening
from octave.runtime.instance import REPLACED_DRAIN_S, Instance
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
        before: "Generation | None" = None,
    ) -> None:
        self.subject = subject
        first = before.first if before else None
        self.first: Instance = Instance(
            subject, Role(), availability(), is_stopped=is_stopped, before=first
        )
        self._availability = availability
        self._when_own = when_own
        self._others: dict[_Key, Instance] = {}
        self._leaving: list[Instance] = []
        self._unstarted: list[Instance] = []
        """Made before `run` had begun."""
        self._left_s: float | None = None
        """When another version took over, as `anyio.current_time`."""
        self._served_by: Callable[[Visitor], Instance] = self.instance_for
        self._changed = anyio.Event()
        self._is_closing = False
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def instances(self) -> list[Instance]:
        """All of them, up or not."""
        return [self.first, *self._others.values(), *self._leaving]

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

    def _put(
        self, key: _Key, role: Role, level: str | None, before: Instance | None = None
    ) -> Instance:
        found = Instance(self.subject, role, self._availability(), before=before)
        found.interests.level = level
        self._others[key] = found
        if self._tasks is None:
            self._unstarted.append(found)
        else:
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
        self._announce()

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

    # Another version.

    @property
    def is_up(self) -> bool:
        """Whether a process that serves everybody is ready, or on its way."""
        return self.awake is not None or self.first.state == "starting"

    async def rise(self, before: "Generation") -> None:
        """Start what is up of `before`, beside it. Raises as `Instance.start` does."""
        await self.first.start()
        for each in before._shared_others:
            if each.state == "ready":
                # It may lack that era by now.
                with contextlib.suppress(OctaveError):
                    await self._beside(each).start()

    def take_over(
        self,
        before: "Generation",
        served_by: Callable[[Visitor], Instance],
        shared: Callable[[Era | None], Instance],
    ) -> None:
        """Serve from now on whom `before` served; returns at once.

        Its calls in flight end where they are, those that wait go to the `shared` process of their
        era. A session with a process of its own keeps that, up to `REPLACED_DRAIN_S`; then it is
        `served_by` another, as anybody who comes anew.
        """
        # Asked for each time: a process that was left long ago holds on to none of those since.
        self.first.take_over(before.first, partial(shared, None))
        for each in before._shared_others:
            self._beside(each).take_over(each, partial(shared, each.role.era))
        before._leave(served_by)

    def shared(self, era: Era | None) -> Instance:
        """Return the process that serves everybody in the era; None: the first."""
        return self._others.get((era, None), self.first)

    def kept_for(self, visitor: Visitor) -> Instance | None:
        """Return the process of its own that a session still has in a version that was left."""
        session = visitor.owner.session
        if self._left_s is None or session is None:
            return None
        keys: tuple[_Key, ...] = ((visitor.era, session), (None, session))
        for key in keys:
            found = self._others.get(key)
            if found is not None and found.state == "ready":
                return found
            if found is not None:
                self._let_go(key)
        return None

    @property
    def _shared_others(self) -> list[Instance]:
        return [each for (_, session), each in self._others.items() if session is None]

    def _beside(self, before: Instance) -> Instance:
        key = (before.role.era, None)
        level = before.interests.level
        return self._others.get(key) or self._put(key, before.role, level, before)

    def _leave(self, served_by: Callable[[Visitor], Instance]) -> None:
        self._served_by, self._left_s = served_by, anyio.current_time()
        for each in self._shared_others:
            del self._others[each.role.era, None]
            self._leaving.append(each)

    async def _keep_sessions(self) -> None:
        if self._left_s is None:
            return
        with anyio.CancelScope(deadline=self._left_s + REPLACED_DRAIN_S):
            while self._others and not self._is_closing:
                await self._changed.wait()
        if not self._is_closing:
            for key in list(self._others):
                self._let_go(key)

    def _let_go(self, key: _Key) -> None:
        """Have a session served by the version that came after."""
        gone, session = self._others.pop(key), key[1]
        role = gone.role
        assert role.owner is not None
        assert role.opening is not None
        visitor = Visitor(role.era or "legacy", role.owner, can_answer=True, opening=role.opening)
        self._leaving.append(gone)
        gone.retire(lambda: self._served_by(visitor))
        if gone.interests and session in self._when_own:
            self._when_own[session](self._served_by(visitor))
        # It was shown the lists of the process that it has left.
        self.subject.listeners.moved(self.subject.spec.name, session)
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def close(self) -> None:
        """Stop all for good and end `run`."""
        self._is_closing = True
        self._announce()
        await _close([self.first, *self._take_others(), *self._leaving])

    async def run(self) -> None:
        """Own the processes, until `close` or the last of a version that was left is gone.

        When cancelled, stop them at once.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                for each in self._unstarted:
                    self._tasks.start_soon(each.run)
                self._unstarted.clear()
                try:
                    await self.first.run()
                    await self._keep_sessions()
                finally:
                    self._is_closing = True
                # Those that are left end by themselves, with their calls.
                await _close(self._take_others())
        finally:
            self._tasks = None

    def _take_others(self) -> list[Instance]:
        others = list(self._others.values())
        self._others.clear()
        return others


async def _close(instances: Iterable[Instance]) -> None:
    async with anyio.create_task_group() as tasks:
        for each in instances:
            tasks.start_soon(each.close)
