"""Ids and progress tokens of every kind, at every face: an answer finds the very text it is for."""

from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency import scenes
from tests.transparency.comparison import assert_bridged, assert_same, member
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Probe, Talk, directly, sit_down, through
from tests.transparency.scripts import (
    Answered,
    Era,
    Hears,
    Later,
    Scene,
    both,
    call,
    cancel,
    filled,
    text,
    token,
)
from tests.transparency.test_aggregate import conversation, located, said, together

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
FACES = pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
IDS = (
    "1.0", "1E2", "1e400", "-0", "-12345678901234567890123", "9" * 400, "null", '"null"', '"1"',
    '"\\ud800"', '"\\u0061"', f'"{"x" * 5000}"', '"\\u2028\\/"', '"\u00e9\u2028"',
)  # fmt: skip
"""Besides those of `scenes.IDS`; `null` is against the specification, and answered all the same."""
ODD_IDS = both("odd ids", [call(each, "say") for each in IDS], {"tools/call say": [text("said")]})
ODD_TOKENS = both(
    "odd tokens",
    [token(call(f"{n}", "progress"), each) for n, each in enumerate((*IDS[:6], *IDS[7:]))],
    {"tools/call progress": [*scenes.PROGRESS, text("done")]},
)
AT_ONCE = both(
    "ids that differ by their spelling alone",
    [
        Later(token(call("1", "first"), "1")),
        Later(token(call("1.0", "second"), '"1"')),
        Later(token(call('"1"', "third"), "1.0")),
        Hears("notifications/progress", 9),
        call('"go"', "log"),
        Answered("1"),
        Answered("1.0"),
        Answered('"1"'),
    ],
    {
        **{
            f"tools/call {name}": [*scenes.PROGRESS, {"await": name}, text(name)]
            for name in ("first", "second", "third")
        },
        "tools/call log": [
            {"resume": "third"}, {"resume": "second"}, {"resume": "first"}, text("gone"),
        ],
    },
)  # fmt: skip
SCENES = pytest.mark.parametrize(
    "scene", [ODD_IDS, ODD_TOKENS, AT_ONCE], ids=lambda scene: scene.name
)


@ERAS
@SCENES
async def test_answers_have_the_text_of_the_id_and_the_token(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))


@ERAS
@SCENES
async def test_answers_have_them_across_the_eras(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    own, other = await direct(scene, era), await direct(scene, OTHER[era])
    assert_bridged(own, other, await through(tmp_path, scene, era, OTHER[era]))


@ERAS
@SCENES
async def test_answers_have_them_at_the_face_of_two(tmp_path: Path, scene: Scene, era: Era) -> None:
    own = await directly(tmp_path / "direct", said(located, scene, era), era, name="one")
    proxied, _ = await together(tmp_path / "through", scene, era)
    assert_same(conversation(own), conversation(proxied))


def of_token(talk: Talk) -> list[tuple[str, bytes]]:
    """What was heard, in its order: of a call's progress the token, of answers the id."""
    found = []
    for line in talk.heard:
        message = wire.decode(line)
        if message.method == "notifications/progress":
            found.append(("progress", member(line, "params", "progressToken")))
        elif message.is_answer and message.id != b'"open"':
            found.append((member(line, "result", "content").decode(), message.id or b""))
    return found


@ERAS
@FACES
@pytest.mark.parametrize("server", ["legacy", "modern"])
async def test_clients_with_the_same_ids_and_tokens_at_once_hear_what_is_theirs(
    tmp_path: Path, era: Era, face: tuple[str, ...], server: str
) -> None:
    probe = Probe(tmp_path, AT_ONCE, server, "one")
    talks = [Talk(era, {}) for _ in range(3)]

    def line(tool: str, identifier: str = '"7"') -> bytes:
        asked = token(call(identifier, tool if face else f"one__{tool}"), "7.0")
        return filled(era, asked).encode()

    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        for talk, tool in zip(talks, ("first", "second", "third"), strict=True):
            await sit_down(found, talk, *face)
            await talk.open()
            talk.say(line(tool))
            await talk.hears("notifications/progress", 3)
        last = Talk(era, {})
        await sit_down(found, last, *face)
        await last.open()
        await last.once(line("log"))
        for talk in talks:
            await talk.answer(b'"7"')
    for talk, tool in zip(talks, ("first", "second", "third"), strict=True):
        content = f'[{{"text":"{tool}","type":"text","own":1.0}}]'
        assert of_token(talk) == [*[("progress", b"7.0")] * 3, (content, b'"7"')]


@ERAS
@FACES
async def test_cancellation_of_what_was_answered_goes_no_further_and_its_id_serves_again(
    tmp_path: Path, era: Era, face: tuple[str, ...]
) -> None:
    probe = Probe(tmp_path, ODD_IDS, era, "one")
    talk = Talk(era, {})
    saying = filled(era, call("7", "say" if face else "one__say")).encode()
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        await sit_down(found, talk, *face)
        await talk.open()
        first = await talk.once(saying)
        for identifier in ("7", '"7"', "7.0", '"open"', "null"):
            talk.say(cancel(identifier).encode())
        assert await talk.once(saying) == first
        methods = [wire.decode(line).method for line in probe.received]
    assert methods.count("tools/call") == 2
    assert "notifications/cancelled" not in methods


@ERAS
@FACES
@pytest.mark.parametrize("server", ["legacy", "modern"])
async def test_cancellation_takes_back_the_call_of_its_own_client_alone(
    tmp_path: Path, era: Era, face: tuple[str, ...], server: str
) -> None:
    probe = Probe(tmp_path, AT_ONCE, server, "one")
    stays, goes = Talk(era, {}), Talk(era, {})

    def line(tool: str, identifier: str = "7") -> bytes:
        asked = token(call(identifier, tool if face else f"one__{tool}"), identifier)
        return filled(era, asked).encode()

    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        for talk, tool in ((stays, "first"), (goes, "second")):
            await sit_down(found, talk, *face)
            await talk.open()
            talk.say(line(tool))
            await talk.hears("notifications/progress", 3)
        goes.say(cancel("7").encode())
        await goes.once(line("log", '"log"'))
        assert b'"first"' in await stays.answer(b"7")
        received = [wire.decode(each) for each in probe.received]
    assert not [each for each in goes.heard if wire.decode(each).id == b"7"]
    (second,) = (each.id for each in received if b'"second"' in each.line)
    cancelled = [
        member(each.line, "params", "requestId")
        for each in received
        if each.method == "notifications/cancelled"
    ]
    assert cancelled == [second]
