"""The stored login: shown, renewed once for all, and given up when it is worth nothing."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from mcp.client.auth import OAuthFlowError

from octave.errors import AuthorizationNeeded, RemoteUnreachable
from octave.home import Home
from octave.packages.launch import Endpoint, LaunchSpec, TokenStore
from octave.packages.tokens import Tokens
from octave.runtime import remote_oauth
from octave.runtime.remote_guard import refuse_address
from octave.runtime.remote_login import Wish, login
from octave.runtime.remote_oauth import Login
from tests.remote_peer import authority, server
from tests.remote_peer.authority import Authority
from tests.remote_peer.browsing import browser
from tests.remote_peer.listening import Canned, Listening, Seen
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import BOUND_S, Memory, called, talking

pytestmark = pytest.mark.anyio

SESSIONS = 10


@pytest.fixture
def given() -> Authority:
    return Authority()


@pytest.fixture
def issuer(given: Authority) -> Iterator[Listening]:
    with authority.listening(given) as listening:
        yield listening


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def remote(peer: Peer, given: Authority, issuer: Listening) -> Iterator[Listening]:
    with server.listening(peer, json=True, authority=given, issuer=issuer.origin) as listening:
        yield listening


@pytest.fixture
def tokens(remote: Listening) -> Memory:
    """A store with a login in it."""
    store = Memory()
    logged_in(remote, store)
    return store


def logged_in(remote: Listening, store: TokenStore) -> None:
    endpoint = Endpoint(f"{remote.origin}/mcp", dict, store)
    assert login(LaunchSpec("peer", (), Path("/"), dict, endpoint=endpoint), Wish(browser([])))


def aged(store: TokenStore) -> None:
    """Let the token of a login be about to end."""
    found = Login.read(store)
    assert found is not None
    replace(found, ends_at_s=time.time() + 1).write(store)


async def test_calls_show_the_login(remote: Listening, tokens: Memory) -> None:
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
        assert await talk.call("echo", text="hi") == "hi"
    token = json.loads(tokens.text or "")["tokens"]["access_token"]
    assert remote.seen[-1].headers["authorization"] == f"Bearer {token}"
    assert token not in repr(Login.read(tokens))


async def test_without_a_login_the_link_ends_and_says_how_to_get_one(remote: Listening) -> None:
    async with talking(f"{remote.origin}/mcp", tokens=Memory()) as talk:
        ticket = talk.ask("initialize")
        await talk.end()
        failure = talk.link.failure
        assert isinstance(failure, AuthorizationNeeded)
        assert "wants a login" in failure.message
        assert failure.hint == "octave auth peer"
        assert not talk.link.has_sent(ticket)


async def test_headers_that_are_not_accepted_are_blamed(remote: Listening) -> None:
    headers = {"Authorization": "Bearer of-mine"}
    async with talking(f"{remote.origin}/mcp", headers=headers) as talk:
        talk.ask("initialize")
        await talk.end()
        assert "does not accept the `Authorization` of octave.toml" in str(talk.link.failure)
        assert "of-mine" not in str(talk.link.failure)


@pytest.mark.parametrize("reason", ["revoked", "about to end"])
async def test_ten_sessions_renew_a_login_once(
    remote: Listening, given: Authority, tmp_path: Path, reason: str
) -> None:
    home, url = Home(tmp_path / "home"), f"{remote.origin}/mcp"
    await anyio.to_thread.run_sync(logged_in, remote, Tokens(home, "peer", url))
    if reason == "revoked":
        given.revoke_access()
    else:
        aged(Tokens(home, "peer", url))

    async def one() -> None:
        # A store of its own, as another process has.
        async with talking(url, tokens=Tokens(home, "peer", url)) as talk:
            await talk.shake_hands()
            assert await talk.call("echo", text="in") == "in"

    async with anyio.create_task_group() as tasks:
        for _ in range(SESSIONS):
            tasks.start_soon(one)
    assert given.refreshes == 1


async def test_calls_in_flight_at_once_renew_a_login_once(
    remote: Listening, given: Authority, tokens: Memory
) -> None:
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
        given.revoke_access()
        asked = [talk.ask("tools/call", called("echo", text="x")) for _ in range(SESSIONS)]
        for identifier in asked:
            assert (await talk.answer(identifier)).result is not None
    assert given.refreshes == 1


async def test_a_login_is_renewed_where_it_was_made_after_a_restart_too(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory
) -> None:
    given.revoke_access()
    issuer.seen.clear()
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
    assert [seen.path for seen in issuer.seen] == ["/token"]
    assert b"grant_type=refresh_token" in issuer.seen[0].body


async def test_slow_calls_hold_up_no_others(remote: Listening, peer: Peer, tokens: Memory) -> None:
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
        slow = talk.ask("tools/call", called("wait"))
        assert await anyio.to_thread.run_sync(peer.waiting.acquire, True, 10)
        assert await talk.call("echo", text="quick") == "quick"
        peer.go_on.set()
        await talk.answer(slow)


async def test_a_login_that_is_worth_nothing_is_forgotten(
    remote: Listening, given: Authority, tokens: Memory
) -> None:
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
        given.revoke_all()
        talk.ask("tools/call", called("echo", text="x"))
        await talk.end()
        assert isinstance(talk.link.failure, AuthorizationNeeded)
        assert "no longer accepts the last login" in talk.link.failure.message
    assert tokens.text is None


@pytest.mark.parametrize("status", [503, 429, 403, 302])
async def test_a_login_that_cannot_be_renewed_now_is_kept(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory, status: int
) -> None:
    given.revoke_access()
    issuer.intercept = lambda _: Canned(status)
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, RemoteUnreachable)
        assert f"its server answered {status}" in talk.link.failure.message
    assert tokens.text is not None


class Slow:
    """Holds requests for tokens until it is told to go on."""

    def __init__(self, issuer: Listening) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        issuer.intercept = self._hold

    def _hold(self, seen: Seen) -> Canned | None:
        if seen.path == "/token":
            self.reached.set()
            self.go_on.wait(2 * BOUND_S)
        return None


class Noticed(Memory):
    """A store that tells when it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> None:
        super().write(text)
        self.written.set()


async def test_a_renewal_that_hangs_holds_up_no_end_and_what_it_brings_is_kept(
    remote: Listening, issuer: Listening, given: Authority
) -> None:
    tokens = Noticed()
    await anyio.to_thread.run_sync(logged_in, remote, tokens)
    tokens.written.clear()
    before = Login.read(tokens)
    slow = Slow(issuer)
    given.revoke_access()
    with anyio.fail_after(BOUND_S):
        async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
            talk.ask("initialize")
            assert await anyio.to_thread.run_sync(slow.reached.wait, BOUND_S)
    # The link has ended, and nobody else may use the same refresh token meanwhile.
    assert tokens.is_locked
    slow.go_on.set()
    assert await anyio.to_thread.run_sync(tokens.written.wait, BOUND_S)
    after = Login.read(tokens)
    assert before is not None and after is not None
    assert after.access_token != before.access_token
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
    assert given.refreshes == 1


async def test_a_renewal_that_nobody_answers_is_given_up_and_the_login_kept(
    remote: Listening,
    issuer: Listening,
    given: Authority,
    tokens: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_oauth, "RENEWAL_S", 0.1)
    slow = Slow(issuer)
    given.revoke_access()
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, RemoteUnreachable)
        assert "cannot be renewed now: nobody answered" in talk.link.failure.message
    slow.go_on.set()
    assert tokens.text is not None
    assert not tokens.is_locked


async def test_a_token_that_is_given_again_is_a_renewal(
    remote: Listening, issuer: Listening, tokens: Memory
) -> None:
    aged(tokens)
    before = Login.read(tokens)
    assert before is not None and before.ends_at_s is not None
    again = {**before.tokens, "expires_in": 3600, "refresh_token": "another"}
    body = json.dumps(again).encode()
    issuer.intercept = lambda _: Canned(200, body, {"content-type": "application/json"})
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
    after = Login.read(tokens)
    assert after is not None and after.ends_at_s is not None
    assert after.tokens["refresh_token"] == "another"
    assert after.ends_at_s > before.ends_at_s


@pytest.mark.parametrize(
    "more",
    [
        b'"expires_in":1%b' % (b"0" * 400),
        b'"expires_in":-5',
        b'"scope":"a\\u2028b"',
        b'"refresh_token":"\\u2028%b"' % (b"abcdef\\u2028" * 1000),
    ],
    ids=["endless", "past", "line", "lines"],
)
async def test_an_odd_renewal_is_a_renewal(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory, more: bytes
) -> None:
    given.revoke_access()
    body = b'{"access_token":"anew","token_type":"bearer",%b}' % more
    issuer.intercept = lambda _: Canned(200, body, {"content-type": "application/json"})
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, AuthorizationNeeded)
    assert remote.seen[-1].headers["authorization"] == "Bearer anew"


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"{}", b"[" * 100_000, b"null", b'{"access_token":1}'],
    ids=["bytes", "empty", "deep", "null", "number"],
)
async def test_a_renewal_that_is_none_asks_for_a_login(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory, body: bytes
) -> None:
    given.revoke_access()
    issuer.intercept = lambda _: Canned(200, body, {"content-type": "application/json"})
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, AuthorizationNeeded)


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
async def test_what_a_server_says_of_a_token_is_shown_without_it(
    remote: Listening, tokens: Memory, name: str
) -> None:
    token = json.loads(tokens.text or "")["tokens"][name]
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        await talk.shake_hands()
        remote.intercept = lambda _: Canned(200, b"-", {"content-type": f"text/{token}"})
        answer = await talk.answer(talk.ask("tools/list"))
        assert b"answered 200 OK with text/***, which is no MCP" in (answer.error or b"")
        remote.intercept = lambda _: Canned(302, b"", {"location": f"https://a.example/{token}"})
        answer = await talk.answer(talk.ask("tools/list"))
        assert b"Redirect to https://a.example/*** not followed" in (answer.error or b"")


async def test_a_record_of_a_newer_format_is_no_login() -> None:
    assert Login.read(Memory('{"version":2}')) is None
    assert Login.read(Memory("not even JSON")) is None


@pytest.mark.parametrize(
    ("server_url", "url", "is_allowed"),
    [
        ("https://mcp.example/mcp", "https://login.example/token", True),
        ("https://mcp.example/mcp", "http://login.example/token", False),
        ("https://mcp.example/mcp", "https://169.254.169.254/latest", False),
        ("https://mcp.example/mcp", "https://10.0.0.1/", False),
        ("https://mcp.example/mcp", "http://localhost:631/", False),
        ("https://mcp.example/mcp", "https://[::1]/", False),
        ("https://mcp.example/mcp", "javascript:alert(1)", False),
        ("https://mcp.example/mcp", "file:///etc/passwd", False),
        ("http://127.0.0.1:9/mcp", "http://127.0.0.1:8/token", True),
        ("http://10.0.0.2/mcp", "http://10.0.0.2/token", True),
        ("http://10.0.0.2/mcp", "http://10.0.0.3/token", False),
        ("https://10.0.0.2/mcp", "http://10.0.0.2/token", False),
        ("https://mcp.example/mcp", "http://mcp.example/token", False),
    ],
)
def test_a_login_goes_only_where_it_may(server_url: str, url: str, is_allowed: bool) -> None:
    if is_allowed:
        refuse_address(server_url, url)
    else:
        with pytest.raises(OAuthFlowError):
            refuse_address(server_url, url)
