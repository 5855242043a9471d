"""The course of one server: its state as it changes, assigned here and nowhere else.

Every change wakes whoever waits for one; a change of kind is told. What follows from what is
decided in `lifecycle`; why it failed is remembered here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from octave.errors import NotRunning, OctaveError
from octave.packages.launch import Policy
from octave.runtime.availability import Availability
from octave.runtime.lifecycle import Action, Died, Event, Kind, State, decide, due_s


class Course:
    """Where a server is.

    Args:
        name: of the server, for error messages.
        kind: where it begins: idle or stopped.
        clock_s: monotonic.
        availability: told of every change.
        tell: called with the new kind of state and the details of the change, as JSON values.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        clock_s: Callable[[], float],
        availability: Availability,
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.state = State(kind, clock_s())
        self.availability = availability
        self.restarts = 0
        """Times it was started again after it had ended by itself."""
        self.last_error: dict[str, Any] | None = None
        """``{"at", "message", "hint", "exitCode", "signal", "stderrTail"}`` of the last failure."""
        self._name = name
        self._failure: OctaveError | None = None
        self._clock_s = clock_s
        self._tell = tell
        self._changed = anyio.Event()

    @property
    def kind(self) -> Kind:
        """The kind of its state."""
        return self.state.kind

    @property
    def since_s(self) -> float:
        """How long it has been in this state."""
        return self._clock_s() - self.state.since_s

    def succeed(self, other: "Course") -> None:
        """Take over what is counted of a server from the process that was there before."""
        self.availability, other.availability = other.availability, self.availability
        self.availability.changed(other.state, self.state)
        self.restarts += other.restarts
        self.last_error = self.last_error or other.last_error
        other.restarts = 0

    def failed(self, error: OctaveError, at: str) -> None:
        """Keep why the last start or process came to nothing; `at` is RFC 3339."""
        hint = error.hint or f"`octave logs {self._name}` shows what it wrote"
        self._failure = type(error)(error.message, hint, error.details)
        facts = {name: error.details.get(name) for name in ("exitCode", "signal", "stderrTail")}
        self.last_error = {"at": at, "message": error.message, "hint": hint, **facts}

    def refuse(self, patience_s: float) -> None:
        """Do nothing when it is up, or may be soon: the next attempt is at most `patience_s` away.

        Raises:
            NotRunning: a person stopped it.
            OctaveError: it failed, and why.
        """
        state = self.state
        if "stopped" in (state.kind, state.after_stop if state.kind == "stopping" else None):
            raise NotRunning(f"`{self._name}` is stopped", hint=f"octave start {self._name}")
        is_far = state.kind == "backoff" and state.retry_at_s - self._clock_s() > patience_s
        if (is_far or state.kind == "failed") and self._failure is not None:
            # A copy: one exception must not collect the tracebacks of many tasks.
            failure = self._failure
            raise type(failure)(failure.message, failure.hint, failure.details)

    def apply(
        self, event: Event, policy: Policy, details: Mapping[str, Any] | None = None
    ) -> Action:
        """Assign the state that follows from `event`; return what must be done for it."""
        before = self.state
        self.state, action = decide(before, event, self._clock_s(), policy)
        if action is Action.START:
            self.restarts += before.crashed or isinstance(event, Died)
        if self.state != before:
            self.availability.changed(before, self.state)
        if self.state.kind != before.kind:
            self._tell(self.state.kind, details or {})
        if self.state != before:
            self.announce()
        return action

    def announce(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = anyio.Event()

    async def change(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a change that makes it so."""
        while not is_so():
            await self.change()

    async def change_or_time(self, policy: Policy, quiet_since_s: float | None) -> None:
        """Wait for the next change, or until a `Tick` can bring one.

        `quiet_since_s` as in `Tick`.
        """
        now_s = self._clock_s()
        # While calls are in flight the idle time cannot be over sooner than if they ended now.
        due = due_s(self.state, policy, now_s if quiet_since_s is None else quiet_since_s)
        with anyio.move_on_after(math.inf if due is None else max(0.0, due - now_s)):
            await self._changed.wait()
