"""Clients that call without a pause through `octave proxy`, while versions come and go."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.packages.story import WAIT_S, World
from tests.packages.test_faults_install import any_port
from tests.packages.versions_of import program

GREETING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "load", "version": "1"},
}
CALL = {"name": "echo", "arguments": {}}
LONGEST_S = 5.0
"""Of one call: an ordinary one takes milliseconds and a start a second, with all of them at work on
two processors; one that waited for a drain, or for a start that failed, takes longer."""


@dataclass
class Heard:
    """What one client was told."""

    versions: list[str] = field(default_factory=list)
    errors: list[object] = field(default_factory=list)
    slowest_s: float = 0.0
    list_changes: int = 0


class Client:
    """One AI tool behind a proxy of its own."""

    def __init__(self, world: World) -> None:
        self.heard = Heard()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "octave", "proxy", "story-good"],
            env={**world.environ},
            cwd=world.cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._number = 0
        self.ask("initialize", GREETING)
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _write(self, message: dict[str, object]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()

    def ask(self, method: str, params: object) -> dict[str, object]:
        assert self._child.stdout is not None
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._write(request)
        for line in self._child.stdout:
            said = json.loads(line)
            if said.get("id") == self._number:
                return dict(said)
            self.heard.list_changes += said.get("method") == "notifications/tools/list_changed"
        raise AssertionError("the proxy ended")

    def call_until(self, is_over: threading.Event) -> Heard:
        while not is_over.is_set():
            began_s = time.monotonic()
            said = self.ask("tools/call", CALL)
            self.heard.slowest_s = max(self.heard.slowest_s, time.monotonic() - began_s)
            result = said.get("result")
            if not isinstance(result, dict) or result.get("isError"):
                self.heard.errors.append(said)
            else:
                self.heard.versions.append(str(result["content"][0]["text"]))
        return self.heard

    def close(self) -> None:
        self._child.stdin and self._child.stdin.close()
        self._child.wait(WAIT_S)
        self._child.stdout and self._child.stdout.close()


@pytest.fixture
def served(world: World) -> Iterator[World]:
    any_port(world)
    yield world
    world.octave("shutdown")


@pytest.mark.parametrize(
    ("clients", "changes"),
    [
        (3, 2),
        pytest.param(16, 20, marks=[pytest.mark.campaign, pytest.mark.timeout(900)]),
    ],
)
def test_no_call_fails_or_waits_while_versions_come_and_go(
    served: World,
    clients: int,
    changes: int,
    record_property: Callable[[str, object], None],
) -> None:
    served.offer("story-good", program("0"), "0")
    assert served.octave("install", "pypi:story-good", "-q").code == 0
    assert served.octave("start", "story-good").code == 0
    everybody = [Client(served) for _ in range(clients)]
    is_over, versions = threading.Event(), ["0"]
    with ThreadPoolExecutor(clients) as pool:
        heard = [pool.submit(each.call_until, is_over) for each in everybody]
        try:
            for number in range(1, changes + 1):
                verb = ("update", "-y") if number % 2 else ("rollback", "story-good")
                if number % 2:
                    version = str(number)
                    served.offer("story-good", program(version), version)
                else:
                    version = versions[-2]
                done = served.octave(*verb, "-q")
                assert done.code == 0, done.stderr
                versions.append(version)
        finally:
            is_over.set()
        told = [each.result(WAIT_S) for each in heard]
    for client in everybody:
        client.close()
    record_property("slowest_s", max(each.slowest_s for each in told))
    record_property("calls", sum(len(each.versions) for each in told))
    for each in told:
        assert each.errors == []
        changed = [b for a, b in zip(["", *each.versions], each.versions, strict=False) if a != b]
        assert changed == versions[: len(changed)]
        assert len(changed) >= len(versions) - 1
        assert each.slowest_s < LONGEST_S
        assert each.list_changes >= changes - 1
