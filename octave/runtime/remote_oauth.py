"""Saying who asks: the stored login, renewed once for all who use it.

The SDK's provider lets one request through at a time, until its answer begins, and forgets at each
start where tokens are renewed and when they end; so it is asked to renew, and nothing else. Loaded
with the SDK, see `remote_server`.
"""

import contextlib
import ipaddress
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2  # noqa: TID253 - this module is loaded late itself
from mcp.client.auth import OAuthClientProvider, OAuthFlowError  # noqa: TID253
from mcp.shared.auth import (  # noqa: TID253
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER  # noqa: TID253

from octave.errors import RemoteUnreachable
from octave.packages.launch import Endpoint, TokenStore
from octave.runtime import handshake, worker

NOTE = "octave.note"
"""The extension that requests to the server itself have, and those of a login have not."""
FORMAT = 1
LEEWAY_S = 30.0
"""A token that ends so soon is renewed first: the request takes time, and clocks differ."""
RENEWAL_S = 30.0
"""Whoever renews is not interrupted, as the old refresh token is gone; it must end, though."""
LOCK_POLL_S = 0.05
LOCK_POLLS = 1200
"""A minute, twice as long as anybody can hold it; another process cannot wake us."""
_ENDED = 1.0
"""A second after the epoch; the SDK takes zero for `never`."""


@dataclass(frozen=True, slots=True)
class Login:
    """What is kept of a login; a record of format `FORMAT`."""

    client: dict[str, Any] = field(repr=False)
    tokens: dict[str, Any] = field(repr=False)
    ends_at_s: float | None = None
    """Wall clock; None: not known."""
    authorization_server: dict[str, Any] | None = None
    """Its metadata (RFC 8414)."""
    resource: dict[str, Any] | None = None
    """The metadata of the server (RFC 9728)."""

    @property
    def access_token(self) -> str:
        """What requests show."""
        return str(self.tokens.get("access_token", ""))

    @classmethod
    def of(cls, provider: OAuthClientProvider, now_s: float) -> "Login | None":
        """Return what `provider` has come to; None when it has no tokens."""
        found = provider.context
        if found.current_tokens is None or found.client_info is None:
            return None
        expires_in = found.current_tokens.expires_in
        return cls(
            _plain(found.client_info) or {},
            _plain(found.current_tokens) or {},
            None if expires_in is None else now_s + expires_in,
            _plain(found.oauth_metadata),
            _plain(found.protected_resource_metadata),
        )

    @classmethod
    def read(cls, store: TokenStore) -> "Login | None":
        """Return the login in `store`; None when there is none that this version reads."""
        text = store.read()
        try:
            found = json.loads(text or "null")
            if not isinstance(found, dict) or found.pop("version", None) != FORMAT:
                return None
            return cls(**found)
        except (ValueError, TypeError):
            return None

    def write(self, store: TokenStore) -> None:
        """Keep it."""
        names = ("client", "tokens", "ends_at_s", "authorization_server", "resource")
        record = {"version": FORMAT, **{name: getattr(self, name) for name in names}}
        store.write(json.dumps(record, separators=(",", ":")))


class Bearer(httpx2.Auth):
    """Shows the stored login to one server.

    What is refused is renewed and shown once more. Without a login requests go out as they are.

    Args:
        name: of the server, for messages.
        endpoint: of the server; it has `tokens`.
        wall_s: the wall clock.
    """

    def __init__(
        self, name: str, endpoint: Endpoint, wall_s: Callable[[], float] = time.time
    ) -> None:
        assert endpoint.tokens is not None
        self._name = name
        self._url = endpoint.url
        self._store: TokenStore = endpoint.tokens
        self._wall_s = wall_s
        self._login: Login | None = None
        self._was_read = False

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Show the login; on 401 renew it and show it again."""
        if not self._was_read:
            self._login = await worker.run(Login.read, self._store)
            self._was_read = True
        if self._login is not None and self._has_ended(self._login):
            self._login = await self._renewed(self._login.access_token) or self._login
        shown = self._show(request)
        response = yield request
        if response.status_code != 401:
            return
        self._login = await self._renewed(shown)
        if self._login is not None:
            await response.aread()
            self._show(request)
            yield request

    def _show(self, request: httpx2.Request) -> str | None:
        if self._login is None:
            return None
        request.headers["Authorization"] = f"Bearer {self._login.access_token}"
        return self._login.access_token

    def _has_ended(self, login: Login) -> bool:
        ends_at_s = login.ends_at_s
        return ends_at_s is not None and ends_at_s - self._wall_s() < LEEWAY_S

    async def _renewed(self, shown: str | None) -> Login | None:
        """Return a login other than the one that was `shown`; None when a person has to log in."""
        if self._login is not None and self._login.access_token != shown:
            return self._login
        async with locked(self._store):
            login = await worker.run(Login.read, self._store)
            # Else somebody was faster.
            if login is not None and login.access_token == shown:
                with anyio.CancelScope(shield=True):
                    login = await self._renew(login)
        return login

    async def _renew(self, login: Login) -> Login | None:
        provider = _provider(self._url, login)
        request = httpx2.Request(
            "POST", self._url, headers={MCP_PROTOCOL_VERSION_HEADER: handshake.PROTOCOL_VERSION}
        )
        async with httpx2.AsyncClient(
            timeout=RENEWAL_S,
            event_hooks={"request": [partial(refuse_foreign, self._url)]},
        ) as client:
            with anyio.fail_after(RENEWAL_S):
                status = await _until_ready(provider, request, client)
        renewed = Login.of(provider, self._wall_s())
        if renewed is not None and renewed.access_token != login.access_token:
            await worker.run(renewed.write, self._store)
            return renewed
        if status is not None and (status >= 500 or status == 429):
            raise RemoteUnreachable(
                f"the login to `{self._name}` cannot be renewed now: its server answered {status}",
                hint="try again later",
            )
        # Not to be tried again with each request.
        if status is not None:
            await worker.run(self._store.remove)
        return None


async def _until_ready(
    provider: OAuthClientProvider, request: httpx2.Request, client: httpx2.AsyncClient
) -> int | None:
    """Do what `provider` wants done before `request`; return the last status, None for nothing."""
    flow = provider.async_auth_flow(request)
    status = None
    try:
        outgoing = await anext(flow)
        while outgoing is not request:
            response = await client.send(outgoing)
            status = response.status_code
            outgoing = await flow.asend(response)
    finally:
        await flow.aclose()
    return status


def _provider(url: str, login: Login) -> OAuthClientProvider:
    """Return the SDK's provider as it was after that login, with a token that has ended."""
    client = OAuthClientInformationFull.model_validate(login.client)
    metadata = OAuthClientMetadata(redirect_uris=client.redirect_uris)
    provider = OAuthClientProvider(url, metadata, Kept(client, login.tokens))
    context = provider.context
    context.token_expiry_time = _ENDED
    if login.authorization_server is not None:
        context.oauth_metadata = OAuthMetadata.model_validate(login.authorization_server)
    if login.resource is not None:
        resource = ProtectedResourceMetadata.model_validate(login.resource)
        context.protected_resource_metadata = resource
    return provider


class Kept:
    """The SDK's `TokenStorage`, in memory: what comes of it is written down as a whole."""

    def __init__(
        self,
        client: OAuthClientInformationFull | None = None,
        tokens: dict[str, Any] | None = None,
    ) -> None:
        self._client = client
        self._tokens = OAuthToken.model_validate(tokens) if tokens else None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep tokens."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return as whom Octave is registered."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep as whom Octave is registered."""
        self._client = client_info


@contextlib.asynccontextmanager
async def locked(store: TokenStore) -> AsyncIterator[None]:
    """Hold the lock of `store`.

    Raises:
        RemoteUnreachable: somebody else does, for longer than a renewal takes.
    """
    for _ in range(LOCK_POLLS):
        if store.try_lock():
            break
        await anyio.sleep(LOCK_POLL_S)
    else:
        raise RemoteUnreachable("another process renews this login and does not come to an end")
    try:
        yield
    finally:
        store.unlock()


async def refuse_foreign(server_url: str, request: httpx2.Request) -> None:
    """Refuse requests of a login to where a server must not send its clients.

    A server says where one logs in. That must be encrypted, but on the server's own host, and no
    address of this machine or its network, but where the server itself is at such a one.

    Raises:
        OAuthFlowError: it is.
    """
    if NOTE not in request.extensions:
        refuse_address(server_url, str(request.url))


def refuse_address(server_url: str, url: str) -> None:
    """Do what `refuse_foreign` does for an address."""
    server, found = urlsplit(server_url), urlsplit(url)
    host = found.hostname or ""
    if found.scheme not in {"https", "http"} or (
        found.scheme == "http" and host != server.hostname and not _is_loopback(host)
    ):
        raise OAuthFlowError(f"`{found.scheme}://{host}` is not encrypted")
    if _is_inside(host) and not _is_inside(server.hostname or ""):
        raise OAuthFlowError(f"`{host}` is an address of this machine or its network")


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return _is_localhost(host) or (address is not None and address.is_loopback)


def _is_inside(host: str) -> bool:
    address = _address(host)
    return _is_localhost(host) or (address is not None and not address.is_global)


def _is_localhost(host: str) -> bool:
    # RFC 6761, 6.3: names below it, too.
    return f".{host.rstrip('.')}".endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    with contextlib.suppress(OSError, UnicodeEncodeError):
        # `127.1` and `2130706433` are addresses, too, to whoever connects (inet_aton(3)).
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def _plain(model: Any) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json", exclude_none=True)
