"""One gate before every route: Host, Origin, token, body size, content type, in that order.

Any web page can reach a port on loopback, so nothing behind this gate is reached without the
token, and no CORS header is ever sent. Pure ASGI; it reads the whole body, so that a chunked one
is measured too, and hands it on as it came.
"""

import contextlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octave.serve.use import Use

BODY_LIMIT_BYTES = 4 * 2**20
"""As much as the MCP SDKs take; arguments of a call are far smaller."""

MESSAGES_AT = ("/mcp/servers/", "/mcp/profiles/")
"""What is posted below is a message of MCP, as it is at `/mcp`, and may be as long as one."""

LINGER_BYTES = 16 * 2**20
LINGER_S = 5.0
"""So much of a refused body is read, so that the client hears why; beyond, the link is cut."""

OPEN_ROUTE = ("GET", "/health")
"""Says only that a runtime lives here, and which version."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request went no further."""

    status: int
    code: str
    message: str
    hint: str | None = None

    def body(self) -> bytes:
        """Return ``{"error": {"code", "message", "hint"}}``."""
        error = {"code": self.code, "message": self.message, "hint": self.hint}
        return json.dumps({"error": error}, separators=(",", ":")).encode()


_HOST = Refusal(
    421,
    "host_refused",
    "the Host header does not name this runtime",
    "use http://127.0.0.1 with the runtime's port, or name the host in `allowed_hosts`",
)
_ORIGIN = Refusal(403, "origin_refused", "requests from other web pages are refused")
_TOKEN = Refusal(
    401,
    "token_invalid",
    "the bearer token is missing or wrong",
    "send `Authorization: Bearer` with the content of the file `run/token`",
)
_CONTENT_TYPE = Refusal(
    415,
    "content_type_refused",
    "the body must be JSON",
    "send `Content-Type: application/json`",
)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who is let in: who knows the token, and names one of our hosts, loopback or a further one."""

    token: str = field(repr=False)
    allowed_hosts: tuple[str, ...] = ()
    use: Use = field(default_factory=Use)
    """Told of each request of theirs."""


class Guard:
    """ASGI middleware that lets only well-addressed, authorized, bounded JSON requests through.

    Args:
        app: what lies behind the gate.
        port: the one the runtime listens on; part of every allowed Host.
        token: at least 256 bit.
        allowed_hosts: further whole Host values, port included where clients send one.
        max_message_bytes: the longest message of MCP.
        use: told of each request that had the token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        port: int,
        token: str,
        allowed_hosts: Iterable[str] = (),
        max_message_bytes: int = BODY_LIMIT_BYTES,
        use: Use | None = None,
    ) -> None:
        hosts = [f"{name}:{port}" for name in _LOOPBACK]
        hosts.extend(name.lower() for name in allowed_hosts)
        self._app = app
        self._hosts = frozenset(name.encode("latin-1", "replace") for name in hosts)
        self._origins = frozenset(b"http://" + host for host in self._hosts)
        self._token = token.encode()
        self._max_message_bytes = max_message_bytes
        self._use = use or Use()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; hand the others on with their body already read."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        limit_bytes = self._limit_bytes(scope["path"])
        refusal = self._refuse_head(scope, limit_bytes)
        body = b""
        if refusal is None:
            read = await _read_body(receive, limit_bytes)
            if read is None:
                return
            body = read
            refusal = (
                _too_large(limit_bytes) if len(body) > limit_bytes else _refuse_type(scope, body)
            )
        if refusal is not None:
            if refusal.status == 413:
                await _discard(receive)
            await _answer(send, refusal)
            return
        # Anybody may ask whether it is alive, and does not keep it so.
        with contextlib.nullcontext() if _is_open(scope) else self._use.one():
            await self._app(scope, _replay(body, receive), send)

    def _limit_bytes(self, path: str) -> int:
        is_message = path == "/mcp" or path.startswith(MESSAGES_AT)
        return self._max_message_bytes if is_message else BODY_LIMIT_BYTES

    def _refuse_head(self, scope: Scope, limit_bytes: int) -> Refusal | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _HOST
        origins = _values(scope, b"origin")
        if origins and (len(origins) > 1 or origins[0].lower() not in self._origins):
            return _ORIGIN
        if not _is_open(scope) and not self._is_authorized(_values(scope, b"authorization")):
            return _TOKEN
        lengths = _values(scope, b"content-length")
        if any(not value.isdigit() or int(value) > limit_bytes for value in lengths):
            return _too_large(limit_bytes)
        return None

    def _is_authorized(self, values: Sequence[bytes]) -> bool:
        if len(values) != 1:
            return False
        scheme, _, token = values[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _is_open(scope: Scope) -> bool:
    return (scope["method"], scope["path"]) == OPEN_ROUTE


def _values(scope: Scope, name: bytes) -> list[bytes]:
    # ASGI gives header names in lower case; the HTTP parser trimmed the values.
    return [value for key, value in scope["headers"] if key == name]


def _too_large(limit_bytes: int) -> Refusal:
    size = f"{limit_bytes / 2**20:g} MiB" if limit_bytes >= 2**20 else f"{limit_bytes} bytes"
    return Refusal(413, "body_too_large", f"the body is larger than {size}")


def _refuse_type(scope: Scope, body: bytes) -> Refusal | None:
    if scope["method"] in {"GET", "HEAD"}:
        return None
    types = _values(scope, b"content-type")
    if not body and not types:
        return None
    media_types = [value.split(b";")[0].strip().lower() for value in types]
    return None if media_types == [b"application/json"] else _CONTENT_TYPE


async def _read_body(receive: Receive, limit_bytes: int) -> bytes | None:
    """Return the body, at most one piece longer than the limit; None when the client left."""
    body = bytearray()
    while len(body) <= limit_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


async def _discard(receive: Receive) -> None:
    """Take the rest of a body that is too large: a client that still sends sees no answer."""
    left = LINGER_BYTES
    with anyio.move_on_after(LINGER_S):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _answer(send: Send, refusal: Refusal) -> None:
    body = refusal.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
