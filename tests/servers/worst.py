# mypy: ignore-errors
"""Does its worst in the way argv[1] names, without end, once its tool 'go' was called.

What floods does so from a thread and as fast as it can, so that calls are still read; of the rest
every call of 'go' is one more offence. A good runtime keeps the others quick and its memory flat.
"""

import itertools
import json
import os
import queue
import sys
import threading
import time

from _base import Server, err, raw, text, tool

KIND = sys.argv[1]
BLOCK = 65536


def repeated(line):
    """About 64 KiB of the same line."""
    return line * max(1, BLOCK // len(line))


def message(**members):
    return json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n"


def notification(method, **params):
    return message(method=method, params=params)


def filled(before, size, after=b""):
    """A content text of so many bytes, as JSON text."""
    fill = b"x" * (size - len(before) - len(after))
    return b'{"content":[{"type":"text","text":"%b%b%b"}]}' % (before, fill, after)


def nested(depth, size):
    return b'{"content":[],"deep":%b%b,"fill":"%b"}' % (
        b"[" * depth,
        b"]" * depth,
        b"x" * (size - 2 * depth),
    )


FLOODS = {
    "binary": (raw, bytes(range(256)) * 256),
    "one endless line": (raw, b"z" * BLOCK),
    "lines": (raw, repeated(b"listening on port 3000, this is no JSON at all\n")),
    "short lines": (raw, repeated(b"x\n")),
    "empty lines": (raw, b"\n" * BLOCK),
    "scalars": (raw, repeated(b"1\n")),
    "objects": (raw, repeated(b'{"level":30,"msg":"hello","pid":1}\n')),
    "stderr": (err, repeated(b"2026-11-02 INFO something happened, and more of it, and so on\n")),
    "short stderr": (err, repeated(b"x\n")),
    "endless stderr line": (err, b"z" * BLOCK),
    "notifications": (raw, repeated(notification("notifications/message", level="info", data="x"))),
    "short notifications": (raw, repeated(b'{"jsonrpc":"2.0","method":"a"}\n')),
    "updates": (raw, repeated(notification("notifications/resources/updated", uri="a://b"))),
    "requests": (raw, repeated(message(id=1, method="roots/list"))),
    "pings": (raw, repeated(message(id=1, method="ping"))),
    "strays": (raw, repeated(message(id="nobody's", result={}))),
    "broken answers": (raw, repeated(b'{"jsonrpc":"2.0","id":"a","result":{"a":nonsense}}\n')),
}

MB = 10**6
ANSWERS = {
    "20 MB answers": lambda: filled(b"", 20 * MB),
    "100 MB answers": lambda: filled(b"", 100 * MB),
    "10 MB answers": lambda: filled(b"", 10 * MB),
    "10 MB of text": lambda: filled("äöü".encode(), 10 * MB),
    "10 MB of surrogates": lambda: filled(rb"\ud800", 10 * MB),
    "10 MB not UTF-8": lambda: filled(b"\xff", 10 * MB),
    "10 MB of members": lambda: (
        b'{"content":[],%b}' % b",".join(b'"%07d":1' % n for n in range(850_000))
    ),
    "10 MB broken at the end": lambda: filled(b"", 10 * MB) + b"}",
    "deep answers": lambda: nested(100_000, MB),
    "answers as deep as allowed": lambda: nested(400, MB),
    "surrogates and deep": lambda: nested(400, MB)[:-2] + rb'\ud800"}',
}
"""The result, by kind."""


def bomb(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": {"$ref": "#"}}}
    return schema


def thousand():
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "description": "x" * 500}},
    }
    return [tool(f"tool-{n}", "y" * 1000, schema) for n in range(1000)]


BOMBS = [
    tool("deep", "", bomb(60)),
    tool("wide", "", {"type": "object", "properties": {f"p{n}": {} for n in range(20_000)}}),
    tool("pattern", "", {"type": "object", "properties": {"a": {"pattern": "(a+)+$"}}}),
    tool("null", "", {"type": None, "properties": None}),
    tool("remote", "", {"$ref": "http://127.0.0.1:9/schema.json"}),
    tool(
        "billion",
        "",
        {"$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 10} for n in range(30)}},
    ),
]


class Worst(Server):
    name = "worst"
    list_changed = True
    going = False
    stuck = False
    token = None
    replies = queue.SimpleQueue()
    answer = None

    def tools(self):
        go = tool("go")
        if not self.going or KIND not in {"thousand tools", "bombs"}:
            return [go]
        changed = {"description": str(time.time())}
        return [go | changed, *(thousand() if KIND == "thousand tools" else BOMBS * 100)]

    def list_tools(self, msg, params):
        if KIND == "pages" and self.going:
            page = itertools.count(int(params.get("cursor", 0)) + 1)
            many = [tool(f"t{params.get('cursor')}-{n}") for n in range(40)]
            return self.reply(msg, {"tools": many, "nextCursor": str(next(page))})
        return super().list_tools(msg, params)

    def reply(self, msg, result):
        if not self.going or KIND not in FLOODS:
            return super().reply(msg, result)
        # The flood would never let go of stdout for long enough.
        self.replies.put(lambda: super(Worst, self).reply(msg, result))

    def lines(self):
        for line in super().lines():
            yield line
            if self.stuck:
                time.sleep(600)

    def call(self, name, args, msg):
        if KIND in ANSWERS and name == "go":
            self.answer = self.answer or ANSWERS[KIND]()
            raw(b'{"jsonrpc":"2.0","id":%d,"result":' % msg["id"])
            raw(self.answer + b"}\n")
            return None
        if name != "go":
            return super().call(name, args, msg)
        if KIND == "1 MB of noise":
            raw(b"n" * MB + b"\n")
            return text("going")
        if KIND == "never reads":
            self.stuck = True
            return text("stuck")
        if KIND == "progress":
            self.token = msg["params"]["_meta"]["progressToken"]
        if not self.going:
            self.going = True
            threading.Thread(target=self.flood, daemon=True).start()
        return None if KIND == "progress" else text("going")

    def flood(self):
        if KIND in FLOODS:
            write, block = FLOODS[KIND]
            while True:
                write(block)
                while not self.replies.empty():
                    self.replies.get()()
        elif KIND == "progress":
            block = repeated(
                notification("notifications/progress", progressToken=self.token, progress=1)
            )
            while True:
                raw(block)
        elif KIND in {"thousand tools", "pages", "bombs"}:
            while True:
                raw(notification("notifications/tools/list_changed"))
                time.sleep(0.05)
        elif KIND == "forks":
            forks()


def forks():
    """Fifty children that write, then the end."""
    for _ in range(50):
        if not os.fork():
            for n in range(1000):
                err(f"child {n}\n")
                time.sleep(0.01)
            os._exit(0)
    time.sleep(1)
    os._exit(1)


Worst().run()
