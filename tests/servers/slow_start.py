# mypy: ignore-errors
"""Sleeps argv[1] s (default 10) before reading stdin, like a first npx/uvx download.

A good runtime shows STARTING, queues calls up to the start timeout, and does not restart it
meanwhile.
"""

import sys
import time

from _base import Server, err


class S(Server):
    name = "slow_start"

    def on_start(self):
        d = float(sys.argv[1]) if len(sys.argv) > 1 else 10
        t = time.monotonic()
        while time.monotonic() - t < d:
            err("npm warn downloading...\n")
            time.sleep(min(0.5, d))


S().run()
