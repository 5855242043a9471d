"""Across the bridge and back every member is the text it was, however strangely it is written."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octave.gateway import bridge
from octave.gateway.eras import Envelope, envelope, is_modern
from octave.runtime import json_text, wire

OWNED = ["_meta", "inputResponses", "requestState", "resultType", "ttlMs", "cacheScope"]
"""Members that the bridge adds or takes away."""
KNOWN = [
    *OWNED, "name", "uri", "arguments", "params", "id", "method", "result", "progressToken",
    "io.modelcontextprotocol/serverInfo", "io.modelcontextprotocol/own",
]  # fmt: skip
CACHED = {"resultType", "ttlMs", "cacheScope"}
ENVELOPE = Envelope(b'{"roots":{}}', b'{"name":"x"}', None)
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

spaces = st.sampled_from(["", " ", "  ", "\t"])
odd_text = st.text(st.sampled_from([*'ab"\\/\u2028é_', "\ud800", "\U0001f600"]), max_size=6)


def spelled(character: str, way: int) -> str:
    """A character as JSON may have it."""
    is_lone = 0xD800 <= ord(character) <= 0xDFFF
    if character in '"\\':
        return f"\\{character}"
    if way == 1 or is_lone:
        return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"
    return f"\\{character}" if character == "/" and way else character


@st.composite
def strings(draw: st.DrawFn, texts: st.SearchStrategy[str] = odd_text) -> str:
    return '"{}"'.format("".join(spelled(each, draw(st.integers(0, 2))) for each in draw(texts)))


keys = strings(st.sampled_from(KNOWN)) | strings()
numbers = st.sampled_from(["0", "-0", "1.10", "1E2", "1e400", "12345678901234567890123", "-7"])
scalars = numbers | strings() | st.sampled_from(["true", "false", "null"])


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    members = [
        f"{draw(spaces)}{draw(keys)}{draw(spaces)}:{draw(spaces)}{draw(values)}{draw(spaces)}"
        for _ in range(draw(st.integers(0, 4)))
    ]
    return f"{{{','.join(members) or draw(spaces)}}}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    found = [f"{draw(spaces)}{draw(values)}" for _ in range(draw(st.integers(0, 3)))]
    return f"[{','.join(found)}]"


anything = st.recursive(scalars, lambda inner: objects(inner) | arrays(inner), max_leaves=8)


def kept(text: bytes | None, *names: str) -> list[tuple[str, bytes]]:
    """The raw members of an object, each twin too, without those of these names."""
    whole = text or b"{}"
    found = [(key, whole[start:end]) for key, start, end in json_text.members(whole)]
    return [(key, value) for key, value in found if key not in names]


@UNHURRIED
@given(objects(anything))
def test_request_crosses_and_comes_back_with_every_member_it_had(params: str) -> None:
    line = f'{{"own":1.0, "jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
    message = wire.decode(line.encode("utf-8", "surrogatepass"))
    there = bridge.to_modern_request(message, ENVELOPE)
    assert is_modern(there)
    assert envelope(there) == ENVELOPE
    back = bridge.without_envelope(there)
    assert not is_modern(back)
    assert json.loads(back.line)["own"] == 1.0
    rest = kept(message.params, "_meta", "inputResponses", "requestState")
    assert kept(back.params, "_meta") == rest
    assert kept(there.params, "_meta") == kept(message.params, "_meta")


@UNHURRIED
@given(objects(anything))
def test_result_crosses_and_comes_back_with_every_member_it_had(result: str) -> None:
    raw = result.encode("utf-8", "surrogatepass")
    there = bridge.to_modern_result("tools/list", raw)
    assert set(json.loads(there)) >= CACHED
    back = bridge.to_legacy_result(there)
    assert not CACHED & set(json.loads(back))
    assert kept(back, "_meta") == kept(raw, "_meta", *CACHED)


@UNHURRIED
@given(objects(anything) | anything)
def test_notification_is_tagged_and_untagged_with_every_member_it_had(params: str) -> None:
    line = f'{{"jsonrpc":"2.0","method":"notifications/own","params":{params}}}'
    message = wire.decode(line.encode("utf-8", "surrogatepass"))
    there = bridge.tagged(message, b'"sub"')
    assert json.loads(there)["params"]["_meta"][SUBSCRIPTION] == "sub"
    back = wire.decode(bridge.untagged(wire.decode(there)))
    if params.startswith("{"):
        assert kept(back.params, "_meta") == kept(message.params, "_meta")
