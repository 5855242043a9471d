# mypy: ignore-errors
"""Tool 'work' reports progress every 0.1 s and never ends, unless it is cancelled.

With `steps` it ends after so many reports.
"""

import threading

from _base import Server, event, send, text


class S(Server):
    name = "endless_progress"

    def __init__(self):
        self.stops = {}

    def before(self, msg):
        if msg.get("method") == "notifications/cancelled":
            identifier = msg["params"]["requestId"]
            event(f"cancelled:{identifier}")
            self.stops[identifier].set()
        return False

    def call(self, name, args, msg):
        if name != "work":
            return super().call(name, args, msg)
        self.stops[msg["id"]] = threading.Event()
        threading.Thread(target=self.work, args=(args.get("steps"), msg), daemon=True).start()
        return None

    def work(self, steps, msg):
        done = 0
        token = msg["params"]["_meta"]["progressToken"]
        while done != steps and not self.stops[msg["id"]].wait(0.1):
            done += 1
            params = {"progressToken": token, "progress": done}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        if done == steps:
            self.reply(msg, text("done"))


S().run()
