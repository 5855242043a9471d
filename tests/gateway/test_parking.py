"""Parked calls when client, server and time do as they like; time passes at once (`puppets`).

What is kept is looked up in private attributes: a call that is parked by mistake is seen nowhere.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from octave.gateway.audience import Scope
from octave.gateway.eras import LOG_LEVEL_KEY
from octave.gateway.parking import GATHER_S, PARKED_LIMIT, PARKED_S
from octave.gateway.session import Session
from octave.packages.launch import Policy
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.asking import ACCEPTED, ALL, SAMPLE, Peer, Result, peer
from tests.gateway.puppets import Given, Loop, Puppet, Stage, rest

pytestmark = pytest.mark.anyio
DONE = {"content": [], "done": True}
COMPLETE = {**DONE, "resultType": "complete"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


@asynccontextmanager
async def staged(folder: Path, can: Mapping[str, Any] = ALL) -> AsyncIterator[tuple[Stage, Peer]]:
    """One process of a legacy server for all, and a modern client of it."""
    stage = Stage(folder, {"old": "legacy"}, {"old": Policy(instance="shared")})
    async with stage.open():
        yield stage, await peer(stage, "old", era="modern", can=can)


async def parked(
    stage: Stage, client: Peer, *ids: object, call: object = 1, **params: Any
) -> tuple[Puppet, Given, Result]:
    """The server, its call, and the answer to it, which asks what the server asks under `ids`."""
    client.do(call, **params)
    puppet, given = await stage.call("old")
    for identifier in ids or ("q",):
        puppet.ask(identifier, message=identifier)
    return puppet, given, await client.result(call)


def retry(found: Result, *keys: str) -> dict[str, Any]:
    """The members that answer what is asked under `keys`; all there is, if none is given."""
    answers = {key: {**ACCEPTED, "to": key} for key in keys or found["inputRequests"]}
    return {"inputResponses": answers, "requestState": found["requestState"]}


def is_all_over(stage: Stage, client: Peer) -> bool:
    """Whether nothing is kept of any call, here or in the runtime."""
    exchange = stage.supervisor.servers["old"]._first.exchange
    kept = client.session._open or client.session._crossing.lot._parked
    return not kept and not exchange.calls.count and not exchange.questions.count


# Once, and no more.


async def test_of_two_retries_at_once_one_goes_on_with_the_call(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        client.do(2, **retry(found))
        client.do(3, **retry(found))
        await rest()
        puppet.answer(given, DONE)
        assert (await client.result(2)) == COMPLETE
        assert (await client.result(3))["code"] == wire.INVALID_PARAMS
        assert len(puppet.answers) == 1
        assert is_all_over(stage, client)


async def test_state_of_one_endpoint_is_refused_at_another(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, _, found = await parked(stage, client)
        other = await peer(stage, era="modern")
        for number, tool in enumerate(("do", "old__do"), 1):
            other.do(number, tool=tool, **retry(found))
            assert (await other.result(number))["code"] == wire.INVALID_PARAMS
        assert puppet.answers == []


async def test_answers_that_are_none_leave_the_call_parked(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        for number, wrong in enumerate(({"elicitation-1": "yes"}, [], "x", 7), 2):
            client.do(number, inputResponses=wrong, requestState=found["requestState"])
            assert (await client.result(number))["code"] == wire.INVALID_PARAMS
        client.do("right", **retry(found))
        await rest()
        puppet.answer(given, DONE)
        assert (await client.result("right")) == COMPLETE


# Time.


async def test_each_round_has_the_whole_time(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        for number in range(2, 5):
            await anyio.sleep(PARKED_S - 1)
            client.do(number, **retry(found))
            await rest()
            puppet.ask(f"q{number}")
            found = await client.result(number)
        await anyio.sleep(PARKED_S + 1)
        await rest()
        assert given.is_cancelled
        assert puppet.answers[-1].error is not None
        assert is_all_over(stage, client)


async def test_the_oldest_gives_way_where_too_many_are_parked(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        _, oldest, first = await parked(stage, client, "q1")
        second = (await parked(stage, client, "q2", call=2))[2]
        for number in range(3, PARKED_LIMIT + 2):
            await parked(stage, client, f"q{number}", call=number)
        await rest()
        assert oldest.is_cancelled
        client.do("first", **retry(first))
        assert (await client.result("first"))["code"] == wire.INVALID_PARAMS
        # Nor is any other call kept out.
        client.do("plain")
        puppet, given = await stage.call("old")
        puppet.answer(given, DONE)
        assert (await client.result("plain")) == COMPLETE
        client.do("second", **retry(second))
        await rest()
        assert json.loads(puppet.answers[-1].line)["id"] == "q2"


# Between two rounds.


async def test_server_that_dies_meanwhile_is_not_asked_again(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, _, found = await parked(stage, client)
        puppet.die()
        await anyio.sleep(1.0)
        client.do(2, **retry(found))
        answer = await client.result(2)
        assert answer["code"] == wire.INTERNAL_ERROR
        assert "outcome unknown" in answer["message"]
        assert not any(each.calls for each in stage.puppets if each.is_alive)
        assert is_all_over(stage, client)


async def test_client_that_leaves_meanwhile_takes_its_calls_back(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, _ = await parked(stage, client)
        answered, other, _ = await parked(stage, client, "r", call=2)
        answered.answer(other, DONE)
        await rest()
        client.session.close()
        await rest()
        assert given.is_cancelled and not other.is_cancelled
        assert {each.id for each in puppet.answers if each.error} == {b'"q"', b'"r"'}
        # What waited for a client that never comes is forgotten now, not in ten minutes.
        assert is_all_over(stage, client)


async def test_call_that_ends_meanwhile_is_answered_at_the_retry(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        puppet.answer(given, DONE)
        await rest()
        client.do(2, **retry(found))
        assert (await client.result(2)) == COMPLETE
        assert is_all_over(stage, client)


async def test_question_that_is_withdrawn_meanwhile_is_not_answered(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        puppet.withdraw("q")
        await rest()
        # The server may use the id again, and is asked for something else under it.
        client.do(2, **retry(found))
        puppet.ask("q", message="another")
        again = await client.result(2)
        assert puppet.answers == []
        (request,) = again["inputRequests"].values()
        assert request["params"] == {"message": "another"}
        client.do(3, **retry(again))
        await rest()
        puppet.answer(given, DONE)
        assert (await client.result(3)) == COMPLETE


async def test_question_that_is_withdrawn_at_once_is_never_asked(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("old")
        puppet.ask("q")
        puppet.withdraw("q")
        await anyio.sleep(1.0)
        puppet.answer(given, DONE)
        assert (await client.result(1)) == COMPLETE
        assert puppet.answers == []


async def test_question_that_comes_meanwhile_is_asked_at_the_retry(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, _, found = await parked(stage, client, "one")
        puppet.ask("two", message="two")
        await rest()
        client.do(2, **retry(found))
        again = await client.result(2)
        assert [each["params"] for each in again["inputRequests"].values()] == [{"message": "two"}]


# Several questions.


async def test_questions_at_once_come_in_one_answer_and_only_the_open_ones_again(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("old")
        puppet.ask(1, message="a")
        puppet.ask("1", message="b")
        puppet.ask(2, SAMPLE, message="c")
        found = await client.result(1)
        keys = {each["params"]["message"]: key for key, each in found["inputRequests"].items()}
        assert set(keys) == {"a", "b", "c"}
        client.do(2, **retry(found, keys["b"], "surplus"))
        again = await client.result(2)
        assert set(again["inputRequests"]) == {keys["a"], keys["c"]}
        client.do(3, **retry(again))
        await rest()
        puppet.answer(given, DONE)
        assert (await client.result(3)) == COMPLETE
        said = {each.id: json.loads(each.result or b"")["to"] for each in puppet.answers}
        assert said == {b"1": keys["a"], b'"1"': keys["b"], b"2": keys["c"]}


@pytest.mark.parametrize("can", [{}, {"sampling": {}}, {"elicitation": None}])
async def test_client_is_not_asked_for_what_it_does_not_have(
    tmp_path: Path, can: Mapping[str, Any]
) -> None:
    async with staged(tmp_path, can) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("old")
        puppet.ask("q")
        await rest()
        (refused,) = puppet.answers
        assert wire.member(refused.error or b"", "code") == b"-32601"
        puppet.answer(given, DONE)
        assert (await client.result(1)) == COMPLETE


async def test_progress_goes_under_the_token_of_the_latest_round(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client, _meta={"progressToken": "first"})
        token = json.dumps(given.params["_meta"]["progressToken"]).encode()
        line = wire.notification(
            "notifications/progress", b'{"progress":%b,"progressToken":%b}' % (b"1", token)
        )
        # Nobody is there to be told.
        puppet.say(line)
        await rest()
        assert not [line for line in client.lines if b"notifications/progress" in line]
        client.do(2, **retry(found), _meta={"progressToken": 2.5})
        await rest()
        puppet.say(line)
        progress = await client.heard("notifications/progress")
        assert wire.member(progress, "params", "progressToken") == b"2.5"


async def test_log_lines_of_every_round_reach_it(tmp_path: Path) -> None:
    """From its first question on the session has a process of its own: this call is elsewhere."""
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        client = await peer(stage, "old", era="modern")
        meta = {LOG_LEVEL_KEY: "info"}
        puppet, given, found = await parked(stage, client, _meta=meta)
        client.do(2, **retry(found), _meta=meta)
        await rest()
        puppet.say(wire.notification("notifications/message", b'{"level":"error","data":"x"}'))
        puppet.answer(given, DONE)
        assert (await client.result(2)) == COMPLETE
        assert wire.decode(client.lines[-2]).method == "notifications/message"


# Taken back.


async def test_second_round_that_is_cancelled_takes_the_call_with_it(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        puppet, given, found = await parked(stage, client)
        client.do(2, **retry(found))
        await rest()
        client.cancel(2)
        puppet.ask("late")
        await rest()
        assert given.is_cancelled
        assert [each.id for each in puppet.answers if each.error] == [b'"late"']
        assert not [line for line in client.lines if wire.decode(line).id == b"2"]
        assert is_all_over(stage, client)


async def test_call_that_is_cancelled_as_it_is_parked_is_not_parked(tmp_path: Path) -> None:
    async with staged(tmp_path) as (stage, client):
        client.do(1)
        puppet, given = await stage.call("old")
        puppet.ask("q")
        await rest()
        # At the very time at which no more questions are waited for, but after that is noticed.
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + GATHER_S, client.cancel, 1)
        await anyio.sleep(1.0)
        assert given.is_cancelled
        assert client.lines == []
        assert is_all_over(stage, client)


# Many clients in one session, as over HTTP.


def called(identifier: int, **more: Any) -> wire.Message:
    meta = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}
    params = {"name": "do", "arguments": {}, "_meta": meta, **more}
    return wire.decode(wire.request(identifier, "tools/call", json.dumps(params).encode()))


async def test_clients_that_share_a_session_are_not_mistaken_for_each_other(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, {"old": "legacy"}, {"old": Policy(instance="shared")})
    answers: dict[str, Result] = {}

    async def served(name: str, message: wire.Message) -> None:
        answer = json.loads(await session.serve(message, lambda _: None))
        answers[name] = answer.get("result") or answer["error"]

    async with stage.open() as tasks:
        session = Session(stage.router, Scope(("old",), single=True), lambda _: None)
        await tasks.start(session.run)
        tasks.start_soon(served, "one", called(1))
        puppet, one = await stage.call("old")
        tasks.start_soon(served, "two", called(1))
        _, two = await stage.call("old")
        puppet.ask("whom")
        await rest()
        assert [each.id for each in puppet.answers if each.error] == [b'"whom"']
        puppet.answer(two, DONE)
        await rest()
        assert answers.pop("two") == COMPLETE
        puppet.ask("one")
        await anyio.sleep(1.0)
        tasks.start_soon(served, "again", called(1, **retry(answers["one"])))
        await rest()
        assert puppet.answers[-1].id == b'"one"' and puppet.answers[-1].result
        puppet.answer(one, DONE)
        await rest()
        assert answers["again"] == COMPLETE
