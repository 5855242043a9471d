"""Requests that are odd, and legal, or too long: each gets the answer that its client can use."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from octave.packages.launch import ToolFilter
from octave.runtime import wire
from tests.gateway.asking import Asker, ask, peer
from tests.gateway.conversation import Desk, desk, error_code, odd

pytestmark = pytest.mark.anyio


async def test_cursor_that_is_null_is_none(two: Desk) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "tools/list", b'{"cursor":null}')
    assert json.loads(answer)["result"]["tools"]


@pytest.mark.parametrize("cursor", [b'"forged"', b'""', b"7"])
async def test_cursor_that_was_never_given_is_refused(two: Desk, cursor: bytes) -> None:
    client = await two.client()
    answer = await client.ask(b"1", "tools/list", b'{"cursor":%b}' % cursor)
    assert error_code(answer) == wire.INVALID_PARAMS


async def test_cursor_that_is_null_is_none_where_tools_are_filtered(tmp_path: Path) -> None:
    spec = replace(odd("one"), tools=ToolFilter(deny=("fail",)))
    async with desk(tmp_path, spec) as found:
        client = await found.client("one", single=True)
        answer = await client.ask(b"1", "tools/list", b'{"cursor":null}')
        assert json.loads(answer)["result"]["tools"]


@pytest.mark.parametrize(
    "params",
    [
        b'{"name":"echo","name":"fail"}',
        b'{"name":"fail","name":"echo"}',
        b'{"name":"fail"},"params":{"name":"echo"}',
        b'{"n\\u0061me":"fail"}',
        b'{"name":"f\\u0061il"}',
    ],
)
async def test_denied_tool_is_not_called_beside_another(tmp_path: Path, params: bytes) -> None:
    spec = replace(odd("one"), tools=ToolFilter(deny=("fail",)))
    async with desk(tmp_path, spec) as found:
        client = await found.client("one", single=True)
        await client.open()
        answer = await client.ask(b"1", "tools/call", params)
        # `echo` says what it was called with.
        assert error_code(answer) == wire.INVALID_PARAMS or b"fail" not in answer


@pytest.mark.parametrize("identifier", [b"7", b'"a b"', b"1.50"])
async def test_request_that_is_too_long_is_refused_under_its_id(
    one: Desk, identifier: bytes
) -> None:
    client = await one.client("one", single=True)
    head = b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":"' % identifier
    client.session.receive(wire.Oversize(head, 99))
    (line,) = client.lines
    assert wire.decode(line).id == identifier
    assert error_code(line) == wire.INVALID_REQUEST


async def test_line_that_is_too_long_to_tell_what_it_is_is_refused_without_an_id(one: Desk) -> None:
    client = await one.client("one", single=True)
    client.session.receive(wire.Oversize(b'{"jsonrpc":"2.0","params":{"name":"', 99))
    (line,) = client.lines
    assert wire.decode(line).id == b"null"


async def test_server_is_told_that_the_answer_of_its_client_is_too_long(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        client.do("first", ask())
        (question,) = await client.asked()
        head = b'{"jsonrpc":"2.0","id":%b,"result":{"content":"' % (wire.decode(question).id or b"")
        client.session.receive(wire.Oversize(head, 99))
        await client.done("first")
        (answer,) = asker.answers()
        assert b"too large" in (answer.error or b"")
