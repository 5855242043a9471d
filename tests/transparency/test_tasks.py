"""Tasks at an aggregated face: their ids lead to the server that made them."""

from dataclasses import replace
from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.transparency import scenes
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk, sit_down
from tests.transparency.scripts import Era, Line, Scene, ask, call, notify
from tests.transparency.test_aggregate import together

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
