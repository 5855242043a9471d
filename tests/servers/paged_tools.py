# mypy: ignore-errors
"""Has argv[1] tools (1000) of argv[3] bytes of schema each (2048), argv[2] on a page (100); answers
each page at once. `echo` is among them.
"""

import sys

from _base import Server, text, tool

COUNT, ON_PAGE, SIZE = (
    int(sys.argv[n]) if len(sys.argv) > n else default
    for n, default in ((1, 1000), (2, 100), (3, 2048))
)
PARAMETER = {"type": "string", "description": "Says once more, at length, what it is good for."}


def definition(number):
    """About `SIZE` bytes, as generated servers write them: many parameters, each described."""
    properties = {f"parameter_{n}": PARAMETER for n in range(max(1, SIZE // 105))}
    schema = {"type": "object", "properties": properties, "required": ["parameter_0"]}
    return tool(f"tool_{number:05}" if number else "echo", f"Does thing {number}", schema)


class S(Server):
    name = "paged_tools"

    def list_tools(self, msg, params):
        first = int(params.get("cursor") or 0)
        until = min(first + ON_PAGE, COUNT)
        more = {"nextCursor": str(until)} if until < COUNT else {}
        self.reply(msg, {"tools": [definition(n) for n in range(first, until)], **more})

    def call(self, name, args, msg):
        return text(name)


S().run()
