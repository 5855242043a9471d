"""Ends every process that carries a mark in its environment, wherever it hides.

Run as a program beside a runtime it sleeps on stdin, a pipe that only the runtime can write to.
When that ends, however the runtime died, it ends what the runtime had started. A process whose
environment has been overwritten is only reached through its group. Imports nothing of Octave and
little else: it must start without site-packages, and its memory is there all the time.
"""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Collection

TERMINATE_GRACE_S = 0.8
"""To clean up after SIGTERM, so that all is over within 2 s of the runtime's death."""
BOUND_S = 10.0
"""The kernel kills in milliseconds; what lives longer is stuck in the disk."""
PAUSE_S = 0.02
"""Between two looks while some are left; each costs a millisecond for 200 processes."""
LOOK_AGAIN_S = 0.002
"""When none was seen: one that is replacing its program has no environment for microseconds."""
_NO_FILES = (errno.EMFILE, errno.ENFILE)
"""Nothing can be looked at for now, which is no answer."""


def end_marked(marks: Collection[bytes], *, grace_s: float = TERMINATE_GRACE_S) -> bool:
    """SIGTERM all processes with one of the marks, and their groups; SIGKILL after `grace_s`.

    Blocks until they are gone, at most `BOUND_S`. Never signals this process, nor its group.

    Args:
        marks: entries of an environment, ``NAME=value``.
        grace_s: counts from the first look, also for what is started meanwhile.

    Returns:
        Whether none is left.
    """
    began_s = time.monotonic()
    asked: set[int] = set()
    was_empty = False
    while True:
        try:
            found = find(marks)
        except OSError:
            found = None
        elapsed_s = time.monotonic() - began_s
        is_empty = found == []
        if (was_empty and is_empty) or elapsed_s > BOUND_S:
            return is_empty
        was_empty = is_empty
        for pid in found or ():
            if elapsed_s >= grace_s:
                _signal(pid, marks, signal.SIGKILL)
            elif pid not in asked:
                asked.add(pid)
                _signal(pid, marks, signal.SIGTERM)
        time.sleep(LOOK_AGAIN_S if is_empty else PAUSE_S)


def find(marks: Collection[bytes]) -> list[int]:
    """Return the ids of all processes with one of the marks, but for this one; no zombies.

    Raises:
        OSError: too many files are open to look at anything.

    Source: proc_pid_environ(5): what a process was started with, until it overwrites that.
    """
    if not _has_proc():
        told = environments_by_ps()
        return [pid for pid, words in told if words.intersection(marks) and _may_signal(pid)]
    names = os.listdir("/proc")  # noqa: PTH208 - pathlib is a megabyte
    return [int(name) for name in names if name.isdigit() and _carries(int(name), marks)]


def environments_by_ps() -> list[tuple[int, set[bytes]]]:
    """Return of each process its id and the words of its command line and environment.

    For systems without /proc. The system's own programs do not show theirs on macOS.
    """
    import subprocess  # a megabyte that Linux never needs

    flags = "-axEww" if sys.platform == "darwin" else "axeww"
    words = ("ps", flags, "-o", "pid=", "-o", "command=")
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except OSError:  # nothing to ask: groups are all there is
        return []
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(int(line[0]), set(line[1:])) for line in lines if line]


def _has_proc() -> bool:
    return os.access("/proc/self/environ", os.R_OK)


def _may_signal(pid: int) -> bool:
    return pid > 1 and pid != os.getpid()


def _carries(pid: int, marks: Collection[bytes]) -> bool:
    if not _may_signal(pid):
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - as above
            entries = b"\0" + file.read() + b"\0"
    except OSError as error:  # gone, or not ours to look at
        if error.errno in _NO_FILES:
            raise
        return False
    return any(b"\0" + mark + b"\0" in entries for mark in marks)


def _signal(pid: int, marks: Collection[bytes], number: signal.Signals) -> None:
    """Signal the process and its group, unless the id is another's by now."""
    with contextlib.suppress(OSError):  # gone by itself, or it has become another user's
        if not _has_proc() or not hasattr(os, "pidfd_open"):
            if pid in find(marks):
                _signal_group(pid, number)
                os.kill(pid, number)
            return
        process = os.pidfd_open(pid)
        try:
            if _carries(pid, marks):
                # Still the one that was opened: the mark just read is its own, and as long as it
                # is there the number of its group is not given away.
                signal.pidfd_send_signal(process, 0)
                _signal_group(pid, number)
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def _signal_group(pid: int, number: signal.Signals) -> None:
    group = os.getpgid(pid)
    if group > 1 and group != os.getpgrp():
        os.killpg(group, number)


def main(name: str, value: str) -> None:
    """Sleep until stdin ends, then end what has this variable in its environment."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 64):
        pass
    end_marked([f"{name}={value}".encode()])


if __name__ == "__main__":
    main(*sys.argv[1:])
