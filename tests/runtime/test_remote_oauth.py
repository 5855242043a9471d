"""The stored login: shown, renewed once for all, and given up when it is worth nothing."""

import json
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
from octave.runtime.remote_login import Wish, login
from octave.runtime.remote_oauth import Login, refuse_address
from tests.remote_peer import authority, server
from tests.remote_peer.authority import Authority
from tests.remote_peer.browsing import browser
from tests.remote_peer.listening import Canned, Listening
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import Memory, called, talking

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


async def test_a_login_that_cannot_be_renewed_now_is_kept(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory
) -> None:
    given.revoke_access()
    issuer.intercept = lambda _: Canned(503)
    async with talking(f"{remote.origin}/mcp", tokens=tokens) as talk:
        talk.ask("initialize")
        await talk.end()
        assert isinstance(talk.link.failure, RemoteUnreachable)
        assert "its server answered 503" in talk.link.failure.message
    assert tokens.text is not None


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
    ],
)
def test_a_login_goes_only_where_it_may(server_url: str, url: str, is_allowed: bool) -> None:
    if is_allowed:
        refuse_address(server_url, url)
    else:
        with pytest.raises(OAuthFlowError):
            refuse_address(server_url, url)
