# mypy: ignore-errors
"""A tool for each way to write text that breaks readers; every answer is about the word `text`.

What stands around it, or in it, is legal JSON-RPC but for 'bytes' (no UTF-8) and 'nan'.
"""

import time

from _base import Server, raw, tool

LINE = '{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"%s"}]}}'
DEPTH = 10_000

PLAIN = {
    "separators": "text\u2028\u2029\u0085",
    "controls": "text\\u0000\\u001b\\u007f\x7f",
    "surrogate": "text\\ud800",
    "surrogates": "text\\udc00\\ud800",
    "noncharacters": "text\uffff\U0010ffff\ufeff",
    "astral": "text\U0001f600",
    "escaped": "\\u0074ext\\/",
}


class S(Server):
    name = "odd_text"

    def tools(self):
        odd = ("split", "crlf", "bom", "bytes", "deep", "deep_last", "nan", "nan_last")
        return [*super().tools(), *map(tool, (*PLAIN, *odd))]

    def call(self, name, args, msg):
        if name in PLAIN:
            raw(LINE % (msg["id"], PLAIN[name]) + "\n")
            return None
        own = getattr(self, name, None)
        return own(msg["id"]) if own else super().call(name, args, msg)

    def split(self, identifier):
        """Every byte of a character arrives by itself."""
        line = (LINE % (identifier, "text\u20ac\U0001f600") + "\n").encode()
        start = line.index(b"\xe2")
        raw(line[:start])
        for end in range(start, start + 7):
            time.sleep(0.01)
            raw(line[end : end + 1])
        raw(line[start + 7 :])

    def crlf(self, identifier):
        raw("\r\n\n" + LINE % (identifier, "text") + "\r\n\r\n")

    def bom(self, identifier):
        raw("\ufeff" + LINE % (identifier, "text") + "\n")

    def bytes(self, identifier):
        raw((LINE % (identifier, "text") + "\n").encode().replace(b'text"}', b'text\xff\xc3"}'))

    def deep(self, identifier):
        raw(f'{{"jsonrpc":"2.0","id":{identifier},"result":{"[" * DEPTH}{"]" * DEPTH}}}\n')

    def deep_last(self, identifier):
        raw(f'{{"result":{"[" * DEPTH}{"]" * DEPTH},"jsonrpc":"2.0","id":{identifier}}}\n')

    def nan(self, identifier):
        raw(f'{{"jsonrpc":"2.0","id":{identifier},"result":{{"n":NaN}}}}\n')

    def nan_last(self, identifier):
        raw(f'{{"result":{{"n":NaN}},"jsonrpc":"2.0","id":{identifier}}}\n')


S().run()
