"""A runtime in the background: started detached, waited for until it says it is ready.

Both halves of the hand-shake live here: `start` for whoever needs a runtime, `report_ready` and
`report_error` for the runtime that was started. The runtime writes one JSON line to its stdout,
`{"ready": {...}}` or `{"error": {...}}`, and nothing after it. As a program (`python -m
octave.background [MANIFEST]`) it prints the path of a socket that answers, for `octave proxy`.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from octave.errors import Locked, OctaveError, from_json, from_os_error
from octave.home import Home, Workspace, find_workspace

START_DEADLINE_S = 20.0
"""A runtime is up in about half a second; a machine busy with a login needs more."""

RUN_MARK, PROCESS_MARK = "OCTAVE_RUN", "OCTAVE_PROCESS"
"""Variables that tell whose a process is, see runtime/marker.py. A runtime that a server starts in
the background belongs to everybody, and so to no other runtime."""

_RIVAL_POLL_S = 0.05
"""How often a starter that lost the race looks for the winner's socket."""

_RIVAL_WAIT_S = 2.0
"""After that the holder of the lock is probably on its way out: start again."""

_LOG_LIMIT_BYTES = 2**20
"""runtime.log holds what a runtime says before it can log; when longer it starts anew."""


def start(workspace: Workspace, environ: Mapping[str, str], words: Sequence[str] = ()) -> None:
    """Make sure that a runtime answers for `workspace`; blocks until it does.

    Does nothing when one answers already. Of two starters one starts it and both return. `words`
    are further options of `octave serve`.

    Raises:
        OctaveError: what the runtime reported instead of being ready, or that it was not ready
            within `START_DEADLINE_S`.
        OSError: the state folder cannot be written.
    """
    deadline = time.monotonic() + START_DEADLINE_S
    while not answers(workspace):
        try:
            process = _spawn(workspace, environ, words)
            _wait_until_ready(process, workspace, deadline)
        except Locked:
            if time.monotonic() > deadline:
                raise
            _wait_for_rival(workspace, min(deadline, time.monotonic() + _RIVAL_WAIT_S))


def answers(workspace: Workspace) -> bool:
    """Return whether something listens on the workspace's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        try:
            attempt.connect(os.fspath(workspace.socket()))
        except OSError:
            return False
    return True


def report_ready(facts: Mapping[str, object]) -> None:
    """Tell the starter that the runtime is ready, then let go of its pipe (stdout)."""
    _report({"ready": dict(facts)})


def report_error(error: OctaveError) -> None:
    """Tell the starter why there will be no runtime, then let go of its pipe (stdout)."""
    _report({"error": error.as_json()})


def _report(message: Mapping[str, object]) -> None:
    starter = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    # The starter may be gone already; the runtime lives on for others.
    with contextlib.suppress(BrokenPipeError):
        os.write(starter, json.dumps(message).encode() + b"\n")
    os.close(starter)


def _spawn(
    workspace: Workspace, environ: Mapping[str, str], words: Sequence[str]
) -> "subprocess.Popen[bytes]":  # noqa: TID251 - a type
    verb = ("serve", "--background", "--manifest", os.fspath(workspace.manifest))
    workspace.prepare()
    with _open_log(workspace.run / "runtime.log") as log:
        return subprocess.Popen(  # noqa: TID251 - outlives us on purpose, nobody looks after it
            (sys.executable, "-m", "octave", *verb, *words),
            cwd="/",
            env={k: v for k, v in environ.items() if k not in (RUN_MARK, PROCESS_MARK)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_ready(
    process: "subprocess.Popen[bytes]",  # noqa: TID251 - a type
    workspace: Workspace,
    deadline: float,
) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        line = _read_line(stdout.fileno(), deadline)
    error = _error_in(line, workspace)
    if error is None:
        # Without this the interpreter warns at its end that the runtime still runs.
        process.returncode = 0
        return
    process.terminate()
    process.wait()
    raise error


def _open_log(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.fdopen(os.open(path, flags, 0o600), "ab")
    if log.tell() > _LOG_LIMIT_BYTES:
        log.truncate(0)
    return log


def _read_line(descriptor: int, deadline: float) -> bytes | None:
    """Return what came up to the first newline or the end; None when the deadline came first."""
    line = bytearray()
    while not line.endswith(b"\n"):
        left_s = max(deadline - time.monotonic(), 0)
        if not select.select([descriptor], [], [], left_s)[0]:
            return None
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        line += piece
    return bytes(line)


def _error_in(line: bytes | None, workspace: Workspace) -> OctaveError | None:
    log = workspace.run / "runtime.log"
    if line is None:
        return OctaveError(
            f"the runtime was not ready within {START_DEADLINE_S:.0f} s",
            hint=f"run `octave serve` to see what it is doing, or read `{log}`",
        )
    try:
        report = json.loads(line)
    except ValueError:
        report = {}
    if "ready" in report:
        return None
    if "error" in report:
        return from_json(report["error"])
    return OctaveError(
        "the runtime ended before it was ready",
        hint=f"run `octave serve` to see why, or read `{log}`",
    )


def _wait_for_rival(workspace: Workspace, deadline: float) -> None:
    # The winner reports to its own starter only, so the loser has nothing to wait on.
    while not answers(workspace) and time.monotonic() < deadline:
        time.sleep(_RIVAL_POLL_S)


def main(argv: Sequence[str]) -> int:
    """Print the path of the socket of a runtime that answers, started if need be.

    `argv` is empty for the home's workspace, else one path of a manifest.

    Returns:
        The exit code; errors stand on stderr.
    """
    home = Home.find(os.environ)
    workspace = find_workspace(home, Path.cwd(), *argv[:1], home_only=True)
    try:
        try:
            start(workspace, os.environ)
        except OSError as error:
            raise from_os_error(error) or OctaveError(str(error)) from error
    except OctaveError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return error.exit_code
    sys.stdout.write(os.fspath(workspace.socket()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
