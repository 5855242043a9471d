"""Tasks at an aggregated face: their ids lead to the server that made them."""

from dataclasses import replace
from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency import scenes
from tests.transparency.comparison import assert_same, member
from tests.transparency.conversation import Probe, Talk, directly, sit_down
from tests.transparency.scripts import Era, Line, Scene, answer, ask, call, notify
from tests.transparency.test_aggregate import ERAS, conversation, located, said, together

pytestmark = pytest.mark.anyio
STATUS = notify("notifications/tasks/status", '"taskId":"t\\/1","status":"working","own":1.0')
METHODS = ("tasks/get", "tasks/result", "tasks/update", "tasks/cancel")
LINES: list[Line] = [
    call("1", "say", '"task":{"ttl":6E4,"own":1.0},'),
    *(ask(f"{n}", method, '"taskId":"t\\/1","own":1.0,') for n, method in enumerate(METHODS, 2)),
]


def tasks(era: Era) -> Scene:
    """The scene of tasks; the status of one is told once its client can know of it."""
    server = {
        method: [line for line in lines if line != STATUS]
        for method, lines in scenes.TASKS.server[era].items()
    }
    server["tasks/get t/1"] = [STATUS, *server["tasks/get t/1"]]
    return replace(scenes.TASKS, client={era: LINES}, server={era: server})


@ERAS
async def test_what_is_asked_of_a_task_goes_to_the_server_that_made_it(
    tmp_path: Path, era: Era
) -> None:
    scene = tasks(era)
    own = await directly(tmp_path / "direct", said(located, scene, era), era, name="one")
    proxied, _ = await together(tmp_path / "through", scene, era)
    assert_same(conversation(own), conversation(proxied))


async def test_status_of_a_task_is_told_to_nobody_but_its_client(tmp_path: Path) -> None:
    one, two = (Probe(tmp_path, tasks("legacy"), "legacy", name) for name in ("one", "two"))
    mine, other = Talk("legacy", {}), Talk("legacy", {})
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        for talk in (mine, other):
            await sit_down(found, talk)
            await talk.open()
        await mine.once(call("1", "one__say").replace("$ENV", "").encode())
        await mine.once(ask("2", "tasks/get", '"taskId":"t\\/1",').replace("$ENV", "").encode())
        assert [STATUS.encode()] == [line for line in mine.heard if b"tasks/status" in line]
        assert not [line for line in other.heard if b"tasks/status" in line]


@pytest.mark.parametrize("task", ['"unknown"', '"t\\/1"'])
async def test_task_that_nobody_or_two_made_is_refused(tmp_path: Path, task: str) -> None:
    one, two = (Probe(tmp_path, tasks("legacy"), "legacy", name) for name in ("one", "two"))
    talk = Talk("legacy", {})
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        await sit_down(found, talk)
        await talk.open()
        for number, name in enumerate(("one__say", "two__say"), 1):
            await talk.once(call(f"{number}", name).replace("$ENV", "").encode())
        get = ask("3", "tasks/get", f'"taskId":{task},').replace("$ENV", "")
        refused = wire.decode(await talk.once(get.encode()))
        assert wire.member(refused.error or b"", "code") == b"-32602"


async def test_tasks_are_announced_where_a_server_has_them(tmp_path: Path) -> None:
    scene = Scene("", {"legacy": []}, {"legacy": {}})
    proxied, _ = await together(tmp_path, scene, "legacy")
    (line,) = (each for each in proxied.client if wire.decode(each).id == b'"open"')
    assert member(line, "result", "capabilities", "tasks")


async def named(folder: Path, script: dict[str, list[str]], line: str) -> wire.Message:
    """Let server `two` name `hidden://one`, and return what reading that comes to."""
    server = {**script, "resources/read hidden://one": [answer('"contents":[]')]}
    scene = Scene("", {"legacy": []}, {"legacy": server})
    one, two = (Probe(folder, scene, "legacy", name) for name in ("one", "two"))
    talk = Talk("legacy", {})
    async with desk(folder, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        await sit_down(found, talk)
        await talk.open()
        await talk.once(line.replace("$ENV", "").encode())
        read = ask("2", "resources/read", '"uri":"hidden://one",').replace("$ENV", "")
        return wire.decode(await talk.once(read.encode()))


LINK = '{"type":"resource_link","uri":"hidden://one","name":"l"}'


@pytest.mark.parametrize("content", [LINK, f"[{LINK}]"])
async def test_resource_that_a_prompt_named_is_read_where_it_is(
    tmp_path: Path, content: str
) -> None:
    script = {"prompts/get": [answer(f'"messages":[{{"role":"user","content":{content}}}]')]}
    greet = ask("1", "prompts/get", '"name":"two__greet",')
    assert (await named(tmp_path, script, greet)).result is not None


async def test_resource_that_another_named_is_read_where_it_is(tmp_path: Path) -> None:
    script = {"resources/read": [answer('"contents":[{"uri":"hidden://one","text":"x"}]')]}
    read = ask("1", "resources/read", '"uri":"two://one",')
    assert (await named(tmp_path, script, read)).result is not None


async def test_completion_goes_to_the_server_that_lists_that_very_template(tmp_path: Path) -> None:
    def server(name: str, template: str) -> Probe:
        item = f'{{"uriTemplate":"{template}","name":"n"}}'
        script = {
            "resources/templates/list": [answer(f'"resourceTemplates":[{item}]')],
            "resources/list": [answer('"resources":[]')],
            "completion/complete": [answer(f'"completion":{{"values":["of {name}"]}}')],
        }
        return Probe(tmp_path, Scene("", {}, {"legacy": script}), "legacy", name)

    one, two = server("one", "x://{a}"), server("two", "x://{a}/{b}")
    talk = Talk("legacy", {})
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        await sit_down(found, talk)
        await talk.open()
        reference = '"ref":{"type":"ref/resource","uri":"x://{a}/{b}"}'
        params = f'{reference},"argument":{{"name":"b","value":""}},'
        line = ask("1", "completion/complete", params).replace("$ENV", "")
        assert b'"of two"' in await talk.once(line.encode())
