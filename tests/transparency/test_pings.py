"""Pings, both ways: answered at once by whoever stands in between, and a burden to nobody."""

from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import Desk, desk
from tests.transparency.conversation import Probe, Talk, sit_down
from tests.transparency.scripts import Era, Scene, both, call, filled, text

pytestmark = pytest.mark.anyio
CLIENTS = pytest.mark.parametrize("era", ["legacy", "modern"])
SERVERS = pytest.mark.parametrize("server", ["legacy", "modern"])
FACES = pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
PINGS = (
    ("1.50", ""), ('"\\u00e9"', ',"params":{}'), ("0", ',"params":{"_meta":{"v/k":1.10},"own":1}'),
    ("-1", ',"params":null'), ('""', ',"params":[1.10]'),
)  # fmt: skip
HANGING = both("", [], {"tools/call hang": [], "tools/call say": [text("said")]})
ASKED = ('"\\/"', "7", "7.0", "1E2", '"7"')
PINGING = Scene(
    "",
    {},
    {
        "legacy": {
            "tools/call ask": [
                step
                for identifier in ASKED
                for step in (
                    f'{{"method":"ping", "id":{identifier},"jsonrpc":"2.0","params":{{"own":1}}}}',
                    {"await": identifier},
                )
            ]
            + [text("up")],
            "tools/call say": [
                text("said"),
                '{"jsonrpc":"2.0","id":"later","method":"ping"}',
                {"await": '"later"'},
                '{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}',
            ],
        }
    },
)


async def begin(found: Desk, era: Era, *servers: str) -> Talk:
    talk = Talk(era, {})
    await sit_down(found, talk, *servers)
    await talk.open()
    return talk


@SERVERS
@FACES
async def test_ping_of_a_client_is_answered_while_its_server_sleeps_and_works(
    tmp_path: Path, server: str, face: tuple[str, ...]
) -> None:
    probe = Probe(tmp_path, HANGING, server, "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        await found.supervisor.stop(["one"])
        talk = Talk("legacy", {})
        await sit_down(found, talk, *face)
        for identifier, params in PINGS:
            line = f'{{"jsonrpc":"2.0", "id":{identifier},"method":"ping"{params}}}'.encode()
            assert await talk.once(line) == wire.result(identifier.encode(), b"{}")
        assert found.supervisor.servers["one"].state == "stopped"
        await found.supervisor.start(["one"])
        await talk.open()
        talk.say(filled("legacy", call('"h"', "hang" if face else "one__hang")).encode())
        ping = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'
        assert await talk.once(ping) == wire.result(b'"p"', b"{}")
        await talk.once(filled("legacy", call("9", "say" if face else "one__say")).encode())
        assert b'"ping"' not in b"".join(probe.received)


@CLIENTS
@FACES
async def test_ping_of_a_server_is_answered_under_its_id_whoever_is_there(
    tmp_path: Path, era: Era, face: tuple[str, ...]
) -> None:
    probe = Probe(tmp_path, PINGING, "legacy", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin(found, era, *face)
        await talk.once(filled(era, call("1", "ask" if face else "one__ask")).encode())
        assert not [line for line in talk.heard if wire.decode(line).is_request]
        answers = [line for line in probe.received if wire.decode(line).is_answer]
    assert answers == [wire.result(identifier.encode(), b"{}") for identifier in ASKED]


async def test_ping_of_a_server_is_answered_while_nobody_calls_it(tmp_path: Path) -> None:
    probe = Probe(tmp_path, PINGING, "legacy", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin(found, "legacy", "one")
        await talk.once(filled("legacy", call("1", "say")).encode())
        # It goes on only once it was answered.
        await talk.hears("notifications/resources/list_changed")
        assert wire.result(b'"later"', b"{}") in probe.received
