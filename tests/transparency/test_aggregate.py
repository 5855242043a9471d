"""Two servers behind one face: names differ by the prefix, and nothing else by a byte."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency import questions, scenes
from tests.transparency.comparison import (
    BRIDGE_SAYS,
    OWN_METHODS,
    Record,
    as_server,
    assert_same,
    member,
    unopened,
)
from tests.transparency.conversation import Probe, Talk, directly, sit_down
from tests.transparency.scripts import Era, Later, Line, Scene, ask, call, fence, filled

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
SCENES = [
    scenes.CALLS, scenes.PROMPTS_AND_RESOURCES, scenes.COMPLETION, scenes.LOG_LINES,
    scenes.PROGRESS_OF_CALLS, scenes.CANCELLATION, scenes.ANY_IDS, scenes.NUMBERS,
    scenes.SUBSCRIPTIONS, *(each for each in questions.SCENES if len(each.eras) == 2),
]  # fmt: skip
TOGETHER = [pytest.param(one, era, id=f"{era}-{one.name}") for one in SCENES for era in one.eras]


def said(change: Callable[[str], str], scene: Scene, era: Era) -> Scene:
    """The scene with every line of its client changed."""
    lines: list[Line] = []
    for line in scene.client[era]:
        if isinstance(line, Later):
            lines.append(Later(change(line.line)))
        else:
            lines.append(change(line) if isinstance(line, str) else line)
    return replace(scene, client={era: lines})


def located(line: str) -> str:
    """With the URIs of server `one`."""
    return line.replace("probe://", "one://")


def qualified(line: str) -> str:
    """With its names too as the aggregated face has them: of a tool, a prompt, a reference."""
    for before in ('"params":{', '"type":"ref/prompt",'):
        line = line.replace(f'{before}"name":"', f'{before}"name":"one__')
    return located(line)


async def together(folder: Path, scene: Scene, era: Era) -> tuple[Record, Probe]:
    """Play the scene at the face of servers `one`, whose record it is, and `two`."""
    one, two = (Probe(folder, scene, era, name) for name in ("one", "two"))
    talk = Talk(era, scene.replies)
    async with desk(folder, one.spec, two.spec) as found:
        # As after an installation: otherwise the first call of each server tells that it has lists.
        await found.catalogue.gather(["one", "two"])
        await sit_down(found, talk)
        await talk.play(said(qualified, scene, era), qualified(fence(era)))
    return Record(talk.heard, one.received), two


@pytest.mark.parametrize(("scene", "era"), TOGETHER)
async def test_conversation_with_one_of_two_is_the_same_but_for_the_names(
    tmp_path: Path, scene: Scene, era: Era
) -> None:
    direct = await directly(tmp_path / "direct", said(located, scene, era), era, name="one")
    proxied, other = await together(tmp_path / "through", scene, era)
    assert_same(conversation(direct), conversation(proxied))
    assert as_server(other.received, OWN_METHODS | BRIDGE_SAYS) == []


def conversation(record: Record) -> Record:
    """Without what the face says of itself, and what it tells its servers."""
    said = as_server(record.server, OWN_METHODS | BRIDGE_SAYS)
    return Record(unopened(record.client), said)


@ERAS
@pytest.mark.parametrize(("method", "kind"), [("tools/list", "tools"), ("prompts/list", "prompts")])
async def test_definitions_differ_by_the_prefix_alone(
    tmp_path: Path, era: Era, method: str, kind: str
) -> None:
    expected = []
    for name in ("one", "two"):
        for item in await listed(tmp_path / name, era, method, kind, name):
            prefixed = b'"%b__%b' % (name.encode(), member(item, "name")[1:])
            expected.append(wire.splice(item, {("name",): prefixed}))
    assert await listed(tmp_path, era, method, kind) == expected


@ERAS
@pytest.mark.parametrize(
    ("method", "kind"),
    [("resources/list", "resources"), ("resources/templates/list", "resourceTemplates")],
)
async def test_resources_are_listed_verbatim(
    tmp_path: Path, era: Era, method: str, kind: str
) -> None:
    expected = [
        item
        for name in ("one", "two")
        for item in await listed(tmp_path / name, era, method, kind, name)
    ]
    assert await listed(tmp_path, era, method, kind) == expected


async def listed(folder: Path, era: Era, method: str, kind: str, server: str = "") -> list[bytes]:
    """The items of a list: of the one server asked directly, or of both at their face."""
    scene = Scene("", {era: [ask("1", method, "")]}, {era: {}})
    if server:
        record = await directly(folder, scene, era, name=server)
    else:
        record, _ = await together(folder, scene, era)
    (answer,) = (line for line in record.client if wire.decode(line).id == b"1")
    return wire.elements(member(answer, "result", kind))


@ERAS
async def test_changed_tools_of_one_are_told_and_then_listed(tmp_path: Path, era: Era) -> None:
    record, _ = await together(tmp_path, scenes.LISTS_CHANGE, era)
    lists = [line for line in record.client if wire.decode(line).id == b'"tools"']
    names = [
        [member(tool, "name") for tool in wire.elements(member(line, "result", "tools"))]
        for line in lists
    ]
    assert [b'"one__new"' in each for each in names] == [False, True]
    assert all(b'"two__say"' in each and b'"two__new"' not in each for each in names)


@ERAS
async def test_same_question_of_both_at_once_is_answered_to_each(tmp_path: Path, era: Era) -> None:
    scene = questions.SCENES[0]
    one, two = (Probe(tmp_path, scene, era, name) for name in ("one", "two"))
    talk = Talk(era, scene.replies)
    async with desk(tmp_path, one.spec, two.spec) as found:
        await sit_down(found, talk)
        await talk.open()
        async with anyio.create_task_group() as tasks:
            for name in ("one", "two"):
                asking = filled(era, call(f'"{name}"', f"{name}__ask"))
                tasks.start_soon(talk.ask, asking.encode())
    answers = [line for line in talk.heard if b"known" in line]
    assert {member(line, "result", "content") for line in answers} == {
        b'[{"text":"known \\u00e9","type":"text","own":1.0}]'
    }
    assert len(answers) == 2
    # Both gave the same id; the client, which has both questions open, was told two.
    asked = [message.id for line in talk.heard if (message := wire.decode(line)).is_request]
    assert len(set(asked)) == len(asked) == (2 if era == "legacy" else 0)
    # Each got the answer under its own.
    expected = [b"7"] if era == "legacy" else []
    for probe in (one, two):
        given = [message for line in probe.received if (message := wire.decode(line)).is_answer]
        assert [message.id for message in given] == expected
