# mypy: ignore-errors
"""Legacy server that is well but knows no `ping` and no `server/discover`: argv[1] is what it does
with them, silent (default) or refuse.

Notes those and each `tools/list` it hears, and sends notifications/heard with each answer to the
second. Tool 'freeze' blocks the whole server.
"""

import sys
import time

from _base import Server, event, send, tool

HOW = sys.argv[1] if len(sys.argv) > 1 else "silent"
UNKNOWN = {"ping", "server/discover"}


class S(Server):
    name = "ignore_ping"

    def tools(self):
        return [*super().tools(), tool("freeze", "Blocks the whole server")]

    def before(self, msg):
        method = msg.get("method")
        if method in {*UNKNOWN, "tools/list"}:
            event(method)
        if method == "tools/list":
            send({"jsonrpc": "2.0", "method": "notifications/heard"})
        if method not in UNKNOWN:
            return False
        if HOW == "refuse":
            self.error(msg, -32601, "Method not found")
        return True

    def call(self, name, args, msg):
        if name == "freeze":
            time.sleep(3600)
        return super().call(name, args, msg)


S().run()
