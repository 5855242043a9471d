"""A raw MCP server for measurements: as little work for each message as Python allows.

    python -S tests/bench/echo.py [TOOLS]

Expects each request on a line, written compactly and with its id in second place, as
`tests.bench.gateway` does; to anybody else it owes nothing. Without a tool named in the call it
answers with the id alone in a result of `SHORT`, with `"large"` in it of `LARGE_BYTES`.
"""

import os
import sys

LARGE_BYTES = 10**6
SHORT = b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * 60)
"""Makes an answer of some 130 bytes."""
LARGE = b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * (LARGE_BYTES - 40))
INITIALIZED = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"raw","version":"0"}}'
)
TOOL = (
    b'{"name":"tool%d","title":"Tool %d","description":"%b","inputSchema":{"type":"object",'
    b'"properties":{"path":{"type":"string","description":"Where"},"limit":{"type":"integer"}},'
    b'"required":["path"]}}'
)
DESCRIPTION = b"Does what a tool of an ordinary server does, as its text says at some length. " * 3
UNKNOWN = b'{"code":-32601,"message":"Method not found"}'


def main(count: int) -> None:
    """Serve until the end of input."""
    tools = [TOOL % (number, number, DESCRIPTION) for number in range(count)]
    listed = b'{"tools":[%b]}' % b",".join(tools)
    rest = b""
    while data := os.read(0, 2**20):
        if b"\n" not in data:
            rest += data
            continue
        *lines, rest = (rest + data).split(b"\n")
        write(b"".join([answer(line, listed) for line in lines]))


def answer(line: bytes, listed: bytes) -> bytes:
    """Return the answer to one line, with its newline; empty for a notification."""
    before, found, after = line.partition(b'"id":')
    if not found or len(before) > 100:
        return b""
    identifier = after[: after.index(b",")]
    head = after[:200]
    if b'"tools/call"' in head:
        result = LARGE if b'"large"' in head else SHORT
    elif b'"tools/list"' in head:
        result = listed
    elif b'"initialize"' in head:
        result = INITIALIZED
    else:
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (identifier, UNKNOWN)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (identifier, result)


def write(data: bytes) -> None:
    """Write all of it to standard output."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
