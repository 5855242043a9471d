"""How many files this process has open, and how many it may.

A server needs some to be talked to. Its start is refused while there are not enough, so that what
runs, and whoever wants to know what is wrong, always finds one.
"""

import contextlib
import errno
import os
import resource
from pathlib import Path

WANTED = 8192
"""Room for more servers and clients than anybody has; some systems allow 256 unless asked."""
PER_SERVER = 6
"""Three pipes, its log, what tells of its end, and one to spare."""
PER_START = 10
"""For the moment of a start: both ends of three pipes, two for a failed start to be told, its log,
what tells of its end."""
OWN = 64
"""The runtime's own: the event loop, sockets, the guardian, files for a moment; and clients."""
KEPT_FREE = 8
"""For those already running and for looks at what is wrong, when there is no room for a server."""


def raise_limit() -> None:
    """Allow this process `WANTED` open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int | None:
    """Return how many files may be open at once; None: as many as one likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def used() -> int | None:
    """Return how many files are open now; None where that cannot be told."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            # The listing itself is one of them.
            return sum(1 for _ in Path(folder).iterdir()) - 1
        except OSError as error:
            if error.errno == errno.EMFILE:
                return limit()
    return None


def needed(servers: int) -> int:
    """Return how many files a runtime with so many servers may need at once."""
    return OWN + PER_SERVER * servers + PER_START


def has_room() -> bool:
    """Whether a server can be started now."""
    allowed = limit()
    if allowed is None:
        return True
    try:
        # The system gives out the lowest free number: so many at least are open.
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(lowest)
    return lowest + PER_START + KEPT_FREE <= allowed
