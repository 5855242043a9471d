# mypy: ignore-errors
"""Leaks argv[1] MB (default 10) per call, in pages that are really touched.

A good runtime shows its memory and gives it a fresh process past its limit, when no call is there.
"""

import sys

from _base import Server, text

PER_CALL_MB = float(sys.argv[1]) if len(sys.argv) > 1 else 10
HOARD = []


class S(Server):
    name = "leak_memory"

    def call(self, name, args, msg):
        if name == "pid":
            return super().call(name, args, msg)
        HOARD.append(bytearray(b"\x01") * int(PER_CALL_MB * 1_000_000))
        return text(f"{sum(map(len, HOARD)) // 1_000_000} MB leaked")


S().run()
