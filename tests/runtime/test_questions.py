"""Whom a process means when it asks its client something, and that it always gets one answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.runtime import wire
from octave.runtime.questions import OPEN_LIMIT, ROOTS, Caller, Question, Questions

FORM = "elicitation/create"


class Process:
    """What a process asks, and what it is told."""

    def __init__(self, owner: Caller | None = None) -> None:
        self.told: list[wire.Message] = []
        self.open: list[int] = []
        """How many questions were open, whenever that changed."""
        self.is_starting = False
        self.questions = Questions(owner, self._hear, self.open.append, lambda: self.is_starting)

    def _hear(self, line: bytes) -> None:
        self.told.append(wire.decode(line))

    def ask(self, identifier: bytes = b"1", method: str = FORM) -> wire.Message | None:
        """Ask, and return the answer, if it comes at once."""
        before = len(self.told)
        self.questions.asked(wire.decode(wire.request(identifier, method)))
        return self.told[before] if len(self.told) > before else None

    def withdraw(self, params: bytes) -> wire.Message:
        said = wire.decode(wire.notification("notifications/cancelled", params))
        self.questions.cancelled(said)
        return said


class Session:
    """Somebody with calls, who keeps what he is asked."""

    def __init__(self, *, answers: bool = True) -> None:
        self.asked: list[Question] = []
        self.withdrawn: list[wire.Message | None] = []
        self._hear = self._take if answers else None
        self.loose = Caller(self, on_question=self._hear)
        """Himself outside of any call."""

    def _take(self, question: Question) -> None:
        question.on_withdrawn = self.withdrawn.append
        self.asked.append(question)

    def caller(self) -> Caller:
        """One call of his."""
        return Caller(self, on_question=self._hear, loose=self.loose)


def nobody() -> Caller:
    """A call of one who can be asked nothing, as in the modern era."""
    return Caller(None)


def code(answer: wire.Message | None) -> int | None:
    return None if answer is None else int(wire.member(answer.error or b"{}", "code") or b"0")


# Who is meant.


def test_process_that_is_up_asks_nobody_who_waits_for_the_next_one() -> None:
    process, one, other = Process(), Session(), Session()
    with process.questions.waiting(other.caller()):
        assert code(process.ask()) == wire.METHOD_NOT_FOUND
        with process.questions.calling(one.caller()):
            assert process.ask(b"2") is None
    assert (len(one.asked), len(other.asked)) == (1, 0)


def test_process_that_starts_asks_him_who_waits_for_it() -> None:
    process, one = Process(), Session()
    process.is_starting = True
    with process.questions.waiting(one.caller()):
        assert process.ask() is None
    assert len(one.asked) == 1
    assert code(process.ask(b"2")) == wire.METHOD_NOT_FOUND


def test_the_only_one_with_a_call_is_asked() -> None:
    process, one, other = Process(), Session(), Session()
    with process.questions.calling(other.caller()):
        pass
    with process.questions.calling(one.caller()), process.questions.calling(one.caller()):
        assert process.ask() is None
    assert (len(one.asked), len(other.asked)) == (1, 0)


def test_of_two_none_is_asked_and_the_process_is_told() -> None:
    process, one, other = Process(), Session(), Session()
    with process.questions.calling(one.caller()), process.questions.calling(other.caller()):
        assert code(process.ask()) == wire.INTERNAL_ERROR
    assert one.asked == other.asked == []
    assert process.questions.count == 0


def test_beside_one_who_cannot_be_asked_nobody_is() -> None:
    """The call that it asks for may be his."""
    process, one = Process(), Session()
    with process.questions.calling(one.caller()), process.questions.calling(nobody()):
        assert code(process.ask()) == wire.INTERNAL_ERROR
    with process.questions.calling(nobody()):
        assert code(process.ask()) == wire.METHOD_NOT_FOUND
    assert one.asked == []


def test_two_who_cannot_be_asked_are_not_one() -> None:
    process = Process()
    with process.questions.calling(nobody()), process.questions.calling(nobody()):
        assert code(process.ask()) == wire.INTERNAL_ERROR


@pytest.mark.parametrize("method", [FORM, "own/question"])
def test_without_a_call_nobody_is_asked(method: str) -> None:
    process, one = Process(), Session()
    with process.questions.calling(one.caller()):
        pass
    answer = process.ask(b'"x"', method)
    assert code(answer) == wire.METHOD_NOT_FOUND
    assert answer is not None and answer.id == b'"x"'


def test_newest_call_of_a_session_hears_of_it() -> None:
    """Over HTTP each has a stream of its own, and the older ones may be read no more."""
    process, heard = Process(), list[str]()
    session = object()
    old = Caller(session, on_question=lambda _: heard.append("old"))
    new = Caller(session, on_question=lambda _: heard.append("new"))
    with process.questions.calling(old):
        with process.questions.calling(new):
            process.ask(b"1")
        process.ask(b"2")
    assert heard == ["new", "old"]


def test_caller_with_two_calls_may_be_meant_until_the_second_has_ended() -> None:
    process, one = Process(), Session()
    caller = one.caller()
    process.questions.begin(caller)
    process.questions.begin(caller)
    process.questions.end_of(caller)
    assert process.ask(b"1") is None
    process.questions.end_of(caller)
    assert code(process.ask(b"2")) == wire.METHOD_NOT_FOUND


def test_owner_is_asked_whether_or_not_he_has_a_call() -> None:
    owner = Session()
    process = Process(owner.loose)
    assert process.ask(b"1") is None
    with process.questions.calling(owner.caller()):
        assert process.ask(b"2") is None
    assert [each.message.id for each in owner.asked] == [b"1", b"2"]


def test_owner_who_answers_nothing_is_not_asked() -> None:
    assert code(Process(Session(answers=False).loose).ask()) == wire.METHOD_NOT_FOUND


# Roots, for which some ask at any time.


def test_roots_are_asked_of_whoever_was_asked_for_them_last() -> None:
    process, one, other = Process(), Session(), Session()
    for session in (one, other):
        with process.questions.calling(session.caller()):
            process.ask(b"1", ROOTS)
            session.asked.pop().answer(wire.result(b"0", b"{}"))
    assert process.ask(b"2", ROOTS) is None
    assert (len(one.asked), len(other.asked)) == (0, 1)
    assert process.questions.knows_roots_of(other)
    assert not process.questions.knows_roots_of(one)
    # For anything else that is no reason.
    assert code(process.ask(b"3")) == wire.METHOD_NOT_FOUND


def test_roots_of_one_who_is_gone_are_not_asked_for() -> None:
    process, one = Process(), Session()
    with process.questions.calling(one.caller()):
        process.ask(b"1", ROOTS)
    process.questions.forget(object())
    assert process.questions.knows_roots_of(one)
    process.questions.forget(one)
    assert code(process.ask(b"2", ROOTS)) == wire.METHOD_NOT_FOUND


def test_roots_asked_of_two_at_once_are_those_of_none() -> None:
    process, one, other = Process(), Session(), Session()
    with process.questions.calling(one.caller()), process.questions.calling(other.caller()):
        assert code(process.ask(b"1", ROOTS)) == wire.INTERNAL_ERROR
    assert code(process.ask(b"2", ROOTS)) == wire.METHOD_NOT_FOUND


# Answers.


@pytest.mark.parametrize("identifier", [b"0", b'""', b"-1.50", b"9" * 30, b'"\\u00e9"', b"null"])
def test_answer_goes_back_under_the_id_as_it_came(identifier: bytes) -> None:
    owner = Session()
    process = Process(owner.loose)
    process.ask(identifier)
    owner.asked[0].answer(b'{"own":1.0,"jsonrpc":"2.0","result":{"a":1E2},"id":"octave-1"}')
    (told,) = process.told
    expected = b'{"own":1.0,"jsonrpc":"2.0","result":{"a":1E2},"id":%b}' % identifier
    assert told.line == expected
    assert process.open == [1, 0]


def test_only_the_first_answer_counts() -> None:
    owner = Session()
    process = Process(owner.loose)
    process.ask()
    for _ in range(2):
        owner.asked[0].answer(wire.result(b"0", b"{}"))
        owner.asked[0].refuse(wire.INTERNAL_ERROR, "no")
    assert len(process.told) == 1
    assert process.open == [1, 0]


def test_answer_to_what_was_withdrawn_is_none_to_what_has_its_id_now() -> None:
    owner = Session()
    process = Process(owner.loose)
    process.ask(b"1")
    said = process.withdraw(b'{"requestId":1,"reason":"x"}')
    assert owner.withdrawn == [said]
    process.ask(b"1")
    old, new = owner.asked
    old.answer(wire.result(b"0", b'"old"'))
    assert process.told == []
    new.answer(wire.result(b"0", b'"new"'))
    assert [each.result for each in process.told] == [b'"new"']


@pytest.mark.parametrize("params", [b"{}", b"[]", b'{"requestId":"1"}', b'{"requestId":2}', b"7"])
def test_withdrawal_of_what_is_not_open_is_dropped(params: bytes) -> None:
    owner = Session()
    process = Process(owner.loose)
    process.ask(b"1")
    process.withdraw(params)
    assert owner.withdrawn == []
    assert process.questions.count == 1


def test_second_question_under_an_open_id_is_refused_and_the_first_stays_open() -> None:
    owner = Session()
    process = Process(owner.loose)
    process.ask(b"1")
    assert code(process.ask(b"1")) == wire.INVALID_REQUEST
    assert process.ask(b'"1"') is None
    assert len(owner.asked) == 2
    owner.asked[0].answer(wire.result(b"0", b'"first"'))
    assert process.told[-1].result == b'"first"'
    # Once it is answered the id is free.
    assert process.ask(b"1") is None


def test_more_questions_than_can_be_open_are_refused() -> None:
    owner = Session()
    process = Process(owner.loose)
    for number in range(OPEN_LIMIT):
        assert process.ask(b"%d" % number) is None
    assert code(process.ask(b'"more"')) == wire.INVALID_REQUEST
    assert len(owner.asked) == process.questions.count == OPEN_LIMIT
    owner.asked[0].answer(wire.result(b"0", b"{}"))
    assert process.ask(b'"more"') is None


def test_questions_of_a_process_that_is_gone_are_withdrawn() -> None:
    owner = Session()
    process = Process(owner.loose)
    for number in range(3):
        process.ask(b"%d" % number)
    process.questions.end()
    assert owner.withdrawn == [None, None, None]
    # What is said of them is nothing to the next process, which counts anew.
    process.ask(b"0")
    for question in owner.asked[:3]:
        question.answer(wire.result(b"0", b"{}"))
    assert process.told == []
    assert process.questions.count == 1


# All of it, in any order.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "ask", "answer", "withdraw", "gone"]),
        st.integers(0, 3),
        st.sampled_from([b"1", b'"1"', b"2"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_no_question_reaches_one_without_a_call_or_is_answered_twice(
    steps: list[tuple[str, int, bytes]],
) -> None:
    process, sessions = Process(), [Session() for _ in range(3)]
    calls: list[tuple[Session, Caller]] = []
    asked = 0
    for what, number, identifier in steps:
        before = [len(session.asked) for session in sessions]
        match what:
            case "begin":
                session = sessions[number % 3]
                calls.append((session, session.caller()))
                process.questions.begin(calls[-1][1])
            case "end" if calls:
                process.questions.end_of(calls.pop(number % len(calls))[1])
            case "ask":
                answer = process.ask(identifier)
                asked += 1
                now = [len(session.asked) for session in sessions]
                meant = [
                    each for each, old, new in zip(sessions, before, now, strict=True) if new > old
                ]
                at_work = {session for session, _ in calls}
                assert len(meant) + (answer is not None) == 1
                assert set(meant) <= at_work
                assert not meant or len(at_work) == 1
            case "answer" if sessions[number % 3].asked:
                sessions[number % 3].asked[-1].answer(wire.result(b"0", b"{}"))
            case "withdraw":
                process.withdraw(b'{"requestId":%b}' % identifier)
            case "gone":
                process.questions.end()
    withdrawn = sum(len(session.withdrawn) for session in sessions)
    assert len(process.told) + withdrawn + process.questions.count == asked
    # Whoever is still asked can answer, and then nothing is open.
    for session in sessions:
        for question in session.asked:
            question.answer(wire.result(b"0", b"{}"))
    assert process.questions.count == 0
    assert len(process.told) + withdrawn == asked
