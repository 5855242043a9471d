"""The HTTP client that the SDK's transports are given: what goes out, and what comes back of it.

Lines leave as they are in place of their stand-ins, and messages reach the link before the SDK sees
what is left of the bodies. Whatever ends the conversation is told to the link, never raised: the
SDK would take down all other requests with it. Loaded with the SDK, see `remote_server`.
"""

import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx2  # noqa: TID253 - this module is loaded late itself
from mcp.client.auth import OAuthFlowError  # noqa: TID253

from octave.errors import OctaveError, StartFailed
from octave.runtime import handshake, remote_failures, remote_guard, wire
from octave.runtime.remote_guard import NOTE
from octave.runtime.remote_stream import DONE, EventStream, messages
from octave.runtime.remote_talk import (
    HEADER_MISMATCH,
    Note,
    Talk,
    error_in,
    is_json,
    is_stream,
    reason,
    same_origin,
    under_id,
)

CONNECT_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 30.0
"""Between two pieces of a request that the server takes. Answers have the deadlines of calls."""
CONNECTIONS = 512
"""Each call and each stream has one: twice as many as a server may have calls."""
IDLE_CONNECTIONS = 16
KEEP_ALIVE_S = 4.0
"""Node and uvicorn close a connection that was idle for 5 s; a request must not meet that."""
COOKIES_LIMIT = 64
"""Some balancers find their server again by one; whoever sets more has forgotten the others."""
PAGES = 20
"""Of a list of tools that is read for the headers of one call."""

_GATEWAY = frozenset({502, 503, 504})
"""Said by what stands before a server that is down."""
_OLDER = frozenset({400, 404, 405, 406, 410, 415})
"""How a server of HTTP+SSE alone may refuse a POST (MCP 2025-11-25, backwards compatibility)."""
_DROPPED = frozenset({b"content-length", b"content-encoding", b"transfer-encoding"})
_SESSION = "mcp-session-id"


class Client(httpx2.AsyncClient):
    """A client for one conversation.

    Args:
        talk: what the lines are, and whom to tell.
        auth: the `httpx2.Auth` that says who asks; None when the headers do.
    """

    def __init__(self, talk: Talk, auth: Any) -> None:
        super().__init__(
            auth=auth,
            headers=talk.link.headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S, write=WRITE_TIMEOUT_S),
            limits=httpx2.Limits(
                max_connections=CONNECTIONS,
                max_keepalive_connections=IDLE_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
            event_hooks=remote_guard.hooks(talk.link.endpoint.url),
        )
        self._talk = talk
        self._link = talk.link

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        """Build the request for a stand-in, with the line it stands for."""
        note = self._talk.note_of(options.pop("json", None))
        extensions: dict[str, Any] = {NOTE: note}
        if note is not None:
            options["content"] = note.message.line
            options["headers"] = {"content-type": "application/json"} | (
                options.get("headers") or {}
            )
            extensions["trace"] = partial(self._traced, note.ticket)
        return super().build_request(method, url, extensions=extensions, **options)

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send it; what is returned is for the SDK, and never an error that ends everything."""
        note: Note | None = request.extensions.get(NOTE)
        if request.method == "DELETE" and self._link.failure is not None:
            return httpx2.Response(405, request=request)
        if "last-event-id" in request.headers and _is_deep():
            return httpx2.Response(410, request=request)
        try:
            response = await self._sent(request, options)
            if note is not None and note.is_modern and response.status_code == 400:
                response = await self._with_parameters(note, response, options)
            return await self._received(response, note)
        except OAuthFlowError as error:
            self._link.broke(remote_failures.refused(self._link, error))
        except httpx2.InvalidURL:
            self._link.broke(remote_failures.lost(self._link, "names an address that is none"))
        except (httpx2.HTTPError, OctaveError) as error:
            self._link.broke(remote_failures.of(self._link, error))
        return httpx2.Response(503, request=request)

    async def _sent(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        try:
            return await super().send(request, **options)
        except (ValueError, OverflowError) as error:
            if self.auth is None:
                raise
            # The SDK reads of a login what strangers wrote: odd characters, numbers without end.
            raise OAuthFlowError("its server's answer cannot be read") from error

    async def _traced(self, ticket: int, event: str, _: Any) -> None:
        if event.endswith(".send_request_headers.started"):
            self._link.left(ticket)

    # What came back.

    async def _received(self, response: httpx2.Response, note: Note | None) -> httpx2.Response:
        if len(self.cookies.jar) > COOKIES_LIMIT:
            self.cookies.clear()
        if response.next_request is not None:
            return response
        if not _is_visible(response.headers.get(_SESSION, "")):
            failure = remote_failures.lost(self._link, "names its session in odd characters")
            return await self._over(response, note, failure)
        if response.status_code == 401:
            return await self._over(response, note, self._unauthorized(response))
        if response.is_success and is_stream(response):
            return self._streamed(response, note)
        if note is not None and note.message.is_request:
            return await self._answered(response, note)
        if response.status_code == 404 and self._is_session_over(response.request, note):
            return await self._session_over(response, note)
        if self._talk.is_older and response.is_error and note is not None:
            failure = remote_failures.lost(self._link, f"answered {reason(response)}")
            return await self._over(response, note, failure)
        return response

    async def _answered(self, response: httpx2.Response, note: Note) -> httpx2.Response:
        """Take an answer that is no stream; what the SDK sees of it says that there was one."""
        if response.is_success and self._talk.is_older:
            return response
        body = await self._body(response, note)
        if response.is_success and is_json(response):
            for line in messages(body) if body else ():
                self._talk.hear(line)
            return self._done(response)
        error = error_in(messages(body) if body and is_json(response) else ())
        is_known = error is not None and error.error is not None
        if response.status_code == 404 and self._is_session_over(response.request, note):
            unknown = wire.member(error.error, "code") if error and error.error else None
            if unknown != b"%d" % wire.METHOD_NOT_FOUND:
                return await self._session_over(response, note)
        if error is not None and is_known:
            self._talk.hear(under_id(error, note.message.id or b"null"))
            return self._done(response)
        return await self._refused(response, note)

    async def _refused(self, response: httpx2.Response, note: Note) -> httpx2.Response:
        """Take a refusal that is no JSON-RPC error."""
        is_first = note.message.method in {handshake.METHOD, handshake.DISCOVER}
        words = f"answered {reason(response)}"
        if response.status_code in _OLDER and self._talk.may_be_older(note):
            self._talk.turn_older(note, reason(response))
            return self._done(response)
        if is_first and response.status_code in _GATEWAY:
            failure = remote_failures.lost(self._link, words)
            return await self._over(response, note, failure)
        if is_first and response.status_code == 403:
            return await self._over(response, note, self._unauthorized(response))
        if response.is_success:
            kind = response.headers.get("content-type", "").partition(";")[0] or "nothing"
            words += f" with {kind}, which is no MCP"
        elif "insufficient_scope" in response.headers.get("www-authenticate", ""):
            words += ": the login does not reach so far"
        code = wire.METHOD_NOT_FOUND if response.status_code == 404 else wire.INTERNAL_ERROR
        text = f"`{self._link.name}` at `{self._link.host}` {words}"
        self._link.heard(wire.error(note.message.id, code, self._link.mask.text(text)))
        return self._done(response)

    def _streamed(self, response: httpx2.Response, note: Note | None) -> httpx2.Response:
        """Return a response whose stream is what the SDK may see of it."""
        events = EventStream(
            self._link.limit_bytes,
            partial(self._heard, note),
            partial(self._announced, str(response.request.url)),
        )
        body = _Seen(response, events, is_resumed=response.request.method == "GET")
        return self._in_place_of(response, body)

    def _heard(self, note: Note | None, line: bytes | wire.Oversize) -> bool:
        if isinstance(line, wire.Oversize):
            return self._talk.hear_oversize(line, note)
        answers = [self._talk.hear(each) for each in messages(line)]
        return any(answers)

    def _announced(self, url: str, event: bytes, data: bytes) -> bool:
        # Headers and tokens go to wherever this points.
        if event == b"endpoint" and not same_origin(url, data.decode(errors="replace")):
            failure = remote_failures.lost(self._link, "sends its clients to another host")
            self._link.broke(failure)
            return False
        return True

    # What is told to the SDK, and what ends.

    async def _body(self, response: httpx2.Response, note: Note) -> bytes:
        """Return the body; empty when it is over the limit, which then is the answer."""
        found = bytearray()
        size_bytes = 0
        async for chunk in response.aiter_bytes():
            size_bytes += len(chunk)
            if size_bytes <= self._link.limit_bytes:
                found += chunk
        await response.aclose()
        if size_bytes <= self._link.limit_bytes:
            return bytes(found)
        self._talk.hear_oversize(wire.Oversize(b"", size_bytes), note)
        return b""

    def _done(self, response: httpx2.Response) -> httpx2.Response:
        if self._talk.is_older:
            return httpx2.Response(202, request=response.request)
        headers = [("content-type", "application/json")]
        session = response.headers.get(_SESSION)
        if session is not None:
            headers.append((_SESSION, session))
        return httpx2.Response(200, headers=headers, content=DONE, request=response.request)

    async def _whole(self, response: httpx2.Response, note: Note) -> httpx2.Response:
        """Return the response with its body at hand; without one that is over the limit."""
        body = await self._body(response, note)
        return httpx2.Response(
            response.status_code, headers=_kept(response), content=body, request=response.request
        )

    def _in_place_of(
        self, response: httpx2.Response, stream: httpx2.AsyncByteStream
    ) -> httpx2.Response:
        return httpx2.Response(
            response.status_code, headers=_kept(response), stream=stream, request=response.request
        )

    async def _over(
        self, response: httpx2.Response, note: Note | None, failure: StartFailed
    ) -> httpx2.Response:
        """End the conversation; a line that was refused was not acted upon."""
        await response.aclose()
        if note is not None:
            self._link.refused(note.ticket)
        self._link.broke(failure)
        return httpx2.Response(503, request=response.request)

    def _unauthorized(self, response: httpx2.Response) -> StartFailed:
        was_logged_in = "authorization" in response.request.headers
        return remote_failures.unauthorized(self._link, was_logged_in=was_logged_in)

    def _is_session_over(self, request: httpx2.Request, note: Note | None) -> bool:
        return _SESSION in request.headers and not (note is not None and note.is_modern)

    async def _session_over(self, response: httpx2.Response, note: Note | None) -> httpx2.Response:
        failure = remote_failures.lost(self._link, "ended the session")
        return await self._over(response, note, failure)

    # Headers that mirror arguments.

    async def _with_parameters(
        self, note: Note, response: httpx2.Response, options: dict[str, Any]
    ) -> httpx2.Response:
        """Ask again with the headers that a tool wants, if it is for them that it was refused.

        Which those are stands in the list of tools, which nobody may have read here yet.
        """
        response = await self._whole(response, note)
        error = error_in(messages(response.content) if is_json(response) else ())
        code = wire.member(error.error, "code") if error and error.error else None
        if code != HEADER_MISMATCH or note.message.method != "tools/call":
            return response
        await self._list_tools(note, response.request)
        headers = self._talk.parameter_headers(note.message)
        if not headers:
            return response
        request = response.request
        request.headers.update(headers)
        return await super().send(request, **options)

    async def _list_tools(self, note: Note, request: httpx2.Request) -> None:
        headers = {
            name: value
            for name, value in request.headers.multi_items()
            if not name.startswith("mcp-") and name not in {"content-length", "authorization"}
        }
        cursor: bytes | None = None
        for _ in range(PAGES):
            line, more = self._talk.question_about_tools(note, cursor)
            asked = super().build_request(
                "POST", request.url, content=line, headers=headers | more, extensions={NOTE: None}
            )
            response = await super().send(asked, stream=True)
            if not response.is_success:
                await response.aclose()
                return
            cursor = self._talk.learn_page(await self._whole(response, note))
            if cursor is None:
                return


def _kept(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response whose body is another one by now, as they came."""
    return [item for item in response.headers.raw if item[0].lower() not in _DROPPED]


def _is_deep() -> bool:
    """Whether what goes on now was called by so much that it must come to an end.

    The SDK resumes a stream that ended from within the last time that it did.
    """
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth > sys.getrecursionlimit() // 2


def _is_visible(header: str) -> bool:
    # MCP 2025-11-25, session management. Anything else could not be sent back.
    return header.isascii() and header.isprintable()


class _Seen(httpx2.AsyncByteStream):
    """What the SDK may see of a stream of events, while the messages in it go another way."""

    def __init__(self, response: httpx2.Response, events: EventStream, *, is_resumed: bool) -> None:
        self._response = response
        self._events = events
        self._is_resumed = is_resumed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_bytes():
                seen = self._events.feed(chunk)
                if seen:
                    yield seen
        except httpx2.TransportError:
            # The SDK opens a stream anew that ended, and gives up on one that broke twice.
            if not self._is_resumed:
                raise

    async def aclose(self) -> None:
        await self._response.aclose()
