"""What opens a conversation: the question Octave asks, and what an answer to it is worth. Pure.

Source: MCP 2025-11-25, lifecycle. A server of MCP 2026-07-28 alone refuses it, and says so.
"""

import json
from dataclasses import dataclass

from octave import __version__
from octave.runtime import wire
from octave.runtime.wire import Message

METHOD = "initialize"
PROTOCOL_VERSION = "2025-11-25"
PARAMS = json.dumps(
    {
        "protocolVersion": PROTOCOL_VERSION,
        "capabilities": {},
        "clientInfo": {"name": "octave", "version": __version__},
    }
).encode()
DONE = "notifications/initialized"
VERSION_UNSUPPORTED = -32022
"""How a server of MCP 2026-07-28 refuses an `initialize`; the versions it speaks are in `data`."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server said of itself."""

    result: bytes
    """The `result` of `initialize` as the server wrote it."""
    protocol_version: str


class Refused(Exception):
    """Raised for an answer that opens nothing; the reason follows the server's name."""


def read(answer: Message) -> Greeting:
    """Return what the answer to `METHOD` says.

    Raises:
        Refused: it is an error, or no result of that method.
    """
    version = None if answer.result is None else _text(answer.result, "protocolVersion")
    if answer.result is None or version is None:
        raise Refused(_reason(answer))
    return Greeting(answer.result, version)


def _text(raw: bytes, *path: str) -> str | None:
    found = wire.member(raw, *path)
    value = None if found is None else json.loads(found)
    return value if isinstance(value, str) else None


def _reason(answer: Message) -> str:
    if answer.error is None:
        return "answered `initialize` with a result that has no `protocolVersion`"
    code, message = wire.member(answer.error, "code"), _text(answer.error, "message") or "no reason"
    supported = wire.member(answer.error, "data", "supported")
    if code in (b"%d" % VERSION_UNSUPPORTED, b"%d" % wire.METHOD_NOT_FOUND) or supported:
        versions = f" ({supported.decode(errors='replace')})" if supported else ""
        return f"speaks only a newer protocol version{versions} than Octave does here: {message}"
    return f"refused `initialize`: {message}"
