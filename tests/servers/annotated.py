# mypy: ignore-errors
"""Tools whose arguments are to be repeated in HTTP headers: `region` in `Mcp-Param-Region`, `n` in
`Mcp-Param-N`. `broken` is annotated against the rules, so that nothing is to be repeated.
"""

from _base import Server, text, tool

REGION = {"type": "string", "x-mcp-header": "Region"}
NUMBER = {"type": "integer", "x-mcp-header": "N"}


class S(Server):
    name = "annotated"

    def tools(self):
        return [
            tool("where", "", {"type": "object", "properties": {"region": REGION, "n": NUMBER}}),
            tool("broken", "", {"type": "object", "properties": {"a": REGION, "b": REGION}}),
        ]

    def call(self, name, args, msg):
        return text(name)


S().run()
