"""A month in the life of one server, made of nothing but the decisions and a fake clock.

What the server does is drawn at random: it crashes, falls silent, does not start for hours. People
give orders, clients call, the machine sleeps. Whatever must never happen is asserted as it goes.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

from octave.packages.launch import Policy
from octave.runtime import health, lifecycle
from octave.runtime.health import Finding, Look
from octave.runtime.lifecycle import (
    Action,
    Called,
    Died,
    Event,
    Handshook,
    RestartAsked,
    StartAsked,
    StartFailed,
    State,
    StopAsked,
    Stopped,
    Tick,
)

HOUR_S = 3600.0
DAY_S = 86_400.0
PATIENCE_S = 30.0
"""So long a call waits for a server that does not come up."""


class World:
    """One server, its clients and its machine."""

    def __init__(self, seed: int, policy: Policy) -> None:
        self.random = random.Random(seed)
        self.policy = policy
        self.now_s = 0.0
        self.state = State()
        self.seen: Counter[str] = Counter()
        """How often each thing happened, so that a test can tell that it did."""
        self.up_s = 0.0
        self._agenda: list[tuple[float, int, bool, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._has_process = False
        self._generation = 0
        self._is_deaf = False
        self._is_broken = False
        self._is_wanted_down = False
        self._waiting = 0
        self._flying: dict[int, float] = {}
        self._plans = 0
        self._is_asking = False
        self._overdue_s: float | None = None
        self._heard_s = self._quiet_since_s = 0.0
        self._excused_s = 0.0
        """When its silence last meant nothing: the machine slept, or it was at work on a call."""
        self._answered = False
        self._ticks_at_s = float("inf")
        self._loop_starts: list[float] = []
        """Of the run of starts since it last was healthy, or somebody gave an order."""

    def run(self, until_s: float) -> None:
        """Live until then."""
        self._later(0, self._client)
        self._later(DAY_S, self._machine_sleeps)
        self._later(DAY_S, self._person)
        self._later(2 * DAY_S, self._breaks)
        while self._agenda[0][0] < until_s:
            at_s, _, _, what = heapq.heappop(self._agenda)
            # After the machine slept, what was due meanwhile comes late.
            self.now_s = max(self.now_s, at_s)
            what()
            self._plan_tick()

    # Time.

    def _later(self, delay_s: float, what: Callable[[], None], *, of_server: bool = False) -> None:
        number = next(self._numbers)
        heapq.heappush(self._agenda, (self.now_s + delay_s, number, of_server, what))

    def _of_process(self, delay_s: float, what: Callable[[], None]) -> None:
        """Happens in the server, if this process is still there."""
        generation = self._generation
        self._later(
            delay_s,
            lambda: what() if self._has_process and generation == self._generation else None,
            of_server=True,
        )

    def _often(self, mean_s: float) -> float:
        return self.random.expovariate(1 / mean_s)

    def _machine_sleeps(self) -> None:
        span_s = self.random.uniform(60, 2 * HOUR_S)
        # Servers sleep along with it: what they were about to do comes that much later.
        self._agenda = [
            (at_s + span_s * of_server, number, of_server, what)
            for at_s, number, of_server, what in self._agenda
        ]
        heapq.heapify(self._agenda)
        self.now_s += span_s
        self._excused_s = self.now_s
        self.seen["slept"] += 1
        self._later(self._often(DAY_S / 2), self._machine_sleeps)

    # The lifecycle.

    def _apply(self, event: Event) -> None:
        before = self.state
        self.state, action = lifecycle.decide(before, event, self.now_s, self.policy)
        if self.state.kind != before.kind:
            self.seen[self.state.kind] += 1
            if before.kind == "ready":
                self._was_up(self.now_s - before.since_s)
        if isinstance(event, Tick) and action is Action.STOP:
            assert not self._flying, "stopped as idle with calls in flight"
            self.seen["idle stop"] += 1
        if self._is_wanted_down:
            assert self.state.kind == "stopped" or self.state.after_stop == "stopped"
        if action is Action.START:
            self._start()
        elif action is Action.STOP:
            assert self._has_process
            self._of_process(self.random.uniform(0, 5), self._stopped)

    def _was_up(self, span_s: float) -> None:
        self.up_s += span_s
        if self._answered or span_s >= lifecycle.HEALTHY_AFTER_S:
            self._loop_starts.clear()

    def _start(self) -> None:
        assert not self._has_process, "two processes"
        self._has_process, self._is_deaf, self._answered = True, False, False
        self._generation += 1
        self._loop_starts.append(self.now_s)
        self._check_loop()
        fate = self.random.random()
        if self._is_broken and fate < 0.5:
            self._of_process(0.1, lambda: self._start_failed())
        elif self._is_broken:
            self._of_process(0.1, self._handshook)
            self._of_process(0.2, lambda: self._died())
        elif fate < 0.02:
            self._of_process(self.policy.start_timeout_s, lambda: self._start_failed())
        else:
            self._of_process(self.random.uniform(0.1, 2), self._handshook)

    def _check_loop(self) -> None:
        starts = self._loop_starts
        assert sum(at_s - starts[0] < 60 for at_s in starts) <= 6
        assert len(starts) <= 6 or starts[-1] - starts[-2] >= 60

    def _stopped(self) -> None:
        self._gone()
        self._apply(Stopped())

    def _gone(self) -> None:
        self._has_process = False
        self._flying.clear()

    def _start_failed(self) -> None:
        if self.state.kind == "starting":
            self._gone()
            jitter = self.random.uniform(*lifecycle.JITTER)
            self._apply(StartFailed(permanent=False, waiting=self._waiting > 0, jitter=jitter))

    def _died(self) -> None:
        if self.state.kind != "ready":
            return
        self._gone()
        self.seen["died"] += 1
        jitter = self.random.uniform(*lifecycle.JITTER)
        self._apply(Died(self._answered, self._waiting > 0, jitter))

    def _handshook(self) -> None:
        if self.state.kind != "starting":
            return
        self._heard_s = self._quiet_since_s = self.now_s
        self._overdue_s = None
        self._apply(Handshook())
        for _ in range(self._waiting):
            self._sent()
        self._waiting = 0
        self._of_process(self._often(2 * HOUR_S), self._died)
        self._of_process(self._often(6 * HOUR_S), self._falls_silent)
        self._look_later()

    def _falls_silent(self) -> None:
        self._is_deaf = True
        self.seen["fell silent"] += 1

    def _plan_tick(self) -> None:
        quiet_since_s = None if self._flying or self._waiting else self._quiet_since_s
        due_s = lifecycle.due_s(self.state, self.policy, quiet_since_s)
        if due_s is not None and due_s != self._ticks_at_s:
            self._ticks_at_s = due_s
            self._later(due_s - self.now_s, self._tick)

    def _tick(self) -> None:
        self._ticks_at_s = float("inf")
        quiet_since_s = None if self._flying or self._waiting else self._quiet_since_s
        self._apply(Tick(self._waiting > 0, quiet_since_s))

    # Health.

    def _look_later(self) -> None:
        due_s = health.next_look_s(self.now_s, self._overdue_s, self.policy)
        self._is_asking = False
        self._at_process(due_s, lambda: self._look(due_s))

    def _at_process(self, due_s: float, what: Callable[[], None]) -> None:
        """Plan the runtime's next thing to do for this process, instead of what was planned."""
        self._plans += 1
        plan = self._plans
        self._later(
            due_s - self.now_s,
            lambda: what() if plan == self._plans and self.state.kind == "ready" else None,
        )

    def _look(self, due_s: float, asked_s: float | None = None) -> None:
        if self._overdue_s is not None and self._heard_s > self._overdue_s:
            self._overdue_s = None
        oldest_s = next(iter(self._flying.values()), None)
        look = Look(self.now_s, due_s, self._heard_s, oldest_s, self._overdue_s, asked_s)
        finding = health.decide(look, self.policy)
        is_busy = oldest_s is not None and oldest_s <= (self._overdue_s or 0.0)
        if self._overdue_s is None or is_busy:
            self._excused_s = self.now_s
        if finding is Finding.ASK:
            self._ask()
        elif finding is Finding.STUCK:
            assert self._is_deaf, "a server that is well was found stuck"
            silent_s = self.now_s - max(self._overdue_s or 0.0, self._excused_s)
            assert silent_s <= 45, "found too late"
            self.seen["found stuck"] += 1
            self._died()
        else:
            self._look_later()

    def _ask(self) -> None:
        asked_s, self._is_asking = self.now_s, True
        if not self._is_deaf:
            self._of_process(0.01, self._answers_probe)
        over_s = asked_s + self.policy.health_interval_s * health.PROBE_SHARE
        self._at_process(over_s, lambda: self._look(over_s, asked_s))

    def _answers_probe(self) -> None:
        self._hear()
        if self._is_asking:
            self._look_later()

    def _hear(self) -> None:
        self._heard_s = self.now_s

    # Calls.

    def _client(self) -> None:
        is_night = self.now_s % DAY_S > 16 * HOUR_S
        self._later(self._often(2 * HOUR_S if is_night else 120), self._client)
        state = self.state
        self._apply(Called())
        if state.kind == "failed" and self.now_s - state.since_s >= lifecycle.HALF_OPEN_AFTER_S:
            assert self.state.kind == "starting", "no way back from failed"
            self.seen["way back"] += 1
        if self.state.kind == "ready":
            self._sent()
        elif self.state.kind in {"starting", "backoff", "stopping"} and not self._is_wanted_down:
            self._waiting += 1
            self._later(PATIENCE_S, self._gives_up)

    def _gives_up(self) -> None:
        self._waiting = max(0, self._waiting - 1)

    def _sent(self) -> None:
        number, generation = next(self._numbers), self._generation
        self._flying[number] = self.now_s
        takes_s = self._often(2) if self.random.random() < 0.99 else self._often(400)

        def answered() -> None:
            if number in self._flying and not self._is_deaf:
                self._hear()
                self._answered = True
                self._over(number)

        def overdue() -> None:
            if number in self._flying and generation == self._generation:
                if self._overdue_s is None:
                    self._overdue_s = self.now_s
                self.seen["overdue"] += 1
                self._over(number)
                if not self._is_asking:
                    self._look(self.now_s)

        self._of_process(takes_s, answered)
        self._later(self.policy.call_timeout_s, overdue)

    def _over(self, number: int) -> None:
        del self._flying[number]
        self._quiet_since_s = self.now_s

    # People.

    def _person(self) -> None:
        self._later(self._often(DAY_S / 2), self._person)
        if self._is_wanted_down:
            return
        self._loop_starts.clear()
        if self.random.random() < 0.5:
            self._apply(RestartAsked())
            return
        self._is_wanted_down = True
        self.seen["asked down"] += 1
        self._apply(StopAsked())
        self._later(self.random.uniform(60, 4 * HOUR_S), self._starts_again)

    def _starts_again(self) -> None:
        self._is_wanted_down = False
        self._loop_starts.clear()
        self._apply(StartAsked())

    def _breaks(self) -> None:
        self._is_broken = True
        self._later(self.random.uniform(60, 6 * HOUR_S), self._is_mended)

    def _is_mended(self) -> None:
        self._is_broken = False
        self._later(self._often(2 * DAY_S), self._breaks)
