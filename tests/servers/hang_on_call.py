# mypy: ignore-errors
"""Tool 'hang' never answers but the process keeps answering others (ping, list).

'freeze' stops reading stdin for good; a good runtime times the call out, sends
notifications/cancelled, keeps the server for 'hang', restarts it for 'freeze' (health check).
"""

import time

from _base import Server, event, tool


class S(Server):
    name = "hang_on_call"

    def tools(self):
        return [
            *super().tools(),
            tool("hang", "Never answers"),
            tool("freeze", "Blocks the whole server"),
        ]

    def before(self, msg):
        if msg.get("method") == "notifications/cancelled":
            event(f"cancelled:{(msg.get('params') or {}).get('requestId')}")
        return False

    def call(self, name, args, msg):
        if name == "hang":
            return None
        if name == "freeze":
            while True:
                time.sleep(3600)
        return super().call(name, args, msg)


S().run()
