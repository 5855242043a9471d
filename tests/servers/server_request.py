# mypy: ignore-errors
"""EXTRA: during a call it sends requests to the client (sampling, elicitation, roots, an unknown
method), forbidden in 2026-07-28; a good runtime answers each with an error (or relays it in
legacy mode by policy), never hangs, never auto-approves.
"""

from _base import Server, send


class S(Server):
    name = "server_request"
    got = 0

    def before(self, msg):
        if "method" not in msg:
            self.got += 1
            return True
        return False

    def call(self, name, args, msg):
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
        return super().call(name, args, msg)


S().run()
