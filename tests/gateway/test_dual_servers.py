"""A server of both eras has a process for each: a client is seen by its own, and hears no other."""

from pathlib import Path

import pytest

from tests.gateway.conversation import desk
from tests.gateway.test_list_changes import begin
from tests.gateway.test_log_levels import LEVELS, heard
from tests.transparency import scenes
from tests.transparency.conversation import Probe, Talk
from tests.transparency.scripts import Era, both, call, filled, notify, text

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
OWN = notify("notifications/own", '"n":1.10')
SAYS = both(
    "",
    [],
    {
        "tools/call say": [OWN, text("said")],
        "tools/call log": [*scenes.LOGS, text("logged")],
        "tools/call hang": [{"await": "never"}],
    },
)


async def called(talk: Talk, era: Era, identifier: str, name: str) -> None:
    await talk.once(filled(era, call(identifier, name)).encode())


def loud(identifier: str, name: str) -> bytes:
    """A modern call that wants to hear log lines."""
    line = call(identifier, name).replace('"_meta":{$ENV', scenes.LOG_LEVEL)
    return filled("modern", line).encode()


def processes(probe: Probe, part: bytes) -> set[bytes]:
    """The processes that received a line with that part."""
    lines = probe.journal.read_bytes().splitlines()
    return {line.partition(b" ")[0] for line in lines if part in line}


@ERAS
async def test_what_the_process_of_one_era_says_is_not_for_clients_of_the_other(
    tmp_path: Path, era: Era
) -> None:
    probe = Probe(tmp_path, SAYS, "dual", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        mine, theirs = await begin(found, era, "one"), await begin(found, OTHER[era], "one")
        await called(theirs, OTHER[era], "0", "log")
        theirs.heard.clear()
        await called(mine, era, "1", "say")
        await called(theirs, OTHER[era], "2", "fence")
        assert OWN.encode() in mine.heard
        assert OWN.encode() not in theirs.heard


@ERAS
async def test_notification_of_a_client_reaches_the_process_that_serves_it(
    tmp_path: Path, era: Era
) -> None:
    probe = Probe(tmp_path, SAYS, "dual", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin(found, era, "one")
        await called(talk, era, "1", "say")
        talk.say(OWN.encode())
        await called(talk, era, "2", "say")
        assert processes(probe, OWN.encode()) == processes(probe, b'"say"')


async def test_log_lines_for_a_legacy_client_are_not_for_a_modern_request_elsewhere(
    tmp_path: Path,
) -> None:
    probe = Probe(tmp_path, SAYS, "dual", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        old, new = await begin(found, "legacy", "one"), await begin(found, "modern", "one")
        await called(new, "modern", "0", "fence")
        new.say(loud("1", "hang"))
        await called(old, "legacy", "1", "log")
        assert heard(old) == LEVELS
        assert heard(new) == []


async def test_log_lines_for_a_modern_request_are_not_for_a_legacy_client(tmp_path: Path) -> None:
    """Whom a server of that era tells nothing unless it is asked to with each request."""
    probe = Probe(tmp_path, SAYS, "modern", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        old, new = await begin(found, "legacy", "one"), await begin(found, "modern", "one")
        await new.once(loud("1", "log"))
        assert heard(new) == LEVELS
        assert heard(old) == []


async def test_log_line_is_told_once_though_two_requests_of_a_client_want_it(
    tmp_path: Path,
) -> None:
    probe = Probe(tmp_path, SAYS, "modern", "one")
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        talk = await begin(found, "modern", "one")
        talk.say(loud("1", "hang"))
        await talk.once(loud("2", "log"))
        assert heard(talk) == LEVELS
