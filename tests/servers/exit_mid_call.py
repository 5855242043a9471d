# mypy: ignore-errors
"""Tool 'half' writes half of its response line (no newline) and exits 0.

A good runtime answers the in-flight call with an error, never delivers the half message, never
replays the call (its side effect is counted in events.log).
"""

import json
import os

from _base import Server, event, raw, text, tool


class S(Server):
    name = "exit_mid_call"

    def tools(self):
        return [
            *super().tools(),
            tool("half", "Write half a response, then exit"),
            tool("clean", "Exit 0 without answering"),
        ]

    def call(self, name, args, msg):
        if name == "half":
            event("side_effect")
            s = json.dumps({"jsonrpc": "2.0", "id": msg["id"], "result": text("x" * 1000)})
            raw(s[: len(s) // 2])
            os._exit(0)
        if name == "clean":
            event("side_effect")
            os._exit(0)
        return super().call(name, args, msg)


S().run()
