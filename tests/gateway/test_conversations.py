"""Several clients at once, what belongs to one request, and what a client can do wrong."""

from pathlib import Path

import anyio
import pytest

from octave.gateway.audience import Scope
from octave.gateway.session import REQUESTS_LIMIT, Session, SessionOverflow
from octave.runtime import wire
from tests.gateway.conversation import (
    BOUND_S,
    SERVERS,
    Client,
    Desk,
    call,
    desk,
    error_code,
    spec,
    texts,
)

pytestmark = pytest.mark.anyio


async def test_two_clients_with_the_same_ids_get_their_own_answers(two: Desk) -> None:
    first, second = await two.client(), await two.client("one", single=True)
    for number in range(50):
        first.say(wire.request(number, "tools/call", call(b"one__echo").replace(b"1.10", b"1.1")))
        second.say(wire.request(number, "tools/call", call(b"echo").replace(b"1.10", b"2.2")))
    for number in range(50):
        assert '"x":1.1' in texts(await first.answer(b"%d" % number))
        assert '"x":2.2' in texts(await second.answer(b"%d" % number))
    assert len(first.lines) == len(second.lines) == 50


@pytest.mark.parametrize("token", [b"1", b'"1"', b"0", b'"\\u00e9"'])
async def test_progress_reaches_only_its_caller_under_the_callers_token(
    two: Desk, token: bytes
) -> None:
    caller, other = await two.client(), await two.client("one", single=True)
    await caller.open()
    await other.open()
    params = b'{"name":"one__progress","_meta":{"progressToken":%b,"v/k":1.0}}' % token
    await caller.ask(b"1", "tools/call", params)
    progress = [line for line in caller.lines if b"notifications/progress" in line]
    assert [wire.member(line, "params") for line in progress] == [
        b'{"progress":0,"progressToken":%b,"o":1}' % token,
        b'{"progress":1.50,"progressToken":%b,"o":1}' % token,
    ]
    assert caller.lines[-1] == await caller.answer(b"1")
    assert not any(b"notifications/progress" in line for line in other.lines)


async def test_cancelled_call_is_cancelled_at_the_server_and_never_answered(one: Desk) -> None:
    client = await one.client("one", single=True)
    await client.open()
    client.say(wire.request(b'"c"', "tools/call", call(b"hang")))
    await client.heard("notifications/message")
    client.say(wire.notification("notifications/cancelled", b'{"requestId":"unknown"}'))
    client.say(wire.notification("notifications/cancelled", b"{}"))
    client.say(wire.notification("notifications/cancelled", b'{"requestId":"c"}'))
    seen = texts(await client.ask(b"2", "tools/call", call(b"seen")))
    assert "notifications/cancelled" in seen
    assert not any(wire.decode(line).id == b'"c"' for line in client.lines)


async def test_client_that_leaves_cancels_what_it_had_open(one: Desk) -> None:
    client, other = await one.client("one", single=True), await one.client("one", single=True)
    await client.open()
    client.say(wire.request(1, "tools/call", call(b"hang")))
    await client.heard("notifications/message")
    client.session.close()
    with anyio.fail_after(BOUND_S):
        while "notifications/cancelled" not in texts(
            await other.ask(b"2", "tools/call", call(b"seen"))
        ):
            other.lines.clear()


async def test_client_that_sends_no_more_still_gets_its_answers(one: Desk) -> None:
    client = Client(one.router, Scope(("one",), single=True))
    ended = anyio.Event()

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await client.session.run(task_status=task_status)
        ended.set()

    await one.tasks.start(run)
    client.say(wire.request(1, "tools/call", call(b"echo")))
    client.session.finish()
    await client.answer(b"1")
    with anyio.fail_after(BOUND_S):
        await ended.wait()


async def test_changed_list_is_told_after_the_catalogue_has_it_and_once(two: Desk) -> None:
    caller, other = await two.client(), await two.client("two", single=True)
    single = await two.client("one", single=True)
    for client in (caller, other, single):
        await client.open()
        await client.ask(b"1", "tools/list")
    await caller.ask(b"2", "tools/call", call(b"one__change"))
    await single.heard("notifications/tools/list_changed")
    await caller.heard("notifications/tools/list_changed")
    assert b'"one__fresh"' in await caller.ask(b"3", "tools/list")
    assert b'"fresh"' in await single.ask(b"3", "tools/list")
    changes = [line for line in single.lines if b"list_changed" in line]
    # In the server's own words.
    assert changes == [b'{"jsonrpc":"2.0", "method":"notifications/tools/list_changed"}']
    assert not any(b"list_changed" in line for line in other.lines)


async def test_updates_of_a_resource_reach_its_subscribers(two: Desk) -> None:
    subscriber, other = await two.client(), await two.client("one", single=True)
    await subscriber.open()
    await other.open()
    uri = b'{"uri":"one://one"}'
    await subscriber.ask(b"1", "resources/subscribe", uri)
    await subscriber.ask(b"2", "tools/call", call(b"one__touch"))
    assert wire.member(await subscriber.heard("notifications/resources/updated"), "params") == uri
    assert not any(b"resources/updated" in line for line in other.lines)


async def test_unsubscribing_leaves_the_subscription_of_another_client_alone(two: Desk) -> None:
    stays, goes = await two.client(), await two.client("one", single=True)
    uri = b'{"uri":"one://one"}'
    for client in (stays, goes):
        await client.open()
        await client.ask(b"1", "resources/subscribe", uri)
    assert await goes.ask(b"2", "resources/unsubscribe", uri) == wire.result(b"2", b"{}")
    seen = texts(await goes.ask(b"3", "tools/call", call(b"seen")))
    assert "resources/unsubscribe" not in seen
    await stays.ask(b"2", "resources/unsubscribe", uri)
    assert "resources/unsubscribe" in texts(await goes.ask(b"4", "tools/call", call(b"seen")))


async def test_server_that_dies_during_a_call_fails_that_call_and_serves_the_next(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, spec("crashy", SERVERS / "crash_on_call.py")) as found:
        client = await found.client("crashy", single=True)
        died = await client.ask(b"1", "tools/call", b'{"name":"crash"}')
        assert error_code(died) == wire.INTERNAL_ERROR
        assert wire.member(died, "error", "data", "octave", "code") == b'"server_died"'
        echo = b'{"name":"echo","arguments":{"text":"back"}}'
        assert texts(await client.ask(b"2", "tools/call", echo)) == "back"


# What a client can do wrong.


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"not json", wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"', wire.PARSE_ERROR),
        (b"\xff\xfe", wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","method":"m","params":' + b"[" * 100_000, wire.PARSE_ERROR),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', wire.INVALID_REQUEST),
        (b"7", wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', wire.INVALID_REQUEST),
        (wire.Oversize(b"{", 99), wire.INVALID_REQUEST),
    ],
)
async def test_malformed_line_costs_that_line_alone(
    one: Desk, line: bytes | wire.Oversize, code: int
) -> None:
    client = await one.client("one", single=True)
    client.session.receive(line)
    assert error_code(client.lines[0]) == code
    assert wire.member(client.lines[0], "id") == b"null"
    assert await client.ask(b"1", "ping") == wire.result(b"1", b"{}")


async def test_answer_of_the_client_to_nothing_is_dropped(one: Desk) -> None:
    client = await one.client("one", single=True)
    client.say(wire.result(b"7", b"{}"))
    await client.ask(b"1", "ping")
    assert len(client.lines) == 1


async def test_request_with_an_id_that_is_still_open_is_refused(one: Desk) -> None:
    client = await one.client("one", single=True)
    await client.open()
    client.say(wire.request(1, "tools/call", call(b"hang")))
    client.say(wire.request(1, "tools/call", call(b"echo")))
    assert error_code(await client.answer(b"1")) == wire.INVALID_REQUEST


async def test_too_many_open_requests_are_refused_as_busy(one: Desk) -> None:
    client = await one.client("one", single=True)
    for number in range(REQUESTS_LIMIT + 1):
        client.say(wire.request(number, "tools/call", call(b"hang")))
    refused = await client.answer(b"%d" % REQUESTS_LIMIT)
    assert error_code(refused) == wire.INTERNAL_ERROR
    assert wire.member(refused, "error", "data", "octave", "code") == b'"server_busy"'
    assert await client.ask(b'"p"', "ping") == wire.result(b'"p"', b"{}")


async def test_client_that_does_not_read_ends_its_session_alone(one: Desk) -> None:
    def overflow(_line: bytes) -> None:
        raise SessionOverflow

    session = Session(one.router, Scope(None), overflow)
    async with anyio.create_task_group() as tasks:
        await tasks.start(session.run)
        session.receive(wire.request(1, "ping"))
    other = await one.client()
    assert await other.ask(b"1", "ping") == wire.result(b"1", b"{}")


async def test_a_resource_that_a_result_names_is_read_where_it_came_from(two: Desk) -> None:
    client = await two.client()
    unknown = await client.ask(b"0", "resources/read", b'{"uri":"two-seen://1"}')
    assert error_code(unknown) == wire.INVALID_PARAMS
    await client.ask(b"1", "tools/call", call(b"two__point"))
    await client.ask(b"2", "tools/call", call(b"two__point"))
    for identifier, uri in ((b"3", b"two-seen://1"), (b"4", b"two-seen://2")):
        answer = await client.ask(identifier, "resources/read", b'{"uri":"%b"}' % uri)
        assert uri in (wire.member(answer, "result", "line") or b"")
    narrower = await two.client("one", "none")
    hidden = await narrower.ask(b"5", "resources/read", b'{"uri":"one-seen://1"}')
    assert wire.decode(hidden).result is not None
