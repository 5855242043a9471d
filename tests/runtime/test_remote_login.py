"""Logging in: a real authorization server, a real MCP server, a browser that consents."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from octave.errors import AuthorizationNeeded, OctaveError, RemoteUnreachable
from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime import remote_login, remote_oauth
from octave.runtime.remote_login import Logout, Wish, login, logout
from tests.remote_peer import authority, server
from tests.remote_peer.authority import Authority
from tests.remote_peer.browsing import browser
from tests.remote_peer.listening import Canned, Listening
from tests.remote_peer.server import Peer
from tests.remote_peer.talking import Memory


@pytest.fixture
def given() -> Authority:
    return Authority()


@pytest.fixture
def issuer(given: Authority) -> Iterator[Listening]:
    with authority.listening(given) as listening:
        yield listening


@pytest.fixture
def remote(given: Authority, issuer: Listening) -> Iterator[Listening]:
    with server.listening(Peer(), authority=given, issuer=issuer.origin) as listening:
        yield listening


def spec_of(remote: Listening, tokens: Memory) -> LaunchSpec:
    headers = {"X-Team": "seven"}
    endpoint = Endpoint(f"{remote.origin}/mcp", lambda: headers, tokens)
    return LaunchSpec("peer", (), Path("/"), dict, endpoint=endpoint)


def test_a_login_registers_consents_with_pkce_and_stores_tokens(
    remote: Listening, issuer: Listening, given: Authority
) -> None:
    tokens = Memory()
    shown: list[str] = []
    assert login(spec_of(remote, tokens), Wish(browser(shown)))
    (address,) = shown
    asked = parse_qs(urlsplit(address).query)
    assert address.startswith(f"{issuer.origin}/authorize?")
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["resource"] == [f"{remote.origin}/mcp"]
    assert asked["redirect_uri"][0].startswith("http://127.0.0.1:")
    (client,) = given.clients.values()
    assert client.client_name == "Octave"
    record = json.loads(tokens.text or "")
    assert record["tokens"]["refresh_token"]
    assert record["authorization_server"]["token_endpoint"] == f"{issuer.origin}/token"
    assert not tokens.is_locked
    # What octave.toml says is for the server, and for nobody it points to.
    assert all("x-team" not in seen.headers for seen in issuer.seen)


def test_a_server_that_wants_no_login_gets_none() -> None:
    tokens = Memory()
    with server.listening(Peer()) as remote:
        assert not login(spec_of(remote, tokens), Wish(browser([])))
    assert tokens.text is None


def test_a_client_id_of_ones_own_needs_no_registration(
    remote: Listening, issuer: Listening, given: Authority
) -> None:
    assert login(spec_of(remote, Memory()), Wish(browser([])))
    (known,) = given.clients.values()
    port = urlsplit(str((known.redirect_uris or [])[0])).port or 0
    tokens = Memory()
    assert login(spec_of(remote, tokens), Wish(browser([]), str(known.client_id), port))
    assert issuer.count("/register") == 1
    assert json.loads(tokens.text or "")["client"]["client_id"] == known.client_id


def test_a_metadata_document_stands_in_for_the_registration(
    remote: Listening, issuer: Listening, given: Authority
) -> None:
    document = "https://octave.example/client.json"
    assert login(spec_of(remote, Memory()), Wish(browser([])))
    (known,) = given.clients.values()
    port = urlsplit(str((known.redirect_uris or [])[0])).port or 0
    given.clients[document] = known.model_copy(update={"client_id": document})
    path = "/.well-known/oauth-authorization-server"
    metadata = json.loads(fetched(f"{issuer.origin}{path}"))
    metadata["client_id_metadata_document_supported"] = True
    canned = Canned(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    issuer.intercept = lambda seen: canned if seen.path == path else None
    shown: list[str] = []
    assert login(spec_of(remote, Memory()), Wish(browser(shown), document, port))
    assert parse_qs(urlsplit(shown[0]).query)["client_id"] == [document]
    assert issuer.count("/register") == 1


def test_consent_that_is_refused_stores_nothing(remote: Listening, given: Authority) -> None:
    given.denies = True
    tokens = Memory()
    with pytest.raises(AuthorizationNeeded, match="access_denied: not today") as caught:
        login(spec_of(remote, tokens), Wish(browser([])))
    assert (caught.value.exit_code, caught.value.hint) == (8, "octave auth peer")
    assert tokens.text is None


@pytest.mark.parametrize(
    "forged",
    [
        *("{path}?code=theirs&state=theirs", "{path}?code=theirs", "{path}?error=access_denied"),
        *("{path}?code=theirs&state={state}x", "{path}?state={state}&state={state}&code=theirs"),
        *("{path}?code=theirs&state=%ff", "/?code=theirs&state={state}", "//[?state={state}", ""),
    ],
)
def test_a_callback_without_the_state_is_no_answer(remote: Listening, forged: str) -> None:
    statuses: list[bytes] = []

    def forge_first(address: str) -> None:
        asked = parse_qs(urlsplit(address).query)
        back = urlsplit(asked["redirect_uri"][0])
        target = forged.format(path=back.path, state=asked["state"][0])
        statuses.append(answered(back.port or 0, b"GET %b HTTP/1.1\r\n\r\n" % target.encode()))
        browser([])(address)

    tokens = Memory()
    # In a thread, as whoever shows it goes on meanwhile.
    assert login(spec_of(remote, tokens), Wish(in_thread(forge_first)))
    assert statuses == [b"HTTP/1.1 404 Not Found"]
    assert tokens.text is not None


def test_a_connection_that_says_nothing_holds_up_no_login(
    remote: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_login, "REQUEST_S", 600.0)
    silent: list[socket.socket] = []

    def connect_first(address: str) -> None:
        back = urlsplit(parse_qs(urlsplit(address).query)["redirect_uri"][0])
        silent.append(socket.create_connection(("127.0.0.1", back.port or 0)))
        browser([])(address)

    assert login(spec_of(remote, Memory()), Wish(connect_first))
    silent[0].close()


def test_a_login_at_another_machine_without_encryption_is_refused(remote: Listening) -> None:
    pointed = {"resource": f"{remote.origin}/mcp", "authorization_servers": ["http://192.0.2.7"]}
    point(remote, pointed)
    with pytest.raises(AuthorizationNeeded, match=r"`http://192\.0\.2\.7` is not encrypted"):
        login(spec_of(remote, Memory()), Wish(browser([])))


JSON = {"content-type": "application/json"}
ENDLESS = b'{"access_token":"hush-hush","token_type":"bearer","expires_in":1%b}' % (b"0" * 400)


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/token", Canned(400, b"\xff"), "its server's answer cannot be read"),
        ("/token", Canned(200, ENDLESS, JSON), "its server's answer cannot be read"),
        ("/token", Canned(200, b'{"tok":"hush-hush"}', JSON), "Invalid token response"),
        ("/token", Canned(400, b"x" * 2000), f"Token exchange failed (400): {'x' * 471}"),
        ("/register", Canned(201, b'{"client_secret":"hush-hush"}', JSON), "Invalid registration"),
        ("/register", Canned(201, b"[" * 10_000, JSON), "Invalid registration"),
    ],
    ids=["bytes", "endless", "no-token", "page", "no-client", "deep"],
)
def test_an_odd_answer_ends_the_login_in_few_words(
    remote: Listening, issuer: Listening, path: str, answer: Canned, words: str
) -> None:
    issuer.intercept = lambda seen: answer if seen.path == path else None
    tokens = Memory()
    with pytest.raises(AuthorizationNeeded) as caught:
        login(spec_of(remote, tokens), Wish(browser([])))
    told = caught.value.message.partition(" failed: ")[2]
    assert told.startswith(words)
    assert len(told) <= 500
    assert "hush" not in told
    assert tokens.text is None


# Logging out.


@pytest.fixture
def tokens(remote: Listening) -> Memory:
    """A store with a login in it."""
    store = Memory()
    assert login(spec_of(remote, store), Wish(browser([])))
    return store


def test_a_logout_is_told_to_the_authorization_server(
    remote: Listening, issuer: Listening, given: Authority, tokens: Memory
) -> None:
    found = json.loads(tokens.text or "")["tokens"]
    assert logout(spec_of(remote, tokens)) == Logout(was_logged_in=True, is_revoked=True)
    assert tokens.text is None
    assert not tokens.is_locked
    assert given.revoked == [found["refresh_token"], found["access_token"]]
    assert logout(spec_of(remote, tokens)) == Logout(was_logged_in=False)
    assert issuer.count("/revoke") == 2


def test_a_login_is_forgotten_where_nobody_is_there_to_be_told(
    remote: Listening, issuer: Listening, tokens: Memory
) -> None:
    issuer.stop()
    host = issuer.origin.removeprefix("http://")
    assert logout(spec_of(remote, tokens)) == Logout(was_logged_in=True, untold=host)
    assert tokens.text is None


@pytest.mark.parametrize("status", [503, 400])
def test_a_login_is_forgotten_where_nobody_wants_to_know(
    remote: Listening, issuer: Listening, tokens: Memory, status: int
) -> None:
    issuer.intercept = lambda _: Canned(status)
    assert logout(spec_of(remote, tokens)).untold is not None
    assert tokens.text is None


def test_a_login_is_forgotten_where_nobody_answers(
    remote: Listening, issuer: Listening, tokens: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_oauth, "REVOCATION_S", 0.1)
    go_on = threading.Event()
    issuer.intercept = lambda _: Canned(200) if go_on.wait(10) else None
    assert logout(spec_of(remote, tokens)).untold is not None
    go_on.set()
    assert tokens.text is None


def test_nobody_is_told_where_that_was_not_announced(
    remote: Listening, issuer: Listening, tokens: Memory
) -> None:
    record = json.loads(tokens.text or "")
    del record["authorization_server"]["revocation_endpoint"]
    tokens.write(json.dumps(record))
    assert logout(spec_of(remote, tokens)) == Logout(was_logged_in=True)
    assert tokens.text is None
    assert issuer.count("/revoke") == 0


@pytest.mark.parametrize("text", ["no record", '{"version":2}'])
def test_what_cannot_be_read_is_forgotten_too(remote: Listening, text: str) -> None:
    store = Memory(text)
    assert logout(spec_of(remote, store)) == Logout(was_logged_in=True)
    assert store.text is None


def test_a_server_that_is_down_is_unreachable(remote: Listening) -> None:
    remote.stop()
    with pytest.raises(RemoteUnreachable, match="cannot be reached at"):
        login(spec_of(remote, Memory()), Wish(browser([])))


def test_a_port_that_is_taken_is_named(remote: Listening) -> None:
    with pytest.raises(OctaveError, match=f"cannot come back to port {remote.port}") as caught:
        login(spec_of(remote, Memory()), Wish(browser([]), port=remote.port))
    assert caught.value.hint == "choose another `--port`"


def answered(port: int, request: bytes) -> bytes:
    """Return the first line of what is answered on that port of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall(request)
        with peer.makefile("rb") as answer:
            return answer.readline().strip()


def in_thread(visit: Callable[[str], None]) -> Callable[[str], None]:
    return lambda address: threading.Thread(target=visit, args=(address,), daemon=True).start()


def fetched(address: str) -> bytes:
    without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxies.open(address, timeout=10) as response:
        return bytes(response.read())


def point(remote: Listening, metadata: Mapping[str, object]) -> None:
    """Let the server point to that as where one logs in."""
    canned = Canned(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    path = "/.well-known/oauth-protected-resource"
    remote.intercept = lambda seen: canned if seen.path.startswith(path) else None
