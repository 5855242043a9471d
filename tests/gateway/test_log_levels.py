"""Each session hears log lines at its own level, though they share the server that writes them."""

from pathlib import Path

import pytest

from tests.gateway.conversation import desk
from tests.gateway.test_list_changes import DONE, begin
from tests.transparency import scenes
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk
from tests.transparency.scripts import Era, Scene, call, filled, text

pytestmark = pytest.mark.anyio
FACES = pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
LOUD = {"tools/call log": [*scenes.LOGS, text("logged")]}
LOGGING = Scene("", {}, {"legacy": {**LOUD, "logging/setLevel": [DONE]}, "modern": LOUD})
LEVELS = [b'"warning"', b'"error"', b'"emergency"']
"""Of the lines that `log` writes, in that order."""


async def set_level(talk: Talk, level: str, identifier: str = "l") -> bytes:
    params = f'{{"level":"{level}","_meta":{{"v":1E2}}}}'
    line = f'{{"jsonrpc":"2.0","id":"{identifier}","method":"logging/setLevel","params":{params}}}'
    return await talk.once(line.encode())


def heard(talk: Talk) -> list[bytes]:
    lines = (line for line in talk.heard if b"notifications/message" in line)
    return [member(line, "params", "level") for line in lines]


def asked(probe: Probe) -> list[bytes]:
    """The levels that the server was asked for."""
    lines = (line for line in probe.received if b"logging/setLevel" in line)
    return [member(line, "params", "level") for line in lines]


async def log(talk: Talk, face: tuple[str, ...], identifier: str, level: str = "") -> None:
    line = call(identifier, "log" if face else "one__log")
    if level:
        line = line.replace('"_meta":{$ENV', scenes.LOG_LEVEL.replace("warning", level))
    await talk.once(filled("modern" if level else "legacy", line).encode())


@FACES
async def test_sessions_of_one_server_hear_their_own_level_each(
    tmp_path: Path, face: tuple[str, ...]
) -> None:
    one = Probe(tmp_path, LOGGING, "legacy", "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        chatty, calm, silent = [await begin(found, "legacy", *face) for _ in range(3)]
        assert await set_level(chatty, "warning") == b'{"jsonrpc":"2.0","id":"l","result":{}}'
        await set_level(calm, "emergency")
        await log(chatty, face, "1")
        assert heard(chatty) == LEVELS
        assert heard(calm) == LEVELS[2:]
        assert heard(silent) == LEVELS, "it never said a level: what servers send by themselves"
        assert asked(one) == [b'"warning"'], "the server is asked for the most that anybody wants"


@FACES
async def test_session_that_wants_more_gets_it_and_less_when_it_says_so(
    tmp_path: Path, face: tuple[str, ...]
) -> None:
    one = Probe(tmp_path, LOGGING, "legacy", "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        first, other = [await begin(found, "legacy", *face) for _ in range(2)]
        await set_level(first, "error")
        await set_level(other, "debug")
        await log(first, face, "1")
        assert (heard(first), heard(other)) == (LEVELS[1:], LEVELS)
        await set_level(other, "emergency", "l2")
        await log(first, face, "2")
        assert (heard(first), heard(other)) == (LEVELS[1:] * 2, [*LEVELS, *LEVELS[2:]])
        assert asked(one)[:2] == [b'"error"', b'"debug"']


@FACES
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_modern_request_hears_its_own_level_beside_a_legacy_session(
    tmp_path: Path, face: tuple[str, ...], era: Era
) -> None:
    one = Probe(tmp_path, LOGGING, era, "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        old, new = await begin(found, "legacy", *face), await begin(found, "modern", *face)
        await set_level(old, "emergency")
        await log(new, face, "1", "error")
        await log(new, face, "2", "debug")
        assert heard(new) == [*LEVELS[1:], *LEVELS]


async def test_level_is_kept_over_a_restart_of_the_server(tmp_path: Path) -> None:
    one = Probe(tmp_path, LOGGING, "legacy", "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin(found, "legacy", "one")
        await set_level(talk, "warning")
        await found.supervisor.restart(["one"])
        await log(talk, ("one",), "1")
        assert asked(one) == [b'"warning"'] * 2


async def test_level_of_an_aggregated_session_is_asked_of_a_server_when_it_wakes(
    tmp_path: Path,
) -> None:
    one, two = Probe(tmp_path, LOGGING, "legacy", "one"), Probe(tmp_path, LOGGING, "legacy", "two")
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        await found.supervisor.stop(["two"])
        talk = await begin(found, "legacy")
        await set_level(talk, "notice")
        await found.supervisor.start(["two"])
        said = await talk.once(filled("legacy", call("1", "two__log")).encode())
        assert b"logged" in said
        assert asked(two) == [b'"notice"']
