import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from octave.errors import ServerBusy, StartFailed
from octave.runtime import process as process_module
from octave.runtime.command import Command, start
from octave.runtime.process import Callbacks, ExitStatus, Process, Tail

pytestmark = pytest.mark.anyio

SERVERS = Path(__file__).parent.parent / "servers"
BOUND_S = 5.0


class Ears:
    """Hears one process."""

    def __init__(self) -> None:
        self._stdout = bytearray()
        self.stderr = b""
        self.ends = 0
        self.ended = anyio.Event()
        self._heard = anyio.Event()

    def callbacks(self) -> Callbacks:
        return Callbacks(self._out, self._err, self._end)

    @property
    def stdout(self) -> bytes:
        return bytes(self._stdout)

    async def until_stdout(self, text: bytes) -> None:
        with anyio.fail_after(BOUND_S):
            while text not in self._stdout:
                await self._heard.wait()

    def _out(self, data: bytes) -> None:
        assert not self.ends
        self._stdout += data
        self._heard.set()
        self._heard = anyio.Event()

    def _err(self, data: bytes) -> None:
        self.stderr += data

    def _end(self) -> None:
        self.ends += 1
        self.ended.set()


@asynccontextmanager
async def running(*argv: str, **environ: str) -> AsyncIterator[tuple[Process, Ears]]:
    ears = Ears()
    command = Command("child", (sys.executable, *argv), Path.cwd(), {**os.environ, **environ})
    process = Process(command, ears.callbacks())
    async with process.running():
        yield process, ears


async def ended(ears: Ears) -> None:
    with anyio.fail_after(BOUND_S):
        await ears.ended.wait()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def gone(pid: int) -> None:
    with anyio.fail_after(BOUND_S):
        while is_alive(pid):  # noqa: ASYNC110 - a stranger's child: nothing tells when it ends
            await anyio.sleep(0.01)


async def test_both_streams_and_the_exit_code_arrive():
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    async with running("-c", code) as (process, ears):
        await ended(ears)
    assert (ears.stdout, ears.stderr, ears.ends) == (b"out\n", b"err\n", 1)
    assert process.exit_status == ExitStatus(3, None)
    assert str(process.exit_status) == "exit code 3"
    assert process.stderr_tail == ["err"]


async def test_a_death_by_signal_is_named():
    async with running("-c", "import os; os.kill(os.getpid(), 9)") as (process, ears):
        await ended(ears)
    assert str(process.exit_status) == "killed (signal 9)"


async def test_the_exit_is_noticed_without_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    async with running("-c", "print('last words'); raise SystemExit(7)") as (process, ears):
        await ended(ears)
    assert (process.exit_status, ears.stdout) == (ExitStatus(7, None), b"last words\n")


async def test_the_exit_is_noticed_while_a_grandchild_holds_the_pipes(tmp_path):
    script = str(SERVERS / "fork_grandchild.py")
    async with running(script, "group", HOSTILE_STATE=str(tmp_path)) as (process, ears):
        process.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        await ears.until_stdout(b"\n")
        os.kill(process.pid, signal.SIGKILL)
        await ended(ears)
        assert process.exit_status == ExitStatus(None, signal.SIGKILL)
        assert not process.stdout_closed
    await gone(_grandchild(tmp_path))


async def test_a_grandchild_does_not_survive_a_polite_exit(tmp_path):
    script = str(SERVERS / "fork_grandchild.py")
    async with running(script, "group", HOSTILE_STATE=str(tmp_path)) as (process, ears):
        process.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        await ears.until_stdout(b"\n")
        grandchild = _grandchild(tmp_path)
        assert is_alive(grandchild)
    assert process.exit_status == ExitStatus(0, None)
    await gone(grandchild)


def _grandchild(state: Path) -> int:
    events = (state / "events.log").read_text(encoding="utf-8").split()
    return next(int(word.partition(":")[2]) for word in events if word.startswith("spawned:"))


async def test_a_closed_stdout_ends_it_while_it_lives():
    async with running("-c", "import os, sys; os.close(1); sys.stdin.read()") as (process, ears):
        await ended(ears)
        assert process.stdout_closed
        assert process.exit_status is None
    assert process.exit_status == ExitStatus(0, None)


async def test_one_that_ignores_everything_is_killed(monkeypatch):
    monkeypatch.setattr(process_module, "END_OF_INPUT_GRACE_S", 0.1)
    monkeypatch.setattr(process_module, "TERMINATE_GRACE_S", 0.1)
    async with running(str(SERVERS / "ignore_sigterm.py")) as (process, ears):
        process.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        await ears.until_stdout(b"\n")
    assert process.exit_status == ExitStatus(None, signal.SIGKILL)


async def test_one_that_ignores_the_end_of_input_is_asked_to_terminate(monkeypatch):
    monkeypatch.setattr(process_module, "END_OF_INPUT_GRACE_S", 0.1)
    code = "import time; print('up', flush=True); time.sleep(600)"
    async with running("-c", code) as (process, ears):
        await ears.until_stdout(b"up")
    assert process.exit_status == ExitStatus(None, signal.SIGTERM)


async def test_a_cancelled_owner_still_stops_it():
    with anyio.CancelScope() as scope:
        async with running("-c", "import sys; sys.stdin.read()") as (process, _):
            scope.cancel()
            await anyio.sleep_forever()
    assert process.exit_status == ExitStatus(0, None)


async def test_it_has_a_session_of_its_own_and_no_file_but_its_pipes():
    code = """if True:
        import os
        def is_open(number):
            try: os.fstat(number)
            except OSError: return False
            return True
        print(os.getsid(0) == os.getpid(), list(filter(is_open, range(64))), flush=True)
    """
    leaks = os.pipe()
    for leak in leaks:
        os.set_inheritable(leak, True)
    async with running("-c", code) as (_, ears):
        await ended(ears)
    for leak in leaks:
        os.close(leak)
    assert ears.stdout == b"True [0, 1, 2]\n"


async def test_nothing_is_left_open():
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    for _ in range(3):
        async with running("-c", "pass") as (_, ears):
            await ended(ears)
        async with running("-c", "import sys; sys.stdin.read()"):
            pass
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208


ECHO = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line); sys.stdout.flush()"
DEAF_UNTIL_SIGNAL = "import signal; signal.sigwait({signal.SIGUSR1})\n" + ECHO
BLOCK = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
READY = "print('up', flush=True)\n"


async def test_row_54_a_process_that_does_not_read_is_busy_and_loses_nothing_once_it_does():
    code = BLOCK + READY + DEAF_UNTIL_SIGNAL
    async with running("-c", code) as (process, ears):
        await ears.until_stdout(b"up\n")
        sent = [b"%d " % number + b"x" * 5000 for number in range(2000)]
        accepted = []
        with pytest.raises(ServerBusy, match="`child` does not keep up"):
            for line in sent:
                process.write(line)
                accepted.append(line)
        assert process_module.QUEUE_MESSAGES < len(accepted) < process_module.QUEUE_MESSAGES + 20
        assert process.withdraw(len(accepted))
        assert not process.withdraw(1)
        expected = b"".join(line + b"\n" for line in accepted[:-1])
        os.kill(process.pid, signal.SIGUSR1)
        await ears.until_stdout(expected)
        assert process.write(b"end") == len(accepted) + 1
        await ears.until_stdout(b"\nend\n")


async def test_row_54_the_queue_is_bounded_in_bytes_but_one_message_always_fits():
    code = BLOCK + READY + DEAF_UNTIL_SIGNAL
    async with running("-c", code) as (process, ears):
        await ears.until_stdout(b"up\n")
        large = b"x" * (process_module.QUEUE_BYTES + 1)
        process.write(large)  # leaves, as far as the pipe takes it
        process.write(large)  # waits: nothing else does
        with pytest.raises(ServerBusy):
            process.write(b"small")
        assert process.written == 1
        os.kill(process.pid, signal.SIGKILL)


async def test_writing_to_a_closed_stdin_says_so():
    code = "import os, time; os.close(0); print('closed', flush=True); time.sleep(600)"
    async with running("-c", code) as (process, ears):
        await ears.until_stdout(b"closed")
        with anyio.fail_after(BOUND_S), pytest.raises(BrokenPipeError):
            while process.write(b"x"):
                await anyio.lowlevel.checkpoint()
        assert not ears.ends
        os.kill(process.pid, signal.SIGKILL)


async def test_row_56_a_line_that_meets_a_closed_stdin_was_not_sent_and_ends_it(tmp_path):
    closed = tmp_path / "closed"
    code = f"import os, time; os.close(0); os.mkdir({str(closed)!r}); time.sleep(600)"
    async with running("-c", code) as (process, ears):
        # Nothing of the event loop runs until then: writing is the first to notice.
        while not closed.exists():
            threading.Event().wait(0.01)
        assert process.write(b"x") > process.written
        await ended(ears)
        assert (process.written, process.exit_status) == (0, None)
        os.kill(process.pid, signal.SIGKILL)


async def test_one_that_was_given_up_is_not_waited_for():
    code = "import time; print('up', flush=True); time.sleep(600)"
    async with running("-c", code) as (process, ears):
        await ears.until_stdout(b"up")
        process.is_given_up = True
        began_s = time.monotonic()
    assert process.exit_status == ExitStatus(None, signal.SIGTERM)
    assert time.monotonic() - began_s < process_module.END_OF_INPUT_GRACE_S


async def test_a_flood_on_stderr_is_drained_and_its_tail_kept():
    async with running(str(SERVERS / "flood_stderr.py"), "20000") as (process, ears):
        process.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        await ears.until_stdout(b"\n")
    assert ears.stderr.count(b"\n") == 20_000
    assert len(process.stderr_tail) == process_module.TAIL_LINES
    assert process.stderr_tail[-1].startswith("start 000019999 yyy")


def test_the_tail_is_bounded_and_shows_a_partial_line():
    tail = Tail()
    tail.feed(b"old\n" * 50 + b"\r\nnew" + b"x" * 600 + b"\npar")
    tail.feed(b"tial" + b"\xff")
    lines = tail.lines()
    assert len(lines) == 20
    assert lines[-3:] == ["old", "new" + "x" * 497, "partial\ufffd"]
    tail.feed(b"z" * 10_000_000)
    assert len(tail.lines()[-1]) == 500


# What cannot be started


def failure(*argv: str, cwd: Path | None = None) -> StartFailed:
    command = Command("child", argv, cwd or Path.cwd(), {"PATH": os.defpath})
    with pytest.raises(StartFailed) as failed:
        start(command)
    assert failed.value.details["phase"] == "start"
    assert failed.value.details["permanent"] is True
    return failed.value


def script(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "script"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def test_a_missing_program_is_named():
    assert failure("/no/such/program").message == (
        "`child` could not be started: `/no/such/program` does not exist"
    )


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "gone"
    assert f"`{missing}` does not exist" in failure(sys.executable, cwd=missing).message


def test_a_missing_interpreter_is_named(tmp_path):
    path = script(tmp_path, "#!/no/such/interpreter -x\n")
    failed = failure(path)
    assert f"`/no/such/interpreter`, which `{path}` needs, does not exist" in failed.message
    assert failed.details["file"] == "/no/such/interpreter"


def test_a_file_that_may_not_be_executed_is_named(tmp_path):
    path = script(tmp_path, "#!/bin/sh\n", mode=0o644)
    assert f"`{path}` may not be executed" in failure(path).message


def test_a_file_that_is_no_program_is_named(tmp_path):
    path = script(tmp_path, "hello")
    assert f"`{path}` is not a program" in failure(path).message


def test_an_argument_that_cannot_be_passed_is_refused():
    assert "are refused" in failure(sys.executable, "nul\0byte").message
