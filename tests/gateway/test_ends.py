"""A modern server may end its subscription by a cancellation; what is no level is refused."""

from pathlib import Path

import pytest

from octave.runtime import interests
from tests.gateway.asking import Asker, peer, until
from tests.gateway.conversation import desk, error_code
from tests.gateway.test_list_changes import begin, begin_listening, called
from tests.gateway.test_log_levels import set_level
from tests.transparency.conversation import Probe
from tests.transparency.scripts import PREFIX, Scene, error, text

pytestmark = pytest.mark.anyio
ENDS = Scene(
    "",
    {},
    {
        "modern": {
            "tools/call end": [
                '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":$LISTEN}}',
                text("ended"),
            ]
        }
    },
)
REFUSING = Scene("", {}, {"legacy": {"logging/setLevel": [error(-32602)]}, "modern": {}})


@pytest.mark.parametrize("server", ["legacy", "modern"])
async def test_log_level_that_is_none_is_refused(tmp_path: Path, server: str) -> None:
    probe = Probe(tmp_path, REFUSING, server, "one")
    async with desk(tmp_path, probe.spec) as found:
        talk = await begin(found, "legacy", "one")
        assert error_code(await set_level(talk, "loud")) == -32602


async def test_subscription_that_a_modern_server_cancels_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interests, "AGAIN_S", 0.01)
    probe = Probe(tmp_path, ENDS, "modern", "one")

    def listens() -> int:
        return sum(b"subscriptions/listen" in line for line in probe.received)

    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin_listening(found, '"s"', '"toolsListChanged":true', "one")
        await until(lambda: listens() >= 1)
        before = listens()
        await called(talk, "modern", "1", "end")
        await until(lambda: listens() > before)


async def test_private_process_is_told_who_its_modern_client_is(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", era="modern")
        info = {"name": "mine", "version": "7", "own": 1.5}
        client.do(1, _meta={f"{PREFIX}clientInfo": info})
        assert (await client.done(1))["opened"]["clientInfo"] == info
