"""A client made with the official SDK: connects to the command it is given, lists and calls.

Run as a program: the mode is the first word; with "auto" the SDK probes for the newer version.
"""

import json
import os
import sys

import anyio
from mcp import Client, StdioServerParameters


async def main(mode: str, words: list[str]) -> None:
    server = StdioServerParameters(command=words[0], args=words[1:], env=dict(os.environ))
    async with Client(server, mode=mode) as client:
        tools = await client.list_tools()
        result = await client.call_tool("echo", {"message": "octave"})
        found = {
            "version": client.protocol_version,
            "tools": [tool.name for tool in tools.tools],
            "text": result.content[0].text,  # type: ignore[union-attr] # echo answers with text
        }
        sys.stdout.write(json.dumps(found) + "\n")


anyio.run(main, sys.argv[1], sys.argv[2:])
