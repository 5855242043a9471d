"""A legacy client's call of a modern server that asks in its answers."""

import json
from pathlib import Path

import pytest

from octave.gateway import rounds
from octave.runtime import wire
from tests.gateway.asking import ACCEPTED, ROOTS, SAMPLE, Asker, need, peer, until
from tests.gateway.conversation import desk
from tests.gateway.test_parking import nothing_is_left

pytestmark = pytest.mark.anyio


async def test_all_that_is_asked_is_asked_at_once(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a", "b", "c"))
        questions = await old.asked(3)
        assert len({wire.decode(each).id for each in questions}) == 3
        for question in reversed(questions):
            old.reply(question, json.loads(question)["params"])
        got = dict((await old.done(1))["got"])
        assert got == {key: {"k": key} for key in "abc"}
        assert nothing_is_left(found, old)


async def test_error_of_the_client_ends_the_call_and_takes_the_other_questions_back(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a", "b"))
        one, two = await old.asked(2)
        error = b'{"code":-1,"message":"no","own":1.10}'
        identifier = wire.decode(one).id or b""
        old.say(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identifier, error))
        answer = wire.decode(await old.answer(b"1"))
        assert answer.error == error
        withdrawn = await old.heard("notifications/cancelled")
        assert wire.member(withdrawn, "params", "requestId") == wire.decode(two).id
        assert asker.methods().count("tools/call") == 1
        assert nothing_is_left(found, old)


async def test_client_is_asked_in_ten_rounds_and_no_more(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, *(need("a") for _ in range(rounds.ROUNDS)))
        for number in range(1, rounds.ROUNDS + 1):
            old.reply((await old.asked(number))[-1])
        assert len((await old.done(1))["got"]) == rounds.ROUNDS
        old.do(2, *(need("a") for _ in range(rounds.ROUNDS + 1)))
        for number in range(1, rounds.ROUNDS + 1):
            old.reply((await old.asked(rounds.ROUNDS + number))[-1])
        assert (await old.result(2))["code"] == wire.INTERNAL_ERROR
        assert len(old.questions()) == 2 * rounds.ROUNDS
        assert nothing_is_left(found, old)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "own/question", "params": {}},
        {"method": "tools/call", "params": {"name": "x"}},
        {"method": "ping"},
        {"method": 7},
        {"params": {}},
        {},
        [],
        7,
        None,
    ],
)
async def test_nothing_but_what_clients_can_be_asked_reaches_one(
    tmp_path: Path, asked: object
) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, {"need": {"a": asked}})
        assert (await old.result(1))["code"] == wire.INTERNAL_ERROR
        assert old.questions() == []
        assert nothing_is_left(found, old)


@pytest.mark.parametrize("what", [7, "x", [{"method": SAMPLE}]])
async def test_questions_that_are_no_object_are_an_error(tmp_path: Path, what: object) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, {"need": what})
        assert (await old.result(1))["code"] == wire.INTERNAL_ERROR
        assert old.questions() == []


@pytest.mark.parametrize("method", [SAMPLE, ROOTS])
async def test_client_is_asked_only_what_it_announced(tmp_path: Path, method: str) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker", can={"elicitation": {}})
        old.do(1, {"need": {"a": {"method": "elicitation/create"}, "b": {"method": method}}})
        assert (await old.result(1))["code"] == wire.INTERNAL_ERROR
        # Not even what it could be asked: the call is over.
        assert old.questions() == []


async def test_cancelling_during_a_question_takes_it_back_and_asks_nothing_more(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a", "b"), need("c"))
        questions = await old.asked(2)
        old.cancel(1)
        await old.heard("notifications/cancelled")
        for question in questions:
            old.reply(question)
        assert (await old.did(2))["got"] == []
        withdrawn = [line for line in old.lines if b"notifications/cancelled" in line]
        assert len(withdrawn) == len(old.questions()) == 2
        assert asker.methods().count("tools/call") == 2
        assert not [line for line in old.lines if wire.decode(line).id == b"1"]
        assert nothing_is_left(found, old)


async def test_cancelling_during_a_round_cancels_it_at_the_server(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a"), {"wait": "gate"})
        old.reply((await old.asked())[0])
        calls = await asker.told("tools/call", 2)
        old.cancel(1)
        (said,) = await asker.told("notifications/cancelled")
        assert wire.member(said.params or b"", "requestId") == calls[1].id
        await until(lambda: nothing_is_left(found, old))


async def test_client_that_leaves_during_a_question_leaves_nothing(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a", "b"))
        await old.asked(2)
        old.session.close()
        await until(lambda: nothing_is_left(found, old))
        assert asker.methods().count("tools/call") == 1


async def test_client_that_never_answers_is_waited_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ANSWERS_S", 0.05)
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        old.do(1, need("a"))
        assert (await old.result(1))["code"] == wire.INTERNAL_ERROR
        await old.heard("notifications/cancelled")
        assert nothing_is_left(found, old)


async def test_server_that_dies_between_two_rounds_fails_the_call(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old, other = await peer(found, "asker"), await peer(found, "asker")
        old.do(1, need("a"), {"die": 3})
        question = (await old.asked())[0]
        other.do(1, {"die": 3})
        await other.result(1)
        # It has forgotten nothing, as it kept nothing.
        old.reply(question, ACCEPTED)
        assert (await old.result(1))["code"] == wire.INTERNAL_ERROR
        await until(lambda: nothing_is_left(found, old, other))
