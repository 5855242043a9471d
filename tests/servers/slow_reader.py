# mypy: ignore-errors
"""Reads argv[1] bytes a second (default 1000) once the handshake is over; its successors are quick.

A good runtime bounds what waits for it, and lets its neighbours feel nothing.
"""

import os
import sys
import time
from pathlib import Path

from _base import STATE, Server, event

BYTES_PER_S = int(sys.argv[1]) if len(sys.argv) > 1 else 1000


class S(Server):
    name = "slow_reader"

    def lines(self):
        marker = Path(STATE, "slow")
        is_slow = not marker.exists()
        marker.touch()
        rest = b""
        while piece := os.read(0, 65536 if not is_slow else max(1, BYTES_PER_S // 10)):
            *complete, rest = (rest + piece).split(b"\n")
            yield from complete
            if is_slow and self.is_open:
                time.sleep(0.1)

    is_open = False

    def before(self, msg):
        if msg.get("method") == "notifications/initialized":
            self.is_open = True
        if msg.get("method") == "tools/call":
            event(f"got:{msg['params']['arguments']['number']}")
        return False


S().run()
