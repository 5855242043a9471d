# mypy: ignore-errors
"""Writes argv[1] MB (default 20) to stderr without one newline, then a last partial line.

A good runtime splits overlong lines at a cap, keeps memory flat, flushes the partial line at
exit.
"""

import sys

from _base import Server, err

MB = float(sys.argv[1]) if len(sys.argv) > 1 else 20


class S(Server):
    name = "no_newline_stderr"

    def on_start(self):
        for _ in range(int(MB * 16)):
            err("z" * 65536)
        err("LAST-PARTIAL")


S().run()
