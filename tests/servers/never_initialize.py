# mypy: ignore-errors
"""Reads everything, answers nothing at all.

A good runtime gives up after the start timeout, kills it, reports 'did not answer initialize in N
s' with the stderr tail, and backs off.
"""

from _base import Server, err


class S(Server):
    def on_start(self):
        err("never_initialize: started, will stay silent\n")

    def before(self, msg):
        return True


S().run()
