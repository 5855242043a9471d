"""Installations and removals that were asked for over HTTP: each a job that one can look at.

A few run at once, the others wait their turn; of one server there is never more than one. Finished
ones are kept for a while. Whoever waits is told of each step, and of the end.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import anyio.abc

from octave.errors import Interrupted, Locked, NotFound, OctaveError, ServerBusy
from octave.serve.verbs import NOTHING, Private, Verbs

AT_ONCE = 2
"""Each may need a core and some hundred megabytes."""
MOST = 32
"""Of those that run or wait; nobody installs more by hand."""
KEPT = 100
KEPT_S = 3600.0
"""Finished ones beyond that number or age are forgotten."""
STEPS = 500
"""Of one job; the oldest go."""

_log = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to do."""

    verb: Literal["install", "uninstall"]
    server: str
    words: tuple[str, ...]
    private: Private = NOTHING


class Job:
    """One installation or removal. Its owner changes it, everybody may look and wait."""

    def __init__(self, order: Order) -> None:
        self.id = secrets.token_hex(8)
        self.order = order
        self.state: State = "waiting"
        self.result: Mapping[str, Any] | None = None
        self.error: OctaveError | None = None
        self.finished_s = 0.0
        """Of the monotonic clock."""
        self._created_at = _now()
        self._finished_at: str | None = None
        self._steps: list[tuple[int, dict[str, Any]]] = []
        """Each with the number of its last change."""
        self._changes = 0
        self.news = anyio.Event()
        """Set when anything about it changes; another one then."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in {"done", "failed"}

    def describe(self) -> dict[str, Any]:
        """Return the job as the API shows it; times as RFC 3339."""
        return {
            "id": self.id,
            "verb": self.order.verb,
            "server": self.order.server,
            "state": self.state,
            "createdAt": self._created_at,
            "finishedAt": self._finished_at,
            "progress": [step for _, step in self._steps],
            "result": self.result,
            "error": None if self.error is None else self.error.as_json(),
        }

    def steps_after(self, seen: int) -> tuple[list[dict[str, Any]], int]:
        """Return the steps that changed after the change number `seen`, and the number of the last.

        A step is ``{"at", "kind", "text"}``, with `done`, `total` and `unit` where it is counted.
        """
        fresh = [step for number, step in self._steps if number > seen]
        return fresh, self._changes

    def begin(self) -> None:
        """It has its turn."""
        self.state = "running"
        self._tell()

    def tell(self, kind: str, text: str, count: Mapping[str, Any]) -> None:
        """Add a step, or say how much of the last one is done."""
        last = self._steps[-1][1] if self._steps else {}
        if count and (last.get("kind"), last.get("text")) == (kind, text):
            del self._steps[-1]
        self._changes += 1
        self._steps.append((self._changes, {"at": _now(), "kind": kind, "text": text, **count}))
        del self._steps[:-STEPS]
        self._tell()

    def finish(self, result: Mapping[str, Any] | None, error: OctaveError | None) -> None:
        """It is over; done unless there is an `error`."""
        self.result, self.error = result, error
        self.state = "done" if error is None else "failed"
        self.finished_s, self._finished_at = time.monotonic(), _now()
        self._tell()

    def _tell(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()


class Jobs:
    """All jobs of one runtime."""

    def __init__(self, verbs: Verbs) -> None:
        self.verbs = verbs
        self._jobs: dict[str, Job] = {}
        self._turns = anyio.Semaphore(AT_ONCE)
        self._tasks: anyio.abc.TaskGroup

    def __len__(self) -> int:
        """Return how many are not over."""
        return sum(not job.is_over for job in self._jobs.values())

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the jobs until cancelled, which interrupts those that run."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def start(self, order: Order) -> Job:
        """Return the job that does `order`: a new one, or the one that does just that already.

        Raises:
            Locked: something else is being done to that server.
            ServerBusy: `MOST` run or wait already.
        """
        self._forget_old()
        for job in self._jobs.values():
            if not job.is_over and job.order.server == order.server:
                if job.order == order:
                    return job
                raise Locked(
                    f"`{order.server}` has a job already, `{job.id}`",
                    hint="wait until that is over",
                    details={"job": job.id},
                )
        if len(self) >= MOST:
            raise ServerBusy(f"{MOST} jobs run or wait already", hint="try again later")
        job = Job(order)
        self._jobs[job.id] = job
        self._tasks.start_soon(self._do, job)
        return job

    def get(self, identifier: str) -> Job:
        """Return a job.

        Raises:
            NotFound: there is none of that id, or it was forgotten.
        """
        job = self._jobs.get(identifier)
        if job is None:
            raise NotFound(f"there is no job `{identifier}`", hint="GET /api/jobs")
        return job

    def list(self) -> Sequence[Job]:
        """Return all jobs, the newest first."""
        self._forget_old()
        return list(reversed(self._jobs.values()))

    async def _do(self, job: Job) -> None:
        try:
            async with self._turns:
                job.begin()
                said = await self.verbs.run(
                    job.order.verb,
                    job.order.words,
                    told=job.tell,
                    private=job.order.private,
                    can_wait=True,
                )
        except OctaveError as error:
            job.finish(None, error)
        except Exception:  # noqa: BLE001 - an edge: one job fails, not the runtime
            _log.exception("a bug in the job `%s`", job.id)
            job.finish(None, OctaveError("internal error of Octave"))
        else:
            results = said.document.get("results") if isinstance(said.document, dict) else None
            result = results[0] if results else None
            job.finish(result, next(iter(said.errors), None))
        finally:
            if not job.is_over:
                job.finish(None, Interrupted("the runtime was stopped"))

    def _forget_old(self) -> None:
        over = [job for job in self._jobs.values() if job.is_over]
        limit_s = time.monotonic() - KEPT_S
        too_many = itertools.islice(over, max(0, len(over) - KEPT))
        for job in {*too_many, *(job for job in over if job.finished_s < limit_s)}:
            del self._jobs[job.id]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
