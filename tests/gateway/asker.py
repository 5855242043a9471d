# mypy: ignore-errors
"""A raw MCP server whose calls do what their arguments say; standard library only.

`python -S asker.py ERA JOURNAL [HABIT ...]`. ERA: legacy, modern; fixed (both, by the first
request, as servers of the official SDK), mixed (both, by each message). JOURNAL gets every line
received, as "PID LINE". Habits: `dies` or `silent` at `server/discover`, or answers it like one of
both eras (`pretends`); `faints` (dies at `initialize`), `version` (a modern one refuses that by
naming versions), `asks` (for roots, before it answers that), `listens` (offers a resource whose
updates it tells of, and of any but a mute one), `alone` (a second process ends at once).

The tool `do` takes `steps`, each of them one of
    {"ask": METHOD, "id": ID, "params": {...}, "on": false}   asks and waits; "on": goes on at once
    {"either": true}   asks in the way of its era, and says the call's `tag`, as progress does
    {"need": {KEY: REQUEST}, "state": false}   in the modern era: answers so; "state": or without
    {"progress": N}, {"log": LEVEL}, {"update": URI}, {"withdraw": ID}, {"send": LINE}
    {"wait": NAME}, {"go": NAME}   waits until another call goes there
    {"die": CODE}
    {"answer": true}   the call is answered here, and the rest is done after it
and answers with `{"pid", "opened", "got", "meta", "tag"}` as text: the params of `initialize`, and
what was answered, a list of [ID, RESULT or ERROR].
"""

import fcntl
import json
import os
import sys

ERA, JOURNAL, *HABITS = sys.argv[1:]
VERSION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
TOOLS = [{"name": "do", "inputSchema": {"type": "object"}}]
CAPABILITIES = {"tools": {}, "logging": {}}
RESOURCES = [{"uri": "asker://one", "name": "one"}]
LISTS = {"tools/list": {"tools": TOOLS}, "resources/templates/list": {"resourceTemplates": []}}
if "listens" in HABITS:
    CAPABILITIES["resources"] = {"subscribe": True}
    LISTS["resources/list"] = {"resources": RESOURCES}
SERVER = {"name": "asker", "version": "1"}


def write(text):
    data = text.encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def send(**message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


class Asker:
    def __init__(self):
        self.journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if "alone" in HABITS:
            fcntl.flock(self.journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.era = None if ERA == "fixed" else ERA
        self.opened = None
        self.number = 0
        self.waiting = {}
        self.answers = {}
        self.cancelled = set()

    def take(self, line):
        os.write(self.journal, b"%d %b\n" % (os.getpid(), line))
        message = json.loads(line)
        if "method" not in message:
            key = json.dumps(message["id"])
            self.answers[key] = message.get("result", message.get("error"))
            self.resume(f"answer {key}")
        elif "id" in message:
            self.request(message, message.get("params", {}))
        elif message["method"] == "notifications/cancelled":
            self.cancelled.add(message["params"]["requestId"])

    def request(self, message, params):  # noqa: C901 - one branch per method
        identifier, method = message["id"], message["method"]
        is_modern = f"{PREFIX}protocolVersion" in params.get("_meta", {})
        if self.era is None:
            self.era = "modern" if is_modern else "legacy"
        if method == "initialize" and "faints" in HABITS:
            os._exit(3)
        if method == "server/discover":
            self.discover(identifier)
        elif self.era == "modern" and not is_modern and method == "initialize":
            versions = {"supported": [VERSION]} if "version" in HABITS else None
            code = -32022 if "version" in HABITS else -32601
            send(id=identifier, error={"code": code, "message": "no", "data": versions})
        elif self.era != "mixed" and is_modern != (self.era == "modern"):
            send(id=identifier, error={"code": -32602, "message": "the other era"})
        elif method == "initialize":
            self.opened = params
            if "asks" in HABITS:
                send(id="early", method="roots/list")
            result = {"capabilities": CAPABILITIES, "serverInfo": SERVER}
            send(id=identifier, result={"protocolVersion": params["protocolVersion"], **result})
        elif method in LISTS:
            send(id=identifier, result=LISTS[method] | fresh(is_modern))
        elif method == "tools/call":
            self.go_on(self.call(identifier, params, is_modern))
        elif method in {"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}:
            send(id=identifier, result={})
        elif method == "subscriptions/listen":
            meta = {f"{PREFIX}subscriptionId": identifier}
            told = {"_meta": meta, "notifications": dict(params["notifications"])}
            uris = told["notifications"].pop("resourceSubscriptions", [])
            told["notifications"]["resourceSubscriptions"] = [u for u in uris if "mute" not in u]
            send(method="notifications/subscriptions/acknowledged", params=told)
        else:
            send(id=identifier, error={"code": -32601, "message": "never heard of it"})

    def discover(self, identifier):
        if "dies" in HABITS:
            os._exit(3)
        if "silent" in HABITS:
            return
        if ERA == "legacy":
            code = -32600 if "pretends" in HABITS else -32601
            send(id=identifier, error={"code": code, "message": "never heard of it"})
        elif ERA == "fixed" and self.era == "legacy":
            send(id=identifier, error={"code": -32600, "message": "opened with initialize"})
        else:
            meta = {f"{PREFIX}serverInfo": SERVER}
            result = {"supportedVersions": [VERSION], "capabilities": CAPABILITIES, "_meta": meta}
            send(id=identifier, result=result | fresh(True))

    def call(self, identifier, params, is_modern):
        """Do the steps of a call; yields what has to happen before it goes on."""
        meta, got, tag = params.get("_meta", {}), [], params.get("arguments", {}).get("tag")
        steps = params.get("arguments", {}).get("steps", [])
        state = params.get("requestState")
        given = params.get("inputResponses", {})
        if state is not None or given:
            at, got = json.loads(state) if state is not None else (1, [])
            got += [[key, value] for key, value in given.items()]
            steps = steps[at:]
        is_answered = False
        for number, step in enumerate(steps, len(params["arguments"]["steps"]) - len(steps) + 1):
            step = self.in_its_era(step, tag, is_modern)
            if "need" in step:
                result = {"resultType": "input_required", "inputRequests": step["need"]}
                if step.get("state", True):
                    result["requestState"] = json.dumps([number, got])
                send(id=identifier, result=result)
                return
            if "ask" in step:
                asked = {"params": step["params"]} if "params" in step else {}
                send(id=step["id"], method=step["ask"], **asked)
                if not step.get("on"):
                    key = json.dumps(step["id"])
                    yield f"answer {key}"
                    got.append([step["id"], self.answers.pop(key)])
            elif "wait" in step:
                yield step["wait"]
            elif "answer" in step:
                is_answered = True
                self.end(identifier, is_modern, got=got, meta=meta, tag=tag)
            else:
                self.act(step, meta)
        if not is_answered:
            self.end(identifier, is_modern, got=got, meta=meta, tag=tag)

    def in_its_era(self, step, tag, is_modern):
        if "progress" in step and tag is not None:
            return {**step, "message": tag}
        if "either" not in step:
            return step
        self.number += 1
        params = {"message": tag}
        if is_modern:
            return {"need": {f"k{self.number}": {"method": "elicitation/create", "params": params}}}
        # Numbers and the strings of them, by turns.
        number = self.number // 2
        identifier = number if self.number % 2 else str(number)
        return {"ask": "elicitation/create", "id": identifier, "params": params}

    def end(self, identifier, is_modern, **more):
        if identifier in self.cancelled:
            return
        known = {"pid": os.getpid(), "opened": self.opened, **more}
        content = [{"type": "text", "text": json.dumps(known)}]
        result = {"content": content} | ({"resultType": "complete"} if is_modern else {})
        send(id=identifier, result=result)

    def act(self, step, meta):
        if "progress" in step:
            token = meta.get("progressToken")
            send(method="notifications/progress", params={"progressToken": token, **step})
        elif "log" in step:
            send(method="notifications/message", params={"level": step["log"], "data": "said"})
        elif "update" in step:
            send(method="notifications/resources/updated", params={"uri": step["update"]})
        elif "withdraw" in step:
            send(method="notifications/cancelled", params={"requestId": step["withdraw"]})
        elif "send" in step:
            write(step["send"])
        elif "go" in step:
            self.resume(step["go"])
        elif "die" in step:
            os._exit(step["die"])

    def go_on(self, steps):
        for what in steps:
            if what.startswith("answer ") and what[7:] in self.answers:
                continue
            self.waiting.setdefault(what, []).append(steps)
            return

    def resume(self, what):
        for steps in self.waiting.pop(what, []):
            self.go_on(steps)


def fresh(is_modern):
    return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if is_modern else {}


asker = Asker()
for received in sys.stdin.buffer:
    asker.take(received.rstrip(b"\n"))
