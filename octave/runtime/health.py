"""Whether a ready server is still well: one pure function that decides, and the probe.

Whatever the server says is a sign of life; a probe goes out only after silence, and asks what this
server was seen to answer. Its silence alone condemns nobody: a server is stuck when a call also
ran out of time and nothing was heard since. A server past its memory limit gets a fresh process
while nobody needs it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from octave.errors import CallTimedOut, OctaveError, ServerBusy, ServerDied
from octave.packages.launch import Policy
from octave.runtime import worker
from octave.runtime.calls import Calls
from octave.runtime.connection import Connection
from octave.runtime.metrics import tree_memory_bytes

PROBES = ("ping", "tools/list")
"""What to ask, in this order, until the server was seen to answer one. Of servers that do not know
`ping` some refuse it and some say nothing; every server with tools lists them."""
PROBE_SHARE = 0.2
"""A probe's time as a share of the interval, 6 s of 30: both probes at the end of a whole interval
find a stuck server within 42 s."""
LATE_S = 2.0
"""A look so much later than due proves nothing: the machine slept, or nobody got to run."""
OUTGROWN_AGAIN_S = 600.0
"""If it is too large again without having been used, a fresh process is no cure: not so soon."""


class Finding(Enum):
    """What a look at a server comes to."""

    WELL = "well"
    ASK = "ask"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of a ready server at one moment. Times are monotonic, in seconds."""

    now_s: float
    due_s: float
    """When this look was to be taken."""
    heard_s: float
    """When its last byte arrived."""
    oldest_s: float | None = None
    """When the oldest call in flight began; None when there is none."""
    overdue_s: float | None = None
    """When a call ran out of time, the first since it was last seen to be well."""
    asked_s: float | None = None
    """When the probe began that now has ended in silence; None before a probe."""


def decide(look: Look, policy: Policy) -> Finding:
    """Return what `look` says about the server."""
    interval_s = policy.health_interval_s
    if look.now_s - look.due_s > LATE_S:
        return Finding.WELL
    overdue_s = look.overdue_s
    if overdue_s is None or look.heard_s > overdue_s:
        is_quiet = look.oldest_s is None and look.now_s - look.heard_s >= interval_s
        return Finding.ASK if is_quiet and look.asked_s is None else Finding.WELL
    if look.oldest_s is not None and look.oldest_s <= overdue_s:
        # It may be at work on this one, and too simple to answer anything meanwhile.
        return Finding.WELL
    if look.asked_s is None:
        return Finding.ASK
    # One interval of grace: what ran out of time may be about to end.
    is_silent = look.heard_s <= look.asked_s and look.now_s - overdue_s >= interval_s
    return Finding.STUCK if is_silent else Finding.WELL


def next_look_s(now_s: float, overdue_s: float | None, policy: Policy) -> float:
    """Return when to look next: after an interval, or when the grace of `decide` is over."""
    grace_ends_s = now_s if overdue_s is None else overdue_s + policy.health_interval_s
    regular_s = now_s + policy.health_interval_s
    return min(grace_ends_s, regular_s) if grace_ends_s > now_s else regular_s


def has_outgrown(
    memory_bytes: int, policy: Policy, since_last_s: float | None, *, is_used: bool
) -> bool:
    """Whether a fresh process is called for, once no call is in flight.

    `since_last_s` tells how long ago it got one for that reason, None for never; `is_used`, whether
    it was called since.
    """
    limit_bytes = policy.memory_limit_bytes
    if limit_bytes is None or memory_bytes <= limit_bytes:
        return False
    return is_used or since_last_s is None or since_last_s >= OUTGROWN_AGAIN_S


class Checkup:
    """The regular looks at one server; what was learned of it outlives its processes.

    Args:
        calls: those of the server, probes not among them.
        clock_s: monotonic, the event loop's.
        outgrown: called with its memory when it should get a fresh process and no call is there.
    """

    def __init__(
        self, calls: Calls, clock_s: Callable[[], float], outgrown: Callable[[int], None]
    ) -> None:
        self.probe: str | None = None
        """The method it was seen to answer; None: not known yet."""
        self._refused: set[str] = set()
        self._calls = calls
        self._clock_s = clock_s
        self._outgrown = outgrown
        self._outgrown_s: float | None = None

    async def watch(self, connection: Connection, policy: Policy) -> str:
        """Look every `health_interval_s`, and when a call ran out of time, until it is stuck.

        Returns what is wrong, as words that follow the server's name.
        """
        calls_before = self._calls.ever
        while True:
            now_s = self._clock_s()
            due_s = next_look_s(now_s, self._calls.overdue_s, policy)
            await self._calls.time_or_overdue(due_s - now_s)
            if await self._is_stuck(connection, policy, due_s):
                silent_s = self._clock_s() - connection.last_heard_s
                return f"was stuck (silent for {silent_s:.0f} s, a call past its deadline)"
            if policy.memory_limit_bytes is not None and connection.pid:
                is_used = self._calls.ever > calls_before
                await self._weigh(connection.pid, policy, is_used=is_used)

    async def _is_stuck(self, connection: Connection, policy: Policy, due_s: float) -> bool:
        finding = Finding.WELL
        timeout_s = policy.health_interval_s * PROBE_SHARE
        for method in self._questions():
            if decide(self._look(connection, due_s), policy) is not Finding.ASK:
                return False
            asked_s = self._clock_s()
            if await self._answers(connection, method, timeout_s):
                break
            due_s = asked_s + timeout_s
            finding = decide(self._look(connection, due_s, asked_s), policy)
        return finding is Finding.STUCK

    def _questions(self) -> tuple[str, ...]:
        if self.probe is not None:
            return (self.probe,)
        return tuple(method for method in PROBES if method not in self._refused) or PROBES

    def _look(self, connection: Connection, due_s: float, asked_s: float | None = None) -> Look:
        heard_s, calls = connection.last_heard_s, self._calls
        if calls.overdue_s is not None and heard_s > calls.overdue_s:
            calls.overdue_s = None
        return Look(self._clock_s(), due_s, heard_s, calls.oldest_s, calls.overdue_s, asked_s)

    async def _answers(self, connection: Connection, method: str, timeout_s: float) -> bool:
        """Ask; False when there was no answer, and when it has ended or does not read any more."""
        try:
            answer = await connection.request(method, None, timeout_s)
        except (CallTimedOut, ServerBusy, ServerDied):
            return False
        except OctaveError:
            # An answer beyond the limits is one.
            return True
        if answer.result is None:
            self._refused.add(method)
        else:
            self.probe = method
        return True

    async def _weigh(self, pid: int, policy: Policy, *, is_used: bool) -> None:
        found = await worker.run(tree_memory_bytes, [pid], abandon_on_cancel=True)
        memory_bytes, last_s = found.get(pid, 0), self._outgrown_s
        since_last_s = None if last_s is None else self._clock_s() - last_s
        if not has_outgrown(memory_bytes, policy, since_last_s, is_used=is_used):
            return

        def replace() -> None:
            self._outgrown_s = self._clock_s()
            self._outgrown(memory_bytes)

        self._calls.when_free(replace)
