"""A fleet of small servers, well-behaved and not, under the installed `octave serve`."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from octave.background import RUN_MARK
from octave.runtime.guardian import end_marked
from tests.e2e.conftest import OCTAVE, Octave

SERVERS = Path(__file__).parents[1] / "servers"
BOUND_S = 10.0
GONE_S = 2.0
"""What a killed runtime left is gone by then: the promise, not a measurement."""
FLEET = {
    "good": ("good.py",),
    "deaf": ("deaf.py",),
    "stubborn": ("ignore_sigterm.py",),
    "group": ("fork_grandchild.py", "group"),
    "session": ("fork_grandchild.py", "session"),
    "daemon": ("fork_grandchild.py", "daemon"),
    "npm": ("npm_tree.py",),
    "silent": ("never_initialize.py",),
}


def write_manifest(
    octave: Octave, names: Sequence[str], *, runtime: str = "", server: str = "auto_start = true"
) -> None:
    """Write an octave.toml with these of `FLEET`; more lines for the runtime and each server.

    A name may have a number at its end, so that there can be many of one kind.
    """
    octave.home.mkdir(mode=0o700, exist_ok=True)
    lines = [f"[runtime]\nport = 0\n{runtime}\n"]
    for name in names:
        script, *words = FLEET[name.rstrip("0123456789")]
        command = json.dumps([sys.executable, str(SERVERS / script), *words])
        env = f'env = {{ HOSTILE_STATE = "{octave.cwd}/{name}" }}'
        lines.append(f"[servers.{name}]\ncommand = {command}\n{env}\n{server}\n")
    (octave.home / "octave.toml").write_text("\n".join(lines), encoding="utf-8")


def events(octave: Octave, name: str) -> list[str]:
    """Return what the server noted of itself, without pids and times."""
    path = octave.cwd / name / "events.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.split()[0] for line in lines]


def records(octave: Octave) -> list[Path]:
    """Return what the runtimes of the home have noted to be found by."""
    return list((octave.home / "run").glob("*.run"))


def read_until_ready(process: "subprocess.Popen[str]") -> None:
    """Take the lines of `octave serve` up to the one that says it can be reached."""
    assert process.stdout is not None
    while not process.stdout.readline().startswith("ready on"):
        assert process.poll() is None


@contextmanager
def served(
    octave: Octave, *names: str, files: int | None = None
) -> Iterator[tuple["subprocess.Popen[str]", bytes]]:
    """A runtime in the foreground, its servers up, and the mark of what it started.

    The manifest is written unless `names` is empty; `files` limits how many may be open.
    """
    if names:
        write_manifest(octave, names)
    earlier = {record.stem for record in records(octave)}
    process = octave.start("serve") if files is None else _start_with(octave, files)
    mark = b""
    try:
        read_until_ready(process)
        (run,) = {record.stem for record in records(octave)} - earlier
        mark = f"{RUN_MARK}={run}".encode()
        yield process, mark
    finally:
        process.kill()
        process.communicate()
        if mark:
            end_marked([mark], grace_s=0)


def _start_with(octave: Octave, files: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["sh", "-c", f"ulimit -n {files}; exec {shlex.quote(str(OCTAVE))} serve"],
        cwd=octave.cwd,
        env=octave.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def guardian_of(process: "subprocess.Popen[str]") -> int:
    """Return the process that looks after what the runtime started."""
    (guardian,) = [
        child.pid
        for child in psutil.Process(process.pid).children()
        if any(word.endswith("guardian.py") for word in child.cmdline())
    ]
    return guardian


def lives(pid: int) -> bool:
    """Whether it does; one that is dead and waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def states(octave: Octave) -> Mapping[str, str]:
    """Return the state of each server by its name."""
    found = octave("status", "--json").document["servers"]
    return {server["name"]: server["state"] for server in found}


def wait_until(is_so: Callable[[], object], seconds: float = BOUND_S) -> None:
    """Look again and again: of strangers' processes nothing tells when they end."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
