"""`octave call` and `POST /mcp/call` reach servers of either era."""

import json
from pathlib import Path

import pytest

from octave.errors import OctaveError
from octave.serve.control import Call, Control, Runtime
from tests.gateway.asking import Asker, need
from tests.gateway.conversation import Desk, desk
from tests.transparency import scenes
from tests.transparency.conversation import Probe

pytestmark = pytest.mark.anyio


def control_of(found: Desk) -> Control:
    return Control(found.supervisor, found.router, Runtime(list, dict, lambda: None))


@pytest.mark.parametrize("era", ["legacy", "modern", "dual"])
async def test_tool_of_either_era_is_called_by_a_command(tmp_path: Path, era: str) -> None:
    probe = Probe(tmp_path, scenes.PROGRESS_OF_CALLS, era, "one")
    async with desk(tmp_path, probe.spec) as found:
        control = control_of(found)
        assert b'"done"' in await control.call(Call("progress", server="one"))
        heard: list[bytes] = []
        assert b'"done"' in await control.call(Call("one__progress"), heard.append)
        assert len(heard) == len(scenes.PROGRESS)


async def test_modern_server_that_asks_a_command_something_is_an_error(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        arguments = json.dumps({"steps": [need("k")]}).encode()
        with pytest.raises(OctaveError, match="asks its client"):
            await control_of(found).call(Call("do", arguments, "asker"))
