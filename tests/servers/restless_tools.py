# mypy: ignore-errors
"""Its tools change: `change` with `times` and `gap_s` adds so many, one after the other, and says
list_changed for each. Notes each `list` it is asked for.
"""

import threading
import time

from _base import Server, event, send, text, tool


class S(Server):
    name = "restless_tools"
    list_changed = True
    added = 0

    def tools(self):
        event("list")
        return [tool("change"), *(tool(f"added_{n}") for n in range(1, self.added + 1))]

    def call(self, name, args, msg):
        def change():
            for _ in range(args["times"]):
                self.added += 1
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                time.sleep(args["gap_s"])

        threading.Thread(target=change, daemon=True).start()
        return text("changing")


S().run()
