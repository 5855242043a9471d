"""Servers that are killed one after the other while all are called: what is lost, and for how long.

What is promised and how it is judged is in tests/bench/verdict.py.
"""

import sys

import pytest

from tests.bench.campaign import Plan, run
from tests.bench.verdict import Terms

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes share a clock on Linux")

SHORT = Plan(seconds=10, servers=6, calls_per_s=30, work_ms=60, start_ms=500)
"""The slow start makes the time down long against what a busy machine adds to it."""
BUSY = Terms(resolution_s=0.4, is_timed=False)


def test_kills_cost_only_what_was_on_the_wire_and_the_time_down_is_told() -> None:
    verdict = run(SHORT, BUSY)
    assert verdict.broken == []


@pytest.mark.campaign
def test_a_kill_every_second_for_a_minute_keeps_every_promise() -> None:
    verdict = run(Plan(), Terms())
    assert verdict.broken == []


@pytest.mark.campaign
def test_a_kill_every_second_costs_no_call_of_a_tool_that_may_be_repeated() -> None:
    verdict = run(Plan(seconds=30, replay=True), Terms(replay=True))
    assert verdict.broken == []
