import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from octave.errors import Locked, NotTrusted, PortTaken, RuntimeNotRunning, UsageError
from octave.home import Home, Workspace
from octave.remote import Remote
from octave.serve.app import Options, Report, serve
from octave.serve.claim import take_lock
from octave.serve.control import Call
from octave.serve.private import private
from tests.serve.running import BOUND_S, ask, home_workspace, manifest_text, request, running

pytestmark = pytest.mark.anyio


def left_behind(workspace: Workspace) -> set[str]:
    names = {path.name for path in workspace.run.iterdir()} - {"runtime.lock"}
    return {"record.run" if name.endswith(".run") else name for name in names}


async def test_a_runtime_says_how_it_is_reached_and_leaves_nothing_behind(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    async with running(workspace) as told:
        assert workspace.runtime() == told.facts
        assert told.facts["pid"] == os.getpid()
        assert told.facts["url"] == f"http://127.0.0.1:{told.facts['port']}"
        expected = {"octave.sock", "token", "runtime.json", "record.run"}
        assert left_behind(workspace) == expected
        for path in (workspace.socket(), workspace.token, workspace.runtime_file):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(workspace.token.read_text()) >= 43
        token = workspace.token.read_text()
    assert left_behind(workspace) == set()
    with pytest.raises(RuntimeNotRunning):
        await request(workspace, "octave/status")
    async with running(workspace):
        assert workspace.token.read_text() != token


async def test_row_37_a_second_runtime_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    async with running(workspace) as told:
        with pytest.raises(Locked) as raised:
            await serve(workspace, os.environ, Options(), Report())
        assert str(os.getpid()) in raised.value.message
        assert told.facts["url"] in raised.value.message
        assert (await request(workspace, "octave/status"))["runtime"]["running"]


async def test_the_workspace_is_free_when_whoever_asked_for_the_shutdown_is_told(
    tmp_path: Path,
) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace) as told:

        def shut_down(remote: Remote) -> bool:
            assert remote.request("octave/shutdown") == {}
            assert remote.wait_until_closed(BOUND_S)
            take_lock(workspace).release()
            return True

        assert await ask(workspace, shut_down)
        await told.ended.wait()


async def test_row_39_what_a_killed_runtime_left_is_replaced(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(os.fspath(workspace.socket()))
    stale.close()
    workspace.runtime_file.write_text(json.dumps({"pid": 1, "socket": str(workspace.socket())}))
    workspace.token.write_text("old")
    async with running(workspace) as told:
        assert workspace.runtime() == told.facts
        assert workspace.token.read_text() != "old"


async def test_a_socket_path_that_is_too_long_moves_and_is_found(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / ("h" * 100), manifest_text())
    async with running(workspace):
        moved = workspace.socket()
        assert moved.parent != workspace.run
        assert (await request(workspace, "octave/status"))["runtime"]["socket"] == str(moved)
    assert not moved.parent.exists()


@pytest.fixture
def other_program() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


async def reaches(url: str) -> bool:
    async with httpx.AsyncClient(base_url=url) as client:
        return (await client.get("/health")).is_success


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


async def test_row_38_a_taken_port_ends_it_before_any_server_starts(
    tmp_path: Path, other_program: socket.socket
) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good", table="auto_start = true"))
    with pytest.raises(PortTaken) as raised:
        await serve(workspace, os.environ, Options(port=port_of(other_program)), Report())
    assert raised.value.exit_code == 1
    assert f"(pid {os.getpid()})" in raised.value.message
    assert left_behind(workspace) == set()
    assert not workspace.log("good").exists()


async def test_a_background_runtime_goes_on_without_its_port_and_takes_it_later(
    tmp_path: Path, other_program: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.serve.app.PORT_RETRY_S", 0.01)
    workspace = home_workspace(tmp_path / "h", manifest_text())
    options = Options(background=True, port=port_of(other_program))
    async with running(workspace, options) as told:
        known = (await request(workspace, "octave/status"))["runtime"]
        assert known["url"] is None
        assert f"port {options.port} is taken" in known["warning"]
        assert len(told.warnings) == 1
        other_program.close()
        url: str | None = None
        with anyio.fail_after(BOUND_S):
            while url is None:
                known = (await request(workspace, "octave/status"))["runtime"]
                url = known["url"]
        assert known["warning"] is None
        assert await reaches(url)


async def test_the_http_api_serves_behind_the_guard(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace) as told:
        token = {"Authorization": f"Bearer {workspace.token.read_text()}"}
        async with httpx.AsyncClient(base_url=told.facts["url"]) as client:
            assert (await client.get("/health")).json()["status"] == "ok"
            assert (await client.get("/mcp/tools")).status_code == 401
            body = {"toolName": "echo", "arguments": {"text": "hello"}}
            response = await client.post("/mcp/call", json=body, headers=token)
            assert response.json()["content"] == [{"type": "text", "text": "hello"}]
            assert "server" not in response.headers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_row_36_a_signal_is_an_ordered_stop(tmp_path: Path, number: signal.Signals) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace) as told:
        await request(workspace, "octave/start", names=["good"])
        pid = (await request(workspace, "octave/status"))["servers"][0]["pid"]
        os.kill(os.getpid(), number)
        with anyio.fail_after(BOUND_S):
            await told.ended.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert left_behind(workspace) == set()


async def test_row_35_a_second_signal_ends_servers_that_will_not_stop(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("ignore_sigterm"))
    async with running(workspace) as told:
        await request(workspace, "octave/start", names=["ignore-sigterm"])
        began = anyio.current_time()
        os.kill(os.getpid(), signal.SIGINT)
        with anyio.move_on_after(0.3):
            await told.ended.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await told.ended.wait()
    assert anyio.current_time() - began < 1.5


async def test_a_changed_manifest_is_noticed(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    async with running(workspace) as told:
        workspace.manifest.write_text(manifest_text("good", table="auto_start = true"))
        await told.until(lambda: ("good", "ready") in {(e.server, e.kind) for e in told.events})


async def test_row_36_hangup_reads_the_manifest_anew_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.serve.app.WATCH_S", 60)
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace) as told:
        workspace.manifest.write_text("[servers")
        os.kill(os.getpid(), signal.SIGHUP)
        await told.until(lambda: told.warnings)
        status = await request(workspace, "octave/status")
        assert "octave.toml" in status["runtime"]["warning"]
        assert [server["name"] for server in status["servers"]] == ["good"]
        workspace.manifest.write_text(manifest_text())
        assert (await request(workspace, "octave/reload"))["removed"] == ["good"]


async def test_start_up_waits_for_auto_start_servers_before_it_says_ready(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good", table="auto_start = true"))
    async with running(workspace) as told:
        assert "ready" in {event.kind for event in told.events}


async def test_a_background_runtime_ends_when_nothing_needs_it(tmp_path: Path) -> None:
    text = manifest_text("good", runtime='port = 0\nruntime_idle = "500ms"')
    workspace = home_workspace(tmp_path / "h", text)
    async with running(workspace, Options(background=True)) as told:
        with anyio.fail_after(BOUND_S):
            await told.ended.wait()
    assert left_behind(workspace) == set()


async def test_a_background_runtime_stays_while_somebody_is_connected(tmp_path: Path) -> None:
    text = manifest_text("good", runtime='port = 0\nruntime_idle = "100ms"')
    workspace = home_workspace(tmp_path / "h", text)
    async with running(workspace, Options(background=True)) as told:
        stream = await anyio.connect_unix(workspace.socket())
        await stream.send(b'{"octave":{"version":1,"proxy":{}}}\n')
        with anyio.move_on_after(0.6):
            await told.ended.wait()
        assert not told.ended.is_set()
        await stream.aclose()
        await told.ended.wait()


async def test_a_project_that_is_not_trusted_starts_nothing(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    workspace = Workspace(Home(tmp_path / "h"), project / "octave.toml")
    workspace.manifest.write_text(manifest_text("good", table="auto_start = true"))
    with pytest.raises(NotTrusted):
        await serve(workspace, os.environ, Options(), Report())
    with pytest.raises(NotTrusted):
        async with private(workspace, os.environ):
            pass
    assert left_behind(workspace) == set()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_other_machines_are_let_in_only_with_every_consent(tmp_path: Path, host: str) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    with pytest.raises(UsageError):
        await serve(workspace, os.environ, Options(host=host, allow_remote=True), Report())


async def test_a_fixed_token_must_not_be_short(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text(runtime='port = 0\ntoken = "short"'))
    with pytest.raises(UsageError):
        await serve(workspace, os.environ, Options(), Report())


async def test_a_private_runtime_calls_without_leaving_a_trace_in_run(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text("good", table="auto_start = true"))
    async with private(workspace, os.environ) as control:
        result = await control.call(Call("echo", b'{"text":"hi"}', "good"))
        assert json.loads(result)["content"][0]["text"] == "hi"
        assert left_behind(workspace) == {"record.run"}
        pid = (await control.status())["servers"][0]["pid"]
    assert left_behind(workspace) == set()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
