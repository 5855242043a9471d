"""A home for each test, the installed `octave`, and what real clients need."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OCTAVE = Path(sys.executable).parent / "octave"
COMMAND_S = 300.0
"""A cold install of ten servers on two busy cores stays well below."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error of `--json`: the last line of stderr."""
        return json.loads(self.stderr.strip().splitlines()[-1])["error"]


@dataclass(frozen=True)
class Octave:
    """The installed command with an OCTAVE_HOME of its own."""

    home: Path
    cwd: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "OCTAVE_HOME": str(self.home), "CI": "1", **self.extra}

    def __call__(self, *words: str, stdin: str | None = None, code: int | None = 0) -> Ran:
        """Run `octave WORDS` to its end; `code` is the expected exit code, None for any."""
        done = subprocess.run(
            [OCTAVE, *words],
            cwd=self.cwd,
            env=self.environ,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in ran.stderr, ran.stderr
        if code is not None:
            assert ran.exit_code == code, f"octave {' '.join(words)}: {ran}"
        return ran

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start `octave WORDS` and return the process, its pipes open."""
        return subprocess.Popen(
            [OCTAVE, *words],
            cwd=self.cwd,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def octave(tmp_path: Path) -> Iterator[Octave]:
    """The command with a fresh home; a runtime left running is shut down."""
    (tmp_path / "cwd").mkdir()
    command = Octave(tmp_path / "octave-home", tmp_path / "cwd")
    yield command
    command("shutdown", code=None)


class Conversation:
    """MCP over the pipes of a process, a raw line at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._next = 0

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def receive(self) -> str:
        """Return the next line that answers something; notifications are passed over."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            if not line:
                assert self.process.stderr is not None
                raise AssertionError(f"the other side ended: {self.process.stderr.read()}")
            if "id" in json.loads(line):
                return line

    def request(self, method: str, params: object) -> Any:
        """Send a request and return the answer, which must be the next one."""
        self._next += 1
        message = {"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}
        self.send(json.dumps(message))
        answer = json.loads(self.receive())
        assert answer["id"] == self._next
        return answer

    def initialize(self) -> Any:
        answer = self.request(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "e2e", "version": "0"},
            },
        )
        self.send('{"jsonrpc":"2.0","method":"notifications/initialized"}')
        return answer["result"]

    def close(self) -> int:
        """End the input and return the exit code."""
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def proxy(octave: Octave) -> Iterator[Callable[..., Conversation]]:
    """Open `octave proxy WORDS` as a conversation; all are closed at the end."""
    opened: list[Conversation] = []

    def open_proxy(*words: str) -> Conversation:
        opened.append(Conversation(octave.start("proxy", *words)))
        return opened[-1]

    yield open_proxy
    for conversation in opened:
        if conversation.process.poll() is None:
            conversation.close()


def run(words: Sequence[str | Path], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run another program than octave to its end, captured."""
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        stdin=subprocess.DEVNULL,
        **options,
    )
