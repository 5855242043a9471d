"""Work in a thread, and without one."""

import threading

import pytest

from octave.runtime import worker

pytestmark = pytest.mark.anyio


async def test_work_is_done_in_a_thread() -> None:
    assert await worker.run(threading.get_ident) != threading.get_ident()
    assert await worker.run_apart(threading.get_ident) != threading.get_ident()


async def test_row_47_where_no_thread_can_be_had_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert await worker.run(threading.get_ident) == threading.get_ident()
    assert await worker.run(lambda text: text * 2, "ab") == "abab"
    assert await worker.run_apart(threading.get_ident) == threading.get_ident()


async def test_an_error_of_the_work_itself_is_raised() -> None:
    def fail() -> None:
        raise RuntimeError("its own")

    for run in (worker.run, worker.run_apart):
        with pytest.raises(RuntimeError, match="its own"):
            await run(fail)
