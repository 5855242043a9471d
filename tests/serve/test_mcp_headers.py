"""Our header rules, and the SDK's as an oracle that did not grow up with them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.shared import inbound
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from octave.gateway.eras import LEGACY_VERSIONS
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from octave.serve import mcp_headers
from octave.serve.mcp_headers import Headers, Rejection

META = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}


def headers_of(**values: str) -> Headers:
    return {name.replace("_", "-"): [value] for name, value in values.items()}


def request(method: str, params: dict[str, Any]) -> wire.Message:
    return wire.decode(wire.request(1, method, json.dumps(params).encode()))


def test_our_tables_are_those_of_the_sdk() -> None:
    assert dict(inbound.ERROR_CODE_HTTP_STATUS) == mcp_headers.STATUS_OF
    assert dict(inbound.NAME_BEARING_METHODS) == mcp_headers.NAMED_BY
    assert list(MODERN_PROTOCOL_VERSIONS) == [MODERN_VERSION]
    assert tuple(HANDSHAKE_PROTOCOL_VERSIONS) == LEGACY_VERSIONS
    assert inbound.MCP_PARAM_HEADER_PREFIX.lower() == mcp_headers.PARAM_PREFIX
    names = (inbound.MCP_PROTOCOL_VERSION_HEADER, inbound.MCP_METHOD_HEADER)
    assert names == (mcp_headers.VERSION, mcp_headers.METHOD)


def test_headers_are_read_without_the_spaces_around_their_values() -> None:
    raw = [(b"mcp-name", b" \techo "), (b"mcp-name", b"b"), (b"x", b"\xe9")]
    assert mcp_headers.read(raw) == {"mcp-name": ["echo", "b"], "x": ["\xe9"]}


@pytest.mark.parametrize(
    ("accept", "json_too", "events_too"),
    [
        ("application/json, text/event-stream", True, True),
        ("TEXT/EVENT-STREAM;q=0.9,Application/JSON", True, True),
        ("*/*", True, True),
        ("text/*", False, True),
        ("application/*", True, False),
        ("text/html", False, False),
        ("", False, False),
    ],
)
def test_what_the_client_takes(accept: str, json_too: bool, events_too: bool) -> None:
    headers = headers_of(accept=accept)
    assert mcp_headers.takes_json(headers) == json_too
    assert mcp_headers.takes_events(headers) == events_too


def test_no_accept_header_takes_nothing() -> None:
    assert not mcp_headers.takes_json({})
    assert not mcp_headers.takes_events({})


@pytest.mark.parametrize(
    ("versions", "is_modern"),
    [
        ([], False),
        (["2025-06-18"], False),
        (["2024-11-05"], False),
        (["2026-07-28"], True),
        (["2099-01-01"], True),
        (["nonsense"], True),
        (["2025-06-18", "2026-07-28"], True),
    ],
)
def test_unknown_versions_are_of_the_modern_era(versions: list[str], is_modern: bool) -> None:
    headers: Headers = {"mcp-protocol-version": versions} if versions else {}
    assert mcp_headers.names_modern(headers) == is_modern


# The codec.


@settings(deadline=None)
@given(st.text())
def test_what_the_sdk_encodes_is_decoded(text: str) -> None:
    try:
        encoded = inbound.encode_header_value(text)
    except UnicodeEncodeError:
        return
    assert mcp_headers.decode(encoded) == text


_PIECES = st.sampled_from(["=?base64?", "?=", "SGVsbG8=", "SGVsbG8", "SGVs!!bG8=", "/w==", "SGW="])


# Of other characters the SDK's decoder breaks.
_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=3)


@settings(deadline=None)
@given(st.lists(_PIECES | _TEXT, max_size=4).map("".join))
def test_values_mean_to_us_what_they_mean_to_the_sdk(value: str) -> None:
    assert mcp_headers.decode(value) == inbound.decode_header_value(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("=?base64?SGVsbG8=?=", "Hello"),
        ("=?base64?SGVsbG8?=", None),
        ("=?base64?SGVs!!!bG8=?=", None),
        ("=?base64?SGVsbG9=?=", None),
        ("=?base64?/w==?=", None),
        ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
        ("SGVsbG8=", "SGVsbG8="),
        ("=?base64??=", ""),
        ("=?base64?\xfc?=", None),
    ],
)
def test_broken_frames_mean_nothing_and_incomplete_ones_themselves(
    value: str, text: str | None
) -> None:
    assert mcp_headers.decode(value) == text


# The envelope against its headers.


def both(headers: dict[str, str], message: dict[str, Any]) -> tuple[Rejection | None, Any]:
    """Our verdict, and the SDK's."""
    ours = mcp_headers.refuse(
        {name: [value] for name, value in headers.items()},
        wire.decode(json.dumps(message).encode()),
    )
    theirs = inbound.classify_inbound_request(message, headers=headers)
    return ours, None if isinstance(theirs, inbound.InboundModernRoute) else theirs


_VERSIONS = st.sampled_from([MODERN_VERSION, "2025-11-25", "v999.0.0", ""])
_METHODS = st.sampled_from(["tools/call", "tools/list", "resources/read", "TOOLS/LIST", "x"])
_NAMES = st.sampled_from(["echo", "Echo", "ü", "=?base64?w7w=?=", "=?base64?ZWNobw==?="])
_META: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {}, optional={VERSION_KEY: _VERSIONS | st.none(), CAPABILITIES_KEY: st.just({})}
)
_PARAMS = st.fixed_dictionaries(
    {},
    optional={"_meta": _META | st.just(1), "name": _NAMES | st.none() | st.just(7), "uri": _NAMES},
)
_HEADERS = st.fixed_dictionaries(
    {},
    optional={"mcp-protocol-version": _VERSIONS, "mcp-method": _METHODS, "mcp-name": _NAMES},
)


@settings(deadline=None)
@given(_HEADERS, _METHODS, _PARAMS | st.none())
def test_the_ladder_is_that_of_the_sdk(
    headers: dict[str, str], method: str, params: dict[str, Any] | None
) -> None:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        message["params"] = params
    ours, theirs = both(headers, message)
    assert (ours and ours.code) == (theirs and theirs.code)
    if ours is not None and ours.data is not None:
        assert json.loads(ours.data) == theirs.data


def test_a_header_given_twice_is_refused_even_when_both_agree() -> None:
    message = request("tools/list", {"_meta": META})
    good = headers_of(mcp_protocol_version=MODERN_VERSION, mcp_method="tools/list")
    assert mcp_headers.refuse(good, message) is None
    for name in ("mcp-protocol-version", "mcp-method", "mcp-name"):
        twice = {**good, name: [*good.get(name, ["x"])] * 2}
        rejection = mcp_headers.refuse(twice, message)
        assert rejection is not None
        assert (rejection.code, rejection.status) == (mcp_headers.HEADER_MISMATCH, 400)


def test_a_mismatch_goes_before_a_version_that_is_not_served() -> None:
    message = request("x", {"_meta": {**META, VERSION_KEY: "v999.0.0"}})
    for version, code in ((MODERN_VERSION, -32020), ("v999.0.0", -32022)):
        headers = headers_of(mcp_protocol_version=version, mcp_method="x")
        rejection = mcp_headers.refuse(headers, message)
        assert rejection is not None
        assert rejection.code == code


# Annotated arguments.

_TOKENS = st.sampled_from(["Region", "region", "A b", "", "Id", "ü"]) | st.integers(0, 1)
_LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"]]),
        "x-mcp-header": _TOKENS,
        "default": st.just({"x-mcp-header": "no"}),
    },
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "items": inner | st.just(True),
            "allOf": st.lists(inner, max_size=1),
            "$defs": st.dictionaries(st.sampled_from("ab"), inner, max_size=1),
        },
    ),
    max_leaves=5,
)
_SCALARS: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, -1, 42, 42.0, 1.5, 10**30, "", "42", "x", "ü", " x", [], {}]
)
_ARGUMENTS = st.dictionaries(
    st.sampled_from("ab"),
    _SCALARS | st.dictionaries(st.sampled_from("ab"), _SCALARS, max_size=2),
    max_size=2,
)
_PARAM_HEADERS = st.dictionaries(
    st.sampled_from(["mcp-param-region", "mcp-param-id", "mcp-param-other"]),
    st.sampled_from(
        [
            *("true", "True", "0", "-1", "42", "42.0", "42.5", "1.5", "1e30", "", "x", "[]"),
            *(
                str(10**30),
                "=?base64?w7w=?=",
                "=?base64?IHg=?=",
                "=?base64?w7w?=",
                "=?base64?NDI=?=",
            ),
        ]
    ),
    max_size=2,
)


def refusal(schema: Any, arguments: Any, headers: dict[str, str]) -> Rejection | None:
    return mcp_headers.refuse_params(
        json.dumps({"name": "t", "inputSchema": schema}).encode(),
        None if arguments is None else json.dumps(arguments).encode(),
        {name: [value] for name, value in headers.items()},
    )


@settings(deadline=None)
@given(_SCHEMAS, _ARGUMENTS, _PARAM_HEADERS)
def test_annotated_arguments_are_compared_as_the_sdk_does(
    schema: Any, arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    theirs = inbound.validate_mcp_param_headers(schema, arguments, headers)
    assert (refusal(schema, arguments, headers) is None) == (theirs is None)


@settings(deadline=None)
@given(_SCHEMAS, _ARGUMENTS)
def test_what_the_sdk_sends_for_a_valid_tool_passes(schema: Any, arguments: Any) -> None:
    if inbound.find_invalid_x_mcp_header(schema) is None:
        sent = inbound.mcp_param_headers(inbound.x_mcp_header_map(schema), arguments)
        lowered = {name.lower(): value for name, value in sent.items()}
        assert refusal(schema, arguments, lowered) is None


REGION = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
COUNT = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}}


@pytest.mark.parametrize(
    ("schema", "arguments", "headers", "passes"),
    [
        (REGION, {"region": "eu"}, {"mcp-param-region": "eu"}, True),
        (REGION, {"region": "eu"}, {"mcp-param-region": "us"}, False),
        (REGION, {"region": "eu"}, {}, False),
        (REGION, {"region": None}, {}, True),
        (REGION, {}, {"mcp-param-region": "eu"}, False),
        (REGION, None, {}, True),
        (REGION, {"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8=?="}, True),
        (REGION, {"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8?="}, False),
        (COUNT, {"n": 42}, {"mcp-param-n": "42.0"}, True),
        (COUNT, {"n": 42.0}, {"mcp-param-n": "42"}, True),
        (COUNT, {"n": 2**70}, {"mcp-param-n": str(2**70)}, True),
        (COUNT, {"n": 42}, {"mcp-param-n": "9" * 5000}, False),
        (None, {"region": "eu"}, {"mcp-param-region": "us"}, True),
    ],
)
def test_a_header_says_what_its_argument_says(
    schema: Any, arguments: Any, headers: dict[str, str], passes: bool
) -> None:
    assert (refusal(schema, arguments, headers) is None) == passes


def test_a_param_header_given_twice_is_refused() -> None:
    definition = json.dumps({"inputSchema": REGION}).encode()
    headers = {"mcp-param-region": ["eu", "eu"]}
    rejection = mcp_headers.refuse_params(definition, b'{"region":"eu"}', headers)
    assert rejection is not None
    assert rejection.code == mcp_headers.HEADER_MISMATCH


def test_numbers_and_schemas_that_python_cannot_read_are_left_alone() -> None:
    definition = json.dumps({"inputSchema": COUNT}).encode()
    arguments = b'{"n":%b}' % (b"9" * 5000)
    assert mcp_headers.refuse_params(definition, arguments, {}) is None
    deep = b'{"inputSchema":%b1%b}' % (b'{"items":' * 5000, b"}" * 5000)
    assert mcp_headers.refuse_params(deep, b"{}", {}) is None
