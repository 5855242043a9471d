"""Lists that are long, endless, broken or restless cost what is wrong with them, and no more."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import anyio
import mcp_types
import pytest

from octave.gateway import catalogue
from octave.gateway.naming import LIMIT_CHARS
from octave.packages.launch import LaunchSpec
from octave.runtime import wire
from tests.gateway.conversation import SERVERS, Client, Desk, desk, error_code, odd, spec, texts

pytestmark = pytest.mark.anyio

TIME_FOR_ALL_S = 30.0
"""300 changes take a second, on a busy machine several."""
REFUSED = '"error":{"code":-32000,"message":"no token"}'


def server(script: str, *arguments: str, state: Path | None = None) -> LaunchSpec:
    launch = spec(script.replace("_", "-"), SERVERS / f"{script}.py", *arguments)
    environment = {"PYTHONUTF8": "1"} | ({} if state is None else {"HOSTILE_STATE": str(state)})
    return replace(launch, environment=lambda: environment)


async def names(client: Client, identifier: bytes = b'"list"') -> list[str]:
    """All pages: the face of one server has as many as the server."""
    found: list[str] = []
    params: dict[str, str] = {}
    while True:
        answer = await client.ask(identifier, "tools/list", json.dumps(params).encode())
        client.lines.clear()
        result = json.loads(answer)["result"]
        found += (tool["name"] for tool in result["tools"])
        if "nextCursor" not in result:
            return found
        params = {"cursor": result["nextCursor"]}


async def listed(found: Desk, name: str) -> list[str]:
    """What an aggregated face shows of a server that was just asked."""
    await found.catalogue.refresh(name)
    client = await found.client(name, "none")
    return [each.removeprefix(f"{name}__") for each in await names(client)]


def warnings(folder: Path, name: str) -> list[str]:
    """What `octave logs` shows: the log of a server whose desk is closed."""
    lines = (folder / f"{name}.log").read_text(encoding="utf-8").splitlines()
    return [text for line in lines if (text := line.partition(" octave warning: ")[2])]


# Long and endless.


async def test_row_49_a_thousand_tools_in_ten_pages_are_all_listed(tmp_path: Path) -> None:
    wanted = ["echo", *(f"tool_{n:05}" for n in range(1, 1000))]
    async with desk(tmp_path, server("paged_tools"), odd("one")) as found:
        assert await listed(found, "paged-tools") == wanted
        assert await names(await found.client("paged-tools", single=True)) == wanted
        everybody = await found.client()
        params = b'{"name":"paged-tools__tool_00999"}'
        assert texts(await everybody.ask(b"1", "tools/call", params)) == "tool_00999"
        assert "one__echo" in await names(everybody)
    assert warnings(tmp_path, "paged-tools") == []


@pytest.mark.parametrize(
    ("kind", "count", "reason"),
    [
        ("new", 100, "has more than 100 pages"),
        ("round", 4, "comes back to a page it gave before"),
        ("long", 1, "gives a cursor of 100,010 bytes"),
        ("wide", 5000, "has more than 5,000 items"),
        ("heavy", 167, "makes the lists longer than 16,777,216 bytes"),
    ],
)
async def test_row_50_a_list_without_end_is_ended_and_a_warning_says_so(
    tmp_path: Path, kind: str, count: int, reason: str
) -> None:
    async with desk(tmp_path, server("endless_pages", kind), odd("one")) as found:
        assert len(await listed(found, "endless-pages")) == count
        assert "one__echo" in await names(await found.client())
        await found.catalogue.refresh("endless-pages")
    assert warnings(tmp_path, "endless-pages") == [
        f"`tools/list` {reason}; what follows is left out"
    ]


# Broken.


async def test_row_51_of_all_definitions_only_the_unusable_ones_are_hidden(tmp_path: Path) -> None:
    async with desk(tmp_path, server("weird_schemas"), odd("one")) as found:
        shown = await listed(found, "weird-schemas")
        everybody = await found.client()
        answer = await everybody.ask(b"1", "tools/list")
        assert "one__echo" in await names(everybody)
        single = await found.client("weird-schemas", single=True)
        own = wire.member(await single.ask(b"1", "tools/list"), "result", "tools")

    assert shown == [
        *("good_first", "good_recursive", "good_circle", "good_remote", "good_dialect"),
        *("good_deep", "good_numbers", "good_keywords", "good_last"),
    ]
    mcp_types.ListToolsResult.model_validate_json(wire.member(answer, "result") or b"")
    assert len(wire.elements(own or b"")) == 33
    told = warnings(tmp_path, "weird-schemas")
    assert told[:3] == [
        "tool `null_schema` is not shown to AI tools: `inputSchema` is null, not an object",
        "tool `boolean_schema` is not shown to AI tools: `inputSchema` is a boolean, not an object",
        "tool `array_schema` is not shown to AI tools: `inputSchema` is an array, not an object",
    ]
    assert told[-1] == "tools without a name, not shown to AI tools: 4"


async def test_row_51_a_hidden_tool_can_still_be_called_by_who_names_it(tmp_path: Path) -> None:
    async with desk(tmp_path, server("weird_schemas")) as found:
        single = await found.client("weird-schemas", single=True)
        answer = await single.ask(b"1", "tools/call", b'{"name":"null_schema"}')
        assert texts(answer) == "null_schema"
        assert await found.router.find_tool("null_schema") == ("weird-schemas", "null_schema")


async def test_row_51_nobody_goes_where_a_remote_reference_leads(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        url = f"http://127.0.0.1:{door.getsockname()[1]}/schema.json"
        async with desk(tmp_path, server("weird_schemas", url)) as found:
            assert "good_remote" in await listed(found, "weird-schemas")
            single = await found.client("weird-schemas", single=True)
            assert url.encode() in await single.ask(b"1", "tools/list")
        with pytest.raises(BlockingIOError):
            door.accept()


async def test_row_51_a_schema_that_no_parser_takes_hides_only_its_tool(tmp_path: Path) -> None:
    async with desk(tmp_path, server("weird_schemas"), odd("one")) as found:
        await found.catalogue.refresh("weird-schemas")
        client = await found.client()
        await client.open()
        await client.ask(b"1", "tools/call", b'{"name":"weird-schemas__good_first"}')
        await client.heard("notifications/tools/list_changed")
        shown = await names(client)
        assert "weird-schemas__good_news" in shown
        assert "weird-schemas__good_last" in shown
        assert "weird-schemas__bomb" not in shown
        assert "one__echo" in shown
        single = await found.client("weird-schemas", single=True)
        assert b'"bomb"' in await single.ask(b"1", "tools/list")
    assert (
        "tool `bomb` is not shown to AI tools: its definition is nested deeper than 120 levels"
        in (warnings(tmp_path, "weird-schemas"))
    )


@pytest.mark.parametrize(
    ("member", "warning"),
    [
        (REFUSED, "its lists are not to be had: refused `tools/list`: {"),
        ('"result":{"tools":[', "its lists are not to be had: `list-answer` sent an answer that"),
        ('"result":null', "`tools/list` is answered without an array of `tools`"),
        ('"result":{"tools":{"a":1}}', "`tools/list` is answered without an array of `tools`"),
    ],
)
async def test_row_51_a_list_that_is_refused_or_broken_takes_away_only_its_own_tools(
    tmp_path: Path, member: str, warning: str
) -> None:
    async with desk(tmp_path, server("list_answer", member), odd("one")) as found:
        shown = await names(await found.client())
        assert shown
        assert all(name.startswith("one__") for name in shown)
    (told,) = warnings(tmp_path, "list-answer")
    assert told.startswith(warning)


# Names.


async def test_row_52_names_given_twice_and_odd_names_are_always_the_same_tools(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, server("dup_tool_names")) as found:
        shown = await listed(found, "dup-tool-names")
        client = await found.client()
        answers = [
            texts(
                await client.ask(
                    b"%d" % number, "tools/call", b'{"name":"dup-tool-names__%b"}' % name.encode()
                )
            )
            for number, name in enumerate(shown)
        ]
        definitions = json.loads(await client.ask(b'"list"', "tools/list"))["result"]["tools"]
        assert await listed(found, "dup-tool-names") == shown
        refused = await client.ask(b'"x"', "tools/call", b'{"name":"dup-tool-names__"}')

    assert shown[:2] == ["search", "Search"]
    assert answers == [
        *("called 'search'", "called 'Search'", "called 's\u0435arch'", "called 'search '"),
        *(f"called {'x' * 300!r}", "called 'a/b'", "called 'a.b__c'", "called 'tool with space'"),
    ]
    assert definitions[0]["description"] == "first"
    assert all(len(tool["name"]) <= LIMIT_CHARS for tool in definitions)
    assert len({tool["name"] for tool in definitions}) == len(definitions)
    assert error_code(refused) == wire.INVALID_PARAMS
    told = warnings(tmp_path, "dup-tool-names")
    assert told[0] == "tools without a name, not shown to AI tools: 1"
    assert told[1] == "tool `search` is listed 3 times: the first definition counts"
    assert told[2].startswith(
        f"AI tools know tool `s\\u0435arch` as `dup-tool-names__{shown[2]}`, "
    )
    assert told[2].endswith(", and 3 more: they do not take every name")


# Restless.


def change(times: int, gap_s: float = 0.0) -> bytes:
    arguments = {"times": times, "gap_s": gap_s}
    return json.dumps({"name": "restless-tools__change", "arguments": arguments}).encode()


async def test_row_53_a_change_is_passed_on_and_the_next_list_is_the_new_one(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, server("restless_tools", state=tmp_path), odd("one")) as found:
        client, other = await found.client(), await found.client("one", single=True)
        for each in (client, other):
            await each.open()
        assert await listed(found, "restless-tools") == ["change"]
        await client.ask(b"1", "tools/call", change(1))
        await client.heard("notifications/tools/list_changed")
        assert "restless-tools__added_1" in await names(client)
        assert not any(b"list_changed" in line for line in other.lines)


async def test_row_53_many_changes_are_passed_on_as_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "LOOKS_APART_S", 0.2)
    told = 0
    news = anyio.Event()

    async with desk(tmp_path, server("restless_tools", state=tmp_path)) as found:
        pass_on = found.catalogue.on_changed

        def changed(name: str, lists: frozenset[str]) -> None:
            nonlocal told
            told += 1
            news.set()
            pass_on(name, lists)

        await found.catalogue.refresh("restless-tools")
        found.catalogue.on_changed = changed
        client = await found.client()
        await client.ask(b"1", "tools/call", change(300, 0.002))
        number = 1
        with anyio.fail_after(TIME_FOR_ALL_S):
            while "restless-tools__added_300" not in await names(client, b"%d" % (number + 1)):
                await news.wait()
                news, number = anyio.Event(), number + 1
    asked = (tmp_path / "events.log").read_text(encoding="utf-8").count("list ")
    assert max(told, asked) < 100
