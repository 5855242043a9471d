# mypy: ignore-errors
"""Goes on after the end of its stdin; SIGTERM ends it."""

import time

from _base import Server


class S(Server):
    name = "deaf"

    def on_eof(self):
        time.sleep(600)


S().run()
