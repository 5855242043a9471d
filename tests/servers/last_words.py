# mypy: ignore-errors
"""Tool 'die' says why on stderr and exits with code 3 in the middle of the call."""

import os

from _base import Server, err, tool


class S(Server):
    name = "last_words"

    def tools(self):
        return [*super().tools(), tool("die")]

    def call(self, name, args, msg):
        if name == "die":
            err("last_words: cannot open the box\nlast_words: giving up\n")
            os._exit(3)
        return super().call(name, args, msg)


S().run()
