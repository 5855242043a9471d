"""Logging in: a real authorization server, a real MCP server, a browser that consents."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from octave.errors import AuthorizationNeeded, OctaveError, RemoteUnreachable
from octave.packages.launch import Endpoint, LaunchSpec
from octave.runtime.remote_login import Wish, login
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


def test_a_callback_with_another_state_is_refused(remote: Listening) -> None:
    def forge(address: str) -> None:
        back = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        browser([])(f"{back}?code=theirs&state=theirs")

    with pytest.raises(AuthorizationNeeded, match="State parameter mismatch"):
        login(spec_of(remote, Memory()), Wish(forge))


def test_a_login_at_another_machine_without_encryption_is_refused(remote: Listening) -> None:
    pointed = {"resource": f"{remote.origin}/mcp", "authorization_servers": ["http://192.0.2.7"]}
    point(remote, pointed)
    with pytest.raises(AuthorizationNeeded, match=r"`http://192\.0\.2\.7` is not encrypted"):
        login(spec_of(remote, Memory()), Wish(browser([])))


def test_a_server_that_is_down_is_unreachable(remote: Listening) -> None:
    remote.stop()
    with pytest.raises(RemoteUnreachable, match="cannot be reached at"):
        login(spec_of(remote, Memory()), Wish(browser([])))


def test_a_port_that_is_taken_is_named(remote: Listening) -> None:
    with pytest.raises(OctaveError, match=f"cannot come back to port {remote.port}") as caught:
        login(spec_of(remote, Memory()), Wish(browser([]), port=remote.port))
    assert caught.value.hint == "choose another `--port`"


def fetched(address: str) -> bytes:
    without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxies.open(address, timeout=10) as response:
        return bytes(response.read())


def point(remote: Listening, metadata: Mapping[str, object]) -> None:
    """Let the server point to that as where one logs in."""
    canned = Canned(200, json.dumps(metadata).encode(), {"content-type": "application/json"})
    path = "/.well-known/oauth-protected-resource"
    remote.intercept = lambda seen: canned if seen.path.startswith(path) else None
