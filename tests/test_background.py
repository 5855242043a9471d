"""Starting a runtime in the background, with the real command."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from octave import background
from octave.background import answers, start
from octave.errors import ManifestError, OctaveError
from octave.home import Workspace
from octave.remote import Remote
from tests.serve.running import BOUND_S, CHECKOUT, home_workspace, manifest_text


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    yield workspace
    if answers(workspace):
        with Remote.connect(workspace) as remote:
            remote.request("octave/shutdown")
            assert remote.wait_until_closed(BOUND_S)


@pytest.fixture
def environ(workspace: Workspace) -> Mapping[str, str]:
    home = os.fspath(workspace.home.root)
    return {**os.environ, "OCTAVE_HOME": home, "PYTHONPATH": os.fspath(CHECKOUT)}


def runtime_of(workspace: Workspace) -> psutil.Process:
    pid = workspace.runtime()["pid"]
    assert isinstance(pid, int)
    return psutil.Process(pid)


def test_a_started_runtime_answers_and_has_nothing_of_its_starter(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    start(workspace, environ)
    assert answers(workspace)
    runtime = runtime_of(workspace)
    assert runtime.cwd() == "/"
    assert os.getsid(runtime.pid) == runtime.pid
    assert workspace.runtime()["background"] is True
    if sys.platform == "linux":
        targets = [Path(f"/proc/{runtime.pid}/fd/{number}").readlink() for number in (0, 1, 2)]
        nowhere = Path(os.devnull)
        assert targets == [nowhere, nowhere, workspace.run / "runtime.log"]


def test_starting_twice_leaves_the_first_one_alone(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    start(workspace, environ)
    pid = runtime_of(workspace).pid
    start(workspace, environ)
    assert runtime_of(workspace).pid == pid


def test_of_four_starters_at_once_one_starts_it_and_all_return(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    errors: list[OctaveError] = []

    def attempt() -> None:
        try:
            start(workspace, environ)
        except OctaveError as error:
            errors.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(background.START_DEADLINE_S)
    assert not errors
    assert answers(workspace)
    command = [sys.executable, "-m", "octave", "serve", "--background"]
    mine = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[:5] == command
        and os.fspath(workspace.manifest) in process.info["cmdline"]
    ]
    assert len(mine) == 1


def test_why_there_is_no_runtime_is_the_error_it_was(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    workspace.manifest.write_text("[servers")
    with pytest.raises(ManifestError) as raised:
        start(workspace, environ)
    assert "octave.toml" in raised.value.message
    assert not answers(workspace)


def test_a_runtime_that_cannot_even_begin_is_told_with_its_log(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    nowhere = {**environ, "PYTHONPATH": "", "PYTHONHOME": "/nowhere"}
    with pytest.raises(OctaveError) as raised:
        start(workspace, nowhere)
    assert "ended before it was ready" in raised.value.message
    assert "runtime.log" in (raised.value.hint or "")
    assert (workspace.run / "runtime.log").read_bytes()


def test_a_runtime_that_is_never_ready_is_ended(
    workspace: Workspace, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "START_DEADLINE_S", 0.0)
    with pytest.raises(OctaveError, match="not ready within"):
        start(workspace, environ)
    assert not answers(workspace)


def test_as_a_program_it_prints_the_socket(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    command = [sys.executable, "-m", "octave.background"]
    done = subprocess.run(command, env=environ, capture_output=True, timeout=30, check=True)
    assert done.stdout == os.fsencode(workspace.socket())


def test_a_proxy_starts_the_runtime_it_needs_and_talks_to_its_servers(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    ping = {"jsonrpc": "2.0", "id": 0, "method": "ping"}
    params = {"name": "echo", "arguments": {"text": "through"}}
    call = {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params}
    lines = "".join(json.dumps(each) + "\n" for each in (ping, call))
    done = subprocess.run(
        [sys.executable, "-m", "octave", "proxy", "good"],
        env=environ,
        input=lines.encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    answered = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert answered[0]["result"] == {}
    assert answered["c"]["result"]["content"] == [{"type": "text", "text": "through"}]


def test_the_runtime_outlives_the_signals_of_its_starters_terminal(
    workspace: Workspace, environ: Mapping[str, str]
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-m", "octave.background"],
        env=environ,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert starter.stdout is not None
    with starter.stdout:
        starter.stdout.read()
    starter.wait(BOUND_S)
    with pytest.raises(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGINT)
    assert answers(workspace)
