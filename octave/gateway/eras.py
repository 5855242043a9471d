"""Which era a request is of, and what its envelope says. Pure.

A request of MCP 2026-07-28 says in its `_meta` which version it is of and what its client can be
asked; every other one is of the versions that begin with `initialize`. Era is a property of each
message, not of the connection: some clients probe in one era and go on in the other.
"""

import json
from dataclasses import dataclass

from octave.errors import ProtocolViolated
from octave.gateway.listing import text_of
from octave.runtime import wire
from octave.runtime.handshake import (
    CAPABILITIES_KEY,
    CLIENT_INFO_KEY,
    MODERN_VERSION,
    VERSION_KEY,
    VERSION_UNSUPPORTED,
)

LATEST_LEGACY = "2025-11-25"
LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", LATEST_LEGACY)
"""The versions that begin with `initialize`; of these the one asked for is the one spoken."""
MODERN_VERSIONS = (MODERN_VERSION,)
LOG_LEVEL_KEY = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
SERVER_INFO_KEY = "io.modelcontextprotocol/serverInfo"

_MARK = VERSION_KEY.encode()


def violated(text: str, code: int, data: object = None) -> ProtocolViolated:
    """Return the error that answers a client with a JSON-RPC error of that code."""
    details = {"rpcCode": code} if data is None else {"rpcCode": code, "rpcData": data}
    return ProtocolViolated(text, details=details)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a modern request says of its client; raw JSON."""

    capabilities: bytes
    client_info: bytes | None
    log_level: str | None


def is_modern(message: wire.Message) -> bool:
    """Whether the request carries an envelope, of whichever version."""
    params = message.params
    # Most requests of the other era end here.
    if params is None or (wire.BACKSLASH not in params and _MARK not in params):
        return False
    return wire.member(params, "_meta", VERSION_KEY) is not None


def envelope(message: wire.Message) -> Envelope:
    """Return the envelope of a modern request.

    Raises:
        ProtocolViolated: it is not complete, or of a version that is not spoken here.
    """
    meta = wire.member(message.params or b"{}", "_meta") or b"{}"
    version = text_of(meta, VERSION_KEY)
    capabilities = wire.member(meta, CAPABILITIES_KEY)
    if version is None or capabilities is None or not capabilities.startswith(b"{"):
        missing = VERSION_KEY if version is None else CAPABILITIES_KEY
        raise violated(f"`params._meta` needs `{missing}`", wire.INVALID_PARAMS)
    if version not in MODERN_VERSIONS:
        data = {"supported": MODERN_VERSIONS, "requested": version}
        text = f"protocol version {json.dumps(version)} is not supported"
        raise violated(text, VERSION_UNSUPPORTED, data)
    client_info = wire.member(meta, CLIENT_INFO_KEY)
    return Envelope(capabilities, client_info, text_of(meta, LOG_LEVEL_KEY))


def envelope_members(envelope: Envelope) -> bytes:
    """Return the members of `_meta` that say what `envelope` does, without braces."""
    members = [
        f'"{VERSION_KEY}":"{MODERN_VERSION}"'.encode(),
        f'"{CAPABILITIES_KEY}":'.encode() + envelope.capabilities,
    ]
    if envelope.client_info is not None:
        members.append(f'"{CLIENT_INFO_KEY}":'.encode() + envelope.client_info)
    if envelope.log_level is not None:
        members.append(f'"{LOG_LEVEL_KEY}":{json.dumps(envelope.log_level)}'.encode())
    return b",".join(members)
