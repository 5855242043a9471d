"""Run one-shot commands of package managers: argv only, own process group, bounded, captured.

npm outlives a killed parent and keeps children, so the whole group is ended whenever the wait is
left early: time-out, Ctrl-C, or an error.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octave.errors import InstallFailed
from octave.packages import interrupts

TAIL_LINES = 12
"""Lines of a failed command's output worth showing to a person."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a command ended and what it wrote, decoded with replacement."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def tail(self) -> str:
        """The last lines of stderr, of stdout when stderr is empty."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    timeout_s: float = 600.0,
    stdin: str | None = None,
) -> Output:
    """Run `argv` to its end and return its output, whatever its exit code.

    Raises:
        InstallFailed: it could not be started, or did not end within `timeout_s`.
    """
    words = tuple(str(word) for word in argv)
    with _source(stdin) as source:
        try:
            process = subprocess.Popen(  # noqa: TID251 - the one place for one-shot commands
                words,
                cwd=cwd,
                env=dict(environ),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise InstallFailed(f"cannot run `{words[0]}`: {error.strerror}") from error
    try:
        out, err = _communicate(process, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(
            f"`{Path(words[0]).name} {words[1]}` did not end within {timeout_s:.0f} s",
            hint="check the network, then try again",
        ) from error
    finally:
        _end_group(process)
    return Output(
        words, process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )


@contextlib.contextmanager
def _source(text: str | None) -> Iterator[int]:
    """Yield what a command reads `text` from; None: it sees the end at once."""
    if text is None:
        yield subprocess.DEVNULL
        return
    # No pipe: `communicate` forgets what is still to be written when it is left and called again.
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def _communicate(
    process: "subprocess.Popen[bytes]",  # noqa: TID251 - a type
    timeout_s: float,
) -> tuple[bytes, bytes]:
    until_s = time.monotonic() + timeout_s
    while True:
        interrupts.look()
        left_s = max(0.0, until_s - time.monotonic())
        try:
            return process.communicate(timeout=interrupts.patience_s(left_s))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= until_s:
                raise


def _end_group(process: "subprocess.Popen[bytes]") -> None:  # noqa: TID251 - a type
    # The leader is reaped only after the signal, so its group id cannot belong to a stranger.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
