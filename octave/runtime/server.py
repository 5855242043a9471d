"""One server as everybody else sees it, whichever of its processes does the work."""

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc

from octave.errors import NotRunning
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.runtime import lifecycle
from octave.runtime.availability import Availability
from octave.runtime.events import Clock
from octave.runtime.exchange import NOBODY
from octave.runtime.generation import Generation, WhenOwn
from octave.runtime.generation import Visitor as Visitor
from octave.runtime.instance import Instance
from octave.runtime.logs import ServerLog
from octave.runtime.metrics import CallFigures
from octave.runtime.questions import Caller
from octave.runtime.subject import Listeners, Subject
from octave.runtime.wire import Message, Path


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
        self.when_own: WhenOwn = {}
        """Of the sessions that are open; until `dismiss`."""
        subject = Subject(spec, log, listeners, clock)
        self._availability = availability
        self._now = Generation(subject, availability, self.when_own, is_stopped=is_stopped)
        self._others: list[Generation] = []
        """Versions that are left and not gone yet, and one that is to take over."""
        self._changing = anyio.Lock()
        self._is_closing = False
        self._ended = anyio.Event()
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
        return self._now.awake or self._first

    @property
    def is_awake(self) -> bool:
        """Whether a process that serves everybody is ready."""
        return self._now.awake is not None

    @property
    def pid(self) -> int | None:
        """Of its first process, if that is up."""
        return self._first.pid

    @property
    def pids(self) -> list[int]:
        """Of all its processes that are up."""
        return [each.pid for each in self.instances if each.pid is not None]

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
        for each in self._others:
            kept = each.kept_for(visitor)
            if kept is not None:
                return kept
        return self._now.instance_for(visitor)

    def dismiss(self, session: object) -> None:
        """End the processes of a session that is over, and ask it no more; returns at once."""
        self.when_own.pop(session, None)
        for each in self._generations:
            each.dismiss(session)

    async def forward(
        self, message: Message, changes: Mapping[Path, bytes], caller: Caller = NOBODY
    ) -> Message:
        """Do what `Exchange.forward` does, at the first process."""
        return await self._first.exchange.forward(message, changes, caller)

    def roots_changed(self, line: bytes, session: object) -> None:
        """Pass on a client's notification that its roots changed, to those that asked for them."""
        for each in self.instances:
            if _is_of(each, session) or each.knows_roots_of(session):
                each.notify(line)

    # Orders.

    async def start(self) -> None:
        """Start it unless it is up; return when it is ready. Raises as `Instance.start` does.

        Of its other processes those come up of which somebody wants to hear.
        """
        await self._now.start()

    async def restart(self) -> None:
        """Give it a fresh process; return when that is ready. Raises as `Instance.start` does.

        The others get theirs when they are used next, or as with `start`.
        """
        await self._now.restart()

    async def stop(self) -> None:
        """Stop it until `start`, calls in flight first; return when it is down."""
        async with anyio.create_task_group() as tasks:
            for each in self.instances:
                tasks.start_soon(each.stop)

    def replaced(self) -> None:
        """Say that `spec` has changed in more than its environment."""
        self._now.replaced()

    async def change_over(self, spec: LaunchSpec) -> None:
        """Run as `spec` says; where it is up, the new process comes up beside the old one before.

        Until then the old one serves as if nothing was; it ends with its calls in flight.

        Raises:
            OctaveError: the new one does not become ready; nothing has changed then.
        """
        async with self._changing:
            if self._is_closing or self._tasks is None:
                raise NotRunning(f"`{self.name}` is being shut down")
            await self._change_over(spec, self._tasks)

    async def _change_over(self, spec: LaunchSpec, tasks: anyio.abc.TaskGroup) -> None:
        before = self._now
        old, was_up = before.subject, before.is_up
        subject = Subject(spec, old.log, old.listeners, old.clock, old.figures, title="next")
        new = Generation(
            subject,
            self._availability,
            self.when_own,
            is_stopped=before.first.is_ordered_down,
            before=before,
        )
        self._others.append(new)
        tasks.start_soon(self._run, new)
        try:
            if was_up:
                await new.rise(before)
        except BaseException as error:
            is_unwanted = isinstance(error, NotRunning) and before.first.is_ordered_down
            if self._is_closing or not is_unwanted:
                with anyio.CancelScope(shield=True):
                    await new.close()
                raise
            # A person stopped both meanwhile.
        self._others[self._others.index(new)] = before
        self._now = new
        subject.title, old.title = None, "previous"
        new.take_over(before, self.instance_for, lambda era: self._now.shared(era))
        if new.first.state == "ready":
            facts = {"pid": new.first.pid, "version": spec.version}
            subject.tell("ready", facts, None)
        elif spec.policy.auto_start and not new.first.is_ordered_down:
            new.first.revive()

    async def close(self) -> None:
        """Stop it for good and end `run`."""
        self._is_closing = True
        async with anyio.create_task_group() as tasks:
            for each in self._generations:
                tasks.start_soon(each.close)
        self._ended.set()

    async def run(self) -> None:
        """Own its processes, until `close`; when cancelled, stop them at once."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._run, self._now)
                await self._ended.wait()
        finally:
            self._tasks = None
            self._subject.log.close()

    async def _run(self, generation: Generation) -> None:
        await generation.run()
        if generation in self._others:
            self._others.remove(generation)

    # What is known.

    @property
    def snapshot(self) -> dict[str, Any]:
        """The server's object of `octave status --json`, but for its memory; null if not known."""
        subject, figures = self._subject, self.figures
        return {
            "name": self.name,
            **self._first.snapshot,
            "restarts": sum(each.snapshot["restarts"] for each in self.instances),
            "instances": sum(each.uptime_s is not None for each in self.instances),
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
        self._subject.tell(kind, details, None)

    @property
    def _subject(self) -> Subject:
        return self._now.subject

    @property
    def _first(self) -> Instance:
        return self._now.first

    @property
    def instances(self) -> list[Instance]:
        """All its processes, up or not; the first one is the first."""
        return [each for generation in self._generations for each in generation.instances]

    @property
    def serving(self) -> list[Instance]:
        """Those of the version that whoever comes is served by."""
        return self._now.instances

    @property
    def is_changing_over(self) -> bool:
        """Whether another version is about to take over."""
        return self._changing.locked()

    @property
    def _generations(self) -> list[Generation]:
        return [self._now, *self._others]


def _is_of(instance: Instance, session: object) -> bool:
    owner = instance.role.owner
    return owner is not None and owner.session is session
