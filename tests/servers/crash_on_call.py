# mypy: ignore-errors
"""Dies by SIGSEGV on the tool 'crash' (fine otherwise).

The caller must get an error at once (not a timeout), the next call must be served by a fresh
process, and the crashed call must NOT be replayed.
"""

import os
import signal

from _base import Server, tool


class S(Server):
    name = "crash_on_call"

    def tools(self):
        return [*super().tools(), tool("crash", "Crash with SIGSEGV"), tool("pid", "Process id")]

    def call(self, name, args, msg):
        if name == "crash":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().call(name, args, msg)


S().run()
