"""What HTTP needs beside the lines: headers, the protocol version, and whose answer something is.

The SDK's transport is given stand-ins that carry a ticket; the line itself takes their place when
the request is made, so that it arrives byte for byte. Loaded with the SDK, see `remote_server`.
"""

import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import anyio
import httpx2  # noqa: TID253 - this module is loaded late itself
from mcp.shared.inbound import (  # noqa: TID253
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.message import ClientMessageMetadata, SessionMessage  # noqa: TID253
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse  # noqa: TID253

from octave.runtime import handshake, wire
from octave.runtime.remote_server import Post, RemoteLink
from octave.runtime.remote_stream import EventStream, messages
from octave.runtime.wire import Message

TICKET = "octave"
HEADER_MISMATCH = b"-32020"
NOTES_LIMIT = 1024
"""A line becomes a request as soon as the SDK has its stand-in; what is left over it has swallowed,
such as a cancellation that closes a stream."""
METHODS_LIMIT = 256
"""Of what was asked and never answered."""
TOOLS_LIMIT = 4096
"""With arguments in headers; a server may name others each time."""
_LISTED = "tools/list"
_CANCELLED = "notifications/cancelled"
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")
_VERSION = handshake.VERSION_KEY.encode()


@dataclass(slots=True)
class Note:
    """A line on its way, and what is known of it."""

    post: Post
    message: Message
    is_modern: bool
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def ticket(self) -> int:
        """Its ticket."""
        return self.post.ticket


class Talk:
    """One conversation."""

    def __init__(self, link: RemoteLink, *, is_older: bool = False) -> None:
        self.link = link
        self.is_older = is_older
        """By the transport of MCP 2024-11-05: answers come on the one stream."""
        self.wants_older = anyio.Event()
        """Set when the server has turned out to know that transport alone."""
        self.refused_post: Post | None = None
        self.refusal = ""
        """What it answered to the first line, and how."""
        self.version: str | None = None
        """The protocol version that `initialize` agreed upon."""
        self.has_answered = False
        """Something came that a server of Streamable HTTP would say."""
        self._notes: dict[int, Note] = {}
        self._methods: dict[bytes, str] = {}
        self._parameters: dict[str, dict[tuple[str, ...], str]] = {}

    # Out.

    def stand_in(self, post: Post) -> SessionMessage:
        """Return what the SDK is to send in place of the line.

        Raises:
            wire.Malformed: the line is no message.
        """
        message = wire.decode(post.line)
        meta = wire.member(message.params or b"{}", "_meta") or b"{}"
        version = wire.member(meta, handshake.VERSION_KEY) if _VERSION in meta else None
        note = Note(post, message, version is not None)
        note.headers = self._headers(message, version)
        _keep(self._notes, post.ticket, note, NOTES_LIMIT)
        if message.method in {handshake.METHOD, _LISTED} and message.id is not None:
            _keep(self._methods, message.id, message.method, METHODS_LIMIT)
        return SessionMessage(_stand_in(message, post.ticket), _metadata(note.headers))

    def note_of(self, body: Any) -> Note | None:
        """Return the line whose stand-in that is, once."""
        for name in ("params", "result"):
            ticket = body.get(name, {}).get(TICKET) if isinstance(body, dict) else None
            if ticket is not None:
                return self._notes.pop(ticket, None)
        return None

    def parameter_headers(self, message: Message) -> dict[str, str]:
        """Return the `Mcp-Param-*` headers of a call, as far as its tool's schema is known here."""
        if message.method != "tools/call" or not self._parameters:
            return {}
        wanted = self._parameters.get(str(_value(message.params, "name")))
        arguments = _value(message.params, "arguments")
        if not wanted or not isinstance(arguments, dict):
            return {}
        return mcp_param_headers(wanted, arguments)

    def _headers(self, message: Message, version: bytes | None) -> dict[str, str]:
        """Return the headers of one line (MCP 2026-07-28, transports, request headers)."""
        if version is None:
            is_first = self.version is None or message.method == handshake.METHOD
            return {} if is_first else {MCP_PROTOCOL_VERSION_HEADER: str(self.version)}
        method = message.method or ""
        headers = {
            MCP_PROTOCOL_VERSION_HEADER: str(json.loads(version)),
            MCP_METHOD_HEADER: encode_header_value(method),
        }
        name = _value(message.params, NAME_BEARING_METHODS.get(method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        return headers | self.parameter_headers(message)

    def question_about_tools(
        self, note: Note, cursor: bytes | None
    ) -> tuple[bytes, dict[str, str]]:
        """Return a modern `tools/list` on behalf of another line, and its headers."""
        meta = wire.member(note.message.params or b"{}", "_meta") or b"{}"
        keys = (handshake.VERSION_KEY, handshake.CAPABILITIES_KEY, handshake.CLIENT_INFO_KEY)
        found = {key: wire.member(meta, key) for key in keys}
        members = b",".join(b'"%b":%b' % (key.encode(), raw) for key, raw in found.items() if raw)
        more = b"" if cursor is None else b',"cursor":%b' % cursor
        line = wire.request(b'"octave"', _LISTED, b'{"_meta":{%b}%b}' % (members, more))
        return line, self._headers(wire.decode(line), found[handshake.VERSION_KEY])

    # In.

    def may_be_older(self, note: Note) -> bool:
        """Whether one that refuses that line may know the older transport alone."""
        is_first = note.message.method == handshake.METHOD
        return is_first and not self.has_answered and not self.is_older

    def turn_older(self, note: Note, refusal: str) -> None:
        """Take note that the first line was refused in the way of the older transport."""
        self.refused_post, self.refusal = note.post, refusal
        self.wants_older.set()

    def learn_page(self, response: httpx2.Response) -> bytes | None:
        """Take the answer to `question_about_tools`; return the cursor of the next page."""
        found: list[bytes] = []

        def keep(line: bytes | wire.Oversize) -> bool:
            found.append(line if isinstance(line, bytes) else b"")
            return True

        if is_stream(response):
            EventStream(self.link.limit_bytes, keep, lambda *_: False).feed(response.content)
        else:
            found = messages(response.content)
        for line in found:
            result = wire.member(line, "result") if wire.is_object(line) else None
            if result is not None:
                self.learn_tools(result)
                cursor = wire.member(result, "nextCursor")
                return None if cursor == b"null" else cursor
        return None

    def hear(self, line: bytes) -> bool:
        """Take a message of the server; tell whether it is an answer."""
        self.has_answered = True
        try:
            message = wire.decode(line)
        except wire.Malformed:
            self.link.heard(line)
            return _id_of(line, line) is not None
        if message.is_answer:
            self._learn(message)
        self.link.heard(message.line)
        return message.is_answer

    def hear_oversize(self, cut: wire.Oversize, note: Note | None) -> bool:
        """Take both ends of a message over the limit; tell whether it is an answer."""
        identifier = _id_of(cut.head, cut.tail)
        if identifier is None and note is not None:
            identifier = note.message.id
        if identifier is None:
            return False
        text = (
            f"`{self.link.name}` sent a message of {cut.size_bytes:,} bytes, too large: the limit"
            f" is {self.link.limit_bytes:,}; raise `max_message` in the [runtime] table"
        )
        self.link.heard(wire.error(identifier, wire.INTERNAL_ERROR, text))
        return True

    def learn_tools(self, listed: bytes) -> None:
        """Remember which arguments of the tools in that list are shown in headers, too."""
        tools = wire.elements(wire.member(listed, "tools") or b"[]")
        for tool in tools:
            name = _value(tool, "name")
            self._parameters.pop(str(name), None)
            if b"x-mcp-header" in tool:
                schema = _value(tool, "inputSchema")
                if find_invalid_x_mcp_header(schema) is None:
                    wanted = x_mcp_header_map(schema)
                    _keep(self._parameters, str(name), wanted, TOOLS_LIMIT)

    def _learn(self, message: Message) -> None:
        method = self._methods.pop(message.id or b"", None)
        if message.result is None or method is None:
            return
        if method == handshake.METHOD:
            version = _value(message.result, "protocolVersion")
            self.version = version if isinstance(version, str) else None
        elif self._parameters or b"x-mcp-header" in message.result:
            self.learn_tools(message.result)


def reason(response: httpx2.Response) -> str:
    """Return how an answer that is none looks, such as `503 Service Unavailable`."""
    return f"{response.status_code} {response.reason_phrase}".strip()


def is_json(response: httpx2.Response) -> bool:
    """Whether its body says that it is JSON."""
    return _type_of(response) == "application/json"


def is_stream(response: httpx2.Response) -> bool:
    """Whether its body says that it is a stream of events."""
    return _type_of(response) == "text/event-stream"


def error_in(bodies: Iterable[bytes]) -> Message | None:
    """Return the JSON-RPC error that a refusal consists of."""
    for body in bodies:
        try:
            message = wire.decode(body)
        except wire.Malformed:
            continue
        if message.is_answer and message.error is not None:
            return message
    return None


def under_id(message: Message, identifier: bytes) -> bytes:
    """Return the line of an error under the id of its request, which the server may not know."""
    if message.id is None:
        return b'{"id":%b,%b' % (identifier, message.line.lstrip()[1:])
    return wire.splice(message.line, {("id",): identifier})


def same_origin(url: str, other: str) -> bool:
    """Whether `other`, which may be relative to `url`, leads to the same scheme, host and port."""
    one, two = urlsplit(url), urlsplit(urljoin(url, other))
    return (one.scheme, one.netloc.lower()) == (two.scheme, two.netloc.lower())


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value, limit: int) -> None:
    """Keep one more, and of all the newest."""
    kept[key] = value
    if len(kept) > limit:
        del kept[next(iter(kept))]


def _type_of(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _metadata(headers: dict[str, str]) -> ClientMessageMetadata:
    return ClientMessageMetadata(headers=headers)


def _stand_in(
    message: Message, ticket: int
) -> JSONRPCRequest | JSONRPCNotification | JSONRPCResponse:
    carried: dict[str, Any] = {TICKET: ticket}
    if message.method is None:
        return JSONRPCResponse(jsonrpc="2.0", id=0, result=carried)
    if message.id is None:
        if message.method == _CANCELLED:
            carried["requestId"] = _value(message.params, "requestId")
        return JSONRPCNotification(jsonrpc="2.0", method=message.method, params=carried)
    identifier = json.loads(message.id)
    return JSONRPCRequest(jsonrpc="2.0", id=identifier, method=message.method, params=carried)


def _id_of(head: bytes, tail: bytes) -> bytes | None:
    head = head[: wire.HEAD_BYTES]
    return wire.scan_id(head) or wire.id_at_end(head, tail[-wire.TAIL_BYTES :])


def _value(raw: bytes | None, name: str) -> Any:
    found = wire.member(raw, name) if raw and name else None
    try:
        return None if found is None else json.loads(found)
    except (ValueError, RecursionError):
        return None
