"""Starts a container and sees to it that it ends with the command that started it.

Run as a program; becomes `docker run`, or podman's, so that signals, pipes and exit status are
those of that. Before, it leaves a process behind that waits for the end of the command, however
that comes, and then removes the container: killed by SIGKILL, the command leaves it running.
Imports nothing of Octave and little else: it must start fast, without site-packages.
"""

import os
import select
import sys
import time

AGAIN_S = 1.0
"""A container that was just being created when its command was killed is not there at once."""
POLL_S = 0.2
"""Where the end of a process that is not a child can only be looked for."""
_OURS = "OCTAVE_"
"""Variables by which a runtime ends what it has started; what removes the container must live."""


def main(tool: str, name: str, *words: str) -> None:
    """Run `tool run --name ... WORDS`; `name` is the server's."""
    container = f"octave-{name}-{os.urandom(4).hex()}"
    _leave_behind(tool, container, words)
    os.execv(tool, [tool, "run", "--name", container, *words])


def _leave_behind(tool: str, container: str, words: tuple[str, ...]) -> None:
    process = os.pidfd_open(os.getpid()) if hasattr(os, "pidfd_open") else -1
    parent = os.getpid()
    if os.fork():
        if process >= 0:
            os.close(process)
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    if process >= 0:
        os.set_inheritable(process, True)  # noqa: FBT003 - as os has it
    given = {words[at + 1] for at, word in enumerate(words[:-1]) if word == "-e"}
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in given and not key.startswith(_OURS)
    }
    program = [sys.executable, "-I", "-S", __file__, "--remove"]
    os.execve(program[0], [*program, str(process), str(parent), tool, container], environ)


def remove(process: str, parent: str, tool: str, container: str) -> None:
    """Wait for the end of `parent`, then remove its container, if it left one."""
    descriptor = int(process)
    if descriptor >= 0:
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        end.poll()
    else:
        while os.getppid() == int(parent):
            time.sleep(POLL_S)
    for wait_s in (0.0, AGAIN_S):
        time.sleep(wait_s)
        words = [tool, "rm", "--force", "--volumes", container]
        _, _ = os.waitpid(os.spawnv(os.P_NOWAIT, tool, words), 0)


if __name__ == "__main__":
    if sys.argv[1] == "--remove":
        remove(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
