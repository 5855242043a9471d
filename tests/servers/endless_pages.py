# mypy: ignore-errors
"""Its list of tools has no end: every page has a tool of its own and a cursor to the next, which
is new each time (`new`), comes round after three (`round`), is 100 KB long (`long`), or stands on
pages of 1 000 tools (`wide`) or of 1 MB (`heavy`).
"""

import sys

from _base import Server, event, text, tool

KIND = sys.argv[1] if len(sys.argv) > 1 else "new"


class S(Server):
    name = "endless_pages"
    page = 0

    def list_tools(self, msg, params):
        event("page")
        if "cursor" not in params:
            self.page = 0
        self.page += 1
        count = {"wide": 1000, "heavy": 10}.get(KIND, 1)
        description = "x" * 100_000 if KIND == "heavy" else ""
        tools = [tool(f"page_{self.page}_{n}", description) for n in range(count)]
        cursor = f"cursor {self.page % 3}" if KIND == "round" else f"cursor {self.page}"
        if KIND == "long":
            cursor += "-" * 100_000
        self.reply(msg, {"tools": tools, "nextCursor": cursor})

    def call(self, name, args, msg):
        return text(name)


S().run()
