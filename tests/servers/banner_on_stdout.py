# mypy: ignore-errors
"""Prints human banners on stdout before and between JSON-RPC messages.

A good runtime skips the non-JSON lines, logs each (rate-limited) as stdout noise, and keeps
serving.
"""

from _base import Server, raw


class S(Server):
    name = "banner"

    def on_start(self):
        raw("\x1b[32m🚀 Banner MCP server v1.2.3 running on stdio\x1b[0m\r\n\nListening...\n")

    def call(self, name, args, msg):
        raw('DEBUG: handling call\n{not json}\n[1,2,3]\n"str"\n42\nnull\n')
        return super().call(name, args, msg)


S().run()
