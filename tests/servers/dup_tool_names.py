# mypy: ignore-errors
"""Lists the name 'search' three times with different schemas, plus case and homoglyph twins
('Search', 'search' with a Cyrillic e, 'search '), an empty name and a 300-char name; a good runtime
resolves to one deterministically or refuses, warns, and never routes to the wrong one silently.
"""

from _base import Server, text, tool


class S(Server):
    name = "dup_tool_names"

    def tools(self):
        return [
            tool("search", "first"),
            tool("search", "second", {"type": "object", "properties": {"q": {"type": "string"}}}),
            tool("search", "third"),
            tool("Search", "upper"),
            tool("s\u0435arch", "cyrillic e"),
            tool("search ", "trailing space"),
            tool("", "empty name"),
            tool("x" * 300, "long name"),
            tool("a/b", "slash"),
            tool("a.b__c", "separator inside"),
            tool("tool with space", "space"),
        ]

    def call(self, name, args, msg):
        return text(f"called {name!r}")


S().run()
