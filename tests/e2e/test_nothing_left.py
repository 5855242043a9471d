"""A runtime that is killed, upgraded or told to end leaves no process, whatever its servers do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from octave.background import RUN_MARK
from octave.runtime.guardian import end_marked, find
from tests.e2e.conftest import Octave

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts processes by /proc")

SERVERS = Path(__file__).parents[1] / "servers"
BOUND_S = 10.0
GONE_S = 2.0
"""The promise, not a measurement."""
FLEET = {
    "good": ("good.py",),
    "deaf": ("deaf.py",),
    "stubborn": ("ignore_sigterm.py",),
    "group": ("fork_grandchild.py", "group"),
    "session": ("fork_grandchild.py", "session"),
    "daemon": ("fork_grandchild.py", "daemon"),
    "npm": ("npm_tree.py",),
}
PROCESSES = 12
"""One of each, a grandchild of three, and of the npm tree two shells around the server."""


def write_manifest(octave: Octave, names: tuple[str, ...]) -> None:
    octave.home.mkdir(mode=0o700, exist_ok=True)
    lines = ["[runtime]\nport = 0\n"]
    for name in names:
        script, *words = FLEET[name]
        command = json.dumps([sys.executable, str(SERVERS / script), *words])
        lines.append(f"[servers.{name}]\ncommand = {command}\nauto_start = true\n")
    (octave.home / "octave.toml").write_text("\n".join(lines), encoding="utf-8")


@contextmanager
def served(octave: Octave, *names: str) -> Iterator[tuple["subprocess.Popen[str]", bytes]]:
    """A runtime in the foreground, its servers up, and the mark of what it started."""
    write_manifest(octave, names)
    earlier = {record.stem for record in (octave.home / "run").glob("*.run")}
    process = octave.start("serve")
    mark = b""
    try:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("ready on"):
            assert process.poll() is None
        (run,) = {record.stem for record in (octave.home / "run").glob("*.run")} - earlier
        mark = f"{RUN_MARK}={run}".encode()
        yield process, mark
    finally:
        process.kill()
        process.communicate()
        if mark:
            end_marked([mark], grace_s=0)


def guardian_of(process: "subprocess.Popen[str]") -> int:
    (guardian,) = [
        child.pid
        for child in psutil.Process(process.pid).children()
        if any(word.endswith("guardian.py") for word in child.cmdline())
    ]
    return guardian


def wait_until(is_so: Callable[[], object], seconds: float = BOUND_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def test_a_killed_runtime_leaves_no_process_of_any_tree(octave: Octave) -> None:
    with served(octave, *FLEET) as (process, mark):
        guardian = guardian_of(process)
        wait_until(lambda: len(find([mark])) == PROCESSES)
        process.kill()
        process.wait(BOUND_S)
        wait_until(lambda: not find([mark]), GONE_S)
        wait_until(lambda: not psutil.pid_exists(guardian))


def test_killed_with_its_guardian_what_it_left_ends_before_the_next_is_ready(
    octave: Octave,
) -> None:
    with served(octave, "stubborn", "session", "daemon") as (process, old):
        for pid in (guardian_of(process), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait(BOUND_S)
        assert find([old])
        with served(octave, "good"):
            assert not find([old])
            assert not any(old.decode().endswith(path.stem) for path in records(octave))


def records(octave: Octave) -> list[Path]:
    return list((octave.home / "run").glob("*.run"))


def test_an_ordered_end_leaves_neither_servers_nor_guardian(octave: Octave) -> None:
    with served(octave, "good", "group", "session", "daemon") as (process, mark):
        guardian = guardian_of(process)
        octave("shutdown")
        assert not find([mark])
        assert not psutil.pid_exists(guardian)
        assert records(octave) == []
        assert process.wait(BOUND_S) == 0


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_what_one_server_started_ends_with_it(octave: Octave, verb: str) -> None:
    with served(octave, "session", "daemon", "good") as (_, mark):
        wait_until(lambda: len(find([mark])) == 5)
        before = set(find([mark]))
        octave(verb, "session", "daemon")
        left = 1 if verb == "stop" else 5
        wait_until(lambda: len(find([mark])) == left)
        assert len(before.intersection(find([mark]))) == 1


def test_a_killed_call_without_a_runtime_leaves_no_server(octave: Octave) -> None:
    write_manifest(octave, ("good",))
    calling = octave.start("call", "good", "sleep", "s=600")
    wait_until(lambda: calls(octave))
    (record,) = records(octave)
    mark = f"{RUN_MARK}={record.stem}".encode()
    assert find([mark])
    calling.kill()
    calling.communicate()
    wait_until(lambda: not find([mark]), GONE_S)


def calls(octave: Octave) -> bool:
    return any(find([f"{RUN_MARK}={record.stem}".encode()]) for record in records(octave))


def test_a_runtime_that_a_server_had_started_in_the_background_stays(octave: Octave) -> None:
    write_manifest(octave, ())
    marked = Octave(octave.home, octave.cwd, {RUN_MARK: "outer", "OCTAVE_PROCESS": "outer"})
    marked("serve", "--detach")
    assert find([f"{RUN_MARK}=outer".encode(), b"OCTAVE_PROCESS=outer"]) == []
    marked("status")
