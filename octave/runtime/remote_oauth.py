"""Saying who asks: the stored login, renewed once for all who use it.

The SDK's provider lets one request through at a time, until its answer begins, and forgets at each
start where tokens are renewed and when they end; so it is asked to renew, and nothing else. Loaded
with the SDK, see `remote_server`.
"""

import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
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
from octave.runtime import handshake, remote_guard, worker
from octave.runtime.masking import Mask

FORMAT = 1
LEEWAY_S = 30.0
"""A token that ends so soon is renewed first: the request takes time, and clocks differ."""
LONGEST_S = 100 * 365 * 86400
"""What is said to last longer lasts for ever, and is no number to reckon with."""
RENEWAL_S = 30.0
"""Whoever renews is not interrupted, as the old refresh token is gone; it must end, though."""
REVOCATION_S = 5.0
"""Nobody waits longer to be rid of a login; it is forgotten in any case."""
LOCK_POLL_S = 0.05
LOCK_POLLS = 1200
"""A minute, twice as long as anybody can hold it; another process cannot wake us."""
_WORTHLESS = frozenset({200, 400, 401})
"""How a server says that it renews no more (RFC 6749, 5.2), or says nothing that can be used; all
else may be of something that stands before it."""
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

    @property
    def secrets(self) -> list[str]:
        """What must not be shown anywhere; anything else is no token (RFC 6749, appendix A)."""
        found = (self.tokens.get("access_token"), self.tokens.get("refresh_token"))
        texts = [str(value or "") for value in (*found, self.client.get("client_secret"))]
        return [text for text in texts if text and text.isascii() and text.isprintable()]

    @classmethod
    def of(cls, provider: OAuthClientProvider, now_s: float) -> "Login | None":
        """Return what `provider` has come to; None when it has no tokens."""
        found = provider.context
        if found.current_tokens is None or found.client_info is None:
            return None
        expires_in = found.current_tokens.expires_in
        is_known = expires_in is not None and expires_in <= LONGEST_S
        return cls(
            _plain(found.client_info) or {},
            _plain(found.current_tokens) or {},
            now_s + max(expires_in or 0, 0) if is_known else None,
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
        mask: learns what is secret.
        wall_s: the wall clock.
    """

    def __init__(
        self, name: str, endpoint: Endpoint, mask: Mask, wall_s: Callable[[], float] = time.time
    ) -> None:
        assert endpoint.tokens is not None
        self._name = name
        self._url = endpoint.url
        self._store: TokenStore = endpoint.tokens
        self._mask = mask
        self._wall_s = wall_s
        self._login: Login | None = None
        self._was_read = False
        self._renewing = anyio.Lock()

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
            self._show(request)
            yield request

    def _show(self, request: httpx2.Request) -> str | None:
        if self._login is None:
            return None
        self._mask.learn(self._login.secrets)
        request.headers["Authorization"] = f"Bearer {self._login.access_token}"
        return self._login.access_token

    def _has_ended(self, login: Login) -> bool:
        ends_at_s = login.ends_at_s
        return ends_at_s is not None and ends_at_s - self._wall_s() < LEEWAY_S

    async def _renewed(self, shown: str | None) -> Login | None:
        """Return a login other than the one that was `shown`; None when a person has to log in."""
        before = self._login
        async with self._renewing:
            login = self._login
            if login is not None and (login is not before or login.access_token != shown):
                return login
            # In a thread, with a loop of its own: whoever stops meanwhile does not wait for it, and
            # what it brings is kept nevertheless, as the old refresh token is gone by then.
            return await worker.run(anyio.run, self._renewed_apart, shown, abandon_on_cancel=True)

    async def _renewed_apart(self, shown: str | None) -> Login | None:
        async with locked(self._store):
            login = Login.read(self._store)
            # Else somebody was faster.
            if login is not None and login.access_token == shown:
                login = await self._renew(login)
        return login

    async def _renew(self, login: Login) -> Login | None:
        provider = _provider(self._url, login)
        request = httpx2.Request(
            "POST", self._url, headers={MCP_PROTOCOL_VERSION_HEADER: handshake.PROTOCOL_VERSION}
        )
        status, before = None, await provider.context.storage.get_tokens()
        # `ValueError`, `OverflowError`: an answer that is none. There may be tokens in it.
        with contextlib.suppress(ValueError, OverflowError):
            async with httpx2.AsyncClient(event_hooks=remote_guard.hooks(self._url)) as client:
                with anyio.move_on_after(RENEWAL_S) as scope:
                    status = await _until_ready(provider, request, client)
            if scope.cancelled_caught:
                raise self._not_now(f"nobody answered within {RENEWAL_S:.0f} s")
        renewed = Login.of(provider, self._wall_s())
        # Some servers say the same token again while it lasts.
        if renewed is not None and provider.context.current_tokens is not before:
            renewed.write(self._store)
            return renewed
        if status is not None and status not in _WORTHLESS:
            raise self._not_now(f"its server answered {status}")
        # Not to be tried again with each request.
        if status is not None:
            self._store.remove()
        return None

    def _not_now(self, reason: str) -> RemoteUnreachable:
        return RemoteUnreachable(
            f"the login to `{self._name}` cannot be renewed now: {reason}", hint="try again later"
        )


async def revoke(url: str, login: Login) -> tuple[str, bool] | None:
    """Tell the authorization server that a login to the server at `url` is over (RFC 7009).

    Returns its host, and whether it has accepted that; None when it does not announce where.
    """
    metadata = login.authorization_server or {}
    place = metadata.get("revocation_endpoint")
    if not place:
        return None
    accepted: list[bool] = []
    with contextlib.suppress(httpx2.HTTPError, httpx2.InvalidURL, OAuthFlowError, ValueError):
        context = _provider(url, login).context
        context.client_info = await context.storage.get_client_info()
        said = {"client_id": str(login.client.get("client_id"))}
        if "none" not in metadata.get("revocation_endpoint_auth_methods_supported", ["none"]):
            # That of clients without one, which the SDK's servers ask for (RFC 6749, 2.3.1).
            said["client_secret"] = ""
        said, headers = context.prepare_token_auth(said)
        with anyio.move_on_after(REVOCATION_S):
            async with httpx2.AsyncClient(event_hooks=remote_guard.hooks(url)) as client:
                for name in ("refresh_token", "access_token"):
                    if token := login.tokens.get(name):
                        data = {"token": token, "token_type_hint": name, **said}
                        asked = httpx2.Request("POST", place, data=data, headers=headers)
                        accepted.append((await client.send(asked)).is_success)
    # The first is what new tokens could be had for; some servers revoke no others.
    return urlsplit(place).netloc, accepted[:1] == [True]


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


def _plain(model: Any) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json", exclude_none=True)
