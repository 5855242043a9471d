"""What must end does end, and what a stranger writes is neither trusted nor fatal."""

import gzip
import json
import sys
from pathlib import Path

import anyio
import pytest

from octave.errors import OctaveError
from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime import remote_client, remote_server, remote_stream, remote_talk, wire
from octave.runtime.process import Callbacks
from octave.runtime.remote_login import Wish, login
from octave.runtime.remote_server import Post, RemoteLink
from octave.runtime.remote_stream import EventStream
from octave.runtime.remote_talk import Talk
from tests.remote_peer import server
from tests.remote_peer.listening import Canned, Listening, Seen
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import Memory, called, talking
from tests.runtime.fleet import call, launch, running

pytestmark = pytest.mark.anyio

BOUND_S = 10.0

ODD_ACKNOWLEDGEMENT = """
import json, sys
def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        send(id=number, error={"code": -32022, "message": "no", "data":
             {"supported": ["2026-07-28"]}})
    elif method == "server/discover":
        send(id=number, result={"supportedVersions": ["2026-07-28"], "resultType": "complete",
             "capabilities": {"tools": {"listChanged": True}}, "ttlMs": 0, "cacheScope": "private"})
    elif method == "tools/call":
        acknowledged = {"resourceSubscriptions": [{}, [], 1, None]}
        lines = [{"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                  "params": {"notifications": acknowledged}},
                 {"jsonrpc": "2.0", "id": number, "result": {"content":
                  [{"type": "text", "text": "hi"}], "resultType": "complete"}}]
        sys.stdout.write("".join(json.dumps(line) + "\\n" for line in lines))
        sys.stdout.flush()
"""


async def test_what_is_added_while_the_runtime_ends_does_not_keep_it(tmp_path: Path) -> None:
    slow = launch(tmp_path, "ignore_sigterm")
    with anyio.fail_after(2 * BOUND_S):
        async with running(tmp_path, slow) as run:
            await call(run["ignore-sigterm"], "echo", text="hi")
            run.supervisor.close()
            await anyio.wait_all_tasks_blocked()
            # As `octave install` asks for it.
            await run.supervisor.reload([slow, launch(tmp_path, "good")])


async def test_an_odd_acknowledgement_costs_no_answer(tmp_path: Path) -> None:
    script = tmp_path / "odd.py"
    script.write_text(ODD_ACKNOWLEDGEMENT, encoding="utf-8")
    launched = LaunchSpec("odd", (sys.executable, str(script)), tmp_path, dict, version="1")
    async with running(tmp_path, launched) as run:
        with anyio.fail_after(BOUND_S):
            assert await call(run["odd"], "x") == "hi"


@pytest.mark.parametrize(
    "address",
    [
        *("https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/", "https://0/"),
        *("https://localhost./", "https://a.localhost/", "https://127.0.0.1./"),
        *("https://[::ffff:127.0.0.1]/", "https://169.254.169.254/", "https://10.1/"),
    ],
)
def test_a_login_is_not_sent_to_this_machine_however_it_is_written(address: str) -> None:
    from mcp.client.auth import OAuthFlowError

    from octave.runtime.remote_guard import refuse_address

    with pytest.raises(OAuthFlowError):
        refuse_address("https://mcp.example.com/mcp", address)


def test_texts_with_lone_surrogates_are_written_as_escapes() -> None:
    line = wire.error(b"1", 1, "\ud800")
    assert json.loads(line)["error"]["message"] == "\ud800"


# Remote servers that say what is none.


def odd_remote(answer: Canned) -> Listening:
    """A server that answers whatever it is asked like that."""
    listening = server.listening(Peer())
    listening.intercept = lambda seen: answer
    return listening


def endpoint(listening: Listening, tokens: Memory | None = None) -> LaunchSpec:
    found = Endpoint(f"{listening.origin}/mcp", dict, tokens)
    return LaunchSpec("peer", (), Path("/"), dict, endpoint=found)


METADATA = (
    "https://①②⑦.0.0.1/x",
    "https://[/",
    "http://a b/",
    "https://exa\tmple.com/",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "//",
    "https://" + "a" * 70 + ".example/",
    "https://example.com:99999/",
    "https://xn--/",
)


@pytest.mark.parametrize("address", METADATA)
def test_a_login_that_a_server_sends_nowhere_is_told_so(address: str) -> None:
    value = f'Bearer resource_metadata="{address}"'.encode().decode("latin-1")
    with (
        odd_remote(Canned(401, b"", {"WWW-Authenticate": value})) as remote,
        pytest.raises(OctaveError) as raised,
    ):
        login(endpoint(remote, Memory()), Wish(lambda _: None))
    assert "bug" not in str(raised.value)


@pytest.mark.parametrize("location", ["https://①②⑦.0.0.1/x", "file:///etc/passwd"])
async def test_a_redirect_to_nowhere_is_an_error_of_that_server(
    tmp_path: Path, location: str
) -> None:
    value = location.encode().decode("latin-1")
    with odd_remote(Canned(307, b"", {"Location": value})) as remote:
        async with running(tmp_path, endpoint(remote)) as run:
            with pytest.raises(OctaveError) as raised:
                await call(run["peer"], "x")
            assert "bug" not in str(raised.value), raised.value


@pytest.mark.parametrize("version", ['"é"', '"a\\r\\nX: y"', "1" * 5000, '"\\ud800"', "null", "{}"])
async def test_an_odd_version_is_an_error_of_that_server(tmp_path: Path, version: str) -> None:
    def answer(seen: Seen) -> Canned:
        identifier = json.loads(seen.body or b"{}").get("id") if seen.method == "POST" else None
        if identifier is None:
            return Canned(202)
        text = '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":%s,"capabilities":{}}}'
        body = (text % (json.dumps(identifier), version)).encode()
        return Canned(200, body, {"Content-Type": "application/json"})

    with odd_remote(Canned(200)) as remote:
        remote.intercept = answer
        async with running(tmp_path, endpoint(remote)) as run:
            try:
                await call(run["peer"], "x")
            except OctaveError as error:
                assert "bug" not in str(error)
            except (KeyError, TypeError):
                pass  # It opened, and answered a call by that.


@pytest.mark.parametrize(
    "session", ["é", "a b\x01", "\x7f", "\u00a0"], ids=["accent", "control", "delete", "space"]
)
async def test_a_session_that_cannot_be_named_ends_the_link(session: str) -> None:
    def answer(seen: Seen) -> Canned:
        identifier = wire.member(seen.body or b"{}", "id") or b"null"
        result = b'{"protocolVersion":"2025-11-25","capabilities":{}}'
        headers = {"Content-Type": "application/json", "Mcp-Session-Id": session}
        return Canned(200, wire.result(identifier, result), headers)

    with odd_remote(Canned(200)) as remote:
        remote.intercept = answer
        async with talking(f"{remote.origin}/mcp") as talk:
            talk.ask("initialize")
            await talk.end()
            assert "names its session in odd characters" in str(talk.link.failure)


async def test_headers_may_hold_any_letters() -> None:
    line = wire.result(b"1", b"{}")
    headers = {"Content-Type": "text/event-stream", "Server": "caf\xe9"}
    with odd_remote(Canned(200, b"data: %b\n\n" % line, headers)) as remote:
        async with talking(f"{remote.origin}/mcp") as talk:
            assert (await talk.answer(talk.ask("initialize"))).line == line


@pytest.mark.parametrize("body", [b"", b"data: {}\n\n", b": hello\n\n"])
async def test_a_stream_of_2024_that_says_not_where_messages_go_is_no_server(body: bytes) -> None:
    def answer(seen: Seen) -> Canned:
        headers = {"Content-Type": "text/event-stream"}
        return Canned(405) if seen.method == "POST" else Canned(200, body, headers)

    with odd_remote(Canned(200)) as remote:
        remote.intercept = answer
        async with talking(f"{remote.origin}/sse") as talk:
            talk.ask("initialize")
            await talk.end()
            assert "answered 405 Method Not Allowed, so it is no MCP" in str(talk.link.failure)


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (b"0", b"100"),
        (b"1", b"100"),
        (b"5000", b"5000"),
        (b"1" + b"0" * 400, b"60000"),
        (b"-1", None),
        (b"1e9", None),
        (b"", None),
    ],
)
def test_a_server_says_when_to_come_again_within_reason(said: bytes, passed: bytes | None) -> None:
    stream = EventStream(2**20, lambda _: False, lambda *_: False)
    seen = stream.feed(b"id: 1\nretry: %b\n\n" % said)
    assert seen == b"id: 1\n" + (b"" if passed is None else b"retry: %b\n" % passed) + b"\n"


async def test_a_stream_that_ends_again_and_again_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_stream, "RETRY_MS", (0, 0))
    stream = Canned(200, b"id: 1\nretry: 0\n\n", {"Content-Type": "text/event-stream"})
    with odd_remote(stream) as remote:
        async with talking(f"{remote.origin}/mcp") as talk:
            answer = await talk.answer(talk.ask("tools/call", called("echo", modern=True)))
            assert b"reconnection attempts were exhausted" in (answer.error or b"")


async def test_a_bomb_in_answer_to_a_call_costs_that_call() -> None:
    bomb = gzip.compress(b"x" * 2**24)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with odd_remote(Canned(400, bomb, headers)) as remote:
        async with talking(f"{remote.origin}/mcp", limit_bytes=2**16) as talk:
            answer = await talk.answer(talk.ask("tools/call", called("echo", modern=True)))
            assert b"too large" in (answer.error or b"")


# What is kept of a conversation that goes on for months.


async def test_of_cookies_without_end_few_are_sent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "COOKIES_LIMIT", 2)
    number = 0

    def answer(seen: Seen) -> Canned:
        nonlocal number
        number += 1
        headers = {"Content-Type": "application/json", "Set-Cookie": f"c{number}=x"}
        return Canned(200, wire.result(wire.member(seen.body, "id") or b"", b"{}"), headers)

    with odd_remote(Canned(200)) as remote:
        remote.intercept = answer
        async with talking(f"{remote.origin}/mcp") as talk:
            for _ in range(5):
                await talk.answer(talk.ask("x", {"_meta": called("", modern=True)["_meta"]}))
        sent = [seen.headers.get("cookie", "").count("=") for seen in remote.seen]
    assert sent == [0, 1, 2, 0, 1]


def link_in_hand() -> RemoteLink:
    return RemoteLink("peer", Endpoint("http://127.0.0.1:9/mcp", dict), {}, QUIET, 2**20)


QUIET = Callbacks(lambda _: None, lambda _: None, lambda: None)
LIST = b'{"tools":[{"name":"t%d","inputSchema":{"type":"object","properties":{"a":%b}}}]}'
ANNOTATED = b'{"type":"string","x-mcp-header":"A"}'


def headers_of(talk: Talk, number: int) -> dict[str, str]:
    params = b'{"name":"t%d","arguments":{"a":"b"}}' % number
    return talk.parameter_headers(wire.decode(wire.request(1, "tools/call", params)))


def test_of_lines_that_never_leave_the_newest_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_talk, "NOTES_LIMIT", 2)
    talk = Talk(link_in_hand())
    for ticket in (1, 2, 3):
        talk.stand_in(Post(ticket, wire.request(ticket, "x")))
    found = [talk.note_of({"params": {remote_talk.TICKET: ticket}}) for ticket in (1, 2, 3)]
    assert [note and note.ticket for note in found] == [None, 2, 3]


def test_of_lists_that_are_never_answered_the_newest_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_talk, "METHODS_LIMIT", 2)
    talk = Talk(link_in_hand())
    for number in (1, 2, 3):
        talk.stand_in(Post(number, wire.request(number, "tools/list")))
    for number in (1, 2, 3):
        talk.hear(wire.result(b"%d" % number, LIST % (number, ANNOTATED)))
    assert [bool(headers_of(talk, number)) for number in (1, 2, 3)] == [False, True, True]


def test_of_tools_with_other_names_each_time_the_newest_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_talk, "TOOLS_LIMIT", 2)
    talk = Talk(link_in_hand())
    for number in (1, 2, 3):
        talk.learn_tools(LIST % (number, ANNOTATED))
    assert [bool(headers_of(talk, number)) for number in (1, 2, 3)] == [False, True, True]


def test_of_lines_that_were_withdrawn_the_oldest_count_as_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_server, "UNSENT_LIMIT", 2)
    link = link_in_hand()
    tickets = [link.write(b"{}") for _ in range(3)]
    assert all(link.withdraw(ticket) for ticket in tickets)
    assert [link.has_sent(ticket) for ticket in tickets] == [True, False, False]
