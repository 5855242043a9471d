"""The control connection, asked as the CLI asks it, with real servers behind it."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from octave.cli.reach import swap
from octave.errors import (
    Ambiguous,
    CallTimedOut,
    ManifestError,
    NotRunning,
    OctaveError,
    ServerDied,
    ServerNotFound,
    StartFailed,
    ToolNotFound,
    UsageError,
)
from octave.home import Workspace
from octave.packages.launch import LaunchSpec
from octave.remote import Remote
from octave.runtime.server import Server
from octave.serve import methods
from octave.serve.control import Control, Runtime
from octave.serve.parts import assemble
from octave.settings import Settings
from tests.serve.running import BOUND_S, ask, home_workspace, manifest_text, request, running

pytestmark = pytest.mark.anyio

ODD = Path(__file__).parent.parent / "gateway" / "odd_server.py"


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    odd = json.dumps([sys.executable, str(ODD), "odd"])
    text = manifest_text("good", "crash_on_call", "hang_on_call")
    text += f"[servers.odd]\ncommand = {odd}\n[servers.nowhere]\ncommand = ['/nowhere/at/all']\n"
    workspace = home_workspace(tmp_path / "h", text)
    async with running(workspace):
        yield workspace


async def call(workspace: Workspace, server: str | None, tool: str, **arguments: Any) -> Any:
    params = {"server": server, "tool": tool, "arguments": arguments}
    return await request(workspace, "octave/call", **params)


async def states(workspace: Workspace) -> dict[str, str]:
    found = await request(workspace, "octave/status")
    return {server["name"]: server["state"] for server in found["servers"]}


async def test_status_shows_the_runtime_and_every_server(workspace: Workspace) -> None:
    await call(workspace, "good", "echo", text="x")
    found = await request(workspace, "octave/status", names=["good"])
    (good,) = found["servers"]
    assert found["runtime"].keys() >= {
        *("running", "pid", "url", "version", "uptimeSeconds", "memoryBytes", "warning")
    }
    assert (good["state"], good["calls"], good["errors"], good["tools"]) == ("ready", 1, 0, 3)
    assert good["memoryBytes"] > 0
    assert good["lastMs"] == pytest.approx(good["averageMs"])
    assert set(await states(workspace)) == {
        *("good", "crash-on-call", "hang-on-call", "odd", "nowhere")
    }


async def test_a_result_is_what_the_server_wrote_to_the_byte(workspace: Workspace) -> None:
    params = {"server": "odd", "tool": "seen", "arguments": {}}
    raw = await ask(workspace, lambda remote: remote.request_raw("octave/call", params))
    assert raw.startswith(b'{"content":[{"text":')
    assert raw.endswith(b'"type":"text","own":1.0}],"isError": false}')


async def test_tools_are_what_the_server_wrote_to_the_byte(workspace: Workspace) -> None:
    raw = await ask(workspace, lambda remote: remote.request_raw("octave/tools", {"server": "odd"}))
    assert raw.startswith(
        b'[{"server":"odd","qualifiedName":"odd__echo","inputSchema": {"type":"object", "$defs"'
    )
    assert b'"x-n":[1.10,1E2,1e400,-0]' in raw
    assert {"odd__echo", "odd__fail"} <= {tool["qualifiedName"] for tool in json.loads(raw)}


async def test_a_server_that_the_manifest_has_gained_is_there_as_soon_as_it_is_swapped(
    workspace: Workspace,
) -> None:
    text = workspace.manifest.read_text(encoding="utf-8")
    table = f"[servers.late]\ncommand = {json.dumps([sys.executable, str(ODD), 'late'])}\n"
    workspace.manifest.write_text(f"{text}{table}", encoding="utf-8")
    assert (await request(workspace, "octave/swap", name="late"))["status"] == "idle"
    with pytest.raises(ServerNotFound):
        await request(workspace, "octave/swap", name="latest")


async def test_a_manifest_that_is_broken_before_a_swap_leaves_the_old_process(
    workspace: Workspace,
) -> None:
    pid = (await request(workspace, "octave/start", names=["good"]))["results"][0]["pid"]
    workspace.manifest.write_text("[broken", encoding="utf-8")
    with pytest.raises(ManifestError):
        await request(workspace, "octave/swap", name="good")
    (good,) = (await request(workspace, "octave/status", names=["good"]))["servers"]
    assert (good["pid"], good["state"]) == (pid, "ready")


async def test_a_manifest_that_is_broken_during_a_swap_does_not_undo_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = (await request(workspace, "octave/start", names=["odd"]))["results"][0]["pid"]
    text = workspace.manifest.read_text(encoding="utf-8")
    workspace.manifest.write_text(text.replace(f'"{ODD}"', f'"-S", "{ODD}"'), encoding="utf-8")
    change_over = Server.change_over

    async def changed_over(self: Server, spec: LaunchSpec) -> None:
        await change_over(self, spec)
        workspace.manifest.write_text("[broken", encoding="utf-8")

    monkeypatch.setattr(Server, "change_over", changed_over)
    swapped = await request(workspace, "octave/swap", name="odd")
    assert (swapped["status"], swapped["pid"] != pid) == ("ready", True)


async def test_a_runtime_that_cannot_swap_yet_reloads(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: work for name, work in methods.METHODS.items() if name != "octave/swap"}
    monkeypatch.setattr(methods, "METHODS", known)
    text = workspace.manifest.read_text(encoding="utf-8")
    workspace.manifest.write_text(text.replace("[servers.odd]", "[servers.odder]"), "utf-8")
    await anyio.to_thread.run_sync(swap, workspace, "odder")
    assert "odder" in await states(workspace)


async def test_progress_arrives_before_the_result(workspace: Workspace) -> None:
    told: list[tuple[str, Any]] = []

    def asked(remote: Remote) -> Any:
        params = {"server": "odd", "tool": "progress"}
        return remote.request("octave/call", params, lambda *each: told.append(each))

    result = await ask(workspace, asked)
    assert result["content"][0]["text"] == "done"
    assert [method for method, _ in told] == ["octave/progress"] * 2
    assert [each["params"]["progress"] for _, each in told] == [0, 1.5]
    assert {each["id"] for _, each in told} == {1}


async def test_a_tool_is_found_without_naming_its_server(workspace: Workspace) -> None:
    await call(workspace, "good", "echo", text="x")
    result = await call(workspace, None, "good__echo", text="hi")
    assert result["content"][0]["text"] == "hi"


async def test_what_is_not_there_is_refused_with_suggestions(workspace: Workspace) -> None:
    with pytest.raises(ToolNotFound) as raised:
        await call(workspace, "good", "ecko")
    assert "`echo`" in (raised.value.hint or "")
    with pytest.raises(ServerNotFound) as other:
        await call(workspace, "god", "echo")
    assert "`good`" in (other.value.hint or "")
    with pytest.raises(ServerNotFound):
        await request(workspace, "octave/status", names=["god"])


async def test_a_name_that_two_servers_share_is_ambiguous(workspace: Workspace) -> None:
    for server in ("good", "odd"):
        await request(workspace, "octave/tools", server=server)
    with pytest.raises(Ambiguous) as raised:
        await call(workspace, None, "echo")
    assert {"good", "odd"} <= set(raised.value.details["servers"])


async def test_a_server_that_dies_or_cannot_start_is_an_error_of_its_own(
    workspace: Workspace,
) -> None:
    with pytest.raises(ServerDied) as died:
        await call(workspace, "crash-on-call", "crash")
    assert died.value.details["signal"] == 11
    with pytest.raises(StartFailed):
        await call(workspace, "nowhere", "echo")


async def test_a_json_rpc_error_of_the_server_is_told_with_its_text(workspace: Workspace) -> None:
    with pytest.raises(OctaveError) as raised:
        await call(workspace, "odd", "fail")
    assert raised.value.message == "`odd` refused to run `fail`: no"
    assert raised.value.details["answer"]["code"] == -32099


async def test_a_call_ends_at_its_own_time_out(workspace: Workspace) -> None:
    params = {"tool": "hang", "arguments": {}, "server": "hang-on-call", "timeoutSeconds": 0.5}
    with pytest.raises(CallTimedOut) as raised:
        await request(workspace, "octave/call", **params)
    assert "0.5 s" in raised.value.message


async def test_a_client_that_leaves_cancels_its_call(workspace: Workspace) -> None:
    stream = await anyio.connect_unix(workspace.socket())
    params = {"server": "good", "tool": "sleep", "arguments": {"s": 30}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "octave/call", "params": params}
    # Its lists are known from here on, so that nothing comes between a call and the server.
    await call(workspace, "good", "echo", text="x")
    await stream.send(b'{"octave":{"version":1,"control":{}}}\n')
    await stream.send(json.dumps(asked).encode() + b"\n")
    # The answer to a second request shows that the first is under way.
    second = {"jsonrpc": "2.0", "id": 2, "method": "octave/status", "params": {}}
    await stream.send(json.dumps(second).encode() + b"\n")
    heard = b""
    with anyio.fail_after(BOUND_S):
        while b'"id":2' not in heard:
            heard += await stream.receive()
    await stream.aclose()
    # Its process sleeps on, but the call is over and counted; a restart then need not drain it.
    calls = 1
    with anyio.fail_after(BOUND_S):
        while calls == 1:
            status = await request(workspace, "octave/status", names=["good"])
            calls = status["servers"][0]["calls"]
    assert status["servers"][0]["errors"] == 0


async def test_servers_are_started_stopped_and_restarted_by_name(workspace: Workspace) -> None:
    answer = await request(workspace, "octave/start", names=["good", "nowhere", "missing"])
    good, nowhere, missing = answer["results"]
    assert (good["name"], good["status"]) == ("good", "ready")
    assert nowhere["error"]["code"] == "start_failed"
    assert missing["error"]["code"] == "server_not_found"
    assert answer["tookSeconds"] >= 0
    answer = await request(workspace, "octave/restart", names=["good"])
    assert answer["results"][0]["pid"] != good["pid"]
    await request(workspace, "octave/stop", all=True)
    assert (await states(workspace))["good"] == "stopped"
    with pytest.raises(NotRunning):
        await call(workspace, "good", "echo")


async def test_stopped_stays_stopped_in_the_next_runtime(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace):
        await request(workspace, "octave/stop", names=["good"])
    async with running(workspace):
        assert (await states(workspace))["good"] == "stopped"
        await request(workspace, "octave/start", names=["good"])
    async with running(workspace):
        assert (await states(workspace))["good"] == "idle"


async def test_wrong_requests_are_answered_and_the_connection_goes_on(
    workspace: Workspace,
) -> None:
    def asked(remote: Remote) -> None:
        with pytest.raises(OctaveError, match="Method not found"):
            remote.request("tools/list")
        with pytest.raises(UsageError):
            remote.request("octave/start")
        with pytest.raises(UsageError):
            remote.request("octave/call", {"server": "good"})
        with pytest.raises(UsageError):
            remote.request("octave/call", {"tool": "echo", "arguments": [1]})
        assert remote.request("octave/status")["runtime"]["running"]

    await ask(workspace, asked)


async def test_a_secret_among_arguments_holds_up_its_reload_and_nothing_else(
    tmp_path: Path,
) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    parts = assemble(workspace, [], Settings())
    typed, asked, answers = threading.Event(), anyio.Event(), list[bool]()
    loop = asyncio.get_running_loop()

    def specs() -> list[LaunchSpec]:
        loop.call_soon_threadsafe(asked.set)
        answers.append(typed.wait(BOUND_S))
        return []

    control = Control(parts.supervisor, parts.router, Runtime(specs, dict, lambda: None))

    async def answer() -> None:
        await asked.wait()
        typed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        await control.reload()
    assert answers == [True]
