"""Logging in to a remote server, and out: a person consents in a browser, the tokens are stored.

The SDK finds the authorization server, registers Octave there and exchanges the code (MCP
2025-11-25, authorization: PKCE, RFC 8414, 7591, 8707, 9207, 9728); a client id of one's own, or the
address of a client-id metadata document, stands in for the registration. The browser comes back to
a port of this machine (RFC 8252, section 7.3).
"""

import contextlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.abc

from octave.errors import AuthorizationNeeded, OctaveError
from octave.packages.launch import LaunchSpec, TokenStore
from octave.runtime import handshake, wire, worker
from octave.runtime.process import Callbacks
from octave.runtime.remote_server import RemoteLink

PATIENCE_S = 300.0
"""For a person to find a password, and for all the requests before and after that."""
REQUEST_S = 2.0
"""Browsers open connections ahead of time, and say nothing on them."""
REQUEST_BYTES = 16 * 1024
"""Of the browser's request; a code and a state are some hundred bytes."""
CALLBACK = "/callback"

_PAGE = '<!doctype html><meta charset="utf-8"><title>Octave</title><p>{}</p>\n'
_COME_BACK = "That is all; this window may be closed. The terminal tells how it went."


@dataclass(frozen=True, slots=True)
class Wish:
    """How to log in."""

    show: Callable[[str], None]
    """Takes the address where a person consents; it is one that may be opened."""
    client_id: str | None = None
    """As whom Octave is known there, or the `https` address of a client-id metadata document."""
    port: int = 0
    """To which the browser comes back; 0: any."""


def login(spec: LaunchSpec, wish: Wish, wall_s: Callable[[], float] = time.time) -> bool:
    """Log in to the server and store what that brings. Blocks until a person has consented.

    `wall_s` is the wall clock: the record says when the token ends. Returns False when the server
    asks for no login.

    Raises:
        AuthorizationNeeded: it was refused, came to nothing, or nobody consented in time.
        RemoteUnreachable: the server, or that of the login, cannot be reached.
        StartFailed: a reference does not resolve.
        OctaveError: the port is taken.
    """
    return anyio.run(_login, spec, wish, wall_s)


@dataclass(frozen=True, slots=True)
class Logout:
    """What came of a logout."""

    was_logged_in: bool
    is_revoked: bool = False
    """The authorization server said that it will accept none of the tokens any more."""
    untold: str | None = None
    """The host that announces that it can be told, and could not."""


def logout(spec: LaunchSpec) -> Logout:
    """Forget the login to the server, and tell its authorization server if that can be done.

    Blocks for some seconds at most, but for somebody who renews the login at this moment.

    Raises:
        RemoteUnreachable: he does not come to an end.
        StorageFailed, OSError: as the store does.
    """
    endpoint = spec.endpoint
    assert endpoint is not None and endpoint.tokens is not None
    if endpoint.tokens.read() is None:
        return Logout(was_logged_in=False)
    return anyio.run(_logout, endpoint.url, endpoint.tokens)


async def _logout(url: str, store: TokenStore) -> Logout:
    # 0.9 s of import, as for a login.
    from octave.runtime.remote_oauth import Login, locked, revoke

    async with locked(store):
        login = Login.read(store)
        try:
            found = None if login is None else await revoke(url, login)
        finally:
            was_logged_in = store.remove()
    if found is None:
        return Logout(was_logged_in)
    host, is_revoked = found
    return Logout(was_logged_in, is_revoked, None if is_revoked else host)


async def _login(spec: LaunchSpec, wish: Wish, wall_s: Callable[[], float]) -> bool:
    try:
        with anyio.fail_after(PATIENCE_S):
            return await _logged_in(spec, wish, wall_s)
    except TimeoutError:
        raise AuthorizationNeeded(
            f"nobody consented to the login to `{spec.name}` within {PATIENCE_S:.0f} s",
            hint=f"octave auth {spec.name}",
        ) from None


async def _logged_in(spec: LaunchSpec, wish: Wish, wall_s: Callable[[], float]) -> bool:
    endpoint = spec.endpoint
    assert endpoint is not None and endpoint.tokens is not None
    # 0.9 s of import, which nothing else waits for here.
    from octave.runtime.remote_oauth import Login, locked

    async with _listener(wish.port) as listener:
        provider = _provider(endpoint.url, wish, listener)
        await _ask(spec, provider)
    found = Login.of(provider, wall_s())
    if found is None:
        return False
    async with locked(endpoint.tokens):
        await worker.run(found.write, endpoint.tokens)
    return True


async def _ask(spec: LaunchSpec, provider: Any) -> None:
    """Ask the server anything, so that it says that it wants a login; return when it answers.

    Raises:
        StartFailed: it does not.
    """
    endpoint = (await worker.run_apart(spec.resolved)).endpoint
    assert endpoint is not None
    over = anyio.Event()
    ears = Callbacks(lambda _: over.set(), lambda _: None, over.set)
    limit_bytes = spec.policy.max_message_bytes
    link = RemoteLink(spec.name, endpoint, endpoint.headers(), ears, limit_bytes)
    link.make_auth = lambda: provider
    async with link.running():
        link.write(wire.request(1, handshake.METHOD, handshake.initialize_params()))
        await over.wait()
    if link.failure is not None:
        raise link.failure


def _provider(url: str, wish: Wish, listener: anyio.abc.SocketListener) -> Any:
    """Return the SDK's provider, which does the whole of it when it meets a 401."""
    from mcp.client.auth import OAuthClientProvider, OAuthFlowError
    from mcp.shared.auth import (
        AuthorizationCodeResult,
        OAuthClientInformationFull,
        OAuthClientMetadata,
    )

    from octave.runtime.remote_guard import refuse_place
    from octave.runtime.remote_oauth import Kept

    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    known: dict[str, Any] = {
        "redirect_uris": [f"http://127.0.0.1:{port}{CALLBACK}"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
        "client_name": "Octave",
    }
    is_document = wish.client_id is not None and wish.client_id.startswith("https://")
    client = None
    if wish.client_id is not None and not is_document:
        client = OAuthClientInformationFull(client_id=wish.client_id, **known)

    asked: list[str] = []

    async def show(address: str) -> None:
        await refuse_place(url, address)
        # The server may have put questions of its own in front.
        asked.extend(parse_qs(address.rpartition("?")[2]).get("state", ()))
        wish.show(address)

    async def come_back() -> AuthorizationCodeResult:
        answer = await _come_back(listener, asked[-1])
        if "error" in answer:
            described = answer.get("error_description", "")
            raise OAuthFlowError(": ".join(filter(None, (answer["error"], described))))
        return AuthorizationCodeResult(
            code=answer.get("code", ""), state=answer.get("state"), iss=answer.get("iss")
        )

    return OAuthClientProvider(
        url,
        OAuthClientMetadata(**known),
        Kept(client),
        show,
        come_back,
        client_metadata_url=wish.client_id if is_document else None,
    )


@contextlib.asynccontextmanager
async def _listener(port: int) -> Any:
    try:
        several = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OctaveError(
            f"the browser cannot come back to port {port}: {reason}", hint="choose another `--port`"
        ) from error
    async with several:
        yield several.listeners[0]


async def _come_back(listener: anyio.abc.SocketListener, state: str) -> dict[str, str]:
    """Return what the browser brings, as the parameters of the address it was sent to.

    Any page can send a browser here, so that only what knows the `state` is the answer (RFC 6749,
    10.12); all else is sent away.
    """
    found: list[dict[str, str]] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        answer = None
        with anyio.move_on_after(REQUEST_S), contextlib.suppress(anyio.BrokenResourceError):
            async with stream:
                answer = _answer(await _target(stream), state)
                await stream.send(_page(is_it=answer is not None))
        if answer is not None:
            found.append(answer)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        await listener.serve(serve, tasks)
    return found[0]


def _answer(target: str, state: str) -> dict[str, str] | None:
    """Return the parameters of a request that answers; None for any other."""
    path, _, query = target.partition("?")
    parameters = parse_qs(query)
    shown = parameters.get("state", [])
    if path != CALLBACK or len(shown) != 1:
        return None
    if not hmac.compare_digest(shown[0].encode(errors="replace"), state.encode()):
        return None
    return {name: values[0] for name, values in parameters.items()}


async def _target(stream: anyio.abc.SocketStream) -> str:
    """Return what a GET asks for; nothing for anything else."""
    head = b""
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES:
            head += await stream.receive()
    method, _, rest = head.partition(b" ")
    return rest.partition(b" ")[0].decode(errors="replace") if method == b"GET" else ""


def _page(*, is_it: bool) -> bytes:
    body = _PAGE.format(_COME_BACK if is_it else "There is nothing here.").encode()
    status = "200 OK" if is_it else "404 Not Found"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\nReferrer-Policy: no-referrer\r\n\r\n"
    ).encode() + body
