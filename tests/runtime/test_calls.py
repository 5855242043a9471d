"""The book of calls under way."""

import asyncio

import pytest

from octave.errors import CallTimedOut
from octave.runtime.calls import GIVEN_UP_AFTER_S, Calls


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_it_is_quiet_since_the_last_use_and_only_while_no_call_is_there() -> None:
    now = Now()
    calls = Calls(now)
    with calls.taking():
        now.s = 5
        assert calls.quiet_since_s is None
        calls.used()
    assert calls.quiet_since_s == 5


def test_what_waits_is_not_in_flight() -> None:
    calls = Calls(Now())
    with calls.taking():
        with calls.waiting_for_it():
            assert (calls.count, calls.waiting, calls.in_flight) == (1, 1, 0)
        assert calls.in_flight == 1
    assert (calls.count, calls.ever) == (0, 1)


def test_the_oldest_is_the_one_that_began_first_of_those_still_there() -> None:
    now = Now()
    calls = Calls(now)
    first, second = calls.taking(), calls.taking()
    first.__enter__()
    now.s = 3
    second.__enter__()
    assert calls.oldest_s == 0
    first.__exit__(None, None, None)
    assert calls.oldest_s == 3
    second.__exit__(None, None, None)
    assert calls.oldest_s is None


def test_the_first_time_out_counts_until_a_fresh_process_begins() -> None:
    now = Now()
    calls = Calls(now)
    for at_s in (1, 2):
        now.s = at_s
        with pytest.raises(CallTimedOut), calls.taking():
            raise CallTimedOut("late")
    assert calls.overdue_s == 1
    calls.begin()
    assert calls.overdue_s is None


def given_up_after(calls: Calls, now: Now, seconds: float) -> None:
    with pytest.raises(asyncio.CancelledError), calls.taking():
        now.s += seconds
        raise asyncio.CancelledError


@pytest.mark.anyio
async def test_two_callers_in_a_row_who_lose_patience_count_as_a_time_out() -> None:
    now = Now()
    calls = Calls(now)
    given_up_after(calls, now, GIVEN_UP_AFTER_S)
    assert calls.overdue_s is None
    given_up_after(calls, now, GIVEN_UP_AFTER_S - 1)
    assert calls.overdue_s is None
    given_up_after(calls, now, GIVEN_UP_AFTER_S)
    assert calls.overdue_s == now.s


@pytest.mark.anyio
async def test_an_answer_in_between_makes_up_for_the_first_of_them() -> None:
    now = Now()
    calls = Calls(now)
    given_up_after(calls, now, GIVEN_UP_AFTER_S)
    with calls.taking():
        pass
    given_up_after(calls, now, GIVEN_UP_AFTER_S)
    assert calls.overdue_s is None


@pytest.mark.anyio
async def test_callers_who_lose_patience_together_count_as_one() -> None:
    now = Now()
    calls = Calls(now)
    with pytest.raises(asyncio.CancelledError), calls.taking():
        given_up_after(calls, now, GIVEN_UP_AFTER_S)
        raise asyncio.CancelledError
    assert calls.overdue_s is None


def test_what_is_to_be_done_without_calls_is_done_once_when_the_last_ends() -> None:
    calls, done = Calls(Now()), list[str]()
    with calls.taking():
        calls.when_free(lambda: done.append("a"))
        with calls.taking():
            pass
        assert done == []
    with calls.taking():
        pass
    assert done == ["a"]
    calls.when_free(lambda: done.append("b"))
    assert done == ["a", "b"]


def test_a_fresh_process_is_not_replaced_for_what_an_earlier_one_did() -> None:
    calls, done = Calls(Now()), list[str]()
    with calls.taking():
        calls.when_free(lambda: done.append("a"))
        calls.begin()
    assert done == []
