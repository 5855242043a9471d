"""Versions of one small server, with the tools that a test gives them."""

import json
from collections.abc import Mapping

PROGRAM = """
import sys
from _base import Server, text, tool

TOOLS = {tools}
SCHEMA = {{"type": "object", "properties": {properties}}}

{before}

class S(Server):
    name = "story"

    def tools(self):
        return [tool(name, description, SCHEMA) for name, description in TOOLS.items()]

    def call(self, name, args, msg):
        {call}
        return text("{version}")


S().run()
"""


def program(
    version: str,
    tools: Mapping[str, str] | None = None,
    properties: Mapping[str, object] | None = None,
    before: str = "",
    call: str = "pass",
) -> str:
    """Return a server whose tools all answer `version`; `before` runs when it starts."""
    return PROGRAM.format(
        version=version,
        tools=json.dumps(tools or {"echo": "Says it back"}),
        properties=json.dumps(properties or {}),
        before=before,
        call=call,
    )
