"""Two servers of a profile over HTTP: names differ by the prefix, and nothing else by a byte."""

import json
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.serve.running import home_workspace, running
from tests.transparency import questions, scenes
from tests.transparency.comparison import BRIDGE_SAYS, OWN_METHODS, as_server, assert_same
from tests.transparency.conversation import PROBE, Probe, directly
from tests.transparency.posted import posted
from tests.transparency.scripts import Era, Scene, fence
from tests.transparency.test_aggregate import conversation, located, qualified, said

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
SCENES = [
    scenes.CALLS, scenes.PROMPTS_AND_RESOURCES, scenes.COMPLETION, scenes.PROGRESS_OF_CALLS,
    scenes.LOG_LINES, scenes.SUBSCRIPTIONS, *questions.SCENES[4:6],
]  # fmt: skip
"""One for each way in which something comes: the rest differs by the methods alone."""


def manifest(*probes: Probe) -> str:
    text = ["[runtime]\nport = 0\n"]
    for probe in probes:
        command = json.dumps([sys.executable, "-S", os.fspath(PROBE), *probe.words])
        text.append(f"[servers.{probe.name}]\ncommand = {command}\n")
    names = json.dumps([probe.name for probe in probes])
    return "\n".join((*text, f"[profiles.both]\nservers = {names}\n"))


@ERAS
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_profile_over_http_is_the_same_but_for_the_names(
    tmp_path: Path, scene: Scene, era: Era
) -> None:
    own = await directly(tmp_path / "own", said(located, scene, era), era, name="one")
    one, two = (Probe(tmp_path, scene, era, name) for name in ("one", "two"))
    workspace = home_workspace(tmp_path / "h", manifest(one, two))
    async with running(workspace) as told:
        url, token = str(told.facts["url"]), workspace.token.read_text()
        async with httpx.AsyncClient(base_url=url) as client:
            # As after an installation, the lists are known.
            headers = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/mcp/tools", headers=headers)).is_success
        end = qualified(fence(era))
        path = f"{url}/mcp/profiles/both"
        proxied = await posted(path, token, era, said(qualified, scene, era), one, end)
    assert_same(conversation(own), conversation(proxied))
    assert as_server(two.received, OWN_METHODS | BRIDGE_SAYS) == []
