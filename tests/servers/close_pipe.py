# mypy: ignore-errors
"""Tool 'close' closes descriptor `fd` and the process lives on, deaf and busy with nothing.

With fd 0 the call is answered first, with fd 1 it cannot be.
"""

import os
import time

from _base import Server, event, text


class S(Server):
    name = "close_pipe"

    def call(self, name, args, msg):
        if name != "close":
            return super().call(name, args, msg)
        os.close(args["fd"])
        event("closed")
        if args["fd"] == 0:
            self.reply(msg, text("closed"))
        time.sleep(600)
        return None


S().run()
