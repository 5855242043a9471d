"""A client that reads no more, at any moment of its session: that ends, and nothing else does."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from octave.gateway.audience import Scope
from octave.gateway.session import Session, SessionOverflow
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.asking import ALL, Peer, peer
from tests.gateway.puppets import Loop, Stage, rest

pytestmark = pytest.mark.anyio
META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: ALL}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


class Stuck(Peer):
    """A client that takes so many lines, and not one more."""

    def __init__(self, stage: Stage, patience: int) -> None:
        super().__init__(stage, "legacy", ALL, "old")
        self.patience = patience
        self.refused = 0
        self.session = Session(stage.router, Scope(("old",), single=True), self._take_or_not)

    def _take_or_not(self, line: bytes) -> None:
        if len(self.lines) >= self.patience:
            self.refused += 1
            raise SessionOverflow
        self._take(line)

    def listen(self, identifier: int) -> None:
        params = {"notifications": {"toolsListChanged": True}, "_meta": META}
        self.say(wire.request(identifier, "subscriptions/listen", json.dumps(params).encode()))


async def stuck(stage: Stage, patience: int = 100) -> Stuck:
    client = Stuck(stage, patience)
    await stage.tasks.start(client.session.run)
    params = json.dumps({"protocolVersion": "2025-06-18", "capabilities": ALL}).encode()
    client.say(wire.request(b'"open"', "initialize", params))
    await rest()
    return client


def is_forgotten(stage: Stage, client: Stuck) -> bool:
    """Whether nothing is left of it; looked up in private attributes, as nobody sees it."""
    session, router = client.session, stage.router
    exchange = stage.supervisor.servers["old"].asker.exchange
    kept = session._open or session._client._asked or session._crossing.lot._parked
    heard = session._member in router.audience._members or router.audience._listens
    return not (kept or heard or exchange.calls.count or exchange.questions.count)


@pytest.mark.parametrize("listens", [1, 3])
async def test_subscriptions_of_one_that_reads_no_more_end_with_it(
    tmp_path: Path, listens: int
) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        other, client = await peer(stage, "old"), await stuck(stage)
        for number in range(listens):
            client.listen(number)
        await rest()
        client.patience = len(client.lines)
        # Each of them is to be told that it ends, and cannot.
        client.say(wire.request(b'"p"', "ping"))
        await rest()
        assert client.refused <= 1 + listens
        assert is_forgotten(stage, client)
        assert await other.ask(b"1", "ping") == wire.result(b"1", b"{}")


async def test_answer_that_is_not_read_ends_the_session_and_its_other_calls(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        other, client = await peer(stage, "old"), await stuck(stage)
        numbers = itertools.count()
        for each in (client, client, other):
            each.do(next(numbers))
            puppet, last = await stage.call("old")
        first, second, others = puppet.calls.values()
        assert others is last
        client.patience = len(client.lines)
        puppet.answer(first, {})
        await rest()
        assert client.refused == 1
        assert (second.is_cancelled, others.is_cancelled) == (True, False)
        puppet.answer(others, {"other": 1})
        await rest()
        assert b'"other"' in other.lines[-1]
        assert is_forgotten(stage, client)


async def test_question_that_is_not_read_is_answered_in_its_stead(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        client = await stuck(stage)
        client.do(1)
        puppet, given = await stage.call("old")
        client.patience = len(client.lines)
        puppet.ask("q")
        puppet.ask("r")
        await rest()
        assert client.refused == 1
        assert [each.id for each in puppet.answers if each.error] == [b'"q"', b'"r"']
        assert given.is_cancelled
        assert is_forgotten(stage, client)


async def test_withdrawal_that_is_not_read_ends_the_session(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        client = await stuck(stage)
        client.do(1)
        puppet, given = await stage.call("old")
        puppet.ask("q")
        puppet.ask("r")
        await client.asked(2)
        client.patience = len(client.lines)
        puppet.withdraw("q")
        await rest()
        assert client.refused == 1
        assert [each.id for each in puppet.answers] == [b'"r"']
        assert given.is_cancelled
        assert is_forgotten(stage, client)
