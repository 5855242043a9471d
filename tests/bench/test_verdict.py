"""The judge of kill campaigns: what it lets pass, and that it sees each broken promise."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.bench.verdict import Call, Facts, Journal, Kill, Shown, Terms, judge

OLD, NEW = 100, 101


def facts() -> Facts:
    """One server, killed at 10.0 and ready again at 10.1, with a call cut off by that."""
    calls = [
        Call("before", "s", 5.0, 5.01, OLD),
        Call("cut", "s", 9.99, 10.02, error="outcome unknown", is_unknown=True),
        Call("after", "s", 10.05, 10.12, NEW),
    ]
    journal = Journal({OLD: 0.0, NEW: 10.08}, {OLD: 0.1, NEW: 10.1}, Counter(before=1, after=1))
    shown = {"s": Shown(0.995, 0.098, 20.0)}
    return Facts(calls, [Kill("s", OLD, 10.0)], {"s": journal}, shown, [0.06])


def broken(facts: Facts, terms: Terms = Terms()) -> str:  # noqa: B008 - frozen
    return "\n".join(judge(facts, terms).broken)


def test_a_call_that_was_on_the_wire_may_fail() -> None:
    assert broken(facts()) == ""


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (Call("x", "s", 5.0), "every call ends"),
        (Call("x", "s", 5.0, 5.1, error="no", is_unknown=True), "not on the wire: no"),
        (Call("x", "s", 10.04, 10.05, error="no", is_unknown=True), "not on the wire"),
        (Call("x", "s", 9.99, 10.05, error="no"), "not on the wire"),
        (Call("x", "s", 9.99, 10.2, error="no", is_unknown=True), "told within 100 ms"),
        (Call("x", "s", 5.0, 5.1, OLD), "was executed"),
    ],
    ids=["lost", "without-a-kill", "after-the-kill", "not-unknown", "late", "made-up"],
)
def test_a_call_that_ends_otherwise_breaks_a_promise(call: Call, sentence: str) -> None:
    found = facts()
    found.calls = [*found.calls, call]
    assert sentence in broken(found)


def test_a_call_executed_twice_breaks_a_promise_unless_it_may_be_repeated() -> None:
    found = facts()
    found.journals["s"].executed["after"] += 1
    assert "none is executed twice: ['after']" in broken(found)
    found.calls = [call for call in found.calls if call.error is None]
    assert broken(found, Terms(replay=True)) == ""


@pytest.mark.parametrize(
    "shown", [Shown(0.995, 0.07, 20.0), Shown(0.98, 0.098, 20.0)], ids=["seconds", "share"]
)
def test_a_figure_that_is_not_what_was_measured_breaks_a_promise(shown: Shown) -> None:
    found = facts()
    found.shown = {"s": shown}
    assert "the runtime says" in broken(found)


def test_slow_recovery_breaks_a_promise_where_time_counts() -> None:
    found = facts()
    found.calls = [found.calls[0], replace(found.calls[2], answered_s=10.5)]
    assert "recovery below" in broken(found)
    assert broken(found, Terms(is_timed=False)) == ""


def test_a_server_that_never_answers_again_breaks_a_promise() -> None:
    found = facts()
    found.kills = [*found.kills, Kill("s", NEW, 11.0)]
    assert "answers again" in broken(found)
