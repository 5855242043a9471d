"""Figures of one server's calls, and the memory of process trees.

Durations go into a histogram with logarithmic buckets: a fixed number of counters whatever the
number of calls, and percentiles that are off by 5 % at most.
"""

import bisect
import math
import sys
from collections.abc import Collection, Iterator

import psutil

from octave.runtime import wire

_SHORTEST_MS = 0.01
"""Shorter durations share the first bucket; nothing crosses two pipes faster."""
_GROWTH = 1.1
"""Each bucket ends 10 % above where it begins, so its middle is within 5 % of all it holds."""
_BUCKETS = 256
"""0.01 ms * 1.1**255 is 4.4 days, far above the longest call allowed."""
_ENDS_MS = [_SHORTEST_MS * _GROWTH**number for number in range(_BUCKETS - 1)]
"""Where each bucket ends; the last has no end."""


class CallFigures:
    """How many calls, how many failed, how long they took."""

    __slots__ = ("_buckets", "_total_ms", "count", "errors", "last_ms")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        """Calls that failed, were answered with an error, or with a result with `isError`."""
        self.last_ms: float | None = None
        self._total_ms = 0.0
        self._buckets = [0] * _BUCKETS

    def add(self, duration_ms: float, *, failed: bool) -> None:
        """Count one call that is over."""
        self.count += 1
        self.errors += failed
        self.last_ms = duration_ms
        self._total_ms += duration_ms
        self._buckets[_bucket(duration_ms)] += 1

    @property
    def average_ms(self) -> float | None:
        """The mean of all durations; None before the first call."""
        return self._total_ms / self.count if self.count else None

    def percentile_ms(self, percent: float) -> float | None:
        """Return the duration `percent` of the calls stayed within, off by 5 % at most.

        None before the first call.
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index, calls in enumerate(self._buckets):
            seen += calls
            if seen >= rank:
                return _middle_ms(index)
        raise AssertionError("every call is in a bucket")


def is_error_result(result: bytes) -> bool:
    """Whether the raw `result` of a call says that the tool failed (MCP 2025-11-25, `isError`)."""
    # Nearly every result says nothing about it, and a search costs far less than decoding.
    return b'"isError"' in result and wire.member(result, "isError") == b"true"


def _bucket(duration_ms: float) -> int:
    return bisect.bisect_left(_ENDS_MS, duration_ms)


def _middle_ms(bucket: int) -> float:
    return _SHORTEST_MS if bucket == 0 else _SHORTEST_MS * math.pow(_GROWTH, bucket - 0.5)


def tree_memory_bytes(roots: Collection[int]) -> dict[int, int]:
    """Return the memory of each root process and all its descendants; blocking, some ms a process.

    Linux counts PSS, where a page shared by n processes counts 1/n; elsewhere, and where PSS may
    not be read, RSS. A root that is gone is absent; all are while too many files are open to look.
    """
    children: dict[int, list[psutil.Process]] = {}
    alive: dict[int, psutil.Process] = {}
    try:
        found = list(psutil.process_iter(["ppid"]))
    except OSError:
        return {}
    for process in found:
        alive[process.pid] = process
        children.setdefault(process.info["ppid"], []).append(process)
    return {
        root: sum(_memory_bytes(process) for process in _tree(alive[root], children))
        for root in roots
        if root in alive
    }


def _tree(
    process: psutil.Process, children: dict[int, list[psutil.Process]]
) -> Iterator[psutil.Process]:
    yield process
    for child in children.get(process.pid, ()):
        yield from _tree(child, children)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        if sys.platform == "linux":
            try:
                return int(process.memory_full_info().pss)
            except psutil.AccessDenied:
                pass
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        # It ended, or belongs to somebody else, between the listing and now.
        return 0
