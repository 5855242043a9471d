# mypy: ignore-errors
"""JOURNAL: writes down what it does, and when, before it answers.

    journal.py FILE START_MS [read-only]

Takes START_MS to answer the handshake. Appends a line `<what> <pid> <monotonic seconds>` to FILE:
`start`, `ready` when the handshake is over, and the `id` of each call of `note`. With `read-only`
the tool claims to change nothing.
"""

import os
import sys
import time

from _base import Server, text, tool

FILE = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
START_S = float(sys.argv[2]) / 1000
IS_READ_ONLY = "read-only" in sys.argv[3:]


def note(what):
    os.write(FILE, f"{what} {os.getpid()} {time.monotonic():.6f}\n".encode())


class S(Server):
    name = "journal"

    def tools(self):
        properties = {"id": {"type": "string"}, "ms": {"type": "number"}}
        schema = {"type": "object", "properties": properties}
        description = "Writes the id down, works for ms milliseconds, returns the process id"
        marks = {"readOnlyHint": IS_READ_ONLY}
        return [tool("note", description, schema, annotations=marks)]

    def on_start(self):
        note("start")
        time.sleep(START_S)

    def before(self, msg):
        if msg.get("method") == "notifications/initialized":
            note("ready")
            return True
        return False

    def call(self, name, args, msg):
        if name != "note":
            raise KeyError(name)
        note(args["id"])
        time.sleep(args.get("ms", 0) / 1000)
        return text(str(os.getpid()))


S().run()
