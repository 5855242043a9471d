"""An npm that says what a test wants it to say: a real child process, a small Python program."""

import sys
from pathlib import Path

from octave.packages.toolchains import Node


def npm_that(tmp_path: Path, script: str) -> Node:
    """Return a node whose npm is a small Python program; `words` are npm's, without the flags."""
    program = tmp_path / "npm.py"
    program.write_text(
        "import json, os, sys\nwords = [w for w in sys.argv[1:] if not w.startswith('-')]\n"
        "flags = sys.argv[1:]\n" + script,
        encoding="utf-8",
    )
    return Node(Path(sys.executable), "20.0.0", (sys.executable, str(program)))
