# mypy: ignore-errors
"""Floods stdout with N MB of binary garbage (argv[1], default 5.

With newlines and invalid UTF-8), then serves; a good runtime drops it in bounded memory, counts
it, never dies, and either serves or fails this server only.
"""

import sys

from _base import Server, raw

MB = float(sys.argv[1]) if len(sys.argv) > 1 else 5


class S(Server):
    name = "garbage"

    def on_start(self):
        block = bytes(range(256)) * 256  # 64 KiB, 256 newlines, invalid UTF-8, NULs
        for _ in range(int(MB * 16)):
            raw(block)
        raw(b"\n")

    def call(self, name, args, msg):
        raw(b"\xff\xfe\x00\x80 garbage mid-call \xc3\x28\n")
        return super().call(name, args, msg)


S().run()
