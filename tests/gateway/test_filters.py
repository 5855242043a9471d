"""A denied tool is neither listed nor callable, at whichever face, in whichever era."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import ToolNotFound
from octave.packages.definitions import Finding
from octave.packages.launch import ToolFilter
from octave.runtime import wire
from tests.gateway.conversation import Client, Desk, call, desk, error_code, odd

pytestmark = pytest.mark.anyio

META = (
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)
FILTERS = [
    (ToolFilter(deny=("f*", "echo")), {"fail", "echo"}),
    (ToolFilter(allow=("echo", "fail"), deny=("fail",)), None),
]


async def listed(client: Client, *, modern: bool) -> set[str]:
    client.lines.clear()
    params = b"{%b}" % META if modern else b"{}"
    answer = json.loads(await client.ask(b'"list"', "tools/list", params))
    return {tool["name"].removeprefix("one__") for tool in answer["result"]["tools"]}


async def refused(client: Client, name: bytes, *, modern: bool) -> int:
    client.lines.clear()
    params = call(name)
    if modern:
        params = b"{%b,%b" % (META, params.removeprefix(b"{"))
    return error_code(await client.ask(b'"call"', "tools/call", params))


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("is_awake", [False, True])
@pytest.mark.parametrize(("tools", "hidden"), FILTERS)
async def test_denied_tools_are_neither_listed_nor_callable(
    tmp_path: Path, tools: ToolFilter, hidden: set[str] | None, is_awake: bool, modern: bool
) -> None:
    async with desk(tmp_path, replace(odd("one"), tools=tools), odd("two")) as found:
        if not is_awake:
            await found.catalogue.refresh("one")
            await found.supervisor.stop(["one"])
            await found.supervisor.start([])
        for client, prefix in (
            (await found.client("one", single=True), b""),
            (await found.client(), b"one__"),
        ):
            shown = await listed(client, modern=modern)
            if hidden is None:
                assert {name for name in shown if not name.startswith("two__")} == {"echo"}
            else:
                assert not shown & hidden
                assert "progress" in shown
            assert await refused(client, prefix + b"fail", modern=modern) == wire.INVALID_PARAMS


async def test_a_name_that_is_not_listed_can_be_denied_too(tmp_path: Path) -> None:
    async with desk(tmp_path, replace(odd("one"), tools=ToolFilter(deny=("gone_*",)))) as found:
        client = await found.client("one", single=True)
        answer = await client.ask(b"1", "tools/call", call(b"gone_for_good"))
        assert "is denied" in json.loads(answer)["error"]["message"]


async def test_a_changed_filter_counts_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        client = await found.client("one", single=True)
        assert "echo" in await listed(client, modern=False)
        changed = replace(odd("one"), tools=ToolFilter(deny=("echo",)), fingerprint="other")
        await found.supervisor.reload([changed])
        assert "echo" not in await listed(client, modern=False)
        assert await refused(client, b"echo", modern=False) == wire.INVALID_PARAMS


async def test_commands_do_not_find_a_denied_tool(tmp_path: Path) -> None:
    async with desk(tmp_path, replace(odd("one"), tools=ToolFilter(deny=("echo",)))) as found:
        assert b'"echo"' not in b"".join(tool for _, tool, *_ in await merged(found))
        with pytest.raises(ToolNotFound):
            await found.router.find_tool("echo", "one")


async def merged(found: Desk) -> list[tuple[str, bytes, str | None, Finding | None]]:
    return await found.router.merged_tools()


@pytest.mark.parametrize(
    ("tools", "permitted"),
    [
        (ToolFilter(), ["a", "delete_a", "A"]),
        (ToolFilter(deny=("delete_*",)), ["a", "A"]),
        (ToolFilter(allow=("[ab]",)), ["a"]),
        (ToolFilter(allow=("*",), deny=("?",)), ["delete_a"]),
    ],
)
def test_patterns_are_those_of_a_shell_and_denying_wins(
    tools: ToolFilter, permitted: list[str]
) -> None:
    assert [name for name in ("a", "delete_a", "A") if tools.permits(name)] == permitted
