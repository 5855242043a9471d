"""The HTTP API and tools that nobody has approved."""

import os
from pathlib import Path

import httpx
import pytest

from octave.packages import offered
from octave.packages.approvals import keep
from octave.packages.definitions import pins_of
from octave.packages.offered import Offered
from octave.packages.specs import launch_specs
from octave.serve.api import build
from octave.serve.guard import Guard
from octave.serve.private import private
from tests.serve.running import home_workspace, manifest_text

pytestmark = pytest.mark.anyio

TOKEN = "t" * 43


async def test_a_blocked_tool_is_not_listed_and_a_call_tells_how_it_differs(
    tmp_path: Path,
) -> None:
    text = manifest_text("good", runtime='port = 0\ndefinitions = "block"')
    workspace = home_workspace(tmp_path / "h", text)
    workspace.prepare()
    (spec,) = launch_specs(workspace, os.environ)
    old = b'{"name":"pid","description":"Something else"}'
    pins = {pin.name: pin for pin in pins_of([old])}
    catalogue = workspace.catalogue("good")
    keep(catalogue, spec.version, spec.digest, pins, [old])
    offered.save(catalogue, Offered(b"{}", {"tools": (old,)}), spec.version, spec.digest)

    async with private(workspace, os.environ) as control:
        app = Guard(build(control), port=3737, token=TOKEN)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://127.0.0.1:3737",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as api:
            asleep = await api.get("/mcp/tools")
            called = await api.post("/mcp/call", json={"toolName": "pid", "serverId": "good"})
            awake = await api.get("/mcp/tools")
            status = await control.status(["good"])

    assert [tool["name"] for tool in asleep.json()["tools"]] == ["pid"]
    assert called.status_code == 403
    error = called.json()["error"]
    assert (error["code"], error["hint"]) == ("not_approved", "octave approve good")
    assert '-  description: "Something else"' in error["details"]["diff"]
    assert awake.json()["tools"] == []
    assert status["servers"][0]["unapproved"] == status["servers"][0]["tools"]
