import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octave import __version__, remote
from octave.cli.options import Manners
from octave.cli.site import open_site
from octave.errors import CallTimedOut, Locked, OctaveError, RuntimeNotRunning, RuntimeSilent
from octave.home import Home, Workspace
from octave.remote import Remote, is_claimed
from octave.serve.claim import take_lock
from tests.serve.running import ask, home_workspace, manifest_text, running

BOUND_S = 10.0
WELCOME = b'{"octave":{"version":1,"runtime":"9.9.9"}}\n'
Talk = Callable[[socket.socket], None]
Serve = Callable[[Talk], None]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.of_home(Home(tmp_path / "h"))
    workspace.prepare()
    return workspace


@pytest.fixture
def serve(workspace: Workspace) -> Iterator[Serve]:
    """Let the test play the runtime: its function is given the first connection."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(workspace.socket()))
    listener.listen()
    threads: list[threading.Thread] = []

    def serve(talk: Talk) -> None:
        def run() -> None:
            link, _ = listener.accept()
            with link:
                assert link.makefile("rb").readline() == remote.HELLO
                talk(link)

        threads.append(threading.Thread(target=run))
        threads[0].start()

    yield serve
    listener.close()
    for thread in threads:
        thread.join(BOUND_S)


def wait_for_the_end(link: socket.socket) -> None:
    while link.recv(1000):
        pass


@pytest.mark.anyio
async def test_it_knows_the_version_of_the_runtime_it_reached(tmp_path: Path) -> None:
    workspace = home_workspace(tmp_path / "h", manifest_text())
    async with running(workspace):
        assert await ask(workspace, lambda remote: remote.version) == __version__


def test_without_a_runtime_it_says_how_to_start_one(workspace: Workspace) -> None:
    with pytest.raises(RuntimeNotRunning) as raised:
        Remote.connect(workspace)
    assert raised.value.exit_code == 3
    assert "octave start" in (raised.value.hint or "")


def test_a_stale_socket_is_no_runtime(workspace: Workspace) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(os.fspath(workspace.socket()))
    with pytest.raises(RuntimeNotRunning):
        Remote.connect(workspace)


def test_a_runtime_that_only_begins_to_listen_is_waited_for(
    workspace: Workspace, serve: Serve
) -> None:
    path = workspace.socket()
    elsewhere = path.rename(path.with_suffix(".later"))
    lock = take_lock(workspace)
    timer = threading.Timer(0.2, elsewhere.rename, [path])
    timer.start()
    serve(lambda link: link.sendall(WELCOME))
    with Remote.connect(workspace) as connected:
        assert connected.version == "9.9.9"
    timer.join()
    lock.release()


def test_row_39_a_runtime_that_cannot_be_reached_is_not_said_to_be_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETURN_S", 0.05)
    lock = take_lock(workspace)
    workspace.runtime_file.write_text('{"pid": 7}')
    with pytest.raises(RuntimeNotRunning) as raised:
        Remote.connect(workspace)
    assert raised.value.message == (
        f"the runtime for `{workspace.manifest}` (pid 7) cannot be reached"
    )
    assert raised.value.hint
    lock.release()


def test_a_workspace_is_claimed_while_its_lock_is_held_and_looking_takes_it_from_nobody(
    workspace: Workspace,
) -> None:
    assert not is_claimed(workspace)
    lock = take_lock(workspace)
    assert is_claimed(workspace)
    lock.release()
    assert workspace.runtime_lock.exists()
    assert not is_claimed(workspace)
    take_lock(workspace).release()


def test_a_refusal_is_the_error_it_was(workspace: Workspace, serve: Serve) -> None:
    error = json.dumps({"octave": {"error": {"code": "locked", "message": "no", "hint": "h"}}})
    serve(lambda link: link.sendall(error.encode() + b"\n"))
    with pytest.raises(Locked) as raised:
        Remote.connect(workspace)
    assert (raised.value.message, raised.value.hint) == ("no", "h")


@pytest.mark.parametrize("line", [b"HTTP/1.1 400\n", b"[]\n", b"{}\n", b'{"octave":1}\n'])
def test_something_else_on_the_socket_is_named(
    workspace: Workspace, serve: Serve, line: bytes
) -> None:
    serve(lambda link: link.sendall(line))
    with pytest.raises(OctaveError, match="no Octave runtime"):
        Remote.connect(workspace)


def test_a_runtime_that_says_nothing_is_given_up(
    workspace: Workspace, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "HELLO_TIMEOUT_S", 0.05)
    serve(wait_for_the_end)
    with pytest.raises(RuntimeSilent, match="does not answer"):
        Remote.connect(workspace)


def test_one_command_waits_only_once_for_a_runtime_that_says_nothing(
    workspace: Workspace, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "HELLO_TIMEOUT_S", 0.05)
    monkeypatch.setenv("OCTAVE_HOME", str(workspace.home.root))
    serve(wait_for_the_end)
    with open_site(Manners(home_only=True)) as site:
        with pytest.raises(RuntimeSilent) as first:
            site.swapped("x")
        with pytest.raises(RuntimeSilent) as second:
            site.swapped("y")
    assert second.value is first.value


def test_the_raw_result_keeps_every_byte(workspace: Workspace, serve: Serve) -> None:
    result = b'{ "a":1.10,"a":1E2 , "\\ud800":"\xc3\xbc" }'

    def talk(link: socket.socket) -> None:
        link.sendall(WELCOME)
        link.recv(1000)
        answer = b'{"jsonrpc":"2.0","id":1,"result":%b}\n' % result
        for piece in (answer[:40], answer[40:]):
            link.sendall(piece)

    serve(talk)
    with Remote.connect(workspace) as connected:
        assert connected.request_raw("octave/call") == result


def test_an_answer_that_does_not_come_in_time_is_a_time_out(
    workspace: Workspace, serve: Serve
) -> None:
    def talk(link: socket.socket) -> None:
        link.sendall(WELCOME)
        wait_for_the_end(link)

    serve(talk)
    with Remote.connect(workspace) as connected:
        with pytest.raises(CallTimedOut):
            connected.request("octave/status", timeout_s=0.05)
        assert not connected.wait_until_closed(0.05)


def test_a_runtime_that_ends_in_between_is_not_running(workspace: Workspace, serve: Serve) -> None:
    serve(lambda link: link.sendall(WELCOME))
    with Remote.connect(workspace) as connected:
        assert connected.wait_until_closed(BOUND_S)
        with pytest.raises(RuntimeNotRunning):
            connected.request("octave/status")
