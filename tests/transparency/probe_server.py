# mypy: ignore-errors
"""A raw MCP server that writes, to the byte, what a script says; standard library only.

`python -S probe_server.py ERA SCRIPT JOURNAL`, ERA one of legacy, modern, dual: a dual one is fixed
by its first request, like the servers of the official SDK. Every line it receives is appended to
JOURNAL as "PID LINE".

SCRIPT is JSON, `{"legacy": {LABEL: [STEP, ...]}, "modern": {...}}`. A label is a method, then
" NAME" (the params' name, uri, taskId, or those of `ref`), then "@STATE" (cursor or requestState;
"again" for input responses without one); the most telling label that the script has is played.
Steps: a line to write, in which `$ID`, `$TOKEN`, `$FILTER`, `$VERSION` stand for what the request
said, raw, and `$LISTEN` for the id of the last `subscriptions/listen`, without which the line is
not written; `{"await": ID}`, until the answer to the server's own request of that raw id is there,
or another label's `{"resume": ID}`; `{"become": {LABEL: [...]}}`, which changes the script.
"""

import json
import os
import sys

ERA, SCRIPT, JOURNAL = sys.argv[1:4]
VERSION = "2026-07-28"
KEY = "io.modelcontextprotocol/protocolVersion"
ERROR = '{"jsonrpc":"2.0","id":$ID,"error":{"own":1.0,"message":"%s","code":%d%s}}'
SUPPORTED = ', "data":{"supported":["2026-07-28"],"own":1E2}'
NAMES = (("name",), ("uri",), ("taskId",), ("ref", "name"), ("ref", "uri"))

sys.set_int_max_str_digits(0)
decode = json.JSONDecoder().raw_decode


def members(text):
    """Return the raw text of each member of an object; nothing for what is none."""
    found, at = {}, skip(text, 1)
    if not text.startswith("{"):
        return found
    while text[at] != "}":
        key, at = decode(text, at)
        start = skip(text, skip(text, at) + 1)
        _, at = decode(text, start)
        found[key] = text[start:at]
        at = skip(text, at)
        at = skip(text, at + 1) if text[at] == "," else at
    return found


def skip(text, at):
    while at < len(text) and text[at] in " \t\r":
        at += 1
    return at


def raw(text, *path):
    for key in path:
        text = members(text).get(key, "")
    return text


def string(text):
    value = json.loads(text) if text else None
    return value if isinstance(value, str) else None


def label(method, params):
    """Return the labels of a message, the most telling one first."""
    names = (string(raw(params, *path)) for path in NAMES)
    name = next((f" {name}" for name in names if name is not None), "")
    states = (string(raw(params, member)) for member in ("cursor", "requestState"))
    again = "again" if raw(params, "inputResponses") else None
    state = next((f"@{state}" for state in (*states, again) if state is not None), "")
    return (f"{method}{name}{state}", f"{method}{name}", f"{method}{state}", method)


class Probe:
    def __init__(self):
        with open(SCRIPT, "rb") as file:  # noqa: PTH123 - pathlib would slow every start
            self.scripts = json.load(file)
        self.journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.era = None if ERA == "dual" else ERA
        self.listening = None
        self.waiting = {}
        self.answered = set()

    def take(self, line):
        os.write(self.journal, b"%d %b\n" % (os.getpid(), line))
        text = line.decode("utf-8", "surrogateescape")
        fields = members(text)
        method, identifier = string(fields.get("method", "")), fields.get("id", "")
        if method is None:
            self.resume(identifier)
            return
        params = fields.get("params", "")
        if method == "subscriptions/listen":
            self.listening = identifier
        places = {
            "$ID": identifier,
            "$TOKEN": raw(params, "_meta", "progressToken"),
            "$FILTER": raw(params, "notifications"),
            "$VERSION": raw(params, "protocolVersion"),
        }
        refusal = self.refusal(method, raw(params, "_meta", KEY)) if identifier else None
        steps = [refusal] if refusal else self.steps(method, params, bool(identifier))
        self.play(iter(steps), places)

    def refusal(self, method, version):
        """Return the answer to what is not of the era in which the pipe was opened."""
        if self.era is None:
            self.era = "modern" if version else "legacy"
        if self.era == "modern":
            if method == "initialize" or (version and string(version) != VERSION):
                return ERROR % ("version", -32022, SUPPORTED)
            return None if version else ERROR % (f"missing {KEY}", -32602, "")
        if method == "server/discover" and ERA == "dual":
            return ERROR % ("opened with initialize", -32600, "")
        return None

    def steps(self, method, params, is_request):
        script = self.scripts[self.era or "legacy"]
        for key in label(method, params):
            if key in script:
                return script[key]
        return [ERROR % ("never heard of it", -32601, "")] if is_request else []

    def play(self, steps, places):
        for step in steps:
            if isinstance(step, str):
                self.write(step, places)
            elif "resume" in step:
                self.resume(step["resume"])
            elif "await" in step:
                if step["await"] not in self.answered:
                    self.waiting[step["await"]] = (steps, places)
                    return
                self.answered.remove(step["await"])
            else:
                self.scripts[self.era].update(step["become"])

    def resume(self, identifier):
        if identifier in self.waiting:
            self.play(*self.waiting.pop(identifier))
        else:
            self.answered.add(identifier)

    def write(self, line, places):
        if "$LISTEN" in line:
            if self.listening is None:
                return
            line = line.replace("$LISTEN", self.listening)
        for place, value in places.items():
            line = line.replace(place, value)
        data = line.encode("utf-8", "surrogateescape") + b"\n"
        while data:
            data = data[os.write(1, data) :]


probe = Probe()
for received in sys.stdin.buffer:
    probe.take(received.rstrip(b"\n"))
