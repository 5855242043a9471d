"""What share of the time a server was there for whoever needed it.

Pure: states and times in, a figure out. It counts from the first start on, but not while a person
keeps the server stopped. It is down from a death, or from the beginning of a start that comes to
nothing, until it is ready again; a failed one stays down, as whoever calls it is refused. It is
not down while it sleeps, nor in a start that a call, an order or `memory_limit` brings about.
"""

from collections.abc import Callable
from typing import Any

from octave.runtime.lifecycle import State

BEAT_S = 5.0
"""How often `Awake` is to be asked at least, whatever happens."""
LATE_S = 2.0
"""A beat that is later than this was held up by more than a busy machine."""


class Awake:
    """A clock that stands still while this process could not run: suspended, or stopped.

    Most monotonic clocks stand still in a suspend by themselves; that of a virtual machine which
    was paused, or of a stopped process, does not. What goes by between two questions counts as one
    beat when it is clearly longer.

    Args:
        clock_s: monotonic.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._asked_s = clock_s()
        self._lost_s = 0.0

    def __call__(self) -> float:
        """Return the time in seconds, without what was lost."""
        now_s = self._clock_s()
        passed_s = now_s - self._asked_s
        if passed_s > BEAT_S + LATE_S:
            self._lost_s += passed_s - BEAT_S
        self._asked_s = now_s
        return now_s - self._lost_s


class _Stopwatch:
    """Adds up the time for which something was so."""

    def __init__(self) -> None:
        self.is_so = False
        self._total_s = 0.0
        self._since_s = 0.0

    def become(self, now_s: float, *, is_so: bool) -> None:
        self._total_s = self.total_s(now_s)
        self._since_s = now_s
        self.is_so = is_so

    def was_so_for(self, seconds: float) -> None:
        self._total_s += seconds

    def total_s(self, now_s: float) -> float:
        return self._total_s + (now_s - self._since_s if self.is_so else 0.0)


class Availability:
    """The figure of one server, told of each change of its state.

    Args:
        clock_s: as `Awake` gives it.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._wanted = _Stopwatch()
        self._down = _Stopwatch()
        self._began_s = 0.0
        """When the present kind of state began."""

    def changed(self, before: State, after: State) -> None:
        """Take note of a change, now."""
        now_s, was_down = self._clock_s(), self._down.is_so
        self._wanted.become(now_s, is_so=is_wanted(after, was_wanted=self._wanted.is_so))
        self._down.become(now_s, is_so=is_down(before, after, was_down=was_down))
        if before.kind == "starting" and self._down.is_so and not was_down:
            # As is known only now: whoever waited for this start did so in vain.
            self._down.was_so_for(now_s - self._began_s)
        if after.kind != before.kind:
            self._began_s = now_s

    @property
    def down_s(self) -> float:
        """How long it has been down in all."""
        return self._down.total_s(self._clock_s())

    @property
    def share(self) -> float | None:
        """The share of the time it was not down, 0 to 1; None before its first start."""
        now_s = self._clock_s()
        wanted_s = self._wanted.total_s(now_s)
        if wanted_s > 0:
            return 1.0 - self._down.total_s(now_s) / wanted_s
        return 1.0 if self._wanted.is_so else None

    def snapshot(self) -> dict[str, Any]:
        """Return ``{"availability", "downSeconds"}`` of `octave status --json`."""
        share = self.share
        return {
            "availability": None if share is None else round(share, 6),
            "downSeconds": round(self.down_s, 3),
        }


def is_wanted(after: State, *, was_wanted: bool) -> bool:
    """Whether time counts in the state `after`."""
    if after.kind == "idle":
        # Before its first start nobody has asked for it.
        return was_wanted
    return not _is_kept_down(after)


def is_down(before: State, after: State, *, was_down: bool) -> bool:
    """Whether it is down in the state `after`, which follows `before`."""
    match after.kind:
        case "backoff" | "failed":
            return True
        case "starting":
            # Straight from `ready` only a death leads here: orders stop it first.
            return was_down or before.kind == "ready"
        case "stopping":
            return was_down and not _is_kept_down(after)
        case _:
            # Ready; or nobody needs it up, and the next call starts it; or nobody wants it.
            return False


def _is_kept_down(state: State) -> bool:
    return "stopped" in (state.kind, state.after_stop if state.kind == "stopping" else None)
