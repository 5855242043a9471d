# mypy: ignore-errors
"""Starts a grandchild (argv[1]: 'group' same group (default) | 'session' own session | 'daemon'
double-fork) that sleeps 600 s holding stdout/stderr, like npx -> sh -> node; a good runtime
leaves no such process after stop, crash, or its own kill -9 (pid in events.log).
"""

import os
import subprocess
import sys
import time

from _base import Server, event

MODE = sys.argv[1] if len(sys.argv) > 1 else "group"
CODE = "import time,signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(600)"


class S(Server):
    name = "fork_grandchild"

    def on_start(self):
        if MODE == "daemon":
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    event("grandchild")
                    time.sleep(600)
                os._exit(0)
            os.wait()
        else:
            p = subprocess.Popen(
                [sys.executable, "-c", CODE],
                stdin=subprocess.DEVNULL,
                start_new_session=(MODE == "session"),
            )
            event(f"spawned:{p.pid}")


S().run()
