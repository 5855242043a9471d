"""Do work for several servers at once, a few threads beside the one that called.

The calling thread stays where everything happens that concerns a person, one server, or a file
that all share: the others leave it to the `Desk`. So a server that is started gets Ctrl-C as ever.
"""

import contextlib
import os
import queue
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Generic, TypeVar

from octave.packages import interrupts

Job = TypeVar("Job")
Result = TypeVar("Result")

HANDS = min(4, (os.cpu_count() or 1) + 1)
"""One more than there are cores: one of them mostly waits for the network."""
_END_S = 10.0
"""Longest wait for threads that were told to end: they kill what they started, and take
away what they made."""


class Desk:
    """What the threads of `all_of` leave to the thread that called it."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def do(self, act: Callable[[], Result]) -> Result:
        """Return what `act` returns, or raise what it raises, in the thread of the desk; blocks.

        Raises:
            KeyboardInterrupt: nobody is at the desk any more.
        """
        if threading.get_ident() == self._owner:
            return act()
        answer: Future[Result] = Future()
        self.leave(partial(_answer, answer, act))
        while not wait([answer], interrupts.LOOK_S).done:
            interrupts.look()
        return answer.result()

    def leave(self, act: Callable[[], None]) -> None:
        """Have `act` done soon; what it raises is raised by `all_of`."""
        self._asked.put(act)

    def serve(self) -> None:
        """Wait for the next thing to do, and do it; only in the thread of the desk."""
        while True:
            interrupts.look()
            with contextlib.suppress(queue.Empty):
                act = self._asked.get(timeout=interrupts.patience_s(None))
                break
        act()


def _answer(answer: "Future[Result]", act: Callable[[], Result]) -> None:
    try:
        answer.set_result(act())
    except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
        answer.set_exception(error)


class _Work(Generic[Job, Result]):
    """What the threads share."""

    def __init__(self, jobs: Sequence[Job], work: Callable[[Job, Desk], Result]) -> None:
        self.desk = Desk()
        self.over = threading.Event()
        self.results: dict[int, Result] = {}
        self._waiting = deque(enumerate(jobs))
        self._work = work

    def do_all(self) -> None:
        interrupts.obey(self.over)
        try:
            while not self.over.is_set():
                try:
                    place, job = self._waiting.popleft()
                except IndexError:
                    return
                result = self._work(job, self.desk)
                self.desk.leave(partial(self.results.__setitem__, place, result))
        except BaseException as error:  # noqa: BLE001 - raised again at the desk
            self.desk.leave(partial(_raise, error))


def _raise(error: BaseException) -> None:
    raise error


def all_of(
    jobs: Sequence[Job],
    work: Callable[[Job, Desk], Result],
    ended: Callable[[Result], None] = lambda _: None,
    *,
    hands: int = HANDS,
) -> list[Result]:
    """Return what `work` returns for each of `jobs`, in their order; blocks.

    So many threads as `hands` do it; one of them may do the same again for a part of its work.

    `ended` gets the results one by one, in that order too, as soon as nothing before is open.
    The first exception ends the others' work, and is raised when nothing of it goes on.
    """
    shared = _Work(jobs, work)
    if len(jobs) == 1:
        return [_told(work(jobs[0], shared.desk), ended)]
    threads = [
        threading.Thread(target=shared.do_all, name="together", daemon=True)
        for _ in range(min(hands, len(jobs)))
    ]
    # Python 3.11 fills it when it is first asked, and tells another thread half of it meanwhile.
    sysconfig.get_config_vars()
    results: list[Result] = []
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(jobs):
            shared.desk.serve()
            while len(results) in shared.results:
                results.append(_told(shared.results[len(results)], ended))
    finally:
        shared.over.set()
        until_s = time.monotonic() + _END_S
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, until_s - time.monotonic()))
    return results


def _told(result: Result, ended: Callable[[Result], None]) -> Result:
    ended(result)
    return result
