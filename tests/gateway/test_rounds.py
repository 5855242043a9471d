"""A legacy client of a modern server that asks in its answers: round after round, to the end."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from octave.gateway.rounds import ANSWERS_S, ROUNDS
from octave.runtime import wire
from octave.runtime.questions import OPEN_LIMIT
from tests.gateway.asking import ACCEPTED, ALL, FORM, ROOTS, SAMPLE, Peer, peer
from tests.gateway.puppets import Given, Loop, Puppet, Stage, rest

pytestmark = pytest.mark.anyio
DONE = {"content": [], "done": True}
STATE = "s\u00e9\u2028"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


@asynccontextmanager
async def staged(folder: Path, can: Mapping[str, Any] = ALL) -> AsyncIterator[tuple[Stage, Peer]]:
    """A modern server, and a legacy client of it."""
    stage = Stage(folder, {"new": "modern"})
    async with stage.open():
        yield stage, await peer(stage, "new", can=can)


def need(puppet: Puppet, given: Given, asked: object, **more: object) -> None:
    """Answer a call by asking."""
    puppet.answer(given, {"resultType": "input_required", "inputRequests": asked, **more})


def forms(*keys: str, method: str = FORM) -> dict[str, Any]:
    return {key: {"method": method, "params": {"k": key}} for key in keys}


def said_of(client: Peer, method: str) -> list[wire.Message]:
    return [each for each in map(wire.decode, client.lines) if each.method == method]


def is_all_over(stage: Stage, client: Peer) -> bool:
    """Whether nothing is kept of any call; looked up in private attributes, as nobody sees it."""
    exchange = stage.supervisor.servers["new"].asker.exchange
    return not (client.session._open or client.session._client._asked or exchange.calls.count)


async def test_each_round_takes_what_was_asked_in_it_and_the_state_as_it_came(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        for number in range(1, 4):
            puppet, given = await stage.call("new")
            need(puppet, given, forms(f"k{number}"), requestState=f"{STATE}{number}")
            question = (await client.asked(number))[-1]
            client.reply(question, {**ACCEPTED, "round": number})
            puppet, given = await stage.call("new")
            assert given.params["requestState"] == f"{STATE}{number}"
            answers = {f"k{number}": {**ACCEPTED, "round": number}}
            assert given.params["inputResponses"] == answers
            assert given.params["name"] == "do"
        puppet.answer(given, {**DONE, "resultType": "complete"})
        assert (await client.result(1)) == DONE
        assert is_all_over(stage, client)


async def test_a_refusal_takes_the_other_questions_back_and_is_the_answer(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a", "b", "c"))
        questions = [wire.decode(line) for line in await client.asked(3)]
        client.reply(questions[0].line)
        client.say(wire.error(questions[1].id, -1, "not you"))
        assert (await client.result(1)) == {"code": -1, "message": "not you"}
        (cancelled,) = said_of(client, "notifications/cancelled")
        assert wire.member(cancelled.params or b"", "requestId") == questions[2].id
        # Too late, and no answer to anything else.
        client.reply(questions[2].line)
        await rest()
        assert not puppet.calls and is_all_over(stage, client)


@pytest.mark.parametrize(
    ("can", "asked"),
    [
        ({"sampling": {}}, forms("a")),
        ({"elicitation": None}, forms("a")),
        ({"elicitation": {}}, forms("a") | forms("b", method=ROOTS)),
        (ALL, {"a": {"method": "own/question", "params": {}}}),
        (ALL, {"a": {"method": "ping"}}),
        (ALL, {"a": {"method": 7}}),
        (ALL, {"a": {}}),
        (ALL, {"a": None}),
        (ALL, {"a": [FORM]}),
        (ALL, [forms("a")]),
        (ALL, FORM),
        (ALL, forms(*map(str, range(OPEN_LIMIT + 1)))),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
async def test_what_cannot_be_asked_ends_the_call_and_nothing_is_asked(
    tmp_path: Path, can: Mapping[str, Any], asked: object
) -> None:
    async with staged(tmp_path, can) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, asked, requestState=STATE)
        answer = await client.result(1)
        assert answer["code"] == wire.INTERNAL_ERROR
        assert "server" in answer["message"]
        assert client.questions() == []
        assert not puppet.calls and is_all_over(stage, client)


async def test_as_much_is_asked_at_once_as_may_be_open(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms(*map(str, range(OPEN_LIMIT))))
        for question in await client.asked(OPEN_LIMIT):
            key = json.loads(question)["params"]["k"]
            client.reply(question, {"key": key})
        _, given = await stage.call("new")
        answers = {str(number): {"key": str(number)} for number in range(OPEN_LIMIT)}
        assert given.params["inputResponses"] == answers


async def test_server_that_never_stops_asking_is_asked_no_more(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        for number in range(1, ROUNDS + 1):
            puppet, given = await stage.call("new")
            need(puppet, given, forms("k", method=SAMPLE))
            client.reply((await client.asked(number))[-1])
        puppet, given = await stage.call("new")
        need(puppet, given, forms("k", method=SAMPLE))
        answer = await client.result(1)
        assert answer["code"] == wire.INTERNAL_ERROR
        assert f"{ROUNDS} times" in answer["message"]
        assert len(client.questions()) == ROUNDS
        assert not puppet.calls and is_all_over(stage, client)


@pytest.mark.parametrize("asked", [{}, None])
async def test_server_that_is_not_ready_is_asked_again_a_little_later(
    tmp_path: Path, asked: object
) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, asked, requestState=STATE)
        await rest()
        assert not puppet.calls, "asked again at once"
        await anyio.sleep(0.1)
        _, given = await stage.call("new")
        assert given.params["requestState"] == STATE
        # Of what is null nothing is made.
        need(puppet, given, asked, requestState=None)
        await anyio.sleep(0.5)
        _, given = await stage.call("new")
        assert "requestState" not in given.params
        puppet.answer(given, DONE)
        assert (await client.result(1)) == DONE


async def test_call_that_is_cancelled_takes_all_its_questions_back(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a", "b"))
        questions = [wire.decode(line) for line in await client.asked(2)]
        client.reply(questions[0].line)
        client.cancel(1)
        await rest()
        (cancelled,) = said_of(client, "notifications/cancelled")
        assert wire.member(cancelled.params or b"", "requestId") == questions[1].id
        client.reply(questions[1].line)
        await rest()
        assert not puppet.calls and is_all_over(stage, client)
        assert not [line for line in client.lines if wire.decode(line).id == b"1"]


async def test_call_that_is_cancelled_in_its_second_round_is_cancelled_at_the_server(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a"))
        client.reply((await client.asked())[0])
        _, given = await stage.call("new")
        client.cancel(1)
        await rest()
        assert given.is_cancelled and is_all_over(stage, client)


async def test_client_that_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a", "b"))
        await client.asked(2)
        client.session.close()
        await rest()
        assert not puppet.calls and is_all_over(stage, client)
        assert said_of(client, "notifications/cancelled") == []


async def test_nobody_is_waited_for_longer_than_a_form_takes(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a", "b"))
        questions = await client.asked(2)
        client.reply(questions[0])
        await anyio.sleep(ANSWERS_S + 1)
        assert (await client.result(1))["code"] == wire.INTERNAL_ERROR
        (cancelled,) = said_of(client, "notifications/cancelled")
        identifier = wire.member(cancelled.params or b"", "requestId")
        assert identifier == wire.decode(questions[1]).id
        assert is_all_over(stage, client)


async def test_next_process_goes_on_where_the_last_one_asked(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("new")
        need(puppet, given, forms("a"), requestState=STATE)
        (question,) = await client.asked()
        puppet.die()
        await rest()
        client.reply(question)
        # It keeps nothing between two rounds: all there is to know comes with the second.
        await anyio.sleep(1.0)
        successor, given = await stage.call("new")
        assert successor is not puppet
        assert given.params["requestState"] == STATE
        successor.answer(given, DONE)
        assert (await client.result(1)) == DONE
