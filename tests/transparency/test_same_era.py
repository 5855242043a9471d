"""Client and server of one era: both ends see the bytes that they would see directly."""

from pathlib import Path

import pytest

from octave.runtime import wire
from tests.transparency import questions, scenes
from tests.transparency.comparison import Record, as_client, assert_same, member
from tests.transparency.conftest import Direct
from tests.transparency.conversation import through
from tests.transparency.scripts import Era, Scene

pytestmark = pytest.mark.anyio
SCENES = [*scenes.SCENES, *questions.SCENES]
EACH = [pytest.param(one, era, id=f"{era}-{one.name}") for one in SCENES for era in one.eras]
DUAL = [each for each in SCENES if len(each.eras) == 2]


@pytest.mark.parametrize(("scene", "era"), EACH)
async def test_every_byte_arrives_as_it_was_written(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("scene", DUAL, ids=lambda scene: scene.name)
async def test_server_of_both_eras_serves_each_client_in_its_own(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    assert_same(await direct(scene, era, "dual"), await through(tmp_path, scene, era, "dual"))


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_requests_at_once_get_what_is_theirs_in_its_order(
    tmp_path: Path, direct: Direct, era: Era
) -> None:
    alone = await direct(scenes.CONCURRENCY, era)
    proxied = await through(tmp_path, scenes.CONCURRENCY, era)
    assert_same(by_request(alone), by_request(proxied))


def by_request(record: Record) -> Record:
    """What was said of one request together; the client gave each its id for a token."""

    def key(line: bytes) -> bytes:
        return wire.decode(line).id or member(line, "params", "progressToken")

    return Record(sorted(as_client(record.client), key=key), record.server)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_legacy_version_opens_the_same_conversation(
    tmp_path: Path, direct: Direct, version: str
) -> None:
    proxied = await through(tmp_path, scenes.CALLS, "legacy", version=version)
    assert_same(await direct(scenes.CALLS, "legacy", "", version), proxied)


async def test_servers_own_question_keeps_its_id_at_a_one_server_face(tmp_path: Path) -> None:
    proxied = await through(tmp_path, questions.PUSHED, "legacy")
    (asked,) = (line for line in proxied.client if b"createMessage" in line)
    assert wire.decode(asked).id == b"3"
    token = member(asked, "params", "_meta", "progressToken")
    assert token == questions.TOKEN_OF_QUESTION.encode()


async def test_unknown_version_is_refused_with_the_versions_that_are_spoken(
    tmp_path: Path,
) -> None:
    proxied = await through(tmp_path, scenes.UNKNOWN_VERSION, "modern")
    error = wire.decode(proxied.client[0]).error or b""
    assert member(error, "code") == b"-32022"
    assert member(error, "data", "requested") == b'"v999.0.0"'
    assert member(error, "data", "supported") == b'["2026-07-28"]'
