"""What tasks, and other extensions, say after the call that they came of was answered."""

from pathlib import Path

import pytest

from tests.gateway.conversation import desk
from tests.transparency import scenes
from tests.transparency.comparison import assert_same, member
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Probe, Talk, directly, sit_down, through
from tests.transparency.scripts import (
    Era,
    Hears,
    Line,
    Scene,
    Step,
    answer,
    ask,
    call,
    filled,
    notify,
)
from tests.transparency.test_aggregate import conversation, located, said, together

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
TASK_STATUS = "notifications/tasks/status"
STATUS = notify(TASK_STATUS, '"taskId":"t\\/1","status":"working","own":1.0,"_meta":{"v":1E2}')


@ERAS
async def test_status_of_a_task_is_told_after_its_call_was_answered(
    tmp_path: Path, direct: Direct, era: Era
) -> None:
    created = scenes.TASKS.server[era]["tools/call say"][-1]
    client: list[Line] = [call("1", "say", '"task":{"ttl":6E4},'), Hears(TASK_STATUS, 2)]
    server = {"tools/call say": [STATUS, created, STATUS]}
    scene = Scene(f"status of a task, {era}", {era: client}, {era: server})
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))


@ERAS
async def test_refusals_of_tasks_are_the_servers_own(
    tmp_path: Path, direct: Direct, era: Era
) -> None:
    """An id that nobody made, none at all, and one that is no string."""
    client: list[Line] = [
        ask(f'"{method}{number}"', method, params)
        for method in scenes.TASK_METHODS
        for number, params in enumerate(('"taskId":"nobody",', "", '"taskId":1.0,'))
    ]
    refusal = '{"id":$ID,"jsonrpc":"2.0","error":{"code":-32602,"own":1.0,"message":"no task"}}'
    server = {method: [refusal] for method in scenes.TASK_METHODS}
    scene = Scene(f"refusals of tasks, {era}", {era: client}, {era: server})
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))


@ERAS
async def test_tasks_find_the_server_that_made_them_at_the_face_of_two(
    tmp_path: Path, era: Era
) -> None:
    created = scenes.TASKS.server[era]["tools/call say"][-1]
    client: list[Line] = [
        call("1", "say", '"task":{"ttl":6E4,"own":1.0},'),
        Hears(TASK_STATUS),
        *(
            ask(f"{number}", method, '"taskId":"t\\/1","own":1.0,')
            for number, method in enumerate(scenes.TASK_METHODS, 2)
            if method != "tasks/list"
        ),
    ]
    server = {**scenes.TASKS.server[era], "tools/call say": [created, STATUS]}
    scene = Scene("", {era: client}, {era: server})
    own = await directly(tmp_path / "own", said(located, scene, era), era, name="one")
    proxied, other = await together(tmp_path / "through", scene, era)
    assert_same(conversation(own), conversation(proxied))
    assert not [line for line in other.received if b"tasks/" in line]


@ERAS
async def test_status_of_a_task_reaches_only_the_session_it_was_made_for_at_the_face_of_two(
    tmp_path: Path, era: Era
) -> None:
    created = scenes.TASKS.server[era]["tools/call say"][-1]
    server = {"tools/call say": [created, STATUS]}
    probe = Probe(tmp_path, Scene("", {}, {era: server}), era, "one")
    owner, other = Talk(era, {}), Talk(era, {})
    async with desk(tmp_path, probe.spec) as found:
        await found.catalogue.gather(["one"])
        for talk in (owner, other):
            await sit_down(found, talk)
            await talk.open()
        await owner.once(filled(era, call("1", "one__say", '"task":{"ttl":6E4},')).encode())
        await owner.hears(TASK_STATUS)
        await other.once(filled(era, call("1", "one__fence")).encode())
        assert TASK_STATUS.encode() not in b"".join(other.heard)
        gone = filled(era, ask("2", "tasks/get", '"taskId":"t\\/1",'))
        assert member(await other.once(gone.encode()), "error", "code") == b"-32602"


async def test_task_of_a_client_is_asked_for_by_its_server(tmp_path: Path, direct: Direct) -> None:
    """A server may have its question answered by a task too (MCP 2025-11-25, tasks)."""
    task = '{"task":{"taskId":"c\\/1","status":"working","ttl":1E4,"own":1.0}}'
    asked = '{"jsonrpc":"2.0","id":"%s","method":"%s","params":{%s}}'
    steps: list[Step] = [
        asked % ("a", "sampling/createMessage", '"messages":[],"maxTokens":1,"task":{"ttl":6E4}'),
        {"await": '"a"'},
        asked % ("b", "tasks/get", '"taskId":"c\\/1"'),
        {"await": '"b"'},
        asked % ("c", "tasks/result", '"taskId":"c\\/1","_meta":{"v":1E2}'),
        {"await": '"c"'},
        answer('"content":[]'),
    ]
    replies = {
        "createMessage": (f'"result":{task}',),
        "tasks/get": ('"result":{"status":"completed","taskId":"c\\/1","own":1.0}',),
        "tasks/result": ('"result":{"role":"assistant","content":[],"model":"m"}',),
    }
    scene = Scene(
        "task of a client",
        {"legacy": [call("1", "ask")]},
        {"legacy": {"tools/call ask": steps}},
        replies,
    )
    assert_same(await direct(scene, "legacy"), await through(tmp_path, scene, "legacy"))
