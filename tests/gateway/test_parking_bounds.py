"""Parked calls end by themselves; a `requestState` is of use for nothing but its own call."""

import json
from pathlib import Path
from typing import Any

import pytest

from octave.gateway import parking
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.asking import ACCEPTED, ALL, Asker, Peer, Result, ask, peer
from tests.gateway.conversation import Desk, desk

pytestmark = pytest.mark.anyio
META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}


async def park(client: Peer, identifier: int = 1) -> Result:
    """What a call is answered with whose server asks something, under the same id."""
    client.do(identifier, ask(identifier))
    found = await client.result(identifier)
    assert found["resultType"] == "input_required"
    return found


def given(found: Result) -> dict[str, Any]:
    """The members of the retry."""
    answers = dict.fromkeys(found["inputRequests"], ACCEPTED)
    return {"inputResponses": answers, "requestState": found["requestState"]}


async def retried(client: Peer, found: Result, identifier: int = 2, asked: int = 1) -> Result:
    client.do(identifier, ask(asked), **given(found))
    return await client.result(identifier)


async def modern(found: Desk, *servers: str) -> Peer:
    return await peer(found, *servers, era="modern")


async def test_parked_call_expires_at_the_client_and_at_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "PARKED_S", 0.05)
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        client = await modern(found, "asker")
        parked = await park(client)
        await asker.told("notifications/cancelled")
        (answer,) = await asker.told(None)
        assert answer.error is not None, "the server is not left waiting for an answer"
        assert (await retried(client, parked))["code"] == wire.INVALID_PARAMS
        # It is rid of it, and parks again.
        assert asker.methods().count("tools/call") == 1
        await park(client, 3)


@pytest.mark.parametrize("face", [("asker",), ()], ids=["one server", "all"])
async def test_state_of_one_session_is_refused_in_another_and_still_serves_its_own(
    tmp_path: Path, face: tuple[str, ...]
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        await found.catalogue.gather(["asker"])
        owner, thief = await modern(found, *face), await modern(found, *face)
        tool = "do" if face else "asker__do"
        owner.do(1, ask(), tool=tool)
        parked = await owner.result(1)
        thief.do(1, ask(), tool=tool, **given(parked))
        assert (await thief.result(1))["code"] == wire.INVALID_PARAMS
        assert asker.answers() == []
        owner.do(2, ask(), tool=tool, **given(parked))
        assert (await owner.done(2))["got"] == [[1, ACCEPTED]]


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("tools/call", {"name": "other"}),
        ("tools/call", {"arguments": {"steps": []}}),
        ("tools/call", {"arguments": {}}),
        ("prompts/get", {}),
        ("resources/read", {"uri": "asker://one"}),
    ],
)
async def test_state_is_refused_for_anything_but_its_own_call(
    tmp_path: Path, method: str, change: dict[str, Any]
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        client = await modern(found, "asker")
        parked = await park(client)
        params = {"name": "do", "arguments": {"steps": [ask()]}, "_meta": META, **given(parked)}
        refused = await client.ask(b"2", method, json.dumps(params | change).encode())
        assert json.loads(refused)["error"]["code"] == wire.INVALID_PARAMS
        assert asker.answers() == []
        assert (await retried(client, parked, 3))["resultType"] == "complete"


async def test_state_of_a_call_that_is_over_is_refused(tmp_path: Path) -> None:
    """As after a death of the server, or another runtime."""
    asker = Asker(tmp_path, "legacy", instance="shared")
    async with desk(tmp_path, asker.spec) as found:
        client, other = await modern(found, "asker"), await modern(found, "asker")
        parked = await park(client)
        other.do(1, {"die": 3})
        await other.result(1)
        answered = await retried(client, parked)
        assert answered["code"] == wire.INTERNAL_ERROR
        assert "outcome unknown" in answered["message"]
        assert (await retried(client, parked, 3))["code"] == wire.INVALID_PARAMS
        assert asker.methods().count("tools/call") == 2, "it is never called again by itself"
    async with desk(tmp_path, asker.spec) as found:
        client = await modern(found, "asker")
        assert (await retried(client, parked))["code"] == wire.INVALID_PARAMS
