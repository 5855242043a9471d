# mypy: ignore-errors
"""Ends with exit code 4 at each start, until somebody puts a file `mended` into its state."""

import sys
from pathlib import Path

from _base import STATE, Server, err


class S(Server):
    name = "broken_until_mended"

    def on_start(self):
        if not Path(STATE, "mended").exists():
            err("broken_until_mended: fatal: not mended yet\n")
            sys.exit(4)


S().run()
