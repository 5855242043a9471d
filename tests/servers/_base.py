# mypy: ignore-errors
"""Kit for small MCP servers, good and hostile: both eras over stdio, standard library only.

Speaks both eras: `initialize` (2024-11-05 .. 2025-11-25) and `server/discover` + per-request
`_meta` (2026-07-28). HOSTILE_ERA=legacy|modern|dual (default dual) switches one off.
HOSTILE_STATE=<dir> makes a server append "<event> <pid>" lines to <dir>/events.log
(start, eof, sigterm, call:<tool>), which is what the tests count.
"""

import json
import os
import sys
import threading
import time

ERA = os.environ.get("HOSTILE_ERA", "dual")
STATE = os.environ.get("HOSTILE_STATE")
MODERN = ["2026-07-28"]
LEGACY = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
_lock = threading.Lock()


def event(what):
    """Append one line to the event log (O_APPEND: safe from several processes)."""
    if STATE:
        os.makedirs(STATE, exist_ok=True)  # noqa: PTH103 - pathlib would slow every start
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        fd = os.open(f"{STATE}/events.log", flags, 0o600)
        os.write(fd, f"{what} {os.getpid()} {time.time():.3f}\n".encode())
        os.close(fd)


def raw(data):
    """Write raw bytes to stdout, all of them, even for very large data."""
    if isinstance(data, str):
        data = data.encode()
    with _lock:
        mv = memoryview(data)
        while mv:
            n = os.write(1, mv[: 1 << 20])
            mv = mv[n:]


def send(obj):
    raw(
        json.dumps(obj, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        + b"\n"
    )


def err(data):
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    mv = memoryview(data)
    while mv:
        n = os.write(2, mv)
        mv = mv[n:]


def text(s, is_error=False):
    return {"content": [{"type": "text", "text": s}], "isError": is_error, "resultType": "complete"}


def tool(name, description="", schema=None, **extra):
    t = {
        "name": name,
        "description": description,
        "inputSchema": schema or {"type": "object", "properties": {}},
    }
    t.update(extra)
    return t


class Server:
    """Override tools(), call(); hooks: on_start, before, on_eof, after_list."""

    name = "hostile"
    list_changed = False

    def tools(self):
        return [
            tool(
                "echo",
                "Echo the text back",
                {"type": "object", "properties": {"text": {"type": "string"}}},
            )
        ]

    def call(self, name, args, msg):
        if name == "echo":
            return text(str(args.get("text", "")))
        if name == "pid":
            return text(str(os.getpid()))
        raise KeyError(name)

    # hooks -----------------------------------------------------------
    def on_start(self):
        pass

    def before(self, msg):
        """Return True when the message has been dealt with (or must be ignored)."""
        return False

    def on_eof(self):
        pass

    # plumbing --------------------------------------------------------
    def reply(self, msg, result):
        send({"jsonrpc": "2.0", "id": msg["id"], "result": result})

    def error(self, msg, code, message, data=None):
        e = {"code": code, "message": message}
        if data is not None:
            e["data"] = data
        send({"jsonrpc": "2.0", "id": msg.get("id"), "error": e})

    def caps(self):
        return {"tools": {"listChanged": self.list_changed}}

    def lines(self):
        return iter(sys.stdin.buffer.readline, b"")

    def handle(self, msg):  # noqa: C901 - one branch per method
        method, params = msg.get("method"), msg.get("params") or {}
        if self.before(msg):
            return
        info = {"name": self.name, "version": "0.0.0"}
        if method == "server/discover":
            if ERA == "legacy":
                return self.error(msg, -32601, "Method not found")
            return self.reply(
                msg,
                {
                    "supportedVersions": MODERN + (LEGACY if ERA == "dual" else []),
                    "capabilities": self.caps(),
                    "resultType": "complete",
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": {"io.modelcontextprotocol/serverInfo": info},
                },
            )
        if method == "initialize":
            if ERA == "modern":
                return self.error(msg, -32601, "Method not found")
            want = params.get("protocolVersion")
            return self.reply(
                msg,
                {
                    "protocolVersion": want if want in LEGACY else LEGACY[0],
                    "capabilities": self.caps(),
                    "serverInfo": info,
                },
            )
        if method == "ping":
            return self.reply(msg, {})
        if method == "subscriptions/listen":
            self.listen_id = msg["id"]
            meta = {"io.modelcontextprotocol/subscriptionId": msg["id"]}
            return send(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/subscriptions/acknowledged",
                    "params": {"_meta": meta, "notifications": params.get("notifications", {})},
                }
            )
        if method == "tools/list":
            return self.list_tools(msg, params)
        if method == "tools/call":
            name = params.get("name")
            event(f"call:{name}")
            try:
                result = self.call(name, params.get("arguments") or {}, msg)
            except KeyError as exc:
                return self.error(msg, -32602, f"Unknown tool: {exc}")
            if result is not None:
                self.reply(msg, result)
            return
        if "id" in msg and method:
            self.error(msg, -32601, f"Method not found: {method}")

    def list_tools(self, msg, params):
        self.reply(
            msg,
            {"tools": self.tools(), "resultType": "complete", "ttlMs": 0, "cacheScope": "private"},
        )

    def run(self):
        event("start")
        self.on_start()
        for line in self.lines():
            if not line.strip():
                continue
            try:
                msg = json.loads(line)
            except ValueError:
                continue
            self.handle(msg)
        event("eof")
        self.on_eof()
