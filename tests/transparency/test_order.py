"""What a server says right after an answer follows the answer, in whichever pieces it is read."""

from pathlib import Path

import anyio.lowlevel
import pytest

from octave.runtime import wire
from octave.runtime.incoming import Ears, Incoming
from tests.transparency.comparison import assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import through
from tests.transparency.questions import FORM, REPLIES, ROOTS, SAMPLING, asking, legacy_question
from tests.transparency.scripts import Hears, Line, Scene, Script, call, text

pytestmark = pytest.mark.anyio
QUESTIONS = pytest.mark.parametrize(
    "question", [ROOTS, SAMPLING, FORM], ids=["roots", "sampling", "elicitation"]
)


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_what_follows_an_answer_that_a_task_waits_for_waits_too(pieces: int) -> None:
    heard: list[bytes | str | None] = []

    def hear(message: wire.Message) -> bool:
        heard.append(message.id or message.method)
        return message.is_answer

    lines = wire.result(b"1", b"{}") + b"\n" + wire.notification("notifications/own") + b"\n"
    cut = lines.index(b"\n") + 1
    incoming = Incoming("x", 2**20, Ears(hear, lambda *_: None, lambda _: None))
    for piece in {
        1: [lines],
        2: [lines[:cut], lines[cut:]],
        3: [lines[:5], lines[5:cut], lines[cut:]],
    }[pieces]:
        incoming.feed(piece)
    assert heard == [b"1"], "a task is to hear of it first"
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert heard == [b"1", "notifications/own"]


def late(question: tuple[str, str, str]) -> Scene:
    """The server has asked before, so that its client has a process of its own."""
    _, method, params = question
    server: Script = {
        **asking("tools/call ask", [question])["legacy"],
        "tools/call say": [text("said"), legacy_question(("99", method, params))],
        "tools/call tell": [{"await": "99"}, text("told")],
    }
    client: list[Line] = [call("1", "ask"), call("2", "say"), Hears(method, 2), call("3", "tell")]
    return Scene(f"late question, {method}", {"legacy": client}, {"legacy": server}, REPLIES)


@QUESTIONS
async def test_client_is_asked_after_its_call_was_answered(
    tmp_path: Path, direct: Direct, question: tuple[str, str, str]
) -> None:
    scene = late(question)
    assert_same(await direct(scene, "legacy"), await through(tmp_path, scene, "legacy"))
