"""What is said of a task after its call was answered."""

from pathlib import Path

import pytest

from tests.transparency import scenes
from tests.transparency.comparison import assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import through
from tests.transparency.scripts import Era, Line, Scene, Script, call, notify, text, token

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
PROGRESS = notify("notifications/progress", '"own":1.0, "progressToken":$TOKEN,"progress":0.50')


@ERAS
async def test_progress_of_a_task_goes_on_after_its_call_was_answered(
    tmp_path: Path, direct: Direct, era: Era
) -> None:
    """Its token is good for as long as the task is (MCP 2025-11-25, tasks)."""
    created = scenes.TASKS.server[era]["tools/call say"][-1]
    client: list[Line] = [
        token(call("1", "say", '"task":{"ttl":6E4},'), '"tok \\/"'), call("2", "more"),
    ]  # fmt: skip
    server: Script = {"tools/call say": [created, PROGRESS], "tools/call more": [text("more")]}
    scene = Scene(f"progress of a task, {era}", {era: client}, {era: server})
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))
