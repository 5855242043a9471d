"""The proxy under a client that stays, before real runtimes that go."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from octave.background import answers, start
from octave.home import Workspace
from octave.remote import Remote
from tests.serve.running import BOUND_S, CHECKOUT, home_workspace, manifest_text


class Client:
    """An AI tool: starts a proxy and speaks MCP with it, a line at a time."""

    def __init__(self, workspace: Workspace, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "octave", "proxy", *words],
            env=environ(workspace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.heard: list[Any] = []
        """Notifications, in the order they came."""
        self._asked = 0

    def say(self, message: Mapping[str, object]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def begin(self, method: str, **params: object) -> int:
        """Send a request and return its id."""
        self._asked += 1
        self.say({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params})
        return self._asked

    def answer(self) -> Any:
        """Return the next answer."""
        while "id" not in (message := self.receive()):
            self.heard.append(message["method"])
        return message

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the proxy ended"
        return json.loads(line)

    def ask(self, method: str, **params: object) -> Any:
        identifier = self.begin(method, **params)
        answer = self.answer()
        assert answer["id"] == identifier
        return answer["result"]

    def shake_hands(self) -> None:
        info = {"name": "test", "version": "0"}
        version = "2025-11-25"
        self.ask("initialize", protocolVersion=version, capabilities={}, clientInfo=info)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, tool: str, **arguments: object) -> Any:
        return self.ask("tools/call", name=tool, arguments=arguments)["content"][0]["text"]

    def close(self) -> None:
        self.process.communicate(timeout=BOUND_S)


Connect = Callable[..., Client]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = home_workspace(tmp_path / "h", manifest_text("good"))
    yield workspace
    if answers(workspace):
        with Remote.connect(workspace) as remote:
            remote.request("octave/shutdown")
            assert remote.wait_until_closed(BOUND_S)


@pytest.fixture
def connect(workspace: Workspace) -> Iterator[Connect]:
    """Start a proxy with these words; all are ended before the runtime is."""
    clients: list[Client] = []

    def connect(*words: str) -> Client:
        clients.append(Client(workspace, *words))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def environ(workspace: Workspace) -> dict[str, str]:
    home = os.fspath(workspace.home.root)
    return {**os.environ, "OCTAVE_HOME": home, "PYTHONPATH": os.fspath(CHECKOUT)}


def kill_runtime(workspace: Workspace) -> None:
    pid = workspace.runtime()["pid"]
    assert isinstance(pid, int)
    runtime = psutil.Process(pid)
    family = [runtime, *runtime.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, BOUND_S)


def test_row_61_a_client_stays_when_its_runtime_is_shut_down(
    workspace: Workspace, connect: Connect
) -> None:
    start(workspace, environ(workspace))
    first = workspace.runtime()["pid"]
    client = connect("good")
    client.shake_hands()
    assert client.call("echo", text="before") == "before"
    with Remote.connect(workspace) as remote:
        remote.request("octave/shutdown")
        assert remote.wait_until_closed(BOUND_S)
    assert client.receive()["method"] == "notifications/tools/list_changed"
    assert client.call("echo", text="after") == "after"
    assert workspace.runtime()["pid"] != first


def test_row_61_a_runtime_killed_in_a_call_costs_that_call_only(
    workspace: Workspace, connect: Connect
) -> None:
    start(workspace, environ(workspace))
    client = connect()
    client.shake_hands()
    assert client.call("good__echo", text="before") == "before"
    server = int(client.call("good__pid"))
    call = client.begin("tools/call", name="good__sleep", arguments={"s": 600})
    # Answered at once and in order: the call before it is in the runtime's hands.
    client.ask("ping")
    client.heard.clear()
    kill_runtime(workspace)
    answer = client.answer()
    assert answer["id"] == call
    assert answer["error"]["data"]["octave"]["code"] == "server_died"
    assert client.call("good__echo", text="after") == "after"
    assert int(client.call("good__pid")) != server
    kinds = ("tools", "prompts", "resources")
    assert {f"notifications/{kind}/list_changed" for kind in kinds} <= set(client.heard)
