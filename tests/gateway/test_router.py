"""Tools are found by their own names and by their qualified ones."""

from pathlib import Path

import pytest

from octave.errors import Ambiguous, OctaveError, ServerNotFound, ToolNotFound
from octave.gateway.naming import qualified
from octave.packages.offered import LISTS
from octave.runtime import wire
from tests.gateway.conversation import Desk, desk, directly, missing, odd

pytestmark = pytest.mark.anyio


async def test_tools_of_all_servers_are_merged_as_they_were_given(two: Desk) -> None:
    merged = await two.router.merged_tools()
    (own,) = directly(odd("two"), wire.request(1, LISTS["tools"]))
    tools = [tool for server, tool, *_ in merged if server == "two"]
    assert wire.member(own, "result") == b'{"tools":[%b]}' % b",".join(tools)
    assert [server for server, *_ in merged] == ["one"] * len(tools) + ["two"] * len(tools)


async def test_tools_of_named_servers_come_alone(two: Desk) -> None:
    assert {server for server, *_ in await two.router.merged_tools(["two"])} == {"two"}
    with pytest.raises(ServerNotFound):
        await two.router.merged_tools(["two", "three"])


async def test_only_server_asked_for_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    async with desk(tmp_path, missing("broken"), odd("one")) as found:
        with pytest.raises(OctaveError, match="broken"):
            await found.router.merged_tools(["broken"])
        with pytest.raises(OctaveError, match="broken"):
            await found.router.find_tool("echo", "broken")
        assert await found.router.find_tool("echo") == ("one", "echo")


async def test_tool_of_a_named_server_is_found_by_either_name(two: Desk) -> None:
    for name in ("odd.name", qualified("two", "odd.name")):
        assert await two.router.find_tool(name, "two") == ("two", "odd.name")


async def test_qualified_name_needs_no_server(two: Desk) -> None:
    assert await two.router.find_tool("two__echo") == ("two", "echo")


async def test_name_that_several_servers_offer_is_ambiguous_and_names_them(two: Desk) -> None:
    with pytest.raises(Ambiguous) as caught:
        await two.router.find_tool("echo")
    assert caught.value.details == {"servers": ["one", "two"]}


async def test_unknown_tool_comes_with_suggestions(two: Desk) -> None:
    with pytest.raises(ToolNotFound) as caught:
        await two.router.find_tool("ecko", "one")
    assert caught.value.message == "unknown tool `ecko` of `one`"
    assert caught.value.hint == "did you mean `echo`?"
    with pytest.raises(ToolNotFound, match="unknown tool"):
        await two.router.find_tool("nothing like it")
    with pytest.raises(ServerNotFound):
        await two.router.find_tool("echo", "three")
