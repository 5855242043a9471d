"""What a server asks as soon as it is greeted, before anybody calls it: as many do for roots."""

from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency.comparison import Record, as_client, member
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Probe, Talk, sit_down, through
from tests.transparency.questions import FORM, REPLIES, ROOTS, SAMPLING, legacy_question
from tests.transparency.scripts import Scene, Script, call, filled, text

pytestmark = pytest.mark.anyio
QUESTIONS = pytest.mark.parametrize(
    "question", [ROOTS, SAMPLING, FORM], ids=["roots", "sampling", "elicitation"]
)


def early(question: tuple[str, str, str]) -> Scene:
    """The server serves nobody before it has its answer, whichever."""
    server: Script = {
        "notifications/initialized": [legacy_question(question)],
        "tools/call say": [{"await": question[0]}, text("said")],
    }
    return Scene(
        f"early question, {question[1]}",
        {"legacy": [call("1", "say")]},
        {"legacy": server},
        REPLIES,
    )


@QUESTIONS
async def test_client_is_asked_what_its_server_wants_to_know_at_once(
    tmp_path: Path, direct: Direct, question: tuple[str, str, str]
) -> None:
    scene = early(question)
    own, proxied = await direct(scene, "legacy"), await through(tmp_path, scene, "legacy")
    assert as_client(proxied.client) == as_client(own.client)
    assert given(proxied, question) == given(own, question)


def given(record: Record, question: tuple[str, str, str]) -> bytes:
    """The last answer that the server got; the first process may have been told that nobody is
    there yet."""
    identifier = question[0].encode()
    answers = [line for line in record.server if wire.decode(line).is_answer]
    return [line for line in answers if wire.decode(line).id == identifier][-1]


@QUESTIONS
async def test_each_of_two_clients_is_asked_for_itself(
    tmp_path: Path, question: tuple[str, str, str]
) -> None:
    scene = early(question)
    probe = Probe(tmp_path, scene, "legacy")
    talks = [Talk("legacy", scene.replies) for _ in range(2)]
    async with desk(tmp_path, probe.spec) as found:
        for talk in talks:
            await sit_down(found, talk, "probe")
            await talk.open()
        for talk in talks:
            said = await talk.once(filled("legacy", call("1", "say")).encode())
            assert b'"said"' in said
    for talk in talks:
        asked = [line for line in talk.heard if wire.decode(line).is_request]
        assert [member(line, "method") for line in asked] == [f'"{question[1]}"'.encode()]


@QUESTIONS
async def test_modern_client_is_asked_within_its_first_call(
    tmp_path: Path, direct: Direct, question: tuple[str, str, str]
) -> None:
    scene = early(question)
    own = await direct(scene, "legacy")
    modern = Scene("", {"modern": scene.client["legacy"]}, scene.server, REPLIES)
    proxied = await through(tmp_path, modern, "modern", "legacy")
    asked, answered = (wire.decode(line).result or b"" for line in proxied.client[:2])
    assert member(asked, "resultType") == b'"input_required"'
    assert b'"said"' in answered
    assert wire.decode(given(proxied, question)).result == wire.decode(given(own, question)).result
