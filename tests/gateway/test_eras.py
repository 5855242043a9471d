"""Which era a message is of, and what of it the other era reads, where either is odd."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.errors import ProtocolViolated
from octave.gateway import bridge, eras
from octave.gateway.eras import Envelope
from octave.runtime import handshake, wire
from octave.runtime.handshake import (
    CAPABILITIES_KEY,
    CLIENT_INFO_KEY,
    MODERN_VERSION,
    VERSION_KEY,
    VERSION_UNSUPPORTED,
)
from octave.runtime.wire import Message
from tests.gateway.asking import ALL, Peer, peer
from tests.gateway.puppets import Loop, Stage, rest

KEYS = {"$V": VERSION_KEY, "$C": CAPABILITIES_KEY, "$I": CLIENT_INFO_KEY, "$L": eras.LOG_LEVEL_KEY}
SAID = f'"$V":"{MODERN_VERSION}","$C":{{}}'
SPOKEN = Envelope(b'{"roots":{}}', None, None)
STAMP = f'"{eras.SERVER_INFO_KEY}":{{"name":"s"}}'


def raw(text: str) -> bytes:
    for short, key in KEYS.items():
        text = text.replace(short, key)
    return text.encode()


def message(params: str | None, method: str = "tools/call") -> Message:
    return wire.decode(wire.request(1, method, None if params is None else raw(params)))


# Envelopes.


@pytest.mark.parametrize(
    "params",
    [
        None, "null", "[]", '"x"', "7", "{}", '{"_meta":null}', '{"_meta":[]}', '{"_meta":"$V"}',
        '{"_meta":{}}', '{"_meta":{"$C":{},"$I":{}}}', '{"_meta":{"v":{"$V":"2026-07-28"}}}',
        '{"arguments":{"_meta":{"$V":"2026-07-28"}}}', '{"$V":"2026-07-28","$C":{}}',
        '{"_meta":{"$V":"2026-07-28","$C":{}},"_meta":{}}', '{"name":"\\u0024V $V"}',
    ],
)  # fmt: skip
def test_request_without_a_version_in_its_envelope_is_of_the_handshake_era(
    params: str | None,
) -> None:
    assert not eras.is_modern(message(params))


@pytest.mark.parametrize(
    ("meta", "code", "told"),
    [
        ('"$V":"2026-07-28"', wire.INVALID_PARAMS, CAPABILITIES_KEY),
        ('"$V":"2026-07-28","$C":null', wire.INVALID_PARAMS, CAPABILITIES_KEY),
        ('"$V":"2026-07-28","$C":[]', wire.INVALID_PARAMS, CAPABILITIES_KEY),
        ('"$V":"2026-07-28","$C":"{}"', wire.INVALID_PARAMS, CAPABILITIES_KEY),
        ('"$V":null,"$C":{}', wire.INVALID_PARAMS, VERSION_KEY),
        ('"$V":20260728,"$C":{}', wire.INVALID_PARAMS, VERSION_KEY),
        ('"$V":["2026-07-28"],"$C":{}', wire.INVALID_PARAMS, VERSION_KEY),
        ('"$V":"2026-07-28","$V":7,"$C":{}', wire.INVALID_PARAMS, VERSION_KEY),
        ('"$V":"2025-11-25","$C":{}', VERSION_UNSUPPORTED, "2025-11-25"),
        ('"$V":"","$C":{}', VERSION_UNSUPPORTED, '""'),
        ('"$V":"2026-07-28 ","$C":{}', VERSION_UNSUPPORTED, "2026-07-28 "),
    ],
)
def test_incomplete_or_foreign_envelope_is_refused_by_naming_what_is_wrong(
    meta: str, code: int, told: str
) -> None:
    request = message(f'{{"_meta":{{{meta}}}}}')
    assert eras.is_modern(request)
    with pytest.raises(ProtocolViolated) as caught:
        eras.envelope(request)
    assert caught.value.details["rpcCode"] == code
    assert told in caught.value.message
    if code == VERSION_UNSUPPORTED:
        data = caught.value.details["rpcData"]
        assert list(data["supported"]) == [MODERN_VERSION]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", Envelope(b"{}", None, None)),
        (',"$I":{"name":1.0}', Envelope(b"{}", b'{"name":1.0}', None)),
        (',"$L":"debug"', Envelope(b"{}", None, "debug")),
        (',"$L":"no level"', Envelope(b"{}", None, "no level")),
        (',"$L":null', Envelope(b"{}", None, None)),
        (',"$L":["debug"]', Envelope(b"{}", None, None)),
        (',"own":{"$C":{"x":{}}}', Envelope(b"{}", None, None)),
    ],
)
def test_envelope_is_read_as_it_is_written(more: str, expected: Envelope) -> None:
    assert eras.envelope(message(f'{{"_meta":{{{SAID}{more}}}}}')) == expected


@pytest.mark.parametrize("slash", ["/", "\\/", "\\u002f"])
def test_envelope_is_seen_however_its_names_are_written(slash: str) -> None:
    request = message(f'{{"_meta":{{{SAID}}}}}')
    line = request.line.replace(b"protocol/", b"protocol" + slash.encode())
    assert eras.is_modern(wire.decode(line))
    assert eras.envelope(wire.decode(line)) == Envelope(b"{}", None, None)


@given(
    st.dictionaries(st.sampled_from(["roots", "sampling", "own/\u00e9"]), st.just({"x": 1.5})),
    st.none() | st.dictionaries(st.text(), st.integers(), max_size=2),
    st.none() | st.sampled_from(["debug", "emergency", 'odd"\\']),
)
def test_what_an_envelope_says_is_said_again_the_same(
    capabilities: dict[str, Any], info: dict[str, int] | None, level: str | None
) -> None:
    said = Envelope(
        json.dumps(capabilities).encode(),
        None if info is None else json.dumps(info).encode(),
        level,
    )
    params = b'{"_meta":{%b}}' % eras.envelope_members(said)
    assert eras.envelope(wire.decode(wire.request(1, "m", params))) == said


# Requests.


@pytest.mark.parametrize(
    ("params", "rest_of_params", "meta"),
    [
        (None, {}, {}),
        ("null", {}, {}),
        ("{}", {}, {}),
        ('{"a":1.0}', {"a": 1.0}, {}),
        ('{"_meta":null}', {}, {}),
        ('{"_meta":[1]}', {}, {}),
        ('{"_meta":"x","a":1}', {"a": 1}, {}),
        ('{"_meta":{"progressToken":0}}', {}, {"progressToken": 0}),
    ],
)
def test_legacy_request_gets_the_envelope_beside_what_it_has(
    params: str | None, rest_of_params: dict[str, Any], meta: dict[str, Any]
) -> None:
    sent = bridge.to_modern_request(message(params), SPOKEN)
    assert eras.envelope(sent) == SPOKEN
    found = json.loads(sent.params or b"")
    own = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {"roots": {}}}
    assert found.pop("_meta") == {**own, **meta}
    assert found == rest_of_params
    assert sent.id == b"1"


@pytest.mark.parametrize("params", ["[]", "[1]", '"x"', "7", "true"])
def test_legacy_request_without_an_object_of_params_cannot_cross(params: str) -> None:
    with pytest.raises(ProtocolViolated):
        bridge.to_modern_request(message(params), SPOKEN)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (f'{{"a":1.0,"_meta":{{{SAID},"$I":{{}},"$L":"debug"}}}}', '{"a":1.0,"_meta":{}}'),
        (
            f'{{"_meta":{{"x":1E2,{SAID},"io.modelcontextprotocol/related-task":{{"taskId":"t"}}}}}}',
            '{"_meta":{"x":1E2,"io.modelcontextprotocol/related-task":{"taskId":"t"}}}',
        ),
        ('{"requestState":"s","inputResponses":{},"a":1.0}', '{"a":1.0}'),
        ('{"requestState":null,"inputResponses":7}', "{}"),
        ('{"_meta":null}', '{"_meta":null}'),
        ('{"_meta":["$V"]}', '{"_meta":["$V"]}'),
        ("[1]", "[1]"),
        ("null", "null"),
    ],
)
def test_modern_request_loses_what_its_envelope_says_and_nothing_else(
    params: str, expected: str
) -> None:
    assert bridge.without_envelope(message(params)).params == raw(expected)


# Errors.


@pytest.mark.parametrize(
    ("error", "uri", "expected"),
    [
        ('{"code":-32002}', "u:1", '{"data":{"uri":"u:1"},"code":-32602}'),
        ('{"code":-32002,"data":null}', "u:1", '{"code":-32602,"data":{"uri":"u:1"}}'),
        ('{"code":-32002,"data":"x"}', "u:1", '{"code":-32602,"data":{"uri":"u:1"}}'),
        ('{"code":-32002,"data":{}}', "u:1", '{"code":-32602,"data":{"uri":"u:1"}}'),
        (
            '{"code":-32002,"data":{"why":1.0}}',
            "u:\u00e9",
            '{"code":-32602,"data":{"uri":"u:\\u00e9","why":1.0}}',
        ),
        ('{"code":-32002,"data":{"uri":"own"}}', "u:1", '{"code":-32602,"data":{"uri":"own"}}'),
        ('{"code":-32002}', None, '{"code":-32002}'),
        ('{"code":-32602,"data":{"uri":"x"}}', "u:1", '{"code":-32602,"data":{"uri":"x"}}'),
        ('{"code":"-32002"}', "u:1", '{"code":"-32002"}'),
        ("{}", "u:1", "{}"),
        ('"no object"', "u:1", '"no object"'),
    ],
)
def test_only_the_error_for_a_missing_resource_is_put_in_other_words(
    error: str, uri: str | None, expected: str
) -> None:
    assert bridge.to_modern_error(error.encode(), uri).decode() == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"elicitations":[{"mode":"url","u":1.0},{}]}', [b'{"mode":"url","u":1.0}', b"{}"]),
        ('{"elicitations":[7,{"a":1},"x",null,[{}]]}', [b'{"a":1}']),
        ('{"elicitations":[]}', []),
        ('{"elicitations":{"a":{}}}', []),
        ('{"elicitations":null}', []),
        ("{}", []),
        ("null", []),
        ('"x"', []),
    ],
)
def test_of_the_elicitations_in_an_error_only_objects_are_asked(
    data: str, expected: list[bytes]
) -> None:
    error = b'{"code":-32042,"message":"m","data":%b}' % data.encode()
    assert bridge.url_elicitations(error) == expected
    assert bridge.url_elicitations(error.replace(b"-32042", b"-32041")) == []


# Results.


@pytest.mark.parametrize("meta", ["null", "[]", '"x"', "7", "{}", '{"own":1.0}'])
def test_greeting_crosses_whatever_its_meta_is(meta: str) -> None:
    own = {"own": 1.0} if "own" in meta else {}
    opened = f'{{"protocolVersion":"2025-06-18","serverInfo":{{"name":"s"}},"_meta":{meta}}}'
    found = json.loads(bridge.as_discover(opened.encode()))
    assert found["_meta"] == {eras.SERVER_INFO_KEY: {"name": "s"}, **own}
    assert found["supportedVersions"] == [MODERN_VERSION]
    discovered = f'{{"supportedVersions":[],"capabilities":{{}},"_meta":{meta}}}'
    found = json.loads(handshake.as_initialize(discovered.encode()))
    assert found.get("_meta", {}) == own


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ('{"a":1.0}', '{"resultType":"complete","a":1.0}'),
        ("{}", '{"resultType":"complete"}'),
        ('{"resultType":"own"}', '{"resultType":"own"}'),
        ("null", "null"),
        ('"x"', '"x"'),
        ("[1]", "[1]"),
    ],
)
def test_result_of_a_legacy_server_is_marked_as_complete(result: str, expected: str) -> None:
    assert bridge.to_modern_result("tools/call", result.encode()).decode() == expected


def test_result_that_says_how_long_it_holds_is_believed() -> None:
    said = b'{"ttlMs":7,"cacheScope":"public","resultType":"complete"}'
    assert bridge.to_modern_result("tools/list", said, 5) is said
    found = json.loads(bridge.to_modern_result("tools/list", b"{}", 5))
    assert found == {"resultType": "complete", "ttlMs": 5, "cacheScope": "private"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ('{"resultType":"complete","ttlMs":0,"cacheScope":"private","a":1.0}', '{"a":1.0}'),
        (f'{{"a":1.0,"_meta":{{{STAMP}}}}}', '{"a":1.0}'),
        (f'{{"_meta":{{"v":1E2,{STAMP}}},"a":1.0}}', '{"_meta":{"v":1E2},"a":1.0}'),
        ('{"_meta":{},"a":1.0}', '{"_meta":{},"a":1.0}'),
        ('{"_meta":null}', '{"_meta":null}'),
        ('{"a":{"resultType":"complete"}}', '{"a":{"resultType":"complete"}}'),
        ("null", "null"),
        ("[]", "[]"),
    ],
)
def test_result_of_a_modern_server_loses_what_is_of_its_era_alone(
    result: str, expected: str
) -> None:
    assert bridge.to_legacy_result(result.encode()).decode() == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, False),
        (b'{"resultType":"input_required"}', True),
        (b'{"resultType":"complete","content":"input_required"}', False),
        (b'{"resultType":["input_required"]}', False),
        (b'"input_required"', False),
    ],
)
def test_question_in_a_result_is_known_by_its_type_alone(
    result: bytes | None, expected: bool
) -> None:
    assert bridge.is_input_required(result) is expected


# On one pipe.


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": Loop}


def modern(name: str = "do") -> bytes:
    return raw(f'{{"name":"{name}","_meta":{{"$V":"{MODERN_VERSION}","$C":{{}}}}}}')


@pytest.mark.anyio
@pytest.mark.parametrize("spoken", ["legacy", "modern", "both"])
async def test_each_request_is_answered_in_its_own_era_whatever_came_before(
    tmp_path: Path, spoken: str
) -> None:
    stage = Stage(tmp_path, {"s": spoken})
    async with stage.open():
        client = Peer(stage, "legacy", ALL, "s")
        await stage.tasks.start(client.session.run)
        initialize = b'{"protocolVersion":"2025-06-18","capabilities":{}}'
        order = ("discover", "modern", "initialize", "legacy", "modern", "initialize", "discover")
        for number, what in enumerate((*order, "legacy"), 1):
            identifier = b"%d" % number
            if what in ("discover", "initialize"):
                method = "server/discover" if what == "discover" else "initialize"
                params = modern() if what == "discover" else initialize
                said = json.loads(await client.ask(identifier, method, params))["result"]
                known = "supportedVersions" if what == "discover" else "protocolVersion"
                assert known in said
                continue
            params = modern() if what == "modern" else b'{"name":"do"}'
            client.say(wire.request(identifier, "tools/call", params))
            puppet, arrived = await stage.call("s")
            kind = {"resultType": "complete"} if puppet.is_modern else {}
            puppet.answer(arrived, {"content": [], **kind})
            said = json.loads(await client.answer(identifier))["result"]
            assert said == {"content": []} | kind_of(what)


def kind_of(what: str) -> dict[str, str]:
    return {"resultType": "complete"} if what == "modern" else {}


@pytest.mark.anyio
async def test_envelope_that_is_refused_reaches_no_server(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"old": "legacy", "new": "modern"})
    async with stage.open():
        for server in ("old", "new"):
            client = await peer(stage, server)
            for number, meta in enumerate(('"$V":"2026-07-28"', '"$V":7,"$C":{}'), 1):
                params = raw(f'{{"name":"do","_meta":{{{meta}}}}}')
                said = await client.ask(b"%d" % number, "tools/call", params)
                assert json.loads(said)["error"]["code"] == wire.INVALID_PARAMS
        await rest()
        assert not any(puppet.calls for puppet in stage.puppets)


@pytest.mark.anyio
async def test_error_that_asks_for_a_visit_becomes_a_question_and_the_call_is_made_anew(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        client = await peer(stage, "old", era="modern", can={"elicitation": {"url": {}}})
        client.do(1)
        puppet, first = await stage.call("old")
        visit = {"mode": "url", "url": "https://example.com", "elicitationId": "e"}
        del puppet.calls[first.id]
        data = json.dumps({"elicitations": [visit, 7]}).encode()
        puppet.say(wire.error(first.id, bridge.URL_NEEDED, "visit", data))
        asked = await client.result(1)
        (request,) = asked["inputRequests"].items()
        assert request[1] == {"method": "elicitation/create", "params": visit}
        assert "requestState" not in asked
        client.do(2, inputResponses={request[0]: {"action": "accept"}})
        _, second = await stage.call("old")
        assert second.params == first.params
        puppet.answer(second, {"content": []})
        assert (await client.result(2))["resultType"] == "complete"
        # What asks for nothing stays the error that it is.
        client.do(3)
        puppet, third = await stage.call("old")
        puppet.say(wire.error(third.id, bridge.URL_NEEDED, "visit", b'{"elicitations":[7]}'))
        assert (await client.result(3))["code"] == bridge.URL_NEEDED


@pytest.mark.anyio
async def test_error_that_asks_for_a_visit_stays_one_for_who_cannot_be_sent_there(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, {"old": "legacy"})
    async with stage.open():
        client = await peer(stage, "old", era="modern", can={"elicitation": {"form": {}}})
        client.do(1)
        puppet, call = await stage.call("old")
        visit = {"mode": "url", "url": "https://example.com", "elicitationId": "e"}
        data = json.dumps({"elicitations": [visit]}).encode()
        puppet.say(wire.error(call.id, bridge.URL_NEEDED, "visit", data))
        assert (await client.result(1))["code"] == bridge.URL_NEEDED
