"""`octave` on a terminal of its own, with somebody who answers."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

WAIT_S = 30.0


def on_terminal(
    environ: Mapping[str, str], folder: Path, answers: Sequence[tuple[str, str]], *words: str
) -> tuple[int, str]:
    """Run octave; return its exit code and all that the terminal showed.

    Each of `answers` is a text to wait for and what is then typed, in their order.
    """
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "octave", *words],
        cwd=folder,
        env={**environ, "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, read, left = b"", 0, list(answers)
    try:
        while piece := os.read(ours, 4096):
            shown += piece
            while left and (at := shown.find(left[0][0].encode(), read)) >= 0:
                read = at + len(left[0][0].encode())
                os.write(ours, f"{left.pop(0)[1]}\n".encode())
    except OSError:
        pass  # Linux's way of saying that the other end is closed.
    os.close(ours)
    code = child.wait(WAIT_S)
    text = shown.decode().replace("\r\n", "\n")
    assert not left, f"it never asked {left[0][0]!r}, but showed {text!r}"
    return code, text
