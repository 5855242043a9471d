"""What a client sees through a session is what the server would have shown it."""

import json
from pathlib import Path

import msgspec
import pytest

from octave.gateway.naming import qualified
from octave.runtime import wire
from tests.gateway.conversation import (
    Desk,
    call,
    desk,
    directly,
    error_code,
    missing,
    odd,
    texts,
)

pytestmark = pytest.mark.anyio

IDS = [b"1", b'"1"', b"0", b'""', b"-7", b"1.50", b"12345678901234567890", b'"\\u00e9 \\/"']
LISTS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]


# One server, as if nothing stood between.


@pytest.mark.parametrize("method", LISTS)
async def test_list_is_the_servers_own_to_the_byte(one: Desk, method: str) -> None:
    client = await one.client("one", single=True)
    answer = await client.ask(b"1", method)
    (own,) = directly(odd("one"), wire.request(1, method))
    assert wire.member(answer, "result") == wire.member(own, "result")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", call(b"echo")),
        ("tools/call", call(b"fail")),
        ("tools/call", call(b"unknown")),
        ("prompts/get", b'{"name":"greet"}'),
        ("resources/read", b'{"uri":"one://one"}'),
        ("completion/complete", b'{"ref":{"type":"ref/prompt","name":"greet"}}'),
        ("tools/list", b'{"cursor":"own"}'),
        ("own/method", b"[1.10]"),
        ("unknown/method", None),
        ("resources/subscribe", b'{"uri":"one://one"}'),
    ],
)
async def test_answer_is_the_servers_own_to_the_byte(
    one: Desk, method: str, params: bytes | None
) -> None:
    client = await one.client("one", single=True)
    answer = await client.ask(b"1", method, params)
    (own,) = directly(odd("one"), wire.request(1, method, params))
    assert answer == own


@pytest.mark.parametrize("identifier", IDS)
async def test_id_comes_back_with_the_same_text(one: Desk, identifier: bytes) -> None:
    client = await one.client("one", single=True)
    (own,) = directly(odd("one"), wire.request(1, "tools/call", call(b"echo")))
    answer = await client.ask(identifier, "tools/call", call(b"echo"))
    assert answer == wire.splice(own, {("id",): identifier})
    client.lines.clear()
    assert await client.ask(identifier, "ping") == wire.result(identifier, b"{}")


async def test_initialize_is_the_servers_own_but_for_the_version_asked_for(one: Desk) -> None:
    client = await one.client("one", single=True)
    (own,) = directly(odd("one"), wire.request(1, "initialize", b"{}"))
    expected = wire.member(own, "result")
    assert expected is not None
    changed: dict[wire.Path, bytes] = {("protocolVersion",): b'"2025-06-18"'}
    assert wire.member(await client.open(), "result") == wire.splice(expected, changed)


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        (b'"2024-11-05"', b'"2024-11-05"'),
        (b'"2025-11-25"', b'"2025-11-25"'),
        (b'"2026-07-28"', b'"2025-11-25"'),
        (b'"1999-01-01"', b'"2025-11-25"'),
        (b"7", b'"2025-11-25"'),
    ],
)
async def test_version_asked_for_is_spoken_when_it_is_known(
    one: Desk, asked: bytes, spoken: bytes
) -> None:
    client = await one.client("one", single=True)
    answer = await client.ask(b"1", "initialize", b'{"protocolVersion":%b}' % asked)
    assert wire.member(answer, "result", "protocolVersion") == spoken


async def test_list_of_a_capability_the_server_lacks_is_refused_by_the_server(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, odd("bare", "bare")) as found:
        client = await found.client("bare", single=True)
        answer = await client.ask(b"1", "prompts/list")
        (own,) = directly(odd("bare", "bare"), wire.request(1, "prompts/list"))
        assert answer == own


async def test_log_and_unknown_notifications_reach_the_client_untouched(one: Desk) -> None:
    client = await one.client("one", single=True)
    await client.open()
    await client.ask(b"1", "tools/call", call(b"log"))
    assert b'"params":{"level":"info","data":{"n":1.10}}' in await client.heard(
        "notifications/message"
    )
    assert b'"params":{"n":1.10}' in await client.heard("notifications/own")


async def test_unknown_notification_of_the_client_reaches_the_server_untouched(one: Desk) -> None:
    client = await one.client("one", single=True)
    await client.open()
    await client.ask(b"1", "tools/call", call(b"touch"))
    line = b'{"jsonrpc":"2.0", "method":"notifications/own","params":{"n":1.10}}'
    client.say(line)
    seen = texts(await client.ask(b"2", "tools/call", call(b"seen")))
    assert line.decode() in seen
    assert seen.count("notifications/initialized") == 1


async def test_server_that_cannot_start_is_an_error_that_tells_why(tmp_path: Path) -> None:
    async with desk(tmp_path, missing("broken")) as found:
        client = await found.client("broken", single=True)
        answer = await client.open()
        assert error_code(answer) == wire.INTERNAL_ERROR
        assert wire.member(answer, "error", "data", "octave", "code") == b'"start_failed"'


async def test_server_that_was_removed_is_named(tmp_path: Path) -> None:
    async with desk(tmp_path) as found:
        client = await found.client("gone", single=True)
        answer = await client.ask(b"1", "tools/call", call(b"echo"))
        assert error_code(answer) == wire.INVALID_PARAMS
        assert b"no server `gone`" in answer


# Many servers behind one face.


async def test_merged_tools_are_the_servers_own_but_for_the_name(two: Desk) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "tools/list")
    expected = []
    for name in ("one", "two"):
        (own,) = directly(odd(name), wire.request(1, "tools/list"))
        result = wire.member(own, "result")
        assert result is not None
        for raw, tool in zip(_items(result), json.loads(result)["tools"], strict=True):
            shown = qualified(name, tool["name"])
            expected.append(wire.splice(raw, {("name",): json.dumps(shown).encode()}))
    assert answer == wire.result(b"1", b'{"tools":[%b]}' % b",".join(expected))


def _items(result: bytes) -> list[bytes]:
    raw = msgspec.json.decode(result, type=dict[str, list[msgspec.Raw]])
    return [bytes(item) for item in raw["tools"]]


@pytest.mark.parametrize("tool", ["echo", "odd.name", "café"])
async def test_call_goes_to_its_server_with_only_the_name_changed(two: Desk, tool: str) -> None:
    client = await two.client()
    shown = qualified("two", tool).encode()
    answer = await client.ask(b'"a"', "tools/call", call(shown))
    written = tool.encode("ascii", "backslashreplace").replace(b"\\xe9", b"\\u00e9")
    (own,) = directly(odd("two"), wire.request(1, "tools/call", call(written)))
    assert answer == wire.splice(own, {("id",): b'"a"'})


async def test_prompt_resource_and_completion_find_their_server(two: Desk) -> None:
    client = await two.client()
    for server, method, params, there in (
        ("one", "prompts/get", b'{"name":"one__greet"}', b'{"name":"greet"}'),
        ("two", "resources/read", b'{"uri":"two://one"}', b'{"uri":"two://one"}'),
        ("two", "resources/read", b'{"uri":"two://item/7/data"}', None),
        (
            "two",
            "completion/complete",
            b'{"argument":{"name":"x"},"ref":{"type":"ref/prompt","name":"two__greet"}}',
            b'{"argument":{"name":"x"},"ref":{"type":"ref/prompt","name":"greet"}}',
        ),
        (
            "one",
            "completion/complete",
            b'{"ref":{"type":"ref/resource","uri":"one://item/{id}/data"}}',
            None,
        ),
    ):
        client.lines.clear()
        answer = await client.ask(b"1", method, params)
        (own,) = directly(odd(server), wire.request(1, method, there or params))
        assert answer == own


async def test_other_lists_show_the_items_of_all_servers(two: Desk) -> None:
    client = await two.client()
    prompts = json.loads(await client.ask(b"1", "prompts/list"))["result"]["prompts"]
    resources = json.loads(await client.ask(b"2", "resources/list"))["result"]["resources"]
    assert [prompt["name"] for prompt in prompts] == ["one__greet", "two__greet"]
    assert [each["uri"] for each in resources] == [
        "one://one", "shared://both", "two://one", "shared://both",
    ]  # fmt: skip


async def test_uri_of_two_servers_is_an_error_that_names_both(two: Desk) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "resources/read", b'{"uri":"shared://both"}')
    assert error_code(answer) == wire.INVALID_PARAMS
    assert wire.member(answer, "error", "data", "octave", "details", "servers") == b'["one","two"]'


async def test_unknown_resource_is_named(two: Desk) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "resources/read", b'{"uri":"no://such"}')
    assert error_code(answer) == wire.INVALID_PARAMS
    assert wire.member(answer, "error", "data", "uri") == b'"no://such"'


async def test_unknown_tool_is_refused_with_a_suggestion(two: Desk) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "tools/call", call(b"one__ecko"))
    assert error_code(answer) == wire.INVALID_PARAMS
    assert b"did you mean `one__echo`" in answer
    assert wire.member(answer, "error", "data", "octave", "code") == b'"tool_not_found"'


@pytest.mark.parametrize("params", [None, b"{}", b'{"name":7}', b"[]"])
async def test_call_that_names_nothing_is_refused(two: Desk, params: bytes | None) -> None:
    client = await two.client()
    assert error_code(await client.ask(b"1", "tools/call", params)) == wire.INVALID_PARAMS


@pytest.mark.parametrize("method", ["own/method", "server/discover", "octave/status"])
async def test_unknown_method_is_refused_at_once(two: Desk, method: str) -> None:
    client = await two.client()
    assert error_code(await client.ask(b"1", method)) == wire.METHOD_NOT_FOUND
    assert [server.state for server in two.supervisor.servers.values()] == ["idle", "idle"]


async def test_discovery_is_refused_at_a_one_server_face_too(one: Desk) -> None:
    client = await one.client("one", single=True)
    assert error_code(await client.ask(b"1", "server/discover")) == wire.METHOD_NOT_FOUND
    assert one.supervisor.servers["one"].state == "idle"


async def test_initialize_merges_what_the_servers_announce(two: Desk) -> None:
    client = await two.client()
    await client.ask(b"1", "tools/list")
    result = json.loads(await client.open())["result"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"]["name"] == "octave"
    assert result["instructions"] == "## one\nuse one\n\n## two\nuse two"
    assert result["capabilities"] == {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "completions": {},
        "logging": {},
        "experimental": {"x": {"y": 1.0}},
    }


async def test_initialize_wakes_no_server(two: Desk) -> None:
    client = await two.client()
    await client.open()
    assert [server.state for server in two.supervisor.servers.values()] == ["idle", "idle"]


async def test_server_that_cannot_start_takes_away_only_its_own_tools(tmp_path: Path) -> None:
    async with desk(tmp_path, missing("broken"), odd("one")) as found:
        client = await found.client()
        tools = json.loads(await client.ask(b"1", "tools/list"))["result"]["tools"]
        assert {tool["name"].partition("__")[0] for tool in tools} == {"one"}
        assert texts(await client.ask(b"2", "tools/call", call(b"one__echo")))


async def test_log_level_is_kept_by_the_session(two: Desk) -> None:
    client = await two.client()
    await client.open()
    assert await client.ask(b"1", "logging/setLevel", b'{"level":"error"}') == wire.result(
        b"1", b"{}"
    )
    assert error_code(await client.ask(b"2", "logging/setLevel", b'{"level":"loud"}')) == -32602
    await client.ask(b"3", "tools/call", call(b"one__log"))
    client.say(wire.request(4, "tools/call", call(b"one__hang")))
    assert b'"level":"error"' in await client.heard("notifications/message")
