"""Whatever servers call their tools and prompts, each has a legal name that leads back to it."""

import json
import re
from pathlib import Path

import pytest

from octave.gateway.naming import LIMIT_CHARS, qualified
from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.gateway.test_list_changes import begin
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk
from tests.transparency.scripts import Era, Scene, answer, ask, both, filled, fresh, text

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])

DOTTED = "a.b"
TWIN = qualified("one", DOTTED).removeprefix("one__")
"""A name that needs no change, and is what the other one is changed into."""
NAMES = [
    "plain", "two__plain", "__", "one__one__plain", "with-dash_and_line", "Upper", "upper",
    "x" * (LIMIT_CHARS - len("one__")), "x" * (LIMIT_CHARS - len("one__") + 1), "x" * 128,
    "x" * 127 + "y", "dots.and/slashes:colons", "dots_and/slashes:colons", "caf\u00e9",
    "cafe\u0301", "\U0001f600", "\u2028", "sp ace", "sp\\u0020ace", 'quo"te',
    "back\\slash", "\ud800",
]  # fmt: skip


def items(names: list[str], rest: str) -> str:
    return ",".join(f'{{"name":{json.dumps(name)},{rest}}}' for name in names)


def named(names: list[str]) -> Scene:
    tools, prompts = items(names, '"inputSchema":{"type":"object"}'), items(names, '"own":1.0')
    return both(
        "",
        [],
        {
            "tools/list": [fresh(f'"tools":[{tools}]')],
            "prompts/list": [fresh(f'"prompts":[{prompts}]')],
            "tools/call": [text("called")],
            "prompts/get": [answer('"messages":[]')],
            "completion/complete": [answer('"completion":{"values":[]}')],
        },
    )


async def listed(talk: Talk, era: Era, kind: str) -> list[str]:
    said = await talk.once(filled(era, ask(f'"{kind}"', f"{kind}/list", "")).encode())
    return [item["name"] for item in json.loads(said)["result"][kind]]


def asked(probe: Probe, method: str, *path: str) -> list[str]:
    """The names that the server was asked for."""
    lines = (line for line in probe.received if wire.decode(line).method == method)
    return [json.loads(member(line, "params", *path)) for line in lines]


@ERAS
async def test_every_name_is_legal_and_leads_back_to_its_tool_prompt_and_reference(
    tmp_path: Path, era: Era
) -> None:
    one, two = Probe(tmp_path, named(NAMES), era, "one"), Probe(tmp_path, named(NAMES), era, "two")
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        talk = await begin(found, era)
        tools, prompts = await listed(talk, era, "tools"), await listed(talk, era, "prompts")
        assert tools == prompts
        assert len(set(tools)) == 2 * len(NAMES)
        assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in tools)
        for number, name in enumerate(tools):
            for kind, method, params in (
                ("t", "tools/call", f'"name":"{name}",'),
                ("p", "prompts/get", f'"name":"{name}",'),
                ("c", "completion/complete", f'"ref":{{"type":"ref/prompt","name":"{name}"}},'),
            ):
                line = filled(era, ask(f'"{kind}{number}"', method, params))
                assert wire.decode(await talk.once(line.encode())).result, name
        for probe in (one, two):
            assert asked(probe, "tools/call", "name") == NAMES
            assert asked(probe, "prompts/get", "name") == NAMES
            assert asked(probe, "completion/complete", "ref", "name") == NAMES


@ERAS
async def test_names_are_the_same_in_another_order_beside_others_and_next_time(
    tmp_path: Path, era: Era
) -> None:
    seen: list[set[str]] = []
    for number, names in enumerate((NAMES, NAMES[::-1], [*NAMES, "more"], NAMES)):
        folder = tmp_path / str(number)
        one = Probe(folder, named(names), era, "one")
        async with desk(folder, one.spec) as found:
            await found.catalogue.gather(["one"])
            seen.append(set(await listed(await begin(found, era), era, "tools")))
    assert seen[0] == seen[1] == seen[2] - {"one__more"} == seen[3]


@ERAS
async def test_two_names_that_become_one_are_refused_by_naming_both_and_work_alone(
    tmp_path: Path, era: Era
) -> None:
    one = Probe(tmp_path, named([DOTTED, TWIN, "plain"]), era, "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        talk, alone = await begin(found, era), await begin(found, era, "one")
        line = filled(era, ask("1", "tools/call", f'"name":"one__{TWIN}",'))
        refused = await talk.once(line.encode())
        assert member(refused, "error", "code") == b"-32602"
        assert DOTTED.encode() in refused and TWIN.encode() in refused
        line = filled(era, ask("2", "tools/call", '"name":"one__plain",'))
        assert wire.decode(await talk.once(line.encode())).result
        for number, name in enumerate((DOTTED, TWIN)):
            line = filled(era, ask(f"{number}", "tools/call", f'"name":"{name}",'))
            assert wire.decode(await alone.once(line.encode())).result
        assert asked(one, "tools/call", "name") == ["plain", DOTTED, TWIN]
