"""What a server does next: states, events and one pure function that decides.

Nothing here touches a process, a clock or a random number: the time, the jitter and what is going
on arrive as values, so that months of crashes run in a test. The supervisor assigns the state and
carries out the action; it decides nothing.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from octave.packages.launch import Policy

Kind = Literal["idle", "starting", "ready", "backoff", "failed", "stopping", "stopped"]
AfterStop = Literal["idle", "starting", "stopped"]

HEALTHY_AFTER_S = 10.0
"""So long ready, and a death is a mishap: restart at once."""
RESET_AFTER_S = 60.0
"""So long ready, and earlier failures no longer lengthen the delay."""
RESTARTS_WINDOW_S = 60.0
RESTARTS_IN_WINDOW = 10
"""A server that answers, yet dies so often within the window, waits like one that never answers."""
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
JITTER = (0.8, 1.2)
"""Where `jitter` is drawn from: servers that died together shall not start together."""
GIVE_UP_AFTER = 5
"""Failures in a row without a healthy stretch."""
HALF_OPEN_AFTER_S = 60.0
"""A call tries a failed server again, at most this often."""


class Action(Enum):
    """What the supervisor must do for the new state to become true."""

    NONE = "none"
    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class State:
    """Where one server is. Times are of the monotonic clock, in seconds."""

    kind: Kind = "idle"
    since_s: float = 0.0
    failures: int = 0
    """Deaths and failed starts since it last was ready for `RESET_AFTER_S`; sets the delay."""
    failures_in_a_row: int = 0
    """The same since it last was healthy; `GIVE_UP_AFTER` of them end in `failed`."""
    crashed: bool = False
    """The last process ended by itself, so that the next start is a restart."""
    restarts_s: tuple[float, ...] = ()
    """When it was restarted, within `RESTARTS_WINDOW_S`; bounded by `RESTARTS_IN_WINDOW`."""
    retry_at_s: float = 0.0
    """In `backoff`: when the delay is over."""
    after_stop: AfterStop = "idle"
    """In `stopping`: what follows."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call needs the server."""


@dataclass(frozen=True, slots=True)
class StartAsked:
    """A person, or the runtime for an `auto_start` server, wants it up."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A person wants it down until `start`."""


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """A person wants a fresh process."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """How it is launched has changed: whatever runs is outdated, what failed may now work."""


@dataclass(frozen=True, slots=True)
class Retired:
    """Another process has taken over, and this one is to end with its calls."""


@dataclass(frozen=True, slots=True)
class Handshook:
    """The handshake was answered."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It was not ready in time, or ended before it was."""

    permanent: bool
    """Trying again cannot help: no interpreter, bad configuration."""
    waiting: bool
    """Somebody waits for it."""
    jitter: float = 1.0


@dataclass(frozen=True, slots=True)
class Died:
    """A ready server ended by itself, whatever its exit code."""

    answered: bool
    """It answered a call since it was ready."""
    waiting: bool
    jitter: float = 1.0


@dataclass(frozen=True, slots=True)
class Outgrown:
    """A ready server that nobody uses takes more memory than it may."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """An ordered stop is over, whatever the exit code."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    waiting: bool
    quiet_since_s: float | None
    """When the last call in flight ended; None while one is in flight."""


Event = (
    Called
    | StartAsked
    | StopAsked
    | RestartAsked
    | Replaced
    | Retired
    | Handshook
    | StartFailed
    | Died
    | Outgrown
    | Stopped
    | Tick
)
Decision = tuple[State, Action]


def decide(state: State, event: Event, now_s: float, policy: Policy) -> Decision:
    """Return the state that follows and what must be done for it; the same state for no change."""
    match event:
        case Called() | StartAsked() | StopAsked() | RestartAsked() | Replaced():
            return _asked(state, event, now_s, policy)
        case Retired():
            return _retired(state, now_s)
        case Handshook() if state.kind == "starting":
            return _to(state, "ready", now_s), Action.NONE
        case StartFailed() if state.kind == "starting":
            return _after_failure(state, event, now_s, policy, permanent=event.permanent)
        case Died() if state.kind == "ready":
            return _after_death(state, event, now_s, policy)
        case Outgrown() if state.kind == "ready":
            # One that lives by calls starts with the next.
            is_kept_up = policy.auto_start and policy.auto_restart
            return _stop(state, "starting" if is_kept_up else "idle", now_s)
        case Stopped() if state.kind == "stopping":
            return _after_stop(state, now_s)
        case Tick():
            return _after_time(state, event, now_s, policy)
        case _:
            # A report that arrives late, about a process that is no longer the one in question.
            return state, Action.NONE


def due_s(state: State, policy: Policy, quiet_since_s: float | None) -> float | None:
    """Return when the next `Tick` can change something; None: not before another event."""
    if state.kind == "backoff":
        return state.retry_at_s
    if state.kind == "ready" and quiet_since_s is not None and policy.idle_timeout_s is not None:
        return max(quiet_since_s, state.since_s) + policy.idle_timeout_s
    return None


def _to(state: State, kind: Kind, now_s: float) -> State:
    return replace(state, kind=kind, since_s=now_s)


def _start(state: State, now_s: float) -> Decision:
    recent = tuple(at for at in state.restarts_s if now_s - at < RESTARTS_WINDOW_S)
    if state.crashed:
        recent = (*recent, now_s)[-RESTARTS_IN_WINDOW:]
    return replace(
        state, kind="starting", since_s=now_s, crashed=False, restarts_s=recent
    ), Action.START


def _forgiven(state: State) -> State:
    return replace(state, failures=0, failures_in_a_row=0, crashed=False)


def _asked(state: State, event: Event, now_s: float, policy: Policy) -> Decision:
    if isinstance(event, Called):
        return _called(state, now_s)
    if state.kind == "stopping":
        return replace(state, after_stop=_wanted_after(event, state, policy)), Action.NONE
    alive = state.kind in {"starting", "ready"}
    match event:
        case StartAsked():
            return (state, Action.NONE) if alive else _start(_forgiven(state), now_s)
        case StopAsked() if alive:
            return _stop(state, "stopped", now_s)
        case StopAsked():
            return _to(_forgiven(state), "stopped", now_s), Action.NONE
        case RestartAsked() if alive:
            return _stop(_forgiven(state), "starting", now_s)
        case RestartAsked():
            return _start(_forgiven(state), now_s)
        case _:
            return _replaced(state, now_s, policy)


def _wanted_after(event: Event, state: State, policy: Policy) -> AfterStop:
    if isinstance(event, StopAsked):
        return "stopped"
    if isinstance(event, Replaced) and (state.after_stop == "stopped" or not policy.auto_start):
        return state.after_stop
    return "starting"


def _replaced(state: State, now_s: float, policy: Policy) -> Decision:
    if state.kind == "stopped":
        return state, Action.NONE
    if state.kind in {"starting", "ready"}:
        after: AfterStop = "starting" if policy.auto_start else "idle"
        return _stop(_forgiven(state), after, now_s)
    if policy.auto_start:
        return _start(_forgiven(state), now_s)
    return _to(_forgiven(state), "idle", now_s), Action.NONE


def _retired(state: State, now_s: float) -> Decision:
    if state.kind in {"starting", "ready"}:
        return _stop(state, "idle", now_s)
    if state.kind == "stopping" and state.after_stop == "starting":
        return replace(state, after_stop="idle"), Action.NONE
    return state, Action.NONE


def _called(state: State, now_s: float) -> Decision:
    match state.kind:
        case "idle":
            return _start(state, now_s)
        case "failed" if now_s - state.since_s >= HALF_OPEN_AFTER_S:
            return _start(state, now_s)
        # An idle stop that a call overtakes: the call waits for the fresh process.
        case "stopping" if state.after_stop == "idle":
            return replace(state, after_stop="starting"), Action.NONE
        case _:
            return state, Action.NONE


def _stop(state: State, after: AfterStop, now_s: float) -> Decision:
    return replace(state, kind="stopping", since_s=now_s, after_stop=after), Action.STOP


def _after_stop(state: State, now_s: float) -> Decision:
    if state.after_stop == "starting":
        return _start(state, now_s)
    return _to(state, state.after_stop, now_s), Action.NONE


def _after_death(state: State, event: Died, now_s: float, policy: Policy) -> Decision:
    ready_s = now_s - state.since_s
    if ready_s >= RESET_AFTER_S:
        state = _forgiven(state)
    recent = sum(now_s - at < RESTARTS_WINDOW_S for at in state.restarts_s)
    if ready_s < HEALTHY_AFTER_S and not (event.answered and recent < RESTARTS_IN_WINDOW):
        return _after_failure(state, event, now_s, policy, permanent=False)
    state = replace(state, failures_in_a_row=0, crashed=True)
    if _is_wanted(event, policy):
        return _start(state, now_s)
    # A server that lives by calls, and nobody calls.
    return _to(state, "idle", now_s), Action.NONE


def _after_failure(
    state: State, event: StartFailed | Died, now_s: float, policy: Policy, *, permanent: bool
) -> Decision:
    failures = state.failures + 1
    in_a_row = state.failures_in_a_row + 1
    state = replace(
        state, since_s=now_s, failures=failures, failures_in_a_row=in_a_row, crashed=True
    )
    if permanent or in_a_row >= GIVE_UP_AFTER:
        return replace(state, kind="failed"), Action.NONE
    # 2**7 already exceeds the cap; a larger exponent would only grow the number.
    delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 7)) * event.jitter
    return replace(state, kind="backoff", retry_at_s=now_s + delay_s), Action.NONE


def _after_time(state: State, event: Tick, now_s: float, policy: Policy) -> Decision:
    due = due_s(state, policy, event.quiet_since_s)
    if due is None or now_s < due:
        return state, Action.NONE
    if state.kind == "ready":
        return _stop(state, "idle", now_s)
    if _is_wanted(event, policy):
        return _start(state, now_s)
    return _to(state, "idle", now_s), Action.NONE


def _is_wanted(event: StartFailed | Died | Tick, policy: Policy) -> bool:
    return event.waiting or (policy.auto_start and policy.auto_restart)
