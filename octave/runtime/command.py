"""What to start, and starting it: the child process or an error that says what is missing.

Nothing is inherited but what `Command` says: no file, no terminal, no environment.
"""

import errno
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen  # noqa: TID251 - the one place that starts servers
from typing import Any

from octave.errors import StartFailed
from octave.runtime import open_files

_PASSING = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""The machine is short of something for now; anything else stays wrong until someone mends it."""
_NO_FILES = {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. The environment is complete and not shown."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    environ: Mapping[str, str] = field(repr=False)


def start(command: Command) -> Popen[bytes]:
    """Start the child in a session of its own, with three unbuffered pipes and no other file.

    Blocks for the milliseconds until it runs its program (vfork: nothing runs before).

    Raises:
        StartFailed: `details` hold ``permanent`` (trying again is no use) and ``file``, where one
            is to blame.
    """
    if not open_files.has_room():
        raise _too_many_files(command)
    try:
        return Popen(
            command.argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds=True,
            start_new_session=True,
            cwd=command.cwd,
            env=dict(command.environ),
        )
    except OSError as error:
        raise _cannot_start(command, error) from error
    except ValueError as error:
        raise _failed(command, f"its arguments or environment are refused: {error}") from error


def _cannot_start(command: Command, error: OSError) -> StartFailed:
    program = command.argv[0] if command.argv else ""
    where = os.fsdecode(error.filename) if error.filename else program
    if error.errno in _NO_FILES:
        return _too_many_files(command)
    if error.errno == errno.ENOENT and where == program and (command.cwd / program).is_file():
        where = _interpreter(command.cwd / program) or program
        return _failed(command, f"`{where}`, which `{program}` needs, does not exist", where)
    if error.errno == errno.ENOENT:
        return _failed(command, f"`{where}` does not exist", where)
    if error.errno == errno.EACCES:
        return _failed(command, f"`{where}` may not be executed or entered", where)
    if error.errno == errno.ENOEXEC:
        return _failed(command, f"`{where}` is not a program", where)
    reason = (error.strerror or str(error)).lower()
    return _failed(command, reason, where, permanent=error.errno not in _PASSING)


def _interpreter(script: Path) -> str | None:
    """Return the interpreter the script's first line names."""
    try:
        with script.open("rb") as opened:
            first = opened.readline(256)
    except OSError:
        return None
    words = first[2:].split()
    return os.fsdecode(words[0]) if first.startswith(b"#!") and words else None


def _too_many_files(command: Command) -> StartFailed:
    allowed = open_files.limit()
    reason = "too many files are open" + (f", {allowed} are allowed" if allowed else "")
    hint = "stop other servers, or `ulimit -n 4096` before `octave serve`"
    return _failed(command, reason, permanent=False, hint=hint)


def _failed(
    command: Command,
    reason: str,
    missing: str | None = None,
    *,
    permanent: bool = True,
    hint: str | None = None,
) -> StartFailed:
    details: dict[str, Any] = {
        "phase": "start",
        "exitCode": None,
        "signal": None,
        "stderrTail": [],
        "permanent": permanent,
    }
    if missing is not None:
        details["file"] = missing
    return StartFailed(f"`{command.name}` could not be started: {reason}", hint, details)
