"""Where a login may lead: a server says where one logs in, and must not send its clients anywhere.

Not without encryption, but where the server itself has none; and to no address of this machine or
its network, however that is written or whatever name leads there, but where the server itself is at
such a one. Answers are read up to a limit. Loaded with the SDK, see `remote_server`.
"""

import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2  # noqa: TID253 - this module is loaded late itself
from mcp.client.auth import OAuthFlowError  # noqa: TID253

NOTE = "octave.note"
"""The extension that requests to the server itself have, and those of a login have not."""
ANSWER_BYTES = 128 * 1024
"""Of an answer about a login: metadata, a registration and tokens are some kilobytes."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that has been given out (RFC 4291, 2.4)."""
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
"""IPv4 in their last 32 bits: NAT64 (RFC 6052, RFC 8215), and as it was once meant (RFC 4291)."""


def hooks(server_url: str) -> dict[str, list[Any]]:
    """Return the event hooks of a client that makes requests of a login to that server."""
    return {"request": [partial(_refuse_foreign, server_url)], "response": [_bound_answer]}


async def _refuse_foreign(server_url: str, request: httpx2.Request) -> None:
    """Refuse a request of a login that must not be made, now or once it is known whom it reached.

    Raises:
        OAuthFlowError: it must not be made.
    """
    if NOTE not in request.extensions:
        refuse_address(server_url, str(request.url))
        request.extensions["trace"] = _Watch(server_url, request.url.raw_host.decode("ascii"))


async def _bound_answer(response: httpx2.Response) -> None:
    """Let no more than `ANSWER_BYTES` be read of an answer about a login, or of a call for one."""
    if NOTE not in response.request.extensions or _asks_for_login(response):
        # Unpacked it might be a thousand times as long; nobody was asked to pack it.
        response.headers.pop("content-encoding", None)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream)


def refuse_address(server_url: str, url: str) -> None:
    """Refuse an address that a person, or a request, must not be sent to, as far as it is written.

    Raises:
        OAuthFlowError: it is one.
    """
    server, found = urlsplit(server_url), urlsplit(url)
    host = found.hostname or ""
    is_as_open = server.scheme == "http" and host == server.hostname
    if found.scheme not in {"https", "http"} or (
        found.scheme == "http" and not is_as_open and not _is_loopback(host)
    ):
        raise OAuthFlowError(f"`{found.scheme}://{host}` is not encrypted")
    if _is_inside(host) and not _is_inside(server.hostname or ""):
        raise _inside(host)


async def refuse_place(server_url: str, url: str) -> None:
    """Do what `refuse_address` does, and look up where a name leads.

    Raises:
        OAuthFlowError: a person must not be sent there.
    """
    refuse_address(server_url, url)
    host = urlsplit(url).hostname or ""
    if any(map(_is_inside, await _found(host))) and not await _is_at_home(server_url):
        raise _inside(host)


class _Watch:
    """Hears of a request of a login whom it has reached, before anything is sent.

    A look-up beforehand would prove nothing: the next one may give another address.
    """

    def __init__(self, server_url: str, host: str) -> None:
        self._server_url = server_url
        self._host = host
        self._is_direct = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            # What a proxy reaches is the proxy's business.
            self._is_direct = info["host"] == self._host
        elif event == "connection.connect_tcp.complete" and self._is_direct:
            stream = info["return_value"]
            address = str(stream.get_extra_info("server_addr")[0])
            if _is_inside(address) and not await _is_at_home(self._server_url):
                await stream.aclose()
                raise _inside(self._host)


class _Bounded(httpx2.AsyncByteStream):
    """The beginning of another stream."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = ANSWER_BYTES
        async for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


def _asks_for_login(response: httpx2.Response) -> bool:
    challenge = response.headers.get("www-authenticate", "")
    is_step_up = response.status_code == 403 and "insufficient_scope" in challenge
    return response.status_code == 401 or is_step_up


def _inside(host: str) -> OAuthFlowError:
    return OAuthFlowError(f"`{host}` is an address of this machine or its network")


async def _is_at_home(server_url: str) -> bool:
    """Whether the server is on this machine or its network."""
    host = urlsplit(server_url).hostname or ""
    found = await _found(host)
    return _is_inside(host) or (bool(found) and all(map(_is_inside, found)))


async def _found(host: str) -> list[str]:
    """Return the addresses of a host; none when they are not known."""
    try:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return _is_localhost(host) or (address is not None and address.is_loopback)


def _is_inside(host: str) -> bool:
    address = _address(host)
    if address is None:
        return _is_localhost(host)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return True
    return not address.is_global or address.is_multicast


def _is_localhost(host: str) -> bool:
    # RFC 6761, 6.3: names below it, too.
    return f".{host.rstrip('.')}".endswith(".localhost")


def _address(host: str) -> _Address | None:
    """Return the address that `host` is; of one that stands for an IPv4 address, that one."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address if isinstance(address, ipaddress.IPv4Address) else _meant(address)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        # `127.1` and `2130706433` are addresses, too, to whoever connects (inet_aton(3)).
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def _meant(address: ipaddress.IPv6Address) -> _Address:
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and int(address) > 1 and any(address in each for each in _TRANSLATED):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address
