"""Streamable HTTP: one POST for each message of a client, answered as JSON or as a stream.

Behind `guard.Guard`, as a Starlette route. A request names its era in its headers, or in its body;
the checks come in one order, the first that fails answers. An answer is JSON unless something must
be said before it, or it takes long: then it is a stream of server-sent events. Sources: MCP
2025-11-25 and 2026-07-28, transports.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import anyio
from starlette.types import Receive, Scope, Send

from octave.gateway import bridge, eras
from octave.gateway.audience import Scope as ServerScope
from octave.gateway.listing import text_of
from octave.gateway.naming import qualified
from octave.gateway.router import Router
from octave.gateway.session import Session
from octave.runtime import wire
from octave.serve import mcp_headers, sse
from octave.serve.mcp_headers import Rejection
from octave.serve.mcp_sessions import Conversations, LegacySession
from octave.serve.socket import Wish
from octave.serve.sse import Event, Reader

SILENCE_S = 15.0
"""Without a byte for longer, proxies and clients believe that the other end is gone."""

PRIMED_FROM = "2025-11-25"
"""The first version whose streams begin with an event that has an id only."""

ABORT = "octave.abort"
"""An extension of the ASGI scope: a function that drops the connection with all it should hear."""

_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_JSON = (b"content-type", b"application/json")
_Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Face:
    """What the HTTP side needs of the gateway."""

    router: Router
    scope_of: Callable[[Wish], ServerScope]
    """Says which servers an endpoint shows; raises `NotFound` for what is not there."""
    max_message_bytes: int
    clock: Callable[[], float] = time.monotonic
    """Monotonic, in seconds."""

    def open_session(self, scope: ServerScope, send: Callable[[bytes], None]) -> Session:
        """Return a conversation, still to be run, that says through `send` what it says unasked."""
        return Session(self.router, scope, send)

    def definition_of(self, scope: ServerScope, name: str) -> bytes | None:
        """Return the raw definition of a tool by its name in a scope, if it is known.

        A header is no reason to wake a server.
        """
        for server in self.router.names(scope):
            listing = self.router.catalogue.listing(server)
            if listing is None:
                continue
            key = qualified(server, name) if scope.single else name
            for entry in listing.tools.get(key, ()):
                if not scope.single or entry.name == name:
                    return entry.definition
        return None


class Endpoint:
    """The ASGI application of every MCP route; their names are its path parameters."""

    def __init__(self, face: Face) -> None:
        self.conversations = Conversations(face.open_session, face.scope_of, face.clock)
        self._face = face

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; raises `OctaveError` before anything is sent."""
        exchange = _Exchange(scope, receive, send)
        self.conversations.scope(exchange.wish)
        is_modern = mcp_headers.names_modern(exchange.headers)
        allowed = ("POST",) if is_modern else ("GET", "POST", "DELETE")
        if exchange.method not in allowed:
            await exchange.answer(405, headers=[(b"allow", ", ".join(allowed).encode())])
        elif exchange.method == "POST":
            await self._post(exchange, is_modern=is_modern)
        elif exchange.method == "GET":
            await self._get(exchange)
        else:
            session = await self._find(exchange)
            if session is not None:
                self.conversations.end(session)
                await exchange.answer(200)

    async def _post(self, exchange: "_Exchange", *, is_modern: bool) -> None:
        headers = exchange.headers
        if not mcp_headers.takes_json(headers) or not mcp_headers.takes_events(headers):
            text = "Accept must name application/json and text/event-stream"
            await exchange.refuse(406, wire.INVALID_REQUEST, text)
            return
        try:
            message = await exchange.message()
        except wire.Malformed as error:
            await exchange.refuse(400, error.code, str(error))
            return
        if message is None:
            return
        if is_modern or (message.is_request and eras.is_modern(message)):
            await self._modern(exchange, message)
        else:
            await self._legacy(exchange, message)

    # The modern era.

    async def _modern(self, exchange: "_Exchange", message: wire.Message) -> None:
        if not message.is_request:
            rejection = (
                mcp_headers.refuse_version(mcp_headers.first(exchange.headers, mcp_headers.VERSION))
                if message.is_notification
                else Rejection(wire.INVALID_REQUEST, "only requests and notifications are taken")
            )
            await (exchange.answer(202) if rejection is None else exchange.reject(rejection))
            return
        rejection = self._refuse_modern(exchange, message)
        if rejection is not None:
            await exchange.reject(rejection, message)
            return
        call = await self.conversations.begin(exchange.wish, message)
        try:
            await exchange.respond(call.stream.attach())
        finally:
            call.scope.cancel()

    def _refuse_modern(self, exchange: "_Exchange", message: wire.Message) -> Rejection | None:
        rejection = mcp_headers.refuse(exchange.headers, message)
        if rejection is not None:
            return rejection
        if message.method == "tools/call":
            scope = self.conversations.scope(exchange.wish)
            name = text_of(message.params, "name")
            definition = name and self._face.definition_of(scope, name)
            if definition:
                arguments = wire.member(message.params or b"{}", "arguments")
                return mcp_headers.refuse_params(definition, arguments, exchange.headers)
        if message.method in bridge.NOT_MODERN:
            return Rejection(wire.METHOD_NOT_FOUND, f"Method not found: {message.method}")
        return None

    # The handshake era.

    async def _legacy(self, exchange: "_Exchange", message: wire.Message) -> None:
        identifier = mcp_headers.first(exchange.headers, mcp_headers.SESSION_ID)
        if identifier is None and message.is_request and message.method == "initialize":
            await self._open(exchange, message)
            return
        session = await self._find(exchange, message)
        if session is None:
            return
        if message.is_request:
            await self._serve(exchange, session, message)
        else:
            session.take(message)
            await exchange.answer(202)

    async def _open(self, exchange: "_Exchange", message: wire.Message) -> None:
        if self.conversations.is_full:
            text = "too many sessions are open: end some of them by DELETE"
            await exchange.refuse(503, wire.INVALID_REQUEST, text, message)
            return
        session = await self.conversations.open(exchange.wish)
        try:
            await self._serve(exchange, session, message)
        finally:
            if not session.version:
                self.conversations.end(session)

    async def _serve(
        self, exchange: "_Exchange", session: LegacySession, message: wire.Message
    ) -> None:
        reader = session.begin(message)
        try:
            await exchange.respond(reader, session)
        finally:
            session.left(reader)

    async def _get(self, exchange: "_Exchange") -> None:
        if not mcp_headers.takes_events(exchange.headers):
            await exchange.refuse(406, wire.INVALID_REQUEST, "Accept must name text/event-stream")
            return
        session = await self._find(exchange)
        if session is None:
            return
        stream, place = session.loose, None
        event_id = mcp_headers.first(exchange.headers, mcp_headers.LAST_EVENT_ID)
        if event_id is not None:
            found = session.find(event_id)
            if found is None:
                text = "nothing is kept of the stream of this Last-Event-ID"
                await exchange.refuse(400, wire.INVALID_REQUEST, text)
                return
            stream, place = found
        elif stream.has_reader:
            text = "this session has a stand-alone stream already"
            await exchange.refuse(409, wire.INVALID_REQUEST, text)
            return
        reader = session.read(stream, place)
        try:
            await exchange.stream(reader, session)
        finally:
            session.left(reader)

    async def _find(
        self, exchange: "_Exchange", message: wire.Message | None = None
    ) -> LegacySession | None:
        """Return the session of a request; None when the client has been told that it has none."""
        identifier = mcp_headers.first(exchange.headers, mcp_headers.SESSION_ID)
        if identifier is None:
            text = "the Mcp-Session-Id header is missing"
            await exchange.refuse(400, wire.INVALID_REQUEST, text, message)
            return None
        session = self.conversations.find(identifier, exchange.wish)
        if session is None:
            text = "no such session: it has ended, or is not of this endpoint"
            await exchange.refuse(404, wire.INVALID_REQUEST, text, message)
        return session


class _Exchange:
    """One HTTP request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.headers = mcp_headers.read(scope["headers"])
        parameters = scope["path_params"]
        name = parameters.get("name")
        self.wish = Wish(() if name is None else (name,), parameters.get("profile"))
        self._receive = receive
        self._send = send
        self._abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, lambda: None)

    async def message(self) -> wire.Message | None:
        """Return the message that was posted; None when the client left before its end.

        Raises:
            Malformed: it is none.
        """
        body = b""
        more = True
        while more:
            piece = await self._receive()
            if piece["type"] == "http.disconnect":
                return None
            body += piece.get("body", b"")
            more = piece.get("more_body", False)
        message = wire.decode(body)
        if b"\n" in message.line or b"\r" in message.line:
            # Towards servers a message is one line. Within strings JSON has no line breaks.
            message = wire.decode(message.line.translate(_BREAKS))
        if message.method is not None and message.id == b"null":
            raise wire.Malformed("`id` is null", wire.INVALID_REQUEST)
        return message

    async def answer(self, status: int, body: bytes = b"", headers: Sequence[_Header] = ()) -> None:
        """Send a whole response."""
        length = (b"content-length", str(len(body)).encode())
        kind = [_JSON] if body else []
        await self._begin(status, [length, *kind, *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(
        self, status: int, code: int, text: str, message: wire.Message | None = None
    ) -> None:
        """Send an error under the id of `message`, if it is a request."""
        identifier = message.id if message is not None and message.is_request else None
        await self.answer(status, wire.error(identifier, code, text))

    async def reject(self, rejection: Rejection, message: wire.Message | None = None) -> None:
        """Send what is wrong with a modern message."""
        identifier = message.id if message is not None else None
        error = wire.error(identifier, rejection.code, rejection.message, rejection.data)
        await self.answer(rejection.status, error)

    async def respond(self, reader: Reader, session: LegacySession | None = None) -> None:
        """Send what `reader` gives up to the answer; as JSON, where that is all there is in time.

        Returns early when the client leaves, or does not read. Without a session it is modern.
        """
        async with self._watched(reader):
            first = None
            with anyio.move_on_after(SILENCE_S):
                first = await reader.next()
            if first is None or not first.is_answer:
                await self._stream(reader, session, first)
            elif session is None:
                await self.answer(_status(first.line), first.line)
            else:
                # A session that could not begin has no id.
                headers = [_session_id(session)] if session.version else []
                await self.answer(200, first.line, headers)

    async def stream(self, reader: Reader, session: LegacySession) -> None:
        """Send what `reader` gives as events, from now on."""
        async with self._watched(reader):
            await self._stream(reader, session, None)

    async def _stream(
        self, reader: Reader, session: LegacySession | None, event: Event | None
    ) -> None:
        stream = reader.stream
        headers = [*sse.HEADERS, *([] if session is None else [_session_id(session)])]
        await self._begin(200, headers)
        is_primed = session is not None and session.version >= PRIMED_FROM
        data = stream.prime(event) if is_primed else b""
        data += sse.COMMENT if event is None else stream.encode(event)
        while True:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            if event is not None and event.is_answer:
                break
            with anyio.move_on_after(SILENCE_S) as wait:
                event = None
                event = await reader.next()
            if event is None and not wait.cancelled_caught:
                break
            data = sse.COMMENT if event is None else stream.encode(event)
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self, status: int, headers: Sequence[_Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    @contextlib.asynccontextmanager
    async def _watched(self, reader: Reader) -> AsyncIterator[None]:
        """Leave the scope early when the client has left, or is too far behind."""
        async with anyio.create_task_group() as tasks:

            def cut() -> None:
                self._abort()
                tasks.cancel_scope.cancel()

            async def watch() -> None:
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            reader.on_cut = cut
            tasks.start_soon(watch)
            yield
            tasks.cancel_scope.cancel()


def _session_id(session: LegacySession) -> _Header:
    return mcp_headers.SESSION_ID.encode(), session.id.encode()


def _status(answer: bytes) -> int:
    """Return the HTTP status of a modern answer."""
    if b'"error"' not in answer:
        return 200
    # It may be nested as deeply as it could be read, and not be read once more.
    code = wire.member(answer, "error", "code") or b""
    return {b"%d" % each: status for each, status in mcp_headers.STATUS_OF.items()}.get(code, 200)
