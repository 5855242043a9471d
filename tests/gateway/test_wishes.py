"""What sessions want to hear of holds for every resource below, every process, and every server."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from octave.packages.launch import Policy
from octave.serve.control import Control, Runtime
from tests.gateway.asking import Asker, peer, until
from tests.gateway.conversation import desk, odd, texts
from tests.transparency import questions, scenes
from tests.transparency.comparison import as_client, as_server, assert_same, own_time
from tests.transparency.conversation import Probe, Talk, directly, sit_down, through
from tests.transparency.questions import FORM, asking
from tests.transparency.scripts import (
    ACKNOWLEDGED,
    UPDATED,
    Era,
    Hears,
    Line,
    Scene,
    Step,
    ask,
    both,
    call,
    listen,
    notify,
    tagged,
    text,
)
from tests.transparency.test_aggregate import conversation, located, said, together

pytestmark = pytest.mark.anyio
DONE = '{"jsonrpc":"2.0","id":$ID,"result":{}}'
LOG = notify("notifications/message", '"level":"debug","data":1.0')


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_update_of_what_lies_below_a_resource_reaches_its_subscribers(
    tmp_path: Path, era: Era
) -> None:
    """MCP schema, ResourceUpdatedNotification: it might be a sub-resource."""
    scene = scenes.SUBSCRIPTIONS
    server: dict[Era, Mapping[str, Sequence[Step]]] = {
        each: {
            label: [
                step.replace('"uri":"probe://one"', '"uri":"probe://one/below"')
                if isinstance(step, str) and "touch" in label
                else step
                for step in steps
            ]
            for label, steps in script.items()
        }
        for each, script in scene.server.items()
    }
    changed = Scene("", scene.client, server)
    own = await directly(tmp_path / "own", changed, era)
    assert_same(own, await through(tmp_path / "through", changed, era))


async def test_filters_and_notifications_that_nobody_knows_pass_in_a_subscription(
    tmp_path: Path,
) -> None:
    client: list[Line] = [
        listen('"s"', '"toolsListChanged":true,"own/kind":["a"]'),
        Hears(ACKNOWLEDGED),
        call("2", "go"),
        Hears("notifications/own"),
    ]
    server = {"tools/call go": [tagged("notifications/own", '"n":1.10,'), text("gone")]}
    scene = Scene("", {"modern": client}, {"modern": server})
    own = await directly(tmp_path / "own", scene, "modern")
    proxied = await through(tmp_path / "through", scene, "modern")
    assert as_client(proxied.client) == as_client(own.client)
    assert own_time(proxied.client) == own_time(own.client)


def moving(wish: str, method: str, tool: str, said: str) -> Scene:
    """The server asks for the first time after a wish, and heeds wishes."""
    heeded: Step = {"become": {f"tools/call {tool}": [said, text("heeded")]}}
    return Scene(
        method,
        {"legacy": [wish, call("2", "ask"), call("3", tool), call("4", tool)]},
        {
            "legacy": {
                method: [heeded, DONE],
                f"tools/call {tool}": [text("not heeded")],
                **asking("tools/call ask", [FORM])["legacy"],
            }
        },
        questions.REPLIES,
    )


@pytest.mark.parametrize(
    "scene",
    [
        moving(ask("1", "logging/setLevel", '"level":"debug",'), "logging/setLevel", "log", LOG),
        moving(
            ask("1", "resources/subscribe", '"uri":"probe://one",'),
            "resources/subscribe",
            "touch",
            notify(UPDATED, '"uri":"probe://one"'),
        ),
    ],
    ids=lambda scene: scene.name,
)
async def test_wishes_move_with_a_session_that_gets_a_process_of_its_own(
    tmp_path: Path, scene: Scene
) -> None:
    own = await directly(tmp_path / "own", scene, "legacy")
    proxied = await through(tmp_path / "through", scene, "legacy")
    assert as_client(proxied.client) == as_client(own.client)
    assert own_time(proxied.client) == own_time(own.client)


async def test_server_that_is_added_is_told_the_level_of_open_sessions(tmp_path: Path) -> None:
    async with desk(tmp_path, odd("one")) as found:
        both = [odd("one"), odd("two")]
        control = Control(found.supervisor, found.router, Runtime(lambda: both, dict, lambda: None))
        client = await found.client()
        await client.open()
        await client.ask(b"1", "logging/setLevel", b'{"level":"debug"}')
        await control.reload()
        seen = texts(await client.ask(b"2", "tools/call", b'{"name":"two__seen"}'))
        assert '"level":"debug"' in seen


async def test_elicitation_is_told_to_be_complete_at_the_face_of_two(tmp_path: Path) -> None:
    (scene,) = (each for each in questions.SCENES if each.name == "elicitation is complete")
    own = await directly(tmp_path / "own", said(located, scene, "legacy"), "legacy", name="one")
    proxied, _ = await together(tmp_path / "through", scene, "legacy")
    assert_same(conversation(own), conversation(proxied))


@pytest.mark.parametrize("can", [{"elicitation": {}}, {"elicitation": {"form": {}}}], ids=repr)
async def test_client_that_shows_forms_only_is_not_sent_to_a_url(
    tmp_path: Path, can: dict[str, object]
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker", can=can)
        params = {"mode": "url", "url": "https://x", "message": "m", "elicitationId": "e"}
        client.do(1, {"ask": "elicitation/create", "id": 1, "params": params})
        ((_, error),) = (await client.done(1))["got"]
        assert error["code"] in {-32601, -32602}
        assert client.questions() == []


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_notification_of_a_client_reaches_a_server_that_sleeps(
    tmp_path: Path, era: Era
) -> None:
    own = notify("notifications/own", '"n":1.10')
    scene = Scene("", {era: [own, call("1", "say")]}, {era: {"tools/call say": [text("said")]}})
    direct = await directly(tmp_path / "own", scene, era)
    probe = Probe(tmp_path, scene, era)
    sleepy = replace(probe.spec, policy=Policy(idle_timeout_s=0.1))
    async with desk(tmp_path, sleepy) as found:
        await found.catalogue.gather(["probe"])
        await until(lambda: found.supervisor.servers["probe"].state == "idle")
        probe.journal.write_bytes(b"")
        talk = Talk(era, {})
        await sit_down(found, talk, "probe")
        await talk.play(scene)
        assert as_server(probe.received) == as_server(direct.server)


@pytest.mark.parametrize(
    ("era", "speaks", "instance"),
    [("modern", "dual", "auto"), ("legacy", "legacy", "session"), ("modern", "modern", "session")],
)
async def test_first_notification_of_a_client_reaches_the_process_that_serves_it(
    tmp_path: Path, era: Era, speaks: str, instance: Literal["auto", "session"]
) -> None:
    """And wakes no other."""
    own = notify("notifications/own", '"n":1.10')
    scene = both("", [own, call("1", "say")], {"tools/call say": [text("said")]})
    probe = Probe(tmp_path, scene, speaks, "probe")
    spec = replace(probe.spec, policy=Policy(instance=instance, idle_timeout_s=0.1))
    async with desk(tmp_path, spec) as found:
        await found.catalogue.gather(["probe"])
        await found.catalogue.know_eras("probe")
        await until(lambda: found.supervisor.servers["probe"].state == "idle")
        probe.journal.write_bytes(b"")
        talk = Talk(era, {})
        await sit_down(found, talk, "probe")
        await talk.play(scene)
        lines = probe.journal.read_bytes().splitlines()
        told = {each.partition(b" ")[0] for each in lines if own.encode() in each}
        called = {each.partition(b" ")[0] for each in lines if b'"tools/call"' in each}
        assert len(told) == 1
        assert told == called
