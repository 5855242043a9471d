"""A whole runtime when its surroundings go wrong."""

import os
import signal
import time
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from octave.errors import NotRunning, OctaveError
from octave.remote import Remote, is_claimed
from octave.serve.app import Options
from tests.serve.running import BOUND_S, ask, home_workspace, manifest_text, request, running

pytestmark = pytest.mark.anyio


async def test_row_36_a_call_that_outlasts_the_orderly_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.runtime.instance.DRAIN_S", 0.2)
    state = tmp_path / "state"
    table = f'env = {{ HOSTILE_STATE = "{state}" }}'
    workspace = home_workspace(tmp_path / "h", manifest_text("good", table=table))
    failures: list[OctaveError] = []

    def call(remote: Remote) -> None:
        params = {"server": "good", "tool": "sleep", "arguments": {"s": 600}}
        try:
            remote.request("octave/call", params)
        except OctaveError as error:
            failures.append(error)

    async with running(workspace) as told:
        await request(workspace, "octave/start", names=["good"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, workspace, call)
            await anyio.to_thread.run_sync(wait_for, state / "events.log", "call:sleep")
            os.kill(os.getpid(), signal.SIGTERM)
        with anyio.fail_after(BOUND_S):
            await told.ended.wait()
    (failure,) = failures
    assert isinstance(failure, NotRunning)
    assert "was stopped before it answered" in failure.message


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + BOUND_S
    while not path.exists() or text not in path.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, f"`{path}` never said `{text}`"
        time.sleep(0.01)


async def test_row_39_a_removed_socket_is_back_before_the_next_question_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.serve.app.WATCH_S", 0.05)
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace) as told:
        stream = await anyio.connect_unix(workspace.socket())
        await stream.send(b'{"octave":{"version":1,"control":{}}}\n')
        await stream.receive()
        await anyio.Path(workspace.socket()).unlink()
        assert is_claimed(workspace)
        status = await request(workspace, "octave/status")
        assert status["runtime"]["pid"] == os.getpid()
        assert told.warnings == ["somebody removed the socket; it is there again"]
        # Whoever was there before has noticed nothing.
        await stream.send(b'{"jsonrpc":"2.0","id":1,"method":"octave/status"}\n')
        assert b'"running":true' in await stream.receive()
        await stream.aclose()


async def test_a_background_runtime_that_only_refused_was_started_for_nothing_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.serve.app.UNUSED_S", 0.2)
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace, Options(background=True)) as told:
        async with await anyio.connect_unix(workspace.socket()) as stream:
            await stream.send(b'{"octave":{"version":1,"proxy":{"servers":["god"]}}}\n')
            assert b"server_not_found" in await stream.receive()
        with anyio.fail_after(BOUND_S):
            await told.ended.wait()


async def test_a_background_runtime_that_was_asked_something_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.serve.app.UNUSED_S", 0.1)
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace, Options(background=True)) as told:
        await request(workspace, "octave/status")
        with anyio.move_on_after(0.5):
            await told.ended.wait()
        assert not told.ended.is_set()


@pytest.mark.parametrize("has_token", [True, False])
async def test_requests_with_the_token_keep_a_background_runtime_and_others_do_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_token: bool,
) -> None:
    monkeypatch.setattr("octave.serve.app.WATCH_S", 0.05)
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    async with running(workspace, Options(background=True)) as told:
        token = workspace.token.read_text(encoding="utf-8") if has_token else "wrong"
        async with httpx.AsyncClient(base_url=told.facts["url"]) as client:
            bearer = {"Authorization": f"Bearer {token}"}
            answer = await client.get("/mcp/status", headers=bearer)
            assert answer.status_code == (200 if has_token else 401)
            assert (await client.get("/health")).status_code == 200
        monkeypatch.setattr("octave.serve.app.UNUSED_S", 0.1)
        with anyio.move_on_after(0.5 if has_token else BOUND_S):
            await told.ended.wait()
        assert told.ended.is_set() is not has_token


async def test_how_many_files_are_open_and_may_be_is_told(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    async with running(workspace):
        files = (await request(workspace, "octave/status"))["runtime"]["openFiles"]
        assert 3 < files["used"] < files["limit"]
