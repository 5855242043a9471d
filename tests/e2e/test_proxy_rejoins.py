"""The installed proxy under a client that stays, when the installed runtime is killed."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Conversation, Octave

GOOD = Path(__file__).parent.parent / "servers" / "good.py"
SLEEP_S = 2
"""The server is not killed with its runtime; it has to notice by itself when it is done."""


def test_row_61_a_runtime_killed_in_a_long_call_costs_that_call_only(
    octave: Octave, proxy: Callable[..., Conversation]
) -> None:
    octave.home.mkdir(mode=0o700)
    command = json.dumps([sys.executable, str(GOOD)])
    text = f"[runtime]\nport = 0\n[servers.good]\ncommand = {command}\n"
    (octave.home / "octave.toml").write_text(text)
    octave("serve", "--detach")
    runtime = octave("status", "--json").document["runtime"]["pid"]
    client = proxy("good")
    client.initialize()
    assert call(client, "echo", text="before") == "before"
    params = {"name": "sleep", "arguments": {"s": SLEEP_S}}
    client.send(
        json.dumps({"jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": params})
    )
    # Answered at once and in order: the call before it is in the runtime's hands.
    client.request("ping", {})
    os.kill(runtime, signal.SIGKILL)
    answer = json.loads(client.receive())
    assert answer["id"] == "long"
    assert answer["error"]["message"] == "the runtime ended before it answered; outcome unknown"
    assert call(client, "echo", text="after") == "after"
    assert octave("status", "--json").document["runtime"]["pid"] != runtime
    assert client.close() == 0


def call(client: Conversation, tool: str, **arguments: object) -> str:
    answer = client.request("tools/call", {"name": tool, "arguments": arguments})
    return str(answer["result"]["content"][0]["text"])
