import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from octave.background import PROCESS_MARK, RUN_MARK
from octave.packages.launch import LaunchSpec
from octave.runtime import guardian, marker
from octave.runtime.command import Command
from octave.runtime.guardian import end_marked, environments_by_ps, find
from octave.runtime.marker import Run, sweep
from octave.runtime.process import Callbacks, Process
from tests.runtime.fleet import SERVERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tells processes by /proc")

CHECKOUT = Path(__file__).parents[2]
BOUND_S = 5.0
GONE_S = 2.0
"""What a killed runtime has left must be gone by then: the promise, not a measurement."""
KILLS = 100
GUARDIAN_RSS_BYTES = 12 * 10**6
SLEEP = "import time; time.sleep(600)"

SHAPES = {
    "leaves at the end of input": ("good",),
    "ignores the end of input": ("deaf",),
    "ignores SIGTERM too": ("ignore_sigterm",),
    "grandchild in its group": ("fork_grandchild", "group"),
    "grandchild in its own session": ("fork_grandchild", "session"),
    "daemon": ("fork_grandchild", "daemon"),
    "npm tree": ("npm_tree",),
    "npm tree around a stubborn one": ("npm_tree", str(SERVERS / "ignore_sigterm.py")),
}


def wait_until(is_so: Callable[[], object], seconds: float = BOUND_S) -> None:
    """Look again and again: of strangers' children nothing tells when they end."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Runtime:
    """A `marked_runtime` that is up."""

    process: "subprocess.Popen[bytes]"
    run: str
    guardian: int
    server: int

    @property
    def mark(self) -> bytes:
        return f"{RUN_MARK}={self.run}".encode()

    @property
    def marked(self) -> list[int]:
        return find([self.mark])

    def kill(self, *others: int) -> None:
        for pid in (*others, self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(BOUND_S)


@contextmanager
def runtime(state: Path, *words: str) -> Iterator[Runtime]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.marked_runtime", str(state), *words],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    mark = b""
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        running = Runtime(process, **facts)
        mark = running.mark
        yield running
    finally:
        process.kill()
        process.communicate()
        if mark:
            end_marked([mark], grace_s=0)


@contextmanager
def child(code: str = SLEEP, *words: str, **environ: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that says a line when it is up."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"print(flush=True)\n{code}", *words],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def mark_of(value: str) -> bytes:
    return f"{RUN_MARK}={value}".encode()


# The runtime is killed.


@pytest.mark.parametrize("words", SHAPES.values(), ids=SHAPES)
def test_row_33_a_killed_runtime_leaves_no_process_of_any_shape(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with runtime(tmp_path, *words) as running:
        assert running.server in running.marked
        running.kill()
        wait_until(lambda: not running.marked, GONE_S)
        wait_until(lambda: not is_alive(running.guardian))


def test_row_33_a_guardian_killed_before_its_runtime_has_a_successor(tmp_path: Path) -> None:
    with runtime(tmp_path, "fork_grandchild", "session") as running:
        os.kill(running.guardian, signal.SIGKILL)
        wait_until(lambda: guardians_of(running.process.pid) - {running.guardian})
        running.kill()
        wait_until(lambda: not running.marked, GONE_S)


def guardians_of(runtime: int) -> set[int]:
    return {
        child.pid
        for child in psutil.Process(runtime).children()
        if is_alive(child.pid) and guardian.__file__ in child.cmdline()
    }


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("words", SHAPES.values(), ids=SHAPES)
def test_row_33_no_orphan_in_a_hundred_kills_over_all_shapes(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    for _ in range(-(-KILLS // len(SHAPES))):
        with runtime(tmp_path, *words) as running:
            running.kill()
            wait_until(lambda: not running.marked, GONE_S)


def test_row_34_killed_with_its_guardian_it_leaves_the_rest_to_the_next_one(tmp_path: Path) -> None:
    with runtime(tmp_path, "fork_grandchild", "daemon") as running:
        running.kill(running.guardian)
        assert running.marked
        sweep(tmp_path)
        assert not running.marked
    assert list(tmp_path.glob("*.run")) == []


def test_an_orderly_stop_leaves_neither_servers_nor_guardian_nor_record(tmp_path: Path) -> None:
    with runtime(tmp_path, "good") as running:
        assert len(list(tmp_path.glob("*.run"))) == 1
        running.process.communicate(timeout=BOUND_S)
        assert not running.marked
        assert not is_alive(running.guardian)
        assert list(tmp_path.glob("*.run")) == []


def test_only_the_runtime_can_keep_the_guardian_asleep(tmp_path: Path) -> None:
    with runtime(tmp_path, "fork_grandchild", "session") as running:
        wait_until(lambda: len(running.marked) == 2)
        pipe = Path(f"/proc/{running.guardian}/fd/0").stat()
        holders = {
            process.pid
            for process in psutil.process_iter()
            if pipe.st_ino in inodes(process.pid) and process.pid != running.guardian
        }
        assert holders == {running.process.pid}


def inodes(pid: int) -> set[int]:
    try:
        return {path.stat().st_ino for path in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


def test_the_guardian_is_small_deaf_and_holds_nothing(tmp_path: Path) -> None:
    with runtime(tmp_path, "good") as running:
        process = psutil.Process(running.guardian)
        wait_until(lambda: is_deaf(running.guardian))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        assert is_alive(running.guardian)
        assert os.getsid(running.guardian) == running.guardian
        assert process.cwd() == "/"
        assert len(os.listdir(f"/proc/{running.guardian}/fd")) == 3  # noqa: PTH208
        assert RUN_MARK not in process.environ()
        assert process.memory_info().rss < GUARDIAN_RSS_BYTES


def is_deaf(pid: int) -> bool:
    """Whether the guardian has got so far as to ignore SIGINT, SIGTERM and SIGHUP."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    ignored = int(next(line for line in lines if line.startswith("SigIgn")).split()[1], 16)
    return all(ignored >> (number - 1) & 1 for number in (1, 2, 15))


# A guardian that is gone.


@pytest.mark.anyio
async def test_a_dead_guardian_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    async with alive(tmp_path) as (run, started):
        assert started()[RUN_MARK] == run.id
        first = run.guardian_pid
        assert first is not None
        started()
        assert run.guardian_pid == first
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_alive(first))
        started()
        second = run.guardian_pid
        assert second not in {None, first}
    assert second is not None
    assert not is_alive(second)


@pytest.mark.anyio
async def test_servers_start_also_where_no_guardian_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    async with alive(tmp_path) as (run, started):
        assert started()[RUN_MARK] == run.id
        assert run.guardian_pid is None
    assert "no guardian" in caplog.text


@asynccontextmanager
async def alive(state: Path) -> AsyncIterator[tuple[Run, Callable[[], dict[str, str]]]]:
    run = Run(state, {RUN_MARK: "another", PROCESS_MARK: "another", "PATH": os.defpath})
    (spec,) = run.marked([LaunchSpec("it", ("/bin/true",), state, lambda: {"A": "b"})])

    def started() -> dict[str, str]:
        spec.before_start()
        return spec.environment()

    async with run.alive():
        yield run, started


@pytest.mark.anyio
async def test_a_guardian_that_dies_has_a_successor_though_no_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "SUCCESSOR_DELAY_S", 0.0)
    async with alive(tmp_path) as (run, started):
        started()
        first = run.guardian_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await anyio.to_thread.run_sync(wait_until, lambda: run.guardian_pid != first)
        second = run.guardian_pid
    assert second is not None
    assert not is_alive(second)


@pytest.mark.anyio
async def test_a_guardian_that_could_not_be_started_is_tried_again_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(marker, "NEXT_ATTEMPT_S", 0.01)
    python = sys.executable
    async with alive(tmp_path) as (run, started):
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        started()
        await anyio.sleep(0.1)
        assert run.guardian_pid is None
        monkeypatch.setattr(sys, "executable", python)
        await anyio.to_thread.run_sync(wait_until, lambda: run.guardian_pid is not None)
    assert caplog.text.count("no guardian") == 1


@pytest.mark.anyio
async def test_a_record_that_was_removed_is_written_again(tmp_path: Path) -> None:
    async with alive(tmp_path) as (run, _):
        record = anyio.Path(tmp_path / f"{run.id}.run")
        text = await record.read_bytes()
        await record.unlink()
        run.mend()
        assert await record.read_bytes() == text
    assert not await record.exists()


# Whom it may signal.


def test_without_a_file_to_be_had_it_keeps_looking_and_does_not_say_that_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guardian, "BOUND_S", 0.2)
    with child(**{RUN_MARK: "unseen"}) as server:
        with no_more_files():
            assert not end_marked([mark_of("unseen")])
            assert server.poll() is None
        assert end_marked([mark_of("unseen")])


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_row_40_a_recycled_pid_in_a_record_is_never_signalled(tmp_path: Path) -> None:
    with child() as stranger:
        write_record(tmp_path, "dead", stranger.pid, started_at=1)
        sweep(tmp_path)
        assert stranger.poll() is None
    assert list(tmp_path.iterdir()) == []


def test_row_40_a_record_of_another_boot_is_of_a_dead_runtime(tmp_path: Path) -> None:
    with child(**{RUN_MARK: "dead"}) as server, child() as stranger:
        started_at = marker._identity(stranger.pid)["startedAt"]
        record = write_record(tmp_path, "dead", stranger.pid, started_at)
        found = json.loads(record.read_text(encoding="utf-8"))
        record.write_text(json.dumps(found | {"bootId": "another"}), encoding="utf-8")
        sweep(tmp_path)
        assert server.wait(BOUND_S) == -signal.SIGTERM
        assert stranger.poll() is None


def test_row_40_a_pid_that_is_anothers_by_the_time_of_the_signal_is_left_alone() -> None:
    with child(**{RUN_MARK: "another"}) as stranger:
        guardian._signal(stranger.pid, [mark_of("dead")], signal.SIGKILL)
        assert stranger.poll() is None


def test_the_servers_of_a_runtime_that_lives_are_left_alone(tmp_path: Path) -> None:
    with child(**{RUN_MARK: "living"}) as server, child() as other_runtime:
        started_at = marker._identity(other_runtime.pid)["startedAt"]
        record = write_record(tmp_path, "living", other_runtime.pid, started_at)
        sweep(tmp_path)
        assert server.poll() is None
        assert record.exists()


@pytest.mark.parametrize("pid", [0, 1, -1])
def test_row_40_a_record_with_an_impossible_pid_is_of_a_dead_runtime(
    tmp_path: Path, pid: int
) -> None:
    with child(**{RUN_MARK: "dead"}) as server:
        write_record(tmp_path, "dead", pid, started_at=1)
        sweep(tmp_path)
        assert server.wait(BOUND_S) == -signal.SIGTERM


@pytest.mark.parametrize("text", ["", "null", "{", '{"format": 1}', '{"format": "x"}'])
def test_a_broken_record_still_leads_to_what_carries_its_mark(tmp_path: Path, text: str) -> None:
    with child(**{RUN_MARK: "dead"}) as server:
        (tmp_path / "dead.run").write_text(text, encoding="utf-8")
        sweep(tmp_path)
        assert server.wait(BOUND_S) == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_a_newer_octave_is_left_alone(tmp_path: Path) -> None:
    with child(**{RUN_MARK: "later"}) as server:
        (tmp_path / "later.run").write_text('{"format": 2, "pid": 1}', encoding="utf-8")
        sweep(tmp_path)
        assert server.poll() is None


def write_record(folder: Path, run_id: str, pid: int, started_at: object) -> Path:
    record = {"format": 1, "bootId": marker._boot_id(), "pid": pid, "startedAt": started_at}
    path = folder / f"{run_id}.run"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_the_mark_must_be_a_whole_entry_of_the_environment() -> None:
    similar = {
        "A": f"{RUN_MARK}=one",
        f"X{RUN_MARK}": "one",
        RUN_MARK: "one-and-more",
    }
    with child(SLEEP, f"{RUN_MARK}=one", **similar) as stranger:
        assert find([mark_of("one")]) == []
        assert find([mark_of("one-and-more"), mark_of("none")]) == [stranger.pid]


def test_neither_itself_nor_its_own_group_is_signalled() -> None:
    code = f"""if True:
        import os, subprocess, sys
        from octave.runtime.guardian import end_marked
        mate = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
        assert end_marked([b"{RUN_MARK}=self"])
        print(mate.wait(), flush=True)
    """
    with child(code, PYTHONPATH=str(CHECKOUT), **{RUN_MARK: "self"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"-15\n"
        assert process.wait(BOUND_S) == 0


def test_it_is_recognised_again_where_there_is_no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with child(**{RUN_MARK: "plain"}) as server:
        guardian._signal(server.pid, [mark_of("other")], signal.SIGKILL)
        assert server.poll() is None
        assert end_marked([mark_of("plain")])
        assert server.wait(BOUND_S) == -signal.SIGTERM


def test_ps_finds_what_proc_does() -> None:
    with child(**{RUN_MARK: "by-ps"}) as server:
        found = [pid for pid, words in environments_by_ps() if mark_of("by-ps") in words]
    assert found == [server.pid]


def test_without_proc_it_asks_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian, "_has_proc", lambda: False)
    with child(**{RUN_MARK: "no-proc"}) as server:
        assert end_marked([mark_of("no-proc")])
        assert server.wait(BOUND_S) == -signal.SIGTERM
    monkeypatch.setenv("PATH", "/no/such/folder")
    assert find([mark_of("no-proc")]) == []


# One server of a runtime that lives on.


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.parametrize("shape", ["group", "session", "daemon"])
async def test_row_32_no_grandchild_outlives_its_server(
    tmp_path: Path, shape: str, end: str
) -> None:
    answered = anyio.Event()
    callbacks = Callbacks(lambda _: answered.set(), lambda _: None, lambda: None)
    argv = (sys.executable, str(SERVERS / "fork_grandchild.py"), shape)
    environ = {**os.environ, "HOSTILE_STATE": str(tmp_path)}
    process = Process(Command("child", argv, tmp_path, environ), callbacks)
    async with process.running():
        process.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        with anyio.fail_after(BOUND_S):
            await answered.wait()
        mark = f"{PROCESS_MARK}={process.command.environ[PROCESS_MARK]}".encode()
        wait_until(lambda: len(find([mark])) == 2)
        if end == "crash":
            os.kill(process.pid, signal.SIGKILL)
    assert find([mark]) == []
