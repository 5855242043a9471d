"""What a kill campaign has shown: figures and broken promises, from what was written down.

Pure. All times are of the machine's monotonic clock, in seconds, the same for every process.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TOLD_S = 0.1
"""From a death to the error of a call that was on the wire."""
ON_THE_WIRE_S = 0.02
"""A call sent so shortly after the kill may still have found the pipe of the dying process open."""
RECOVERY_S = 0.3
"""At the median, beyond the server's own start."""
LONGEST_RECOVERY_S = 1.0
"""The same, of the worst."""
EVERY_S = 300.0
THREE_NINES = 0.999
"""To be available at one crash in `EVERY_S`."""
ANSWERED = 0.998
"""Of all calls at 50 a second and a kill in ten seconds: one call a kill."""
ANSWERED_WITH_REPLAY = 0.9999
CALLS_A_KILL = 500
RESOLUTION_S = 0.1
"""By which two clocks of one death may differ: the runtime's runs from when it gets to notice until
it has read the answer of the new process, the servers' from the kill until that has read the
runtime's next line. On a busy machine each of these waits for its turn."""
MEAN_SHARE = 0.2
"""Of the resolution: by which they may differ in the mean."""


@dataclass(slots=True)
class Call:
    """A call of the campaign; `id` is unique."""

    id: str
    server: str
    sent_s: float
    answered_s: float | None = None
    """None: neither answer nor error came."""
    pid: int | None = None
    """Of the process that answered; None for an error."""
    error: str | None = None
    is_unknown: bool = False
    """The error says that the outcome is unknown: that the call was on the wire."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One `kill -9`."""

    server: str
    pid: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Journal:
    """What the processes of one server have written down."""

    starts_s: dict[int, float]
    """By pid: when its first line of code ran."""
    ready_s: dict[int, float]
    """By pid: when the handshake was over."""
    executed: Counter[str]
    """By id of the call."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the runtime says of a server at the end."""

    availability: float
    down_s: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Terms:
    """How strict to be; a suite on a busy machine checks what does not depend on its speed."""

    replay: bool = False
    resolution_s: float = RESOLUTION_S
    is_timed: bool = True
    """Whether times are promises."""


@dataclass(slots=True)
class Facts:
    """A campaign."""

    calls: Sequence[Call]
    kills: Sequence[Kill]
    journals: Mapping[str, Journal]
    shown: Mapping[str, Shown]
    plain_starts_s: Sequence[float]
    """From spawn to the answer of `initialize`, without Octave, in the same minutes."""


@dataclass(slots=True)
class Verdict:
    """What has come out."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def show(self, what: str, value: str) -> None:
        """Add a line to the table."""
        self.figures.append((what, value))

    def promise(self, sentence: str, holds: bool) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.broken.append(sentence)


def judge(facts: Facts, terms: Terms) -> Verdict:
    """Return the figures of a campaign and what it broke."""
    verdict = Verdict()
    _calls(facts, terms, verdict)
    _errors(facts, terms, verdict)
    _recovery(facts, terms, verdict)
    _availability(facts, terms, verdict)
    return verdict


def _calls(facts: Facts, terms: Terms, verdict: Verdict) -> None:
    executed = sum((each.executed for each in facts.journals.values()), Counter[str]())
    answered = [call for call in facts.calls if call.pid is not None]
    failed = [call for call in facts.calls if call.error is not None]
    silent = [call.id for call in facts.calls if call.answered_s is None]
    twice = [call.id for call in facts.calls if executed[call.id] > 1]
    imagined = [call.id for call in answered if not executed[call.id]]
    share = len(answered) / len(facts.calls)
    verdict.show("calls", f"{len(facts.calls)}")
    verdict.show("executed and answered", f"{len(answered)}  ({share:.4%})")
    verdict.show("executed, answer lost", f"{sum(executed[call.id] > 0 for call in failed)}")
    verdict.show("on the wire, never executed", f"{sum(not executed[call.id] for call in failed)}")
    verdict.show("executed twice", f"{len(twice)}")
    verdict.promise(f"every call ends: {silent[:5]}", not silent)
    verdict.promise(f"what is answered was executed: {imagined[:5]}", not imagined)
    if terms.replay:
        enough = ANSWERED_WITH_REPLAY
    else:
        enough = ANSWERED
        share = 1.0 - len(failed) / max(1, len(facts.kills)) / CALLS_A_KILL
        verdict.show("answered at 50 calls/s and a kill in 10 s", f"{share:.4%}")
        verdict.promise(f"none is executed twice: {twice[:5]}", not twice)
    verdict.promise(f"{enough:.2%} are answered", share >= enough or not terms.is_timed)


def _errors(facts: Facts, terms: Terms, verdict: Verdict) -> None:
    """Calls that failed must have been on the wire at a kill, and have been told soon."""
    told_s = []
    for call in facts.calls:
        if call.error is None or call.answered_s is None:
            continue
        kills = [kill.at_s for kill in facts.kills if kill.server == call.server]
        at_s = max((at_s for at_s in kills if at_s < call.answered_s), default=None)
        was_there = at_s is not None and call.sent_s <= at_s + ON_THE_WIRE_S
        verdict.promise(
            f"{call.id} fails though it was not on the wire: {call.error}",
            call.is_unknown and was_there,
        )
        if at_s is not None:
            told_s.append(call.answered_s - max(at_s, call.sent_s))
    verdict.show("death to error of the call, ms", _spread(told_s))
    is_soon = max(told_s, default=0.0) <= TOLD_S
    sentence = f"who waits is told within {TOLD_S * 1000:.0f} ms"
    verdict.promise(sentence, is_soon or not terms.is_timed)


def _recovery(facts: Facts, terms: Terms, verdict: Verdict) -> None:
    own_s = statistics.median(facts.plain_starts_s)
    to_ready = [ready_s - kill.at_s for kill, ready_s in _restarts(facts)]
    to_answer = [answer_s - kill.at_s for kill, answer_s in _answers_after(facts)]
    to_process = [journal.starts_s[pid] - kill.at_s for kill, journal, pid in _successors(facts)]
    beyond = [each - own_s for each in to_answer]
    verdict.show("kills", f"{len(facts.kills)}")
    verdict.show("a server's own start, ms", _spread(facts.plain_starts_s))
    verdict.show("death to the successor's first line, ms", _spread(to_process))
    verdict.show("death to ready, ms", _spread(to_ready))
    verdict.show("death to the next answer, ms", _spread(to_answer))
    verdict.show("the same beyond the server's own start, ms", _spread(beyond))
    verdict.promise("every killed server answers again", len(to_answer) == len(facts.kills))
    if terms.is_timed:
        verdict.promise(
            f"recovery below {RECOVERY_S} s at the median", statistics.median(beyond) < RECOVERY_S
        )
        verdict.promise(
            f"recovery within {LONGEST_RECOVERY_S} s", max(beyond) <= LONGEST_RECOVERY_S
        )


def _availability(facts: Facts, terms: Terms, verdict: Verdict) -> None:
    """The runtime's figure against the kills and what the servers themselves wrote down."""
    down_s = dict.fromkeys(facts.shown, 0.0)
    kills = Counter(kill.server for kill in facts.kills)
    for kill, ready_s in _restarts(facts):
        down_s[kill.server] += ready_s - kill.at_s
    for name, shown in facts.shown.items():
        observed_s = shown.at_s - min(facts.journals[name].starts_s.values())
        measured = 1.0 - down_s[name] / observed_s
        slack_s = terms.resolution_s * max(1, kills[name])
        verdict.promise(
            f"`{name}` was down for {down_s[name]:.3f} s, the runtime says {shown.down_s:.3f}",
            abs(shown.down_s - down_s[name]) <= slack_s,
        )
        verdict.promise(
            f"`{name}` was available {measured:.4%}, the runtime says {shown.availability:.4%}",
            abs(shown.availability - measured) <= 2 * slack_s / observed_s,
        )
    told_s = sum(shown.down_s for shown in facts.shown.values())
    measured_s = sum(down_s.values())
    verdict.promise(
        f"all were down for {measured_s:.3f} s, the runtime says {told_s:.3f}",
        abs(told_s - measured_s) <= terms.resolution_s * MEAN_SHARE * max(1, len(facts.kills)),
    )
    one_s = measured_s / max(1, len(facts.kills))
    scaled = 1.0 - one_s / EVERY_S
    verdict.show("down in all, measured / as the API has it, s", f"{measured_s:.3f} / {told_s:.3f}")
    worst = min(shown.availability for shown in facts.shown.values())
    verdict.show("availability in the campaign, worst server", f"{worst:.4%}")
    verdict.show("availability at one crash in five minutes", f"{scaled:.4%}")
    verdict.promise(f"{THREE_NINES:.1%} are there", scaled > THREE_NINES or not terms.is_timed)


def _successors(facts: Facts) -> Iterator[tuple[Kill, Journal, int]]:
    """Each kill with the process that took over."""
    for kill in facts.kills:
        journal = facts.journals[kill.server]
        later = [pid for pid, at_s in journal.ready_s.items() if at_s > kill.at_s]
        if later:
            yield kill, journal, min(later, key=journal.ready_s.__getitem__)


def _restarts(facts: Facts) -> Iterator[tuple[Kill, float]]:
    for kill, journal, pid in _successors(facts):
        yield kill, journal.ready_s[pid]


def _answers_after(facts: Facts) -> Iterator[tuple[Kill, float]]:
    """Each kill with the time of the first answer of another process of its server."""
    answers: dict[str, list[tuple[float, int]]] = {}
    for call in facts.calls:
        if call.answered_s is not None and call.pid is not None:
            answers.setdefault(call.server, []).append((call.answered_s, call.pid))
    for kill in facts.kills:
        of_successors_s = [
            at_s
            for at_s, pid in answers.get(kill.server, ())
            if at_s > kill.at_s and pid != kill.pid
        ]
        if of_successors_s:
            yield kill, min(of_successors_s)


def _spread(values_s: Sequence[float]) -> str:
    if not values_s:
        return "-"
    ordered = sorted(values_s)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return (
        f"p50 {statistics.median(ordered) * 1000:.0f}  p95 {p95 * 1000:.0f}"
        f"  max {ordered[-1] * 1000:.0f}"
    )
