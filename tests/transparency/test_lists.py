"""Lists at a one-server face: what Octave answers from its catalogue is what the server wrote."""

import json
from pathlib import Path

import anyio
import pytest

from octave.runtime import wire
from tests.transparency.comparison import Record, assert_same, member
from tests.transparency.conversation import Talk, directly, talking, through
from tests.transparency.scripts import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    PREFIX,
    Era,
    Hears,
    Later,
    Scene,
    ask,
    both,
    call,
    filled,
    fresh,
    listen,
    notify,
    tagged,
    text,
)

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
KINDS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
PAGES = (("", '"nextCursor":"",'), ("@", '"nextCursor":"c \\u00e9\\/",'), ("@c \u00e9/", ""))
"""How a page is asked for, and what it says of the next; an empty cursor is one."""


def paged() -> Scene:
    script = {
        f"{method}{place}": [fresh(f'{rest}"{kind}":[{item(number)},{item(number + 5)}]')]
        for method, kind in KINDS.items()
        for number, (place, rest) in enumerate(PAGES)
    }
    return both("pages", [], script)


def item(number: int) -> str:
    return (
        f'{{"n":{number}.10,"name":"i{number}","uri":"probe://{number}", "uriTemplate":'
        f'"probe://{number}/{{x}}","inputSchema":{{"type":"object"}}}}'
    )


async def walk(talk: Talk, era: Era, method: str) -> list[bytes]:
    """The items of every page, as a client reads them."""
    found: list[bytes] = []
    cursor: bytes | None = b""
    for number in range(len(PAGES) + 1):
        params = f'"cursor":{cursor.decode()},' if cursor else ""
        line = filled(era, ask(f"{number}", method, params)).encode()
        result = wire.decode(await talk.once(line)).result or b""
        found += wire.elements(member(result, KINDS[method]))
        cursor = wire.member(result, "nextCursor")
        if cursor is None:
            return found
    raise AssertionError(f"`{method}` has no end")


@ERAS
@pytest.mark.parametrize("method", KINDS)
async def test_pages_lose_no_item_and_change_no_byte(tmp_path: Path, era: Era, method: str) -> None:
    async with talking(tmp_path, paged(), era, era) as (talk, _):
        await talk.open()
        found = await walk(talk, era, method)
    assert [each.decode() for each in found] == [
        item(number) for page in range(len(PAGES)) for number in (page, page + 5)
    ]


@ERAS
@pytest.mark.parametrize("method", KINDS)
async def test_page_after_a_cursor_of_the_server_is_the_servers_own(
    tmp_path: Path, era: Era, method: str
) -> None:
    line = ask("1", method, '"cursor":"c \\u00e9\\/","own":1.0,')
    scene = both("", [line], paged().server[era])
    direct = await directly(tmp_path / "direct", scene, era)
    proxied = await through(tmp_path / "through", scene, era)
    assert_same(direct, Record(proxied.client, direct.server))


@ERAS
@pytest.mark.parametrize("method", KINDS)
async def test_list_keeps_what_stands_beside_and_between_its_items(
    tmp_path: Path, era: Era, method: str
) -> None:
    result = fresh(
        f'"own":[1.10], "{KINDS[method]}" : [ {item(1)} , {item(2)}],"_meta":{{"v/k":1E2}}'
    )
    scene = both("", [ask("1", method, "")], {method: [result]})
    direct = await directly(tmp_path / "direct", scene, era)
    assert_same(direct, await through(tmp_path / "through", scene, era))


@pytest.mark.parametrize("method", LIST_CHANGED)
async def test_notice_of_a_changed_list_keeps_its_members(tmp_path: Path, method: str) -> None:
    members = '"_meta":{"v/k":1.10},"own":1E2'
    kinds = '"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true'
    scene = Scene(
        "",
        {
            "legacy": [call("2", "change"), Hears(method)],
            "modern": [listen("1", kinds), Hears(ACKNOWLEDGED), call("2", "change"), Hears(method)],
        },
        {
            "legacy": {"tools/call change": [notify(method, members), text("changed")]},
            "modern": {"tools/call change": [tagged(method, '"own":1E2,'), text("changed")]},
        },
    )
    eras: tuple[Era, Era] = ("legacy", "modern")
    for era in eras:
        direct = await directly(tmp_path / f"direct-{era}", scene, era)
        assert_same(direct, await through(tmp_path / f"through-{era}", scene, era))


async def test_listener_hears_only_what_it_asked_for_under_its_own_id(tmp_path: Path) -> None:
    scene = Scene(
        "",
        {},
        {
            "modern": {
                "tools/call change": [*map(tagged, LIST_CHANGED), text("changed")],
            }
        },
    )
    async with talking(tmp_path, scene, "modern", "modern") as (talk, _):
        for identifier, kind in (('"one"', "tools"), ("2.50", "prompts")):
            line: Later = listen(identifier, f'"{kind}ListChanged":true')
            talk.say(filled("modern", line.line).encode())
        await talk.hears(ACKNOWLEDGED, 2)
        await talk.once(filled("modern", call("1", "change")).encode())
        heard = [*await talk.hears(LIST_CHANGED[0]), *await talk.hears(LIST_CHANGED[1])]
        await anyio.lowlevel.checkpoint()
        tags = [member(line, "params", "_meta", f"{PREFIX}subscriptionId") for line in heard]
        assert tags == [b'"one"', b"2.50"]
        assert not [line for line in talk.heard if wire.decode(line).method == LIST_CHANGED[2]]
        assert {json.dumps(json.loads(line)["method"]) for line in heard} == {
            json.dumps(method) for method in LIST_CHANGED[:2]
        }
