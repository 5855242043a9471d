# mypy: ignore-errors
"""A server whose tools answer in every form that `octave call` has to show.

Run by the runtime as a program of its own; the kit lies in tests/servers.
"""

import base64
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "servers"))

from _base import Server, err, event, raw, send, text, tool
from toolbox_forms import EVERY_TYPE, ODD_RESULT, PICTURE


def blocks(*content, **more):
    return {"content": list(content), **more}


class S(Server):
    name = "toolbox"

    def on_start(self):
        err("toolbox begins\n")

    def tools(self):
        return [
            tool("arguments", "Its arguments as JSON.\nA second line.", EVERY_TYPE),
            tool("odd", "A result in a form of its own"),
            tool("media", "Pictures and sound"),
            tool("structured", "Structured content alone"),
            tool("resources", "Resources of all sorts"),
            tool("fails", "Answers isError"),
            tool("refuses", "Answers a JSON-RPC error"),
            tool("dies", "Says why and exits with 3"),
            tool("says", "Writes text to stderr", {"properties": {"text": {"type": "string"}}}),
            tool("steps", "Reports progress"),
            tool("lines", "As many lines as asked", {"properties": {"n": {"type": "integer"}}}),
            tool("$(reboot)", "No shell should see this name"),
        ]

    def call(self, name, args, msg):
        answer = getattr(self, f"call_{name}")(args, msg)
        event(f"answered:{name}")
        return answer

    def call_arguments(self, args, msg):
        return text(json.dumps(args, sort_keys=True))

    def call_odd(self, args, msg):
        raw(b'{"jsonrpc":"2.0","id":%d,"result":%b}\n' % (msg["id"], ODD_RESULT))

    def call_media(self, args, msg):
        data = base64.b64encode(PICTURE).decode()
        return blocks(
            {"type": "text", "text": "two of them\n"},
            {"type": "image", "mimeType": "image/svg+xml", "data": data},
            {"type": "image", "mimeType": "image/../../png\x1b[31m", "data": data},
            {"type": "audio", "mimeType": "audio/wav", "data": "A"},
        )

    def call_structured(self, args, msg):
        return blocks(structuredContent={"sum": 3, "text": "\u202eevil"})

    def call_resources(self, args, msg):
        return blocks(
            {"type": "resource", "resource": {"uri": "memo://1", "text": "inside"}},
            {"type": "resource", "resource": {"uri": "memo://2", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "memo://3", "name": "three"},
            {"type": "hologram", "depth": 3},
        )

    def call_fails(self, args, msg):
        return text("no such city", is_error=True)

    def call_refuses(self, args, msg):
        self.error(msg, -32602, "bad\x1b[2J arguments")

    def call_dies(self, args, msg):
        err("out of \x1b[31mmemory\nhint: rm -rf /\n")
        os._exit(3)

    def call_says(self, args, msg):
        err(args["text"] + "\n")
        return text("said")

    def call_steps(self, args, msg):
        token = msg["params"]["_meta"]["progressToken"]
        for step in (1, 2):
            params = {"progressToken": token, "progress": step, "total": 2, "message": "on\x07 it"}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        return text("done")

    def call_lines(self, args, msg):
        return text("line\n" * args["n"])


S().run()
