"""Processes that cannot be had: none left for now, or a program that is not there."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from octave.errors import StartFailed
from octave.packages.launch import Policy
from octave.runtime import lifecycle
from tests.runtime.fleet import SERVERS, call, launch, running

pytestmark = pytest.mark.anyio

CHECKOUT = SERVERS.parents[1]
STRANGER = 54321
"""A user who has no processes, so that a limit on theirs is felt at once."""
WAIT_S = 30.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


class Shortage:
    """Stands in for the system's spawn: refuses until there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.refusals = 0
        self.left = 0
        self._number = number
        self._spawn = subprocess.Popen
        monkeypatch.setattr("octave.runtime.command.Popen", self)
        monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            self.refusals += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._spawn(*args, **options)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_row_47_a_call_waits_until_there_is_room_for_a_process(
    state: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shortage = Shortage(monkeypatch, number)
    async with running(state, launch(state, "good"), launch(state, "good", name="other")) as run:
        assert await call(run["other"], "echo", text="up") == "up"
        shortage.left = 3
        assert await call(run["good"], "echo", text="at last") == "at last"
        assert run.kinds("good") == [*["starting", "backoff"] * 3, "starting", "ready"]
        told = run["good"].snapshot["lastError"]["message"]
        assert told == f"`good` could not be started: {os.strerror(number).lower()}"
        assert await call(run["other"], "echo", text="still up") == "still up"
    assert shortage.refusals == 3


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_row_47_an_auto_start_server_comes_up_by_itself(
    state: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shortage = Shortage(monkeypatch, number)
    shortage.left = 3
    async with running(state, launch(state, "good", policy=Policy(auto_start=True))) as run:
        await run.until(lambda: run["good"].state == "ready")
        assert run.kinds("good").count("backoff") == 3


async def test_row_47_after_a_long_shortage_start_brings_it_up(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortage = Shortage(monkeypatch, errno.EAGAIN)
    shortage.left = lifecycle.GIVE_UP_AFTER
    async with running(state, launch(state, "good")) as run:
        with pytest.raises(StartFailed, match="temporarily unavailable"):
            await call(run["good"], "echo", text="too early")
        assert run["good"].state == "failed"
        await run["good"].start()
        assert await call(run["good"], "echo", text="at last") == "at last"


async def test_row_48_a_missing_interpreter_fails_at_once_with_its_name(state: Path) -> None:
    path = state / "server"
    path.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    path.chmod(0o755)
    for program, told in (
        (path, f"`/no/such/interpreter`, which `{path}` needs, does not exist"),
        (state / "gone", f"`{state / 'gone'}` does not exist"),
    ):
        async with running(state, replace(launch(state, "good"), argv=(str(program),))) as run:
            with anyio.fail_after(5), pytest.raises(StartFailed) as caught:
                await call(run["good"], "echo", text="hi")
            assert told in caught.value.message
            assert caught.value.details["file"] in told
            assert run.kinds("good") == ["starting", "failed"]


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("exec /no/such/interpreter", 127, "/no/such/interpreter"),
        ("exec ./not-a-program", 126, "not-a-program"),
        ("exec env no-such-interpreter server.js", 127, "no-such-interpreter"),
    ],
)
async def test_row_48_exit_126_or_127_fails_at_once_with_the_name_of_the_file(
    state: Path, line: str, code: int, told: str
) -> None:
    spec = replace(launch(state, "good"), argv=("/bin/sh", "-c", line))
    (spec.cwd / "not-a-program").write_text("no", encoding="utf-8")
    async with running(state, spec) as run:
        with anyio.fail_after(5), pytest.raises(StartFailed) as caught:
            await call(run["good"], "echo", text="hi")
        assert caught.value.details["exitCode"] == code
        assert any(told in line for line in caught.value.details["stderrTail"])
        assert run.kinds("good") == ["starting", "failed"]
        with pytest.raises(StartFailed):
            await call(run["good"], "echo", text="again")
        assert run.kinds("good") == ["starting", "failed"]


# With the limit of the system itself.


_LIMIT = """
import resource, sys
pid, most = int(sys.argv[1]), sys.argv[2]
_, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
resource.prlimit(pid, resource.RLIMIT_NPROC, (int(most) if most else hard, hard))
"""
"""Run as that user: root may not be allowed to."""


class Stranger:
    """A user with a runtime of their own."""

    def __init__(self, root: Path, python: str) -> None:
        self._python = python
        self._options: dict[str, Any] = {
            "cwd": root,
            "env": {
                "PATH": os.environ["PATH"],
                "HOME": str(root),
                "OCTAVE_HOME": str(root / "home"),
                "PYTHONPATH": os.pathsep.join((str(CHECKOUT), sysconfig.get_path("purelib"))),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOSTILE_STATE": str(root),
            },
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "user": STRANGER,
            "group": STRANGER,
            "extra_groups": [],
        }

    def run(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([self._python, *words], **self._options)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return self.run("-m", "octave", *words)

    def allow_processes(self, pid: int, most: int | None) -> None:
        """Let `pid` start no process when its user has `most`; None: as many as at first."""
        child = self.run("-c", _LIMIT, str(pid), "" if most is None else str(most))
        _, err = child.communicate(timeout=WAIT_S)
        assert child.returncode == 0, err

    def octave(self, *words: str) -> tuple[int, str, str]:
        child = self.start(*words)
        out, err = child.communicate(timeout=WAIT_S)
        return child.returncode, out, err


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("needs root, to be another user")
    # Theirs alone: pytest's own folders are closed to others.
    root = Path(tempfile.mkdtemp(prefix="octave-stranger-"))
    try:
        (root / "home").mkdir(mode=0o700)
        os.chown(root, STRANGER, STRANGER)
        os.chown(root / "home", STRANGER, STRANGER)
        python = _reachable_python(root)
        command = json.dumps([python, str(SERVERS / "good.py")])
        servers = "".join(f"[servers.{name}]\ncommand = {command}\n" for name in ("good", "other"))
        text = f"[runtime]\nport = 0\n{servers}"
        (root / "home" / "octave.toml").write_text(text, encoding="utf-8")
        for path in (root, *root.rglob("*")):
            os.chown(path, STRANGER, STRANGER)
        yield Stranger(root, python)
    finally:
        shutil.rmtree(root)


def _reachable_python(root: Path) -> str:
    """Return a Python that others may run: the one of the tests may lie in a private folder."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(minor, path="/usr/local/bin:/usr/bin")):
        with contextlib.suppress(PermissionError):
            if python and Stranger(root, python).octave("list")[0] == 0:
                return python
    pytest.skip("another user cannot run the checkout")


def test_row_47_a_runtime_lives_on_when_its_user_may_have_no_more_processes(
    stranger: Stranger,
) -> None:
    runtime = stranger.start("serve")
    assert runtime.stdout is not None
    try:
        while not runtime.stdout.readline().startswith("ready on"):
            assert runtime.poll() is None
        assert stranger.octave("call", "other", "echo", "text=up")[:2] == (0, "up\n")
        stranger.allow_processes(runtime.pid, 1)
        code, _, told = stranger.octave("call", "good", "echo", "text=hi")
        assert code == 6
        assert "temporarily unavailable" in told
        assert stranger.octave("call", "other", "echo", "text=up")[:2] == (0, "up\n")
        assert stranger.octave("status")[0] == 0
        stranger.allow_processes(runtime.pid, None)
        assert stranger.octave("start", "good")[0] == 0
        assert stranger.octave("call", "good", "echo", "text=hi")[:2] == (0, "hi\n")
    finally:
        runtime.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            runtime.communicate(timeout=WAIT_S)
        runtime.kill()
    assert runtime.returncode == 0
