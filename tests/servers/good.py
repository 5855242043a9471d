# mypy: ignore-errors
"""GOOD (control group): well-behaved server.

A good runtime must be indistinguishable from talking to it directly.
"""

import time

from _base import Server, text, tool


class S(Server):
    name = "good"

    def tools(self):
        return [
            *super().tools(),
            tool("pid", "Process id"),
            tool(
                "sleep",
                "Sleep s seconds",
                {"type": "object", "properties": {"s": {"type": "number"}}},
            ),
        ]

    def call(self, name, args, msg):
        if name == "sleep":
            time.sleep(float(args.get("s", 1)))
            return text("slept")
        return super().call(name, args, msg)


S().run()
