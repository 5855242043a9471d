"""A login is led nowhere that it must not go, by names, odd addresses or endless answers."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError

from octave.runtime import remote_guard
from octave.runtime.remote_guard import NOTE, refuse_address, refuse_place
from tests.remote_peer.listening import Canned, Listening

pytestmark = pytest.mark.anyio

SERVER = "https://mcp.example/mcp"
PUBLIC = "93.184.215.14"
BOUND_S = 5.0


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where names lead: the one thing of these tests that is not real."""
    found: dict[str, str] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real(found.get(name, name), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


class Door:
    """Takes one connection, and keeps what it says."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        peer, _ = self._socket.accept()
        with peer:
            peer.settimeout(BOUND_S)
            self.heard.append(peer.recv(1))

    def close(self) -> None:
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        self._socket.close()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


async def posted(url: str, server_url: str = SERVER) -> httpx2.Response:
    """Make a request of a login."""
    async with httpx2.AsyncClient(event_hooks=remote_guard.hooks(server_url)) as client:
        return await client.send(httpx2.Request("POST", url, content=b"refresh_token=hush"))


async def test_a_name_that_leads_to_this_machine_is_told_nothing(
    leads: dict[str, str], door: Door
) -> None:
    leads |= {"mcp.example": PUBLIC, "login.example": "127.0.0.1"}
    with pytest.raises(OAuthFlowError, match=r"`login\.example` is an address of this machine"):
        await posted(f"https://login.example:{door.port}/token")
    door.close()
    assert door.heard == [b""]


async def test_it_may_where_the_server_is_found_there_too(
    leads: dict[str, str], door: Door
) -> None:
    leads |= {"mcp.example": "10.0.0.7", "login.example": "127.0.0.1"}
    # It gets as far as the encryption.
    with pytest.raises(httpx2.HTTPError):
        await posted(f"https://login.example:{door.port}/token")
    door.close()
    assert door.heard == [b"\x16"]


async def test_a_server_that_is_found_inside_and_outside_is_outside(
    leads: dict[str, str], door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads |= {"login.example": "127.0.0.1"}
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        names = [PUBLIC, "127.0.0.1"] if host in {"mcp.example", b"mcp.example"} else [host]
        return [found for name in names for found in real(name, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(OAuthFlowError):
        await posted(f"https://login.example:{door.port}/token")


async def test_what_a_proxy_reaches_is_its_business(
    leads: dict[str, str], door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads |= {"mcp.example": PUBLIC}
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{door.port}")
    with pytest.raises(httpx2.HTTPError):
        await posted("https://login.example/token")
    door.close()
    assert door.heard == [b"C"]  # ONNECT


async def test_a_person_is_not_sent_to_this_machine_by_a_name(leads: dict[str, str]) -> None:
    leads |= {"mcp.example": PUBLIC, "login.example": "192.168.1.1", "fine.example": PUBLIC}
    await refuse_place(SERVER, "https://fine.example/authorize")
    with pytest.raises(OAuthFlowError):
        await refuse_place(SERVER, "https://login.example/authorize")
    leads |= {"mcp.example": "192.168.1.2"}
    await refuse_place(SERVER, "https://login.example/authorize")


@pytest.mark.parametrize(
    "address",
    [
        *("[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b:1::a9fe:a9fe]"),
        *("[::ffff:10.0.0.1]", "[::ffff:7f00:1]", "[::7f00:1]", "[2002:a00:1::]"),
        *("[::]", "[fe80::1]", "[fec0::1]", "[fd00::1]", "[ff02::1]"),
        *("0x7f000001", "017700000001", "2130706433", "0xa9fea9fe", "127.1", "10.1"),
        *("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
    ],
)
def test_addresses_inside_are_refused_however_they_are_written(address: str) -> None:
    with pytest.raises(OAuthFlowError):
        refuse_address(SERVER, f"https://{address}/token")
    # Of servers that are inside themselves nothing else is asked.
    refuse_address("http://127.0.0.1:9/mcp", f"https://{address}/token")


@pytest.mark.parametrize("address", ["8.8.8.8", "[64:ff9b::808:808]", "[::ffff:8.8.8.8]"])
def test_addresses_outside_are_allowed_however_they_are_written(address: str) -> None:
    refuse_address(SERVER, f"https://{address}/token")


@pytest.fixture
def canned() -> Iterator[Callable[[Canned], Listening]]:
    async def nothing(*_: object) -> None:
        """Never reached."""

    with Listening(lambda _: nothing) as listening:

        def answering(answer: Canned) -> Listening:
            listening.intercept = lambda _: answer
            return listening

        yield answering


@pytest.mark.parametrize("status", [200, 400])
async def test_of_a_long_answer_about_a_login_the_beginning_is_read(
    canned: Callable[[Canned], Listening], status: int
) -> None:
    # Packed it is short.
    answer = Canned(status, b"x" * 2**22, {"content-encoding": "gzip"})
    remote = canned(answer)
    response = await posted(f"{remote.origin}/token", remote.origin)
    assert response.content == b"x" * remote_guard.ANSWER_BYTES


@pytest.mark.parametrize(
    ("status", "challenge", "is_bounded"),
    [
        (401, "", True),
        (403, 'Bearer error="insufficient_scope"', True),
        (403, "", False),
        (200, "", False),
    ],
)
async def test_of_the_server_itself_only_a_call_for_a_login_is_short(
    canned: Callable[[Canned], Listening], status: int, challenge: str, is_bounded: bool
) -> None:
    remote = canned(Canned(status, b"x" * 2**18, {"www-authenticate": challenge}))
    async with httpx2.AsyncClient(event_hooks=remote_guard.hooks(remote.origin)) as client:
        response = await client.get(remote.origin, extensions={NOTE: None})
    length = remote_guard.ANSWER_BYTES if is_bounded else 2**18
    assert len(response.content) == length


async def test_an_endless_answer_is_not_waited_for() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(ConnectionError):
            peer.recv(2**16)
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                peer.sendall(b"x" * 2**16)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, anyio.fail_after(BOUND_S):
        response = await posted(f"{origin}/token", origin)
    thread.join(BOUND_S)
    assert not thread.is_alive()
    assert len(response.content) == remote_guard.ANSWER_BYTES
