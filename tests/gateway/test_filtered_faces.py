"""A denied tool is out of every reach, and nothing else is."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import ToolNotFound
from octave.packages.launch import ToolFilter
from octave.runtime import wire
from octave.serve.control import Call, Control, Runtime
from tests.gateway.conversation import Desk, desk, error_code, odd

pytestmark = pytest.mark.anyio

DENIED = ToolFilter(deny=("e*", "greet", "one__*"))
"""`echo` is a tool and `greet` a prompt; the last is no name that the server knows."""
META = (
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])


@pytest.fixture
async def filtered(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, replace(odd("one"), tools=DENIED), odd("two")) as found:
        await found.catalogue.gather(["one", "two"])
        yield found


def params(era: str, members: bytes) -> bytes:
    return b"{%b}" % (members if era == "legacy" else b"%b,%b" % (members, META))


@ERAS
@pytest.mark.parametrize("name", [b"echo", rb"\u0065cho", b"one__echo"])
async def test_denied_tool_cannot_be_called_at_its_own_face(
    filtered: Desk, era: str, name: bytes
) -> None:
    client = await filtered.client("one", single=True)
    await client.ask(b'"before"', "tools/call", params(era, b'"name":"seen"'))
    answer = await client.ask(b"1", "tools/call", params(era, b'"name":"%b"' % name))
    assert error_code(answer) == wire.INVALID_PARAMS
    assert wire.member(answer, "error", "data", "octave", "code") == b'"tool_not_found"'


@ERAS
@pytest.mark.parametrize("name", [b"one__echo", rb"one\u005f_echo", b"echo"])
async def test_denied_tool_cannot_be_called_at_the_face_of_all_or_of_a_profile(
    filtered: Desk, era: str, name: bytes
) -> None:
    for client in (await filtered.client(), await filtered.client("one", "two")):
        answer = await client.ask(b"1", "tools/call", params(era, b'"name":"%b"' % name))
        assert error_code(answer) == wire.INVALID_PARAMS
        assert b'"echo"' not in answer, "nor is it suggested"
        listed = await client.ask(b"2", "tools/list", params(era, b'"a":1'))
        tools = {tool["name"] for tool in json.loads(listed)["result"]["tools"]}
        assert {"one__fail", "two__echo"} <= tools
        assert "one__echo" not in tools


@pytest.mark.parametrize("server", ["one", None])
@pytest.mark.parametrize("tool", ["echo", "one__echo"])
async def test_denied_tool_cannot_be_called_by_command_or_http_api(
    filtered: Desk, server: str | None, tool: str
) -> None:
    runtime = Runtime(list, dict, lambda: None)
    control = Control(filtered.supervisor, filtered.router, runtime)
    if (server, tool) == (None, "echo"):
        # The other server has one of that name, and nobody denies it.
        assert b'"content"' in await control.call(Call(tool, server=server))
        return
    with pytest.raises(ToolNotFound):
        await control.call(Call(tool, server=server))
    shown = json.loads(await control.tools())
    assert ("one", "echo") not in {(each["server"], each["name"]) for each in shown}
    api = json.loads(await control.api_tools())["tools"]
    assert ("one", "echo") not in {(each["_serverId"], each["name"]) for each in api}


@ERAS
async def test_prompts_resources_and_completion_are_not_filtered(filtered: Desk, era: str) -> None:
    """Though a pattern fits the name of a prompt."""
    for single, prefix in ((True, b""), (False, b"one__")):
        client = await filtered.client(*(("one",) if single else ()), single=single)
        for identifier, method, members in (
            (b"1", "prompts/get", b'"name":"%bgreet"' % prefix),
            (b"2", "resources/read", b'"uri":"one://one"'),
            (
                b"3",
                "completion/complete",
                b'"ref":{"type":"ref/prompt","name":"%bgreet"}' % prefix,
            ),
        ):
            answer = await client.ask(identifier, method, params(era, members))
            assert wire.decode(answer).result is not None, answer
        listed = await client.ask(b"4", "prompts/list", params(era, b'"a":1'))
        assert b'"%bgreet"' % prefix in listed


@ERAS
async def test_filtered_list_is_one_page(filtered: Desk, era: str) -> None:
    client = await filtered.client("one", single=True)
    answer = await client.ask(b"1", "tools/list", params(era, b'"cursor":"its own"'))
    assert error_code(answer) == wire.INVALID_PARAMS
    # What is not filtered keeps the server's own pages.
    answer = await client.ask(b"2", "prompts/list", params(era, b'"cursor":"its own"'))
    assert wire.decode(answer).result is not None


@ERAS
async def test_what_is_left_of_a_list_is_the_servers_own_to_the_byte(
    filtered: Desk, era: str
) -> None:
    plain = await filtered.client("two", single=True)
    cut = await filtered.client("one", single=True)
    answers = [
        await client.ask(b"1", "tools/list", params(era, b'"a":1')) for client in (plain, cut)
    ]
    whole, rest = (
        wire.elements(wire.member(answer, "result", "tools") or b"") for answer in answers
    )
    assert rest == [item for item in whole if b'"name":"echo"' not in item]


async def test_allow_alone_denies_what_a_server_adds_later(tmp_path: Path) -> None:
    allowed = replace(odd("one"), tools=ToolFilter(allow=("change", "ec?o")))
    async with desk(tmp_path, allowed) as found:
        client = await found.client("one", single=True)
        await client.open()
        await client.ask(b"1", "tools/call", b'{"name":"change"}')
        await client.heard("notifications/tools/list_changed")
        listed = json.loads(await client.ask(b"2", "tools/list"))["result"]["tools"]
        assert {tool["name"] for tool in listed} == {"change", "echo"}
        refused = await client.ask(b"3", "tools/call", b'{"name":"fresh"}')
        assert error_code(refused) == wire.INVALID_PARAMS
