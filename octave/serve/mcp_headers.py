"""What the HTTP headers of an MCP message must say, and whether its body agrees. Pure.

The tables are our own, as those of the SDK cost a second of start-up; a test holds both against
each other. Source: MCP 2026-07-28, transports, Streamable HTTP.
"""

import base64
import binascii
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from octave.gateway.eras import LEGACY_VERSIONS, MODERN_VERSIONS
from octave.gateway.listing import text_of
from octave.runtime import wire
from octave.runtime.handshake import (
    CAPABILITIES_KEY,
    VERSION_KEY,
    VERSION_UNSUPPORTED,
)

VERSION = "mcp-protocol-version"
METHOD = "mcp-method"
NAME = "mcp-name"
SESSION_ID = "mcp-session-id"
LAST_EVENT_ID = "last-event-id"
PARAM_PREFIX = "mcp-param-"

HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021

STATUS_OF: Mapping[int, int] = {
    wire.PARSE_ERROR: 400,
    wire.INVALID_REQUEST: 400,
    wire.INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    VERSION_UNSUPPORTED: 400,
    wire.METHOD_NOT_FOUND: 404,
}
"""The HTTP status of a modern answer by its error code; 200 for the others."""

NAMED_BY: Mapping[str, str] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
}
"""The member of the params that `Mcp-Name` repeats, by method."""

Headers = Mapping[str, Sequence[str]]
"""The values of each header in the order they came, by its name in lower case."""

_SINGLE = (VERSION, METHOD, NAME)
_JSON = frozenset({"application/json", "application/*", "*/*"})
_EVENTS = frozenset({"text/event-stream", "text/*", "*/*"})
_ENCODED = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110, 5.6.2: what a header may be called."""
_DECIMAL = re.compile(r"-?[0-9]+(?:\.0+)?")
_TYPES = ("string", "integer", "boolean")
_KEPT_TOOLS = 1024
"""So many tools are known by their annotations; reading a long schema takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message went no further, as the members of a JSON-RPC error."""

    code: int
    message: str
    data: bytes | None = None

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return STATUS_OF[self.code]


def read(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of an ASGI scope, whose names are in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in raw:
        found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1").strip(" \t"))
    return found


def first(headers: Headers, name: str) -> str | None:
    """Return the first value of a header; None when it is absent."""
    values = headers.get(name)
    return values[0] if values else None


def names_modern(headers: Headers) -> bool:
    """Whether the headers alone make a request modern; unknown versions are later ones."""
    values = headers.get(VERSION, ())
    return any(value not in LEGACY_VERSIONS for value in values)


def takes_json(headers: Headers) -> bool:
    """Whether the client said that it takes a JSON answer."""
    return not _JSON.isdisjoint(_accepted(headers))


def takes_events(headers: Headers) -> bool:
    """Whether the client said that it takes server-sent events."""
    return not _EVENTS.isdisjoint(_accepted(headers))


def refuse_version(requested: str | None) -> Rejection | None:
    """Return why a version cannot be spoken as a modern one; None when it can."""
    if requested in MODERN_VERSIONS:
        return None
    data = {"supported": MODERN_VERSIONS, "requested": requested}
    return Rejection(VERSION_UNSUPPORTED, "Unsupported protocol version", msgspec.json.encode(data))


def refuse(headers: Headers, message: wire.Message) -> Rejection | None:
    """Return the first thing wrong with a modern request before its method is looked at."""
    for name in _SINGLE:
        if len(headers.get(name, ())) > 1:
            return Rejection(HEADER_MISMATCH, f"{name} header appears more than once")
    params = message.params or b"{}"
    meta = wire.member(params, "_meta") or b""
    missing = [key for key in (VERSION_KEY, CAPABILITIES_KEY) if wire.member(meta, key) is None]
    if missing:
        text = f"params._meta lacks the required {' and '.join(missing)}"
        return Rejection(wire.INVALID_PARAMS, text)
    version = text_of(meta, VERSION_KEY)
    if version is None or first(headers, VERSION) != version:
        return _differs(VERSION, "version in params._meta")
    method = message.method or ""
    if first(headers, METHOD) != method:
        return _differs(METHOD, "method")
    member = NAMED_BY.get(method)
    if member is not None:
        named = wire.member(params, member)
        encoded = first(headers, NAME)
        shown = None if encoded is None else decode(encoded)
        if named not in (None, b"null") and (shown is None or shown != text_of(params, member)):
            return _differs(NAME, f"`params.{member}`")
    return refuse_version(version)


def refuse_params(definition: bytes, arguments: bytes | None, headers: Headers) -> Rejection | None:
    """Return how the `Mcp-Param-*` headers of a call differ from its arguments.

    Each annotated argument and its header are there together and say the same, or are both absent.

    Args:
        definition: of the tool, raw.
        arguments: of the call, raw; None: absent.
    """
    for annotation in _annotations(definition):
        raw = wire.member(arguments or b"{}", *annotation.path)
        values = headers.get(annotation.header, ())
        if len(values) > 1:
            return Rejection(HEADER_MISMATCH, f"{annotation.header} header appears more than once")
        value = _scalar(raw)
        decoded = decode(values[0]) if values else None
        # What cannot be written into a header is sent without one.
        agrees = not values if value is None else annotation.agrees(value, decoded)
        if not agrees:
            return _differs(annotation.header, f"argument `{'.'.join(annotation.path)}`")
    return None


def decode(value: str) -> str | None:
    """Return what a header value means; None for a broken ``=?base64?...?=``.

    Only canonical base64 of UTF-8 counts; without that frame a value means itself.
    """
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        decoded = base64.b64decode(found[1], validate=True)
        text = decoded.decode()
    except (binascii.Error, ValueError):
        return None
    return text if base64.b64encode(decoded).decode() == found[1] else None


@dataclass(frozen=True, slots=True)
class _Annotation:
    """An argument that a header repeats."""

    path: tuple[str, ...]
    header: str
    type: str

    def agrees(self, value: str | float, decoded: str | None) -> bool:
        if isinstance(value, bool):
            return decoded == ("true" if value else "false")
        is_whole = not isinstance(value, str) and value == value // 1
        if self.type == "integer" and is_whole and _DECIMAL.fullmatch(decoded or ""):
            # `42.0` is 42, of whatever length.
            return _whole(decoded or "") == int(value)
        return decoded == str(value)


def _differs(header: str, what: str) -> Rejection:
    return Rejection(HEADER_MISMATCH, f"{header} header and the {what} of the body differ")


def _accepted(headers: Headers) -> set[str]:
    values = ",".join(headers.get("accept", ())).split(",")
    return {value.split(";")[0].strip().lower() for value in values}


def _whole(decimal: str) -> int | None:
    try:
        return int(decimal.partition(".")[0])
    except ValueError:  # more digits than Python reads
        return None


def _scalar(raw: bytes | None) -> str | float | None:
    """Return a value that a header can repeat; None for all others."""
    try:
        value = None if raw is None or raw[:1] in b"{[" else json.loads(raw)
        str(value)
    except ValueError:  # more digits than Python reads or writes
        return None
    return value if isinstance(value, str | int | float) else None


@functools.lru_cache(_KEPT_TOOLS)
def _annotations(definition: bytes) -> tuple[_Annotation, ...]:
    """Return the annotated arguments of a tool.

    No argument when an annotation is against the rules: clients leave such a tool out.
    """
    try:
        schema = json.loads(wire.member(definition, "inputSchema") or b"null")
    except (ValueError, RecursionError):
        return ()
    found: dict[str, _Annotation] = {}
    for path, position in _positions(schema):
        if "x-mcp-header" not in position:
            continue
        token, kind = position["x-mcp-header"], position.get("type")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return ()
        if not path or not isinstance(kind, str) or kind not in _TYPES:
            return ()
        header = PARAM_PREFIX + token.lower()
        if header in found:
            return ()
        found[header] = _Annotation(path, header, kind)
    return tuple(found.values())


_ONE_SCHEMA = (
    *("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames"),
    *("unevaluatedProperties", "not", "if", "then", "else", "contentSchema"),
)
_LIST_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS_BY_NAME = ("patternProperties", "dependentSchemas", "$defs", "definitions")


def _positions(schema: object) -> Iterator[tuple[tuple[str, ...] | None, dict[str, object]]]:
    """Yield each schema within a JSON Schema 2020-12, and where its value is among the arguments.

    None when that is not one fixed place. A schema that is referred to stands where it is defined.
    """
    waiting: list[tuple[tuple[str, ...] | None, object]] = [((), schema)]
    while waiting:
        path, position = waiting.pop()
        if not isinstance(position, dict):
            continue
        yield path, position
        for name, inner in _members(position.get("properties")):
            waiting.append((None if path is None else (*path, name), inner))
        waiting.extend((None, position.get(keyword)) for keyword in _ONE_SCHEMA)
        for keyword in _LIST_OF_SCHEMAS:
            listed = position.get(keyword)
            waiting.extend((None, inner) for inner in (listed if isinstance(listed, list) else ()))
        for keyword in _SCHEMAS_BY_NAME:
            waiting.extend((None, inner) for _, inner in _members(position.get(keyword)))


def _members(value: object) -> Iterable[tuple[str, object]]:
    return value.items() if isinstance(value, dict) else ()
