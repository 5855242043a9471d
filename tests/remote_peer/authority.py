"""A real authorization server of the SDK's own, on loopback, where everybody is let in."""

import secrets
import threading
import time
from typing import Any

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from tests.remote_peer.listening import App, Listening

SCOPE = "use"


class Authority(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """What was given out. Refresh tokens serve once."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.refreshes = 0
        self.revoked: list[str] = []
        """What its owners have given back, as far as it was worth something."""
        self.denies = False
        self.lifetime_s = 3600
        self._codes: dict[str, AuthorizationCode] = {}
        self._access: dict[str, AccessToken] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self._lock = threading.Lock()

    def revoke_access(self) -> None:
        """Accept no access token that was given out so far."""
        self._access.clear()

    def revoke_all(self) -> None:
        self._access.clear()
        self._refresh.clear()

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[str(client_info.client_id)] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        if self.denies:
            raise AuthorizeError("access_denied", "not today")
        code = secrets.token_urlsafe(24)
        self._codes[code] = AuthorizationCode(
            code=code,
            scopes=params.scopes or [SCOPE],
            expires_at=time.time() + 60,
            client_id=str(client.client_id),
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        return construct_redirect_uri(str(params.redirect_uri), code=code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self._codes[authorization_code.code]
        return self._given(authorization_code)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self._refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        with self._lock:
            del self._refresh[refresh_token.token]
            self.refreshes += 1
        return self._given(refresh_token)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self._access.get(token)

    async def verify_token(self, token: str) -> AccessToken | None:
        return self._access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.revoked.append(token.token)
        self._access.pop(token.token, None)
        self._refresh.pop(token.token, None)

    def _given(self, grant: AuthorizationCode | RefreshToken) -> OAuthToken:
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        shared: dict[str, Any] = {
            "client_id": grant.client_id,
            "scopes": grant.scopes,
            "resource": grant.resource,
        }
        self._access[access] = AccessToken(token=access, **shared)
        self._refresh[refresh] = RefreshToken(token=refresh, **shared)
        return OAuthToken(
            access_token=access,
            refresh_token=refresh,
            expires_in=self.lifetime_s,
            scope=" ".join(grant.scopes),
        )


def listening(authority: Authority) -> Listening:
    """Return its HTTP face, not yet started."""

    def make_app(origin: str) -> App:
        options = ClientRegistrationOptions(
            enabled=True, valid_scopes=[SCOPE], default_scopes=[SCOPE]
        )
        revocation = RevocationOptions(enabled=True)
        routes = create_auth_routes(authority, AnyHttpUrl(origin), None, options, revocation)
        return Starlette(routes=routes)

    return Listening(make_app)
