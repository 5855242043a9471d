"""Pages of lists across the eras and behind the face of several servers: nothing is lost."""

import json
from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk, sit_down, talking
from tests.transparency.scripts import Era, Script, ask, both, filled, fresh
from tests.transparency.test_lists import KINDS, PAGES, item, paged, walk

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
SERVERS = pytest.mark.parametrize("server", ["legacy", "modern"])
LISTS = pytest.mark.parametrize("method", KINDS)
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
ALL = [item(number) for page in range(len(PAGES)) for number in (page, page + 5)]
TWICE: Script = {
    "resources/list": [
        fresh(
            '"nextCursor":"2","resources":[{"uri":"x://1","name":"a"},{"uri":"x://1","name":"b"}]'
        )
    ],
    "resources/list@2": [fresh('"resources":[{"uri":"x://1","name":"a"}]')],
    "tools/list": [
        fresh(
            '"nextCursor":"2","tools":[{"name":"t","inputSchema":{"type":"object"},"n":1.0},'
            '{"name":"t","inputSchema":{"type":"object"},"n":2.0}]'
        )
    ],
    "tools/list@2": [fresh('"tools":[{"name":"u","inputSchema":{"type":"object"}}]')],
}
"""Duplicates within a page and across pages."""


async def merged(folder: Path, era: Era, method: str, *probes: Probe) -> list[bytes]:
    """The items that the face of these servers lists."""
    talk = Talk(era, {})
    async with desk(folder, *(probe.spec for probe in probes)) as found:
        await found.catalogue.gather([probe.name for probe in probes])
        await sit_down(found, talk)
        await talk.open()
        answer = await talk.once(filled(era, ask("1", method, "")).encode())
    result = wire.decode(answer).result or b""
    assert member(result, "nextCursor") == b"", "every list is one page"
    return wire.elements(member(result, KINDS[method]))


@ERAS
@LISTS
async def test_pages_lose_no_item_across_the_eras(tmp_path: Path, era: Era, method: str) -> None:
    async with talking(tmp_path, paged(), era, OTHER[era]) as (talk, _):
        await talk.open()
        found = await walk(talk, era, method)
    assert [each.decode() for each in found] == ALL


@ERAS
@SERVERS
@LISTS
async def test_pages_of_several_servers_are_merged_in_their_order(
    tmp_path: Path, era: Era, server: str, method: str
) -> None:
    one, two = (Probe(tmp_path, paged(), server, name) for name in ("a", "b"))
    found = await merged(tmp_path, era, method, one, two)
    expected = []
    for name in ("a", "b"):
        prefix = f"{name}__" if KINDS[method] in {"tools", "prompts"} else ""
        expected += [each.replace('"name":"', f'"name":"{prefix}') for each in ALL]
    assert [each.decode() for each in found] == expected


@ERAS
async def test_resources_that_are_listed_twice_stay_so_and_tools_stand_as_first_defined(
    tmp_path: Path, era: Era
) -> None:
    scene = both("", [], TWICE)
    one, two = (Probe(tmp_path, scene, era, name) for name in ("a", "b"))
    found = [json.loads(each) for each in await merged(tmp_path, era, "resources/list", one, two)]
    assert [(each["uri"], each["name"]) for each in found] == [
        ("x://1", "a"), ("x://1", "b"), ("x://1", "a"),
    ] * 2  # fmt: skip
    tools = [json.loads(each) for each in await merged(tmp_path, era, "tools/list", one, two)]
    assert [(each["name"], each.get("n")) for each in tools] == [
        ("a__t", 1.0), ("a__u", None), ("b__t", 1.0), ("b__u", None),
    ]  # fmt: skip


@ERAS
@LISTS
@pytest.mark.parametrize("cursor", ['"forged"', '""', '"c \\u00e9\\/"', "7", "{}"])
async def test_cursor_that_the_face_never_gave_is_refused_and_asks_nobody(
    tmp_path: Path, era: Era, method: str, cursor: str
) -> None:
    one = Probe(tmp_path, paged(), era, "a")
    talk = Talk(era, {})
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["a"])
        await sit_down(found, talk)
        await talk.open()
        asked = len(one.received)
        line = filled(era, ask("1", method, f'"cursor":{cursor},')).encode()
        assert member(await talk.once(line), "error", "code") == b"-32602"
        assert [each for each in one.received[asked:] if b"/list" in each] == []


@ERAS
@LISTS
async def test_cursor_of_a_server_that_was_removed_meanwhile_is_an_error_that_names_it(
    tmp_path: Path, era: Era, method: str
) -> None:
    one = Probe(tmp_path, paged(), era, "a")
    talk = Talk(era, {})
    async with desk(tmp_path, one.spec) as found:
        await sit_down(found, talk, "a")
        await talk.open()
        first = await talk.once(filled(era, ask("1", method, "")).encode())
        cursor = member(first, "result", "nextCursor").decode()
        await found.supervisor.reload([])
        line = filled(era, ask("2", method, f'"cursor":{cursor},')).encode()
        refused = await talk.once(line)
    assert member(refused, "error", "code") == b"-32602"
    assert b"no server `a`" in refused
