"""Which process holds a file lock, as far as the system tells: Linux does, in /proc/locks."""

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
"""A lock a line: `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`; whoever waits has `->`
behind the number (proc_locks(5))."""


def holder(path: Path) -> int | None:
    """Return the process that holds flock(2) on the file at `path`; None: nobody can say."""
    try:
        status = path.stat()
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for words in map(str.split, lines):
        # The processes of another container have no number here.
        if words[1:2] == ["FLOCK"] and words[5:6] == [place] and int(words[4]) > 0:
            return int(words[4])
    return None
