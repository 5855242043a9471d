# mypy: ignore-errors
"""Writes argv[1] (default 200000) numbered lines to stderr before and while serving (tool 'flood'
n); a good runtime drains stderr always (the pipe holds 64 KiB), loses no line in the log file,
rotates, and call latency stays flat.
"""

import sys

from _base import Server, err, text, tool

N = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000


def flood(n, tag):
    buf = []
    for i in range(n):
        buf.append(f"{tag} {i:09d} " + "y" * 80)
        if len(buf) == 500:
            err("\n".join(buf) + "\n")
            buf.clear()
    if buf:
        err("\n".join(buf) + "\n")


class S(Server):
    name = "flood_stderr"

    def on_start(self):
        flood(N, "start")

    def tools(self):
        return [
            *super().tools(),
            tool(
                "flood",
                "Write n lines to stderr",
                {"type": "object", "properties": {"n": {"type": "integer"}}},
            ),
        ]

    def call(self, name, args, msg):
        if name == "flood":
            n = int(args.get("n", 1000))
            flood(n, "call")
            return text(f"wrote {n}")
        return super().call(name, args, msg)


S().run()
