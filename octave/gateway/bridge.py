"""What one era writes, as the other reads it. Pure.

Requests of a legacy client get the envelope that a modern server needs, results of a legacy server
the members that a modern client needs, and the other way round these are taken away. All else stays
as it came. (MCP 2026-07-28, versioning and basic; 2025-11-25 for the other side.)
"""

import json
from collections.abc import Mapping

from octave.gateway.eras import (
    LOG_LEVEL_KEY,
    MODERN_VERSIONS,
    SERVER_INFO_KEY,
    SUBSCRIPTION_KEY,
    Envelope,
    envelope_members,
    violated,
)
from octave.gateway.listing import text_of
from octave.packages.offered import LISTS
from octave.runtime import json_text, wire
from octave.runtime.handshake import CAPABILITIES_KEY, CLIENT_INFO_KEY, VERSION_KEY
from octave.runtime.json_edit import with_first, without
from octave.runtime.wire import Message

COMPLETE = b'"resultType":"complete"'
CACHED = frozenset({*LISTS.values(), "resources/read", "server/discover"})
"""The methods whose modern results must say how long they hold (2026-07-28, caching)."""
PARKED = frozenset({"tools/call", "prompts/get", "resources/read"})
"""The only methods whose modern result may ask the client something."""
NOT_MODERN = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    }
)
"""Methods that 2026-07-28 no longer has."""
NOT_FOUND = -32002
"""How legacy servers say that they have no such resource."""
URL_NEEDED = -32042
"""How a server of 2025-11-25 asks for an elicitation by URL in an error."""

_OF_AN_ENVELOPE = frozenset({VERSION_KEY, CAPABILITIES_KEY, CLIENT_INFO_KEY, LOG_LEVEL_KEY})
_OF_A_RETRY = ("inputResponses", "requestState")
_ADDED = frozenset({"resultType", "ttlMs", "cacheScope"})


def to_modern_request(message: Message, envelope: Envelope) -> Message:
    """Return a legacy client's request with the envelope of its session.

    Raises:
        ProtocolViolated: its params are no object.
    """
    members = envelope_members(envelope)
    meta = None if message.params is None else wire.member(message.params, "_meta")
    if meta is not None:
        own = meta if meta.startswith(b"{") else b"{}"
        return _spliced(message, {("params", "_meta"): with_first(own, members)})
    added = b'"_meta":{%b}' % members
    return with_params(message, added)


def without_envelope(message: Message) -> Message:
    """Return a modern client's request without what a legacy server would not understand."""
    given = [name for name in _OF_A_RETRY if wire.member(message.params or b"{}", name) is not None]
    if given:
        rest = without(message.params or b"{}", given)
        message = _spliced(message, {("params",): rest})
    meta = wire.member(message.params or b"{}", "_meta")
    if meta is None or not meta.startswith(b"{"):
        return message
    return _spliced(message, {("params", "_meta"): without(meta, _OF_AN_ENVELOPE)})


def with_params(message: Message, members: bytes) -> Message:
    """Return the request with further members, raw and without braces, in front of its params.

    Raises:
        ProtocolViolated: its params are no object.
    """
    params = message.params
    if params == b"null":
        return _spliced(message, {("params",): b"{%b}" % members})
    if params is not None and not params.startswith(b"{"):
        raise violated("`params` must be an object", wire.INVALID_PARAMS)
    if params is None:
        line = message.line.rstrip()[:-1] + b',"params":{%b}}' % members
        return wire.decode(line)
    return _spliced(message, {("params",): with_first(params, members)})


def to_modern_result(method: str, result: bytes, ttl_ms: int = 0) -> bytes:
    """Return a legacy server's result of `method` as a modern client wants it."""
    if not result.startswith(b"{"):
        return result
    found = {key for key, _, _ in json_text.members(result)}
    members = [] if "resultType" in found else [COMPLETE]
    if method in CACHED:
        members += [b'"ttlMs":%d' % ttl_ms] if "ttlMs" not in found else []
        members += [b'"cacheScope":"private"'] if "cacheScope" not in found else []
    return with_first(result, b",".join(members)) if members else result


def to_legacy_result(result: bytes) -> bytes:
    """Return a modern server's result without what a legacy client does not expect."""
    if not result.startswith(b"{"):
        return result
    meta = wire.member(result, "_meta", SERVER_INFO_KEY)
    if meta is not None:
        rest = without(wire.member(result, "_meta") or b"{}", [SERVER_INFO_KEY])
        result = wire.splice(result, {("_meta",): rest})
        if rest == b"{}":
            result = without(result, ["_meta"])
    return without(result, _ADDED)


def to_modern_error(error: bytes, uri: str | None) -> bytes:
    """Return a legacy server's error as a modern client wants it; `uri` is what was to be read."""
    if wire.member(error, "code") != b"%d" % NOT_FOUND or uri is None:
        return error
    error = wire.splice(error, {("code",): b"%d" % wire.INVALID_PARAMS})
    if wire.member(error, "data", "uri") is not None:
        return error
    member = b'"uri":%b' % json.dumps(uri).encode()
    data = wire.member(error, "data")
    if data is None:
        return with_first(error, b'"data":{%b}' % member)
    own = data if data.startswith(b"{") else b"{}"
    return wire.splice(error, {("data",): with_first(own, member)})


def url_elicitations(error: bytes) -> list[bytes]:
    """Return the params of the elicitations that an error asks for; none of any other error."""
    if wire.member(error, "code") != b"%d" % URL_NEEDED:
        return []
    found = wire.elements(wire.member(error, "data", "elicitations") or b"[]")
    return [params for params in found if params.startswith(b"{")]


def members_of(text: bytes) -> dict[str, bytes] | None:
    """Return the members of a JSON object, raw; None for what is none."""
    try:
        return {key: bytes(value) for key, value in json_text.OBJECT.decode(text).items()}
    except json_text.UNDECODED:
        # Lone surrogates, for one, are legal.
        return json_text.members_by_name(text) if text.startswith(b"{") else None


def is_input_required(result: bytes | None) -> bool:
    """Whether a modern result is a question to the client."""
    if result is None or b"input_required" not in result:
        return False
    return text_of(result, "resultType") == "input_required"


def is_tagged(message: Message) -> bool:
    """Whether a notification carries the id of a subscription."""
    return wire.member(message.params or b"{}", "_meta", SUBSCRIPTION_KEY) is not None


def untagged(message: Message) -> bytes:
    """Return a notification of a modern subscription as a line without its subscription's id."""
    meta = wire.member(message.params or b"{}", "_meta")
    if meta is None or not meta.startswith(b"{"):
        return message.line
    rest = without(meta, [SUBSCRIPTION_KEY])
    params = message.params or b"{}"
    if rest == b"{}":
        return wire.splice(message.line, {("params",): without(params, ["_meta"])})
    return wire.splice(message.line, {("params", "_meta"): rest})


def tagged(message: Message, subscription: bytes) -> bytes:
    """Return a notification as a line that carries the raw id of a subscription."""
    if wire.member(message.params or b"{}", "_meta", SUBSCRIPTION_KEY) is not None:
        return wire.splice(message.line, {("params", "_meta", SUBSCRIPTION_KEY): subscription})
    member = b'"%b":%b' % (SUBSCRIPTION_KEY.encode(), subscription)
    meta = wire.member(message.params or b"{}", "_meta")
    if meta is not None:
        # Of whichever kind: a server's odd notification is no reason to keep quiet.
        own = meta if meta.startswith(b"{") else b"{}"
        return wire.splice(message.line, {("params", "_meta"): with_first(own, member)})
    if message.params is not None and not message.params.startswith(b"{"):
        return wire.splice(message.line, {("params",): b'{"_meta":{%b}}' % member})
    return with_params(message, b'"_meta":{%b}' % member).line


def as_discover(initialize: bytes) -> bytes:
    """Return a legacy server's result of `initialize` as one of `server/discover`."""
    members = [COMPLETE, b'"supportedVersions":%b' % json.dumps(MODERN_VERSIONS).encode()]
    info = wire.member(initialize, "serverInfo")
    meta = wire.member(initialize, "_meta") or b""
    meta = meta if meta.startswith(b"{") else b"{}"
    if info is not None:
        meta = with_first(meta, b'"%b":%b' % (SERVER_INFO_KEY.encode(), info))
    members += [b'"ttlMs":0', b'"cacheScope":"private"', b'"_meta":%b' % meta]
    rest = without(initialize, {"protocolVersion", "serverInfo", "_meta"})
    return with_first(rest, b",".join(members))


def _spliced(message: Message, changes: Mapping[wire.Path, bytes]) -> Message:
    return wire.decode(wire.splice(message.line, changes))
