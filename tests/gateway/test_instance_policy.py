"""Which process serves whom where a server speaks both eras, and who is never asked."""

import json
from pathlib import Path

import pytest

from octave.runtime import wire
from octave.runtime.handshake import Era
from tests.gateway.asking import FORM, ROOTS, SAMPLE, Asker, Peer, ask, peer
from tests.gateway.conversation import Desk, desk

pytestmark = pytest.mark.anyio
KINDS = pytest.mark.parametrize("method", [FORM, SAMPLE, ROOTS])


async def pid_of(client: Peer, identifier: object) -> int:
    return int((await client.did(identifier))["pid"])


async def pids_of(clients: list[Peer], identifier: object) -> set[int]:
    return {await pid_of(client, identifier) for client in clients}


async def some(found: Desk, era: Era) -> list[Peer]:
    return [await peer(found, "asker", era=era) for _ in range(2)]


async def test_process_of_each_era_serves_all_sessions_of_it_until_one_asks(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "fixed")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        old, new = await some(found, "legacy"), await some(found, "modern")
        legacy, modern = await pids_of(old, 1), await pids_of(new, 1)
        assert len(legacy | modern) == 2 == len(legacy) + len(modern)
        assert server.snapshot["instances"] == 2
        old[0].do(2, ask())
        old[0].reply((await old[0].asked())[0])
        await old[0].done(2)
        own = await pids_of(old, 3)
        assert len(own) == 2
        assert not own & (legacy | modern)
        # A modern server asks in its answers: nobody needs a process of his own for that.
        assert await pids_of(new, 3) == modern
        assert server.snapshot["instances"] == 4


async def test_shared_by_hand_is_one_process_for_both_eras(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "fixed", instance="shared")
    async with desk(tmp_path, asker.spec) as found:
        old, new = await some(found, "legacy"), await some(found, "modern")
        assert len(await pids_of([*old, *new], 1)) == 1
        assert found.supervisor.servers["asker"].snapshot["instances"] == 1
        # The other era is bridged: its client is asked in its own way all the same.
        new[0].do(2, ask())
        assert (await new[0].result(2))["resultType"] == "input_required"


async def test_session_by_hand_gives_each_session_one_process_in_its_own_era(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "fixed", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        old, new = await some(found, "legacy"), await some(found, "modern")
        before = await pids_of([*old, *new], 1)
        assert len(before) == 4
        assert await pids_of([*old, *new], 2) == before, "and keeps it"
        assert [(await client.did(3))["opened"] is None for client in (*old, *new)] == [
            *(False, False),
            *(True, True),
        ]
        assert before <= set(server.pids)
        assert server.snapshot["instances"] == len(server.pids)


@KINDS
@pytest.mark.parametrize("policy", ["auto", "shared"])
async def test_question_that_may_be_for_two_sessions_reaches_neither(
    tmp_path: Path, method: str, policy: str
) -> None:
    asker = Asker(tmp_path, "legacy", instance=policy)
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        one.do(1, {"wait": "go"})
        await asker.told("tools/call", 1)
        two.do(1, ask("q", method), {"go": "go"})
        ((identifier, error),) = (await two.done(1))["got"]
        await one.done(1)
        assert (identifier, error["code"]) == ("q", wire.INTERNAL_ERROR)
        assert one.questions() == two.questions() == []


@KINDS
async def test_question_of_a_private_process_reaches_its_session_alone_whoever_calls(
    tmp_path: Path, method: str
) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        one, two = await peer(found, "asker"), await peer(found, "asker")
        one.do(1, ask("q", method))
        two.do(1, ask("q", method))
        for client in (one, two):
            (question,) = await client.asked()
            assert wire.decode(question).method == method
            client.reply(question, {"mine": id(client)})
        for client in (one, two):
            assert (await client.done(1))["got"] == [["q", {"mine": id(client)}]]
            assert len(client.questions()) == 1


async def test_client_that_announced_less_is_not_asked_what_it_cannot(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", can={"roots": {}})
        client.do(1, ask("s", SAMPLE), ask("f", FORM), ask("r", ROOTS))
        (question,) = await client.asked()
        client.reply(question, {"roots": []})
        got = dict(map(tuple, (await client.done(1))["got"]))
        assert (got["s"]["code"], got["f"]["code"]) == (-32601, -32601)
        assert got["r"] == {"roots": []}
        assert json.loads(question)["method"] == ROOTS
