"""Client and server of different eras: each sees a partner of its own."""

import json
from pathlib import Path

import pytest

from octave.runtime import wire
from tests.transparency import questions, scenes
from tests.transparency.comparison import assert_bridged, member
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Talk, talking, through
from tests.transparency.questions import FORM, SAMPLING, URL, asking, scene
from tests.transparency.scripts import (
    CLIENT_INFO,
    PREFIX,
    SERVER_CAPABILITIES,
    SERVER_INFO,
    Era,
    Scene,
    answer,
    ask,
    both,
    call,
    cancel,
    error,
    filled,
    initialize,
    one,
    text,
)

pytestmark = pytest.mark.anyio
SCENES = [each for each in (*scenes.SCENES, *questions.SCENES) if each.is_bridged]
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
ASK = call("7", "ask", '"arguments":{"x":1.10},')


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_each_end_sees_its_own_era(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    own, other = await direct(scene, era), await direct(scene, OTHER[era])
    assert_bridged(own, other, await through(tmp_path, scene, era, OTHER[era]))


# A legacy client of a modern server.


def old(line: str) -> bytes:
    return filled("legacy", line).encode()


def new(line: str) -> bytes:
    return filled("modern", line).encode()


async def test_initialize_is_made_of_what_was_discovered(tmp_path: Path) -> None:
    async with talking(tmp_path, scenes.CALLS, "legacy", "modern") as (talk, _):
        said = await talk.once(initialize("2025-06-18").encode())
    result = wire.decode(said).result or b""
    assert member(result, "protocolVersion") == b'"2025-06-18"'
    assert member(result, "capabilities") == SERVER_CAPABILITIES.encode()
    assert member(result, "serverInfo") == SERVER_INFO.encode()
    assert member(result, "instructions") == b'"use \\u00e9"'
    assert not {"supportedVersions", "resultType", "ttlMs", "cacheScope"} & set(json.loads(result))


async def test_members_that_nobody_knows_cross_with_the_opening(tmp_path: Path) -> None:
    async with talking(tmp_path / "a", scenes.CALLS, "legacy", "modern") as (talk, _):
        opened = await talk.once(initialize().encode())
    async with talking(tmp_path / "b", scenes.CALLS, "modern", "legacy") as (talk, _):
        discovered = await talk.once(new(ask("1", "server/discover", "")))
    for said in (opened, discovered):
        assert member(said, "result", "own") == b"[1E2]"
        assert member(said, "result", "_meta", "v/k") == b"1.10"


async def test_stamp_of_a_modern_server_is_taken_off(tmp_path: Path) -> None:
    stamped = f'"_meta":{{"{PREFIX}serverInfo":{SERVER_INFO}, "v/k":1.10}}'
    script = {"tools/call": [answer(f'"content":[],{stamped}')]}
    async with talking(tmp_path, both("", [], script), "legacy", "modern") as (talk, _):
        await talk.open()
        said = await talk.once(old(ASK))
    assert json.loads(said)["result"] == {"content": [], "_meta": {"v/k": 1.1}}


async def test_refusal_of_a_legacy_client_ends_the_call_with_its_error(tmp_path: Path) -> None:
    refusal = '{"own":1.0,"code":-1,"message":"no \\u00e9","data":{"n":1.10}}'
    refusing = Scene(
        "", {}, asking("tools/call ask", [SAMPLING]), {"sampling": (f'"error":{refusal}',)}
    )
    async with talking(tmp_path, refusing, "legacy", "modern") as (talk, probe):
        await talk.open()
        said = await talk.once(old(ASK))
        assert wire.decode(said).error == refusal.encode()
        assert wire.decode(said).id == b"7"
    assert methods(probe.received).count("tools/call") == 1


async def test_rounds_of_questions_end_after_ten(tmp_path: Path) -> None:
    endless = {"tools/call ask": [questions.input_required([FORM])]}
    asked = Scene("", {}, {"modern": endless}, questions.REPLIES)
    async with talking(tmp_path, asked, "legacy", "modern") as (talk, probe):
        await talk.open()
        said = await talk.once(old(ASK))
        assert wire.decode(said).error is not None
    assert methods(probe.received).count("tools/call") in {10, 11}


async def test_state_alone_is_sent_back_without_asking_anybody(tmp_path: Path) -> None:
    waiting = next(each for each in questions.SCENES if each.name == "state without questions")
    async with talking(tmp_path, waiting, "legacy", "modern") as (talk, probe):
        await talk.open()
        said = await talk.once(old(ASK))
        assert wire.decode(said).result == b'{"content":[],"own":1.10}'
    params = [wire.decode(line).params or b"" for line in probe.received if b"tools/call" in line]
    assert [wire.member(each, "requestState") for each in params] == [
        None,
        b'"%b0"' % questions.STATE.encode(),
    ]
    assert wire.member(params[1], "inputResponses") is None


async def test_call_cancelled_by_a_legacy_client_takes_its_question_with_it(
    tmp_path: Path,
) -> None:
    unanswered = Scene("", {}, asking("tools/call ask", [FORM]))
    async with talking(tmp_path, unanswered, "legacy", "modern") as (talk, _):
        await talk.open()
        talk.say(old(ASK))
        (question,) = await talk.hears("elicitation/create")
        talk.say(old(cancel("7")))
        (cancelled,) = await talk.hears("notifications/cancelled")
        assert member(cancelled, "params", "requestId") == wire.decode(question).id
        await talk.once(old(call("8", "fence")))
        assert not [line for line in talk.heard if wire.decode(line).id == b"7"]


async def test_log_level_of_a_legacy_client_goes_with_its_requests(tmp_path: Path) -> None:
    async with talking(tmp_path, scenes.LOGGING, "legacy", "modern") as (talk, probe):
        await talk.open()
        await talk.once(old(call("1", "log")))
        level = ask("2", "logging/setLevel", '"level":"error",')
        assert await talk.once(old(level)) == wire.result(b"2", b"{}")
        await talk.once(old(call("3", "log")))
        calls = [line for line in probe.received if b"tools/call" in line]
        levels = [wire.member(each, "params", "_meta", f"{PREFIX}logLevel") for each in calls]
        assert levels == [None, b'"error"']
    assert "logging/setLevel" not in methods(probe.received)


async def test_envelope_is_made_of_what_a_legacy_client_said(tmp_path: Path) -> None:
    bare = b'{"jsonrpc":"2.0","id":1,"method":"own/method"}'
    async with talking(tmp_path, scenes.UNKNOWN, "legacy", "modern") as (talk, probe):
        await talk.open()
        await talk.once(bare)
        (sent,) = (line for line in probe.received if b"own/method" in line)
    meta = member(sent, "params", "_meta")
    assert member(meta, f"{PREFIX}clientInfo") == CLIENT_INFO.encode()
    assert member(meta, f"{PREFIX}protocolVersion") == b'"2026-07-28"'


# A modern client of a legacy server.


async def test_discovery_is_made_of_what_initialize_said(tmp_path: Path) -> None:
    async with talking(tmp_path, scenes.CALLS, "modern", "legacy") as (talk, _):
        said = await talk.once(new(ask("1", "server/discover", "")))
    result = wire.decode(said).result or b""
    assert member(result, "supportedVersions") == b'["2026-07-28"]'
    assert member(result, "capabilities") == SERVER_CAPABILITIES.encode()
    assert member(result, "instructions") == b'"use \\u00e9"'
    assert member(result, "_meta", f"{PREFIX}serverInfo") == SERVER_INFO.encode()
    assert member(result, "resultType") == b'"complete"'
    assert not {"protocolVersion", "serverInfo"} & set(json.loads(result))


@pytest.mark.parametrize(
    "method",
    ["server/discover", "tools/list", "prompts/list", "resources/list",
     "resources/templates/list", "resources/read"],
)  # fmt: skip
async def test_modern_client_is_told_how_long_an_answer_holds(tmp_path: Path, method: str) -> None:
    read = scenes.PROMPTS_AND_RESOURCES
    async with talking(tmp_path, read, "modern", "legacy") as (talk, _):
        said = await talk.once(new(ask("1", method, '"uri":"probe://one",')))
    result = json.loads(said)["result"]
    assert result["ttlMs"] >= 0
    assert result["cacheScope"] in {"private", "public"}
    assert result["resultType"] == "complete"


@pytest.mark.parametrize(
    "method",
    ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"],
)
async def test_methods_that_are_no_longer_modern_are_unknown(tmp_path: Path, method: str) -> None:
    params = '"level":"error","uri":"probe://one",'
    async with talking(tmp_path, scenes.SUBSCRIPTIONS, "modern", "legacy") as (talk, probe):
        said = await talk.once(new(ask("1", method, params)))
        assert member(said, "error", "code") == b"-32601"
    assert method not in methods(probe.received)


async def asked(talk: Talk, identifier: str = "7") -> bytes:
    """The result that asks, of a call."""
    said = await talk.once(new(ASK.replace('"id":7', f'"id":{identifier}')))
    result = wire.decode(said).result or b""
    assert member(result, "resultType") == b'"input_required"', answer
    return result


def again(found: bytes, answers: str, identifier: str = "8", state: bytes = b"") -> bytes:
    """The retry of a call, with this text for `inputResponses`."""
    raw_state = state or member(found, "requestState")
    members = f'"inputResponses":{answers},"requestState":{raw_state.decode()},'
    request = new(call(identifier, "ask", f'"arguments":{{"x":1.10}},{members}'))
    return request


def key_of(found: bytes) -> str:
    (key,) = json.loads(member(found, "inputRequests"))
    return json.dumps(key)


FORM_SCENE = Scene("", {}, asking("tools/call ask", [FORM]), questions.REPLIES)
ACCEPTED = '{"action":"accept","own":1E2,"content":{"n":1.10}}'


async def test_state_that_was_altered_is_refused(tmp_path: Path) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, _):
        found = await asked(talk)
        state = json.loads(member(found, "requestState"))
        altered = json.dumps(state[:-1] + ("a" if state[-1] != "a" else "b")).encode()
        answers = f"{{{key_of(found)}:{ACCEPTED}}}"
        refused = await talk.once(again(found, answers, state=altered))
        assert member(refused, "error", "code") == b"-32602"
        said = await talk.once(again(found, answers, "9"))
        assert "known" in json.loads(said)["result"]["content"][0]["text"]


async def test_state_serves_once(tmp_path: Path) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, _):
        found = await asked(talk)
        answers = f"{{{key_of(found)}:{ACCEPTED}}}"
        await talk.once(again(found, answers))
        refused = await talk.once(again(found, answers, "9"))
        assert member(refused, "error", "code") == b"-32602"


async def test_state_of_other_arguments_is_refused(tmp_path: Path) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, _):
        found = await asked(talk)
        line = again(found, f"{{{key_of(found)}:{ACCEPTED}}}").replace(b'"x":1.10', b'"x":2')
        assert member(await talk.once(line), "error", "code") == b"-32602"


async def test_missing_answer_is_asked_for_again(tmp_path: Path) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, _):
        found = await asked(talk)
        said = await talk.once(again(found, "{}"))
        repeated = wire.decode(said).result or b""
        assert member(repeated, "inputRequests") == member(found, "inputRequests")
        answers = f'{{"surplus":{{}},{key_of(found)}:{ACCEPTED}}}'
        said = await talk.once(again(repeated, answers, "9"))
        assert member(said, "result", "resultType") == b'"complete"'


async def test_answer_that_is_no_object_is_refused(tmp_path: Path) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, _):
        found = await asked(talk)
        refused = await talk.once(again(found, f"{{{key_of(found)}:7}}"))
        assert member(refused, "error", "code") == b"-32602"


async def test_answer_of_a_modern_client_reaches_the_legacy_server_as_it_was_written(
    tmp_path: Path,
) -> None:
    async with talking(tmp_path, FORM_SCENE, "modern", "legacy") as (talk, probe):
        found = await asked(talk)
        await talk.once(again(found, f"{{{key_of(found)} : {ACCEPTED}}}"))
        answers = [line for line in probe.received if wire.decode(line).is_answer]
    assert answers == [wire.result(FORM[0].encode(), ACCEPTED.encode())]


async def test_question_in_what_cannot_ask_is_refused_at_the_server(tmp_path: Path) -> None:
    asking_there = asking("completion/complete greet", [SAMPLING])
    line = ask("1", "completion/complete", '"ref":{"type":"ref/prompt","name":"greet"},')
    async with talking(tmp_path, scene("", line, asking_there), "modern", "legacy") as (
        talk,
        probe,
    ):
        await talk.once(new(line))
        (said,) = (line for line in probe.received if wire.decode(line).is_answer)
    assert member(said, "error", "code") == b"-32601"


async def test_legacy_error_for_a_missing_resource_becomes_the_modern_one(tmp_path: Path) -> None:
    script = {"resources/read": [error(-32002)]}
    line = ask("1", "resources/read", '"uri":"probe://\\u00e9",')
    async with talking(tmp_path, both("", [], script), "modern", "legacy") as (talk, _):
        said = await talk.once(new(line))
    assert member(said, "error", "code") == b"-32602"
    assert json.loads(said)["error"]["data"]["uri"] == "probe://\u00e9"


async def test_errors_for_a_missing_resource_reach_a_legacy_client_as_they_are(
    tmp_path: Path,
) -> None:
    script = {"resources/read": [error(-32602, '"data":{"uri":"no","own":1.0}')]}
    line = ask("1", "resources/read", '"uri":"no",')
    async with talking(tmp_path, both("", [], script), "legacy", "modern") as (talk, _):
        await talk.open()
        said = await talk.once(old(line))
    assert said == error(-32602, '"data":{"uri":"no","own":1.0}').replace("$ID", "1").encode()


async def test_legacy_error_that_wants_a_url_visited_becomes_a_question(tmp_path: Path) -> None:
    needed = error(-32042, f'"data":{{"elicitations":[{URL[2]}]}}')
    async with talking(
        tmp_path, one("legacy", "", [], {"tools/call": [needed]}), "modern", "legacy"
    ) as (talk, _):
        found = await asked(talk)
    (question,) = json.loads(member(found, "inputRequests")).values()
    assert question == {"method": "elicitation/create", "params": json.loads(URL[2])}


async def test_log_lines_reach_only_the_modern_request_that_asked(tmp_path: Path) -> None:
    async with talking(tmp_path, scenes.LOGGING, "modern", "legacy") as (talk, probe):
        await talk.once(new(call("1", "log")))
        assert not [line for line in talk.heard if b"notifications/message" in line]
        loud = call("2", "log").replace('"_meta":{$ENV', scenes.LOG_LEVEL)
        await talk.once(new(loud.replace('"warning"', '"error"')))
        lines = [line for line in talk.heard if b"notifications/message" in line]
    # The server does not look at its level: what is below is not passed on.
    assert [line.decode() for line in lines] == [*scenes.LOGS[1:]]
    assert "logging/setLevel" in methods(probe.received)


async def test_subscription_of_a_modern_client_is_one_of_the_legacy_server(tmp_path: Path) -> None:
    scene = scenes.SUBSCRIPTIONS
    bridged = await through(tmp_path, scene, "modern", "legacy")
    (subscribed,) = (line for line in bridged.server if b"resources/subscribe" in line)
    assert json.loads(subscribed)["params"] == {"uri": "probe://one"}


async def test_subscription_of_a_legacy_client_is_listened_for_at_the_modern_server(
    tmp_path: Path,
) -> None:
    bridged = await through(tmp_path, scenes.SUBSCRIPTIONS, "legacy", "modern")
    wanted = [
        json.loads(line)["params"]["notifications"].get("resourceSubscriptions")
        for line in bridged.server
        if b"subscriptions/listen" in line
    ]
    assert ["probe://one"] in wanted
    assert "resources/subscribe" not in methods(bridged.server)


# Both on one connection.


@pytest.mark.parametrize("server", ["legacy", "modern", "dual"])
async def test_client_may_probe_and_then_initialize_on_the_same_pipe(
    tmp_path: Path, server: str
) -> None:
    script = {"tools/call": [text("said")]}
    async with talking(tmp_path, both("", [], script), "legacy", server) as (talk, _):
        probed = await talk.once(new(ask('"probe"', "server/discover", "")))
        assert member(probed, "result", "supportedVersions") == b'["2026-07-28"]'
        await talk.open()
        said = await talk.once(old(call("1", "say")))
        assert wire.decode(said).result == b'{"content":[{"text":"said","type":"text","own":1.0}]}'


def methods(lines: list[bytes]) -> list[str | None]:
    return [wire.decode(line).method for line in lines]
