# mypy: ignore-errors
"""Answers under wrong ids.

'foreign' is answered only under ids that nobody asked with: another number, the id as a string, a
fraction more, null, true, a list and an object; with `ahead` also under the id of the call to come.
'twice' is answered two times, 'repeat' after one more answer to the call before it. 'hold' is
answered by the next call of any tool, after that one.
"""

from _base import Server, send, text


def answer(identifier, words):
    send({"jsonrpc": "2.0", "id": identifier, "result": text(words)})


class S(Server):
    name = "stray_answers"
    last = None
    held = None

    def call(self, name, args, msg):
        own, before, self.last = msg["id"], self.last, msg["id"]
        if name == "hold":
            self.held = own
            return None
        if name == "foreign":
            for wrong in (own + 1000, str(own), own + 0.5, None, True, [own], {"id": own}):
                answer(wrong, "foreign")
            if args.get("ahead"):
                answer(own + 1, "foreign")
            return None
        if name == "repeat":
            answer(before, "an answer to the call before")
        answer(own, f"{name} {args.get('text', '')}".strip())
        if name == "twice":
            answer(own, "a second answer")
        if self.held is not None:
            answer(self.held, "held")
            self.held = None
        return None


S().run()
