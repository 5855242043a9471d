# mypy: ignore-errors
"""Exits with code 3 argv[1] s after start (default 0.2), every time.

A good runtime backs off exponentially with a cap, ends in FATAL/circuit-open, shows the last
stderr lines and exit code, and burns no CPU.
"""

import os
import sys
import threading
import time

from _base import Server, err, event

D = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2


class S(Server):
    name = "crash_loop"

    def on_start(self):
        err("crash_loop: fatal: missing API key\n")

        def die():
            time.sleep(D)
            event("exit3")
            os._exit(3)

        if D <= 0:
            event("exit3")
            os._exit(3)
        threading.Thread(target=die, daemon=True).start()


S().run()
