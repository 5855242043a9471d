"""Changes reach every session that shows the server, in its own words, and nobody else."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio.lowlevel
import pytest

from octave.gateway.audience import Scope
from octave.gateway.session import Session
from octave.packages.launch import LaunchSpec, ToolFilter
from octave.runtime import wire
from octave.serve.control import Control, Runtime
from tests.gateway.conversation import SERVERS, Desk, desk, missing, spec
from tests.transparency import scenes
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk, sit_down
from tests.transparency.scripts import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    PREFIX,
    UPDATED,
    Era,
    Scene,
    ask,
    call,
    filled,
    listen,
    notify,
    tagged,
    text,
)

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
DONE = '{"jsonrpc":"2.0","id":$ID,"result":{}}'
TOOLS, PROMPTS, RESOURCES = LIST_CHANGED
CHANGING = Scene(
    "",
    {},
    {
        "legacy": {
            **{f"resources/{verb}": [DONE] for verb in ("subscribe", "unsubscribe")},
            "tools/call change": [*(notify(each, '"own":1.0') for each in LIST_CHANGED), text("")],
            "tools/call touch": [notify(UPDATED, '"uri":"probe://one","own":1.0'), text("")],
        },
        "modern": {
            "tools/call change": [*(tagged(each, '"own":1.0,') for each in LIST_CHANGED), text("")],
            "tools/call touch": [tagged(UPDATED, '"uri":"probe://one","own":1.0,'), text("")],
        },
    },
)
SUBSCRIBE = '{"jsonrpc":"2.0","id":"%s","method":"resources/%s","params":{"uri":"%s://one"}}'


async def begin(found: Desk, era: Era, *servers: str) -> Talk:
    """A client that has opened its conversation."""
    talk = Talk(era, {})
    await sit_down(found, talk, *servers)
    await talk.open()
    return talk


async def begin_listening(found: Desk, identifier: str, kinds: str, *servers: str) -> Talk:
    """A modern client with a subscription."""
    talk = await begin(found, "modern", *servers)
    talk.say(filled("modern", listen(identifier, kinds).line).encode())
    await talk.hears(ACKNOWLEDGED)
    return talk


async def called(talk: Talk, era: Era, identifier: str, name: str) -> None:
    await talk.once(filled(era, call(identifier, name)).encode())


def told(talk: Talk, *methods: str) -> list[str]:
    return [method for line in talk.heard if (method := wire.decode(line).method) in methods]


def tags(talk: Talk, method: str) -> set[bytes]:
    lines = [line for line in talk.heard if wire.decode(line).method == method]
    return {member(line, "params", "_meta", f"{PREFIX}subscriptionId") for line in lines}


@ERAS
@pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
async def test_changed_lists_of_a_server_reach_each_session_as_it_asked(
    tmp_path: Path, era: Era, face: tuple[str, ...]
) -> None:
    one, two = Probe(tmp_path, CHANGING, era, "one"), Probe(tmp_path, CHANGING, era, "two")
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        old, other = await begin(found, "legacy", *face), await begin(found, "legacy", "two")
        tools = await begin_listening(found, '"t \\/"', '"toolsListChanged":true', *face)
        rest = '"promptsListChanged":true,"resourcesListChanged":true,"toolsListChanged":false'
        lists = await begin_listening(found, "7.50", rest, *face)
        caller = await begin(found, era, "one")
        await called(caller, era, "1", "change")
        for method in LIST_CHANGED:
            await old.hears(method)
        await tools.hears(TOOLS)
        for method in (PROMPTS, RESOURCES):
            await lists.hears(method)
        assert set(told(tools, *LIST_CHANGED)) == {TOOLS}
        assert set(told(lists, *LIST_CHANGED)) == {PROMPTS, RESOURCES}
        assert told(other, *LIST_CHANGED) == []
        assert tags(tools, TOOLS) == {b'"t \\/"'}
        assert tags(lists, PROMPTS) == {b"7.50"}
        assert tags(old, TOOLS) == {b""}


@ERAS
@pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
async def test_update_of_a_resource_reaches_only_who_subscribed_and_only_as_long(
    tmp_path: Path, era: Era, face: tuple[str, ...]
) -> None:
    one, two = Probe(tmp_path, CHANGING, era, "one"), Probe(tmp_path, CHANGING, era, "two")
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        old, new = await begin(found, "legacy", *face), None
        idle = await begin(found, "legacy", *face)
        wanted = '"resourceSubscriptions":["one://one"]'
        new = await begin_listening(found, '"s"', wanted, *face)
        deaf = await begin_listening(found, '"d"', '"resourcesListChanged":true', *face)
        await old.once((SUBSCRIBE % ("a", "subscribe", "one")).encode())
        caller = await begin(found, era, "one")
        await called(caller, era, "1", "touch")
        (line,) = await old.hears(UPDATED)
        assert member(line, "params", "own") == b"1.0"
        await new.hears(UPDATED)
        assert (tags(old, UPDATED), tags(new, UPDATED)) == ({b""}, {b'"s"'})
        await old.once((SUBSCRIBE % ("b", "unsubscribe", "one")).encode())
        await called(caller, era, "2", "touch")
        await new.hears(UPDATED, 2)
        assert told(old, UPDATED) == [UPDATED]
        assert told(idle, UPDATED) == told(deaf, UPDATED) == []
        new.say(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s"}}')
        await called(caller, era, "3", "touch")
        await anyio.lowlevel.checkpoint()
        assert told(new, UPDATED) == [UPDATED] * 2


@pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
async def test_subscription_is_answered_when_the_runtime_ends_its_session(
    tmp_path: Path, face: tuple[str, ...]
) -> None:
    one = Probe(tmp_path, CHANGING, "modern", "one")
    async with desk(tmp_path, one.spec) as found:
        await found.catalogue.gather(["one"])
        talk = Talk("modern", {})
        session = Session(found.router, Scope(face or None, single=bool(face)), talk.take)
        talk.send = session.receive
        await found.tasks.start(session.run)
        talk.say(filled("modern", listen('"s"', '"toolsListChanged":true').line).encode())
        await talk.hears(ACKNOWLEDGED)
        session.close()
        answer = await talk.answer(b'"s"')
    assert member(answer, "result", "resultType") == b'"complete"'
    assert member(answer, "result", "_meta", f"{PREFIX}subscriptionId") == b'"s"'


class Reloading:
    """A desk whose manifest changes."""

    def __init__(self, found: Desk) -> None:
        self.specs: Sequence[LaunchSpec] = ()
        runtime = Runtime(lambda: self.specs, dict, lambda: None)
        self._control = Control(found.supervisor, found.router, runtime)

    async def become(self, *specs: LaunchSpec) -> None:
        self.specs = specs
        await self._control.reload()


async def names(talk: Talk, era: Era, identifier: str) -> set[str]:
    answer = await talk.once(filled(era, ask(identifier, "tools/list", "")).encode())
    return {tool["name"].partition("__")[0] for tool in json.loads(answer)["result"]["tools"]}


@ERAS
async def test_server_that_is_added_appears_in_open_sessions_and_goes_with_its_removal(
    tmp_path: Path, era: Era
) -> None:
    one, two = Probe(tmp_path, CHANGING, era, "one"), Probe(tmp_path, CHANGING, era, "two")
    async with desk(tmp_path, one.spec) as found:
        manifest = Reloading(found)
        if era == "legacy":
            talk = await begin(found, "legacy")
        else:
            talk = await begin_listening(found, '"s"', '"toolsListChanged":true')
        assert await names(talk, era, '"1"') == {"one"}
        talk.heard.clear()
        await manifest.become(one.spec, two.spec)
        await talk.hears(TOOLS)
        assert await names(talk, era, '"2"') == {"one", "two"}
        await called(talk, era, "3", "two__touch")
        talk.heard.clear()
        await manifest.become(two.spec)
        await talk.hears(TOOLS)
        assert await names(talk, era, '"4"') == {"two"}
        gone = await talk.once(filled(era, call("5", "one__touch")).encode())
        assert member(gone, "error", "code") == b"-32602"


@ERAS
async def test_server_that_starts_late_appears_without_being_asked_for_again(
    tmp_path: Path, era: Era
) -> None:
    """It cannot be started at first; once it can, whoever listens is told."""
    one, two = Probe(tmp_path, CHANGING, era, "one"), Probe(tmp_path, CHANGING, era, "two")
    async with desk(tmp_path, one.spec, missing("two")) as found:
        manifest = Reloading(found)
        if era == "legacy":
            talk = await begin(found, "legacy")
        else:
            talk = await begin_listening(found, '"s"', '"toolsListChanged":true')
        assert await names(talk, era, '"1"') == {"one"}
        await manifest.become(one.spec, replace(two.spec, fingerprint="mended"))
        talk.heard.clear()
        await found.supervisor.start(["two"])
        await talk.hears(TOOLS)
        assert await names(talk, era, '"2"') == {"one", "two"}


@ERAS
@pytest.mark.parametrize("face", [("one",), ()], ids=["one server", "all"])
async def test_changed_filter_is_told_at_once_to_who_sees_the_server(
    tmp_path: Path, era: Era, face: tuple[str, ...]
) -> None:
    one, two = Probe(tmp_path, CHANGING, era, "one"), Probe(tmp_path, CHANGING, era, "two")
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        manifest = Reloading(found)
        old, other = await begin(found, "legacy", *face), await begin(found, "legacy", "two")
        new = await begin_listening(found, '"s"', '"toolsListChanged":true', *face)
        denied = replace(one.spec, tools=ToolFilter(deny=("say",)), fingerprint="other")
        await manifest.become(denied, two.spec)
        for talk in (old, new):
            await talk.hears(TOOLS)
        assert told(other, *LIST_CHANGED) == []
        sides: list[tuple[Talk, Era]] = [(old, "legacy"), (new, "modern")]
        for talk, its in sides:
            line = filled(its, ask('"l"', "tools/list", ""))
            listed = await talk.once(line.encode())
            assert (b'"touch"' if face else b'"one__touch"') in listed
            assert (b'"say"' if face else b'"one__say"') not in listed


@ERAS
async def test_server_that_died_for_good_takes_away_nothing_of_the_others(
    tmp_path: Path, era: Era
) -> None:
    one = Probe(tmp_path, scenes.CALLS, era, "one")
    crashy = replace(spec("two", SERVERS / "crash_on_call.py"))
    async with desk(tmp_path, one.spec, crashy) as found:
        talk = await begin(found, era)
        before = await names(talk, era, '"1"')
        assert before == {"one", "two"}
        died = await talk.once(filled(era, call("2", "two__crash")).encode())
        assert member(died, "error", "data", "octave", "code") == b'"server_died"'
        # Down, it still shows what it had; the other one answers as ever.
        assert await names(talk, era, '"3"') == before
        said = await talk.once(filled(era, call("4", "one__structured")).encode())
        assert wire.decode(said).result is not None
