# mypy: ignore-errors
"""Dies in the first call of each tool, after it has noted it, and answers the second.

'look' says it is read-only, 'put' that it is idempotent, 'act' says nothing; 'always' is read-only
and dies each time.
"""

import os
from pathlib import Path

from _base import STATE, Server, text, tool


class S(Server):
    name = "crash_once"

    def tools(self):
        return [
            tool("look", annotations={"readOnlyHint": True}),
            tool("put", annotations={"readOnlyHint": False, "idempotentHint": True}),
            tool("act", annotations={"readOnlyHint": False}),
            tool("always", annotations={"readOnlyHint": True}),
        ]

    def call(self, name, args, msg):
        done = Path(STATE, f"{name}.done")
        if name == "always" or not done.exists():
            done.touch()
            os._exit(3)
        return text("answered")


S().run()
