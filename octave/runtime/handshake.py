"""What opens a conversation with a server, in either era, and what an answer to it is worth. Pure.

Legacy: `initialize`, then `notifications/initialized` (MCP 2025-11-25, lifecycle). Modern: nothing
has to be said first, `server/discover` only asks who is there, and every request carries an
envelope in its `_meta` (MCP 2026-07-28, basic). Legacy goes first: an unknown first message ends
some servers, and others leave it unanswered.
"""

import json
from dataclasses import dataclass
from typing import Literal

from octave import __version__
from octave.runtime import wire
from octave.runtime.json_edit import with_first, without
from octave.runtime.wire import Message

Era = Literal["legacy", "modern"]

METHOD = "initialize"
DONE = "notifications/initialized"
DISCOVER = "server/discover"
PROTOCOL_VERSION = "2025-11-25"
MODERN_VERSION = "2026-07-28"
VERSION_UNSUPPORTED = -32022
"""How a server of MCP 2026-07-28 refuses an `initialize`; the versions it speaks are in `data`."""
CLIENT_INFO = json.dumps({"name": "octave", "version": __version__}).encode()
ALL_CAPABILITIES = (
    b'{"roots":{"listChanged":true},"sampling":{},"elicitation":{"form":{},"url":{}}}'
)
"""What clients can be asked, all of it: a server that serves several is told so but once."""

_OF_DISCOVER = frozenset({"resultType", "ttlMs", "cacheScope", "supportedVersions", "_meta"})
_PREFIX = "io.modelcontextprotocol/"
VERSION_KEY = f"{_PREFIX}protocolVersion"
CAPABILITIES_KEY = f"{_PREFIX}clientCapabilities"
CLIENT_INFO_KEY = f"{_PREFIX}clientInfo"


def initialize_params(capabilities: bytes = b"{}", client_info: bytes | None = None) -> bytes:
    """Return the params of an `initialize` that announces raw `capabilities`.

    `client_info`, raw, says whose they are; if it is no object, they are Octave's own.
    """
    info = client_info or b""
    return b'{"protocolVersion":"%b","capabilities":%b,"clientInfo":%b}' % (
        PROTOCOL_VERSION.encode(),
        capabilities,
        info if info.startswith(b"{") else CLIENT_INFO,
    )


ENVELOPE = b'"%b":"%b","%b":{},"%b":%b' % (
    VERSION_KEY.encode(),
    MODERN_VERSION.encode(),
    CAPABILITIES_KEY.encode(),
    CLIENT_INFO_KEY.encode(),
    CLIENT_INFO,
)
"""The members of `_meta` in Octave's own modern requests: it answers no questions."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a conversation is opened, and as whom."""

    era: Era | None = None
    """None: legacy, unless the server then says that it speaks newer versions only."""
    params: bytes = initialize_params()
    """Of the `initialize`, raw."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server said of itself."""

    result: bytes
    """The `result` of `initialize` or `server/discover`, as the server wrote it."""
    protocol_version: str
    era: Era


class Refused(Exception):
    """Raised for an answer that opens nothing; the reason follows the server's name."""


def read(answer: Message) -> Greeting:
    """Return what the answer to `initialize` says.

    Raises:
        Refused: it is an error, or no result of that method.
    """
    version = None if answer.result is None else _text(answer.result, "protocolVersion")
    if answer.result is None or version is None:
        raise Refused(_reason(answer, METHOD, "protocolVersion"))
    return Greeting(answer.result, version, "legacy")


def read_discover(answer: Message) -> Greeting:
    """Return what the answer to `server/discover` says.

    Raises:
        Refused: it is an error, or the server does not speak `MODERN_VERSION`.
    """
    versions = None if answer.result is None else wire.member(answer.result, "supportedVersions")
    if answer.result is None or versions is None:
        raise Refused(_reason(answer, DISCOVER, "supportedVersions"))
    if b'"%b"' % MODERN_VERSION.encode() not in wire.elements(versions):
        shown = versions.decode(errors="replace")
        raise Refused(f"speaks no protocol version that Octave does, but {shown}")
    return Greeting(answer.result, MODERN_VERSION, "modern")


def wants_modern(answer: Message) -> bool:
    """Whether a refusal of `initialize` says that the server speaks newer versions only."""
    if answer.error is None:
        return False
    # Every legacy server knows `initialize`, and what belongs into it.
    codes = (VERSION_UNSUPPORTED, wire.METHOD_NOT_FOUND, wire.INVALID_PARAMS)
    if wire.member(answer.error, "code") in [b"%d" % code for code in codes]:
        return True
    supported = wire.member(answer.error, "data", "supported") or b""
    return b'"%b"' % MODERN_VERSION.encode() in wire.elements(supported)


def speaks_modern(answer: Message) -> bool:
    """Whether an answer to `server/discover` on a legacy link tells of a server of both eras.

    Servers on the official SDK fix the era of a pipe with its first request and refuse the other
    one as an invalid request.
    """
    if answer.result is not None:
        try:
            read_discover(answer)
        except Refused:
            return False
        return True
    return wire.member(answer.error or b"{}", "code") == b"%d" % wire.INVALID_REQUEST


def with_envelope(params: bytes | None) -> bytes:
    """Return the params of one of Octave's own questions as a modern server wants them."""
    return with_first(params or b"{}", b'"_meta":{%b}' % ENVELOPE)


def as_initialize(discovered: bytes) -> bytes:
    """Return a result of `server/discover` as one of `initialize`, for whoever needs that."""
    info_key = f"{_PREFIX}serverInfo"
    meta = wire.member(discovered, "_meta") or b""
    meta = meta if meta.startswith(b"{") else b"{}"
    info = wire.member(meta, info_key) or b'{"name":"","version":""}'
    members = [b'"protocolVersion":"%b"' % PROTOCOL_VERSION.encode(), b'"serverInfo":%b' % info]
    meta = without(meta, {info_key})
    if meta != b"{}":
        members.append(b'"_meta":%b' % meta)
    return with_first(without(discovered, _OF_DISCOVER), b",".join(members))


def _text(raw: bytes, *path: str) -> str | None:
    found = wire.member(raw, *path)
    return json.loads(found) if found is not None and found.startswith(b'"') else None


def _reason(answer: Message, method: str, member: str) -> str:
    if answer.error is None:
        return f"answered `{method}` with a result that has no `{member}`"
    code, message = wire.member(answer.error, "code"), _text(answer.error, "message") or "no reason"
    supported = wire.member(answer.error, "data", "supported")
    if code in (b"%d" % VERSION_UNSUPPORTED, b"%d" % wire.METHOD_NOT_FOUND) or supported:
        versions = f" ({supported.decode(errors='replace')})" if supported else ""
        return f"speaks only a newer protocol version{versions} than Octave does: {message}"
    return f"refused `{method}`: {message}"
