# mypy: ignore-errors
"""EXTRA: during a call it sends requests to the client (sampling, elicitation, roots, an unknown
method), forbidden in 2026-07-28; a good runtime answers each with an error (or relays it in
legacy mode by policy), never hangs, never auto-approves. Tool 'wait' answers only when all of them
were answered, with the codes of the errors.
"""

from _base import Server, send, text


class S(Server):
    name = "server_request"
    waiting = None

    def before(self, msg):
        if "method" in msg:
            return False
        if self.waiting is not None:
            self.codes.append(msg.get("error", {}).get("code"))
            if len(self.codes) == 4:
                self.reply(self.waiting, text(repr(self.codes)))
                self.waiting = None
        return True

    def call(self, name, args, msg):
        if name == "wait":
            self.waiting, self.codes = msg, []
        for k, m in enumerate(
            ("sampling/createMessage", "elicitation/create", "roots/list", "evil/unknown")
        ):
            send(
                {
                    "jsonrpc": "2.0",
                    "id": f"srv-{k}",
                    "method": m,
                    "params": {
                        "messages": [],
                        "maxTokens": 1,
                        "message": "password?",
                        "requestedSchema": {"type": "object", "properties": {}},
                    },
                }
            )
        return None if name == "wait" else super().call(name, args, msg)


S().run()
