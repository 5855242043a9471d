# mypy: ignore-errors
"""Ignores SIGTERM, SIGINT, SIGHUP and stdin EOF.

Only SIGKILL ends it; a good runtime escalates (close stdin -> SIGTERM -> SIGKILL to the group)
within its stop timeout and 'stop' never hangs.
"""

import signal
import time

from _base import Server, event


class S(Server):
    name = "ignore_sigterm"

    def on_start(self):
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(s, lambda n, f: event(f"sig{n}"))

    def on_eof(self):
        while True:
            time.sleep(0.2)


S().run()
