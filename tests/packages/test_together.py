import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from octave.packages.commands import run
from octave.packages.together import Desk, all_of

WAIT_S = 20.0
SLEEPS = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


def test_results_come_in_the_order_of_the_jobs_whoever_is_first() -> None:
    second, ended = threading.Event(), list[int]()

    def work(job: int, _: Desk) -> int:
        if job == 2:
            second.set()
        assert second.wait(WAIT_S)
        return job * 10

    assert all_of([1, 2], work, ended.append) == [10, 20]
    assert ended == [10, 20]


def test_jobs_are_done_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=WAIT_S)
    assert sorted(all_of([1, 2], lambda *_: both.wait())) == [0, 1]


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_what_is_left_to_the_desk_is_done_by_the_calling_thread(jobs: int) -> None:
    found = all_of(list(range(jobs)), lambda _, desk: desk.do(threading.get_ident))
    assert found == [threading.get_ident()] * jobs


def test_what_the_desk_raises_reaches_whoever_asked() -> None:
    def work(job: int, desk: Desk) -> str:
        try:
            return str(desk.do(lambda: 1 // job))
        except ZeroDivisionError:
            return "caught"

    assert all_of([0, 1], work) == ["caught", "1"]


def test_a_command_gets_all_of_its_input_however_late_it_reads(tmp_path: Path) -> None:
    text = "x" * 300_000
    code = "import sys, time; time.sleep(0.3); print(len(sys.stdin.read()))"

    def work(*_: object) -> str:
        return run([sys.executable, "-c", code], cwd=tmp_path, environ={}, stdin=text).stdout

    assert all_of([1, 2], work) == ["300000\n"] * 2


def hanging(folder: Path, interrupted: list[int]) -> Callable[[int, Desk], None]:
    """Return work that runs a command without end, but for job 0, which waits for the others."""

    def work(job: int, _: Desk) -> None:
        if job == 0:
            while not (folder / "1").exists():
                time.sleep(0.01)
            raise LookupError("of one job")
        try:
            (folder / str(job)).touch()
            run(SLEEPS, cwd=folder, environ={})
        except KeyboardInterrupt:
            interrupted.append(job)
            raise

    return work


def test_an_exception_of_one_job_ends_the_others(tmp_path: Path) -> None:
    interrupted: list[int] = []
    with pytest.raises(LookupError, match="of one job"):
        all_of([0, 1], hanging(tmp_path, interrupted))
    assert interrupted == [1]


@pytest.mark.parametrize("is_nested", [False, True])
def test_ctrl_c_ends_every_job_before_it_is_passed_on(tmp_path: Path, *, is_nested: bool) -> None:
    interrupted: list[int] = []
    hangs = hanging(tmp_path, interrupted)

    def work(job: int, desk: Desk) -> None:
        if is_nested and job == 1:
            all_of([1, 2], hangs)
        elif not is_nested:
            hangs(job, desk)

    def press() -> None:
        while not ((tmp_path / "1").exists() and (tmp_path / "2").exists()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        all_of([1, 2], work)
    assert sorted(interrupted) == [1, 2]
