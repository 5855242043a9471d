"""The faces of a runtime with a real server behind: faithful lists, the HTTP API, its guard."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Conversation, Octave


def installed_command(octave: Octave, name: str) -> list[str]:
    """Return interpreter and entry file of an installed server, from its record."""
    (record,) = (octave.home / "servers" / name).glob("*/record.json")
    words = json.loads(record.read_text())["command"]
    return [
        word.replace("{folder}", str(record.parent)).replace("{home}", str(octave.home))
        for word in words
    ]


def tools_line(conversation: Conversation) -> str:
    """Return the raw answer to `tools/list`."""
    conversation.initialize()
    conversation.send('{"jsonrpc":"2.0","id":"list","method":"tools/list"}')
    return conversation.receive().rstrip("\n")


@pytest.mark.parametrize("name", ["everything", "time"])
def test_tools_through_the_proxy_are_the_servers_own_but_for_the_prefix(
    octave: Octave, proxy: Callable[..., Conversation], name: str
) -> None:
    octave("install", name)
    direct = Conversation(
        subprocess.Popen(
            installed_command(octave, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    own = tools_line(direct)
    direct.close()
    alone, merged = tools_line(proxy(name)), tools_line(proxy())

    def result(line: str) -> str:
        return json.dumps(json.loads(line)["result"]["tools"])

    assert result(alone) == result(own)
    tools = json.loads(own)["result"]["tools"]
    for tool in tools:
        tool["name"] = f"{name}__{tool['name']}"
    assert result(merged) == json.dumps(tools)
    # Key order, numbers and escapes are the server's own text, not a copy of its meaning.
    definitions = own[own.index('"tools":') :].rpartition("]")[0]
    assert definitions in alone


@pytest.fixture
def api(octave: Octave) -> Iterator["Api"]:
    octave("install", "everything")
    url = octave("serve", "--detach", "--port", "0", "--json").document["url"]
    yield Api(url, (octave.home / "run" / "token").read_text())


class Api:
    """The HTTP API of a runtime, asked as a script would."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=data, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def test_the_http_api_lists_calls_and_tells_its_state(api: Api) -> None:
    assert api.ask("/health", Authorization="")[0] == 200
    status, tools = api.ask("/mcp/tools")
    assert status == 200
    assert {tool["_serverId"] for tool in tools["tools"]} == {"everything"}
    call = {"toolName": "echo", "arguments": {"message": "hi"}}
    status, result = api.ask("/mcp/call", call)
    assert (status, result["content"][0]["text"]) == (200, "Echo: hi")
    status, state = api.ask("/mcp/status")
    assert state["everything"]["status"] == "ready"
    assert state["everything"]["stats"]["callCount"] == 1
    assert api.ask("/mcp/call", {"toolName": "ecko", "arguments": {}})[0] == 404


def test_the_http_api_is_closed_to_strangers(api: Api) -> None:
    call = {"toolName": "echo", "arguments": {"message": "hi"}}
    assert api.ask("/mcp/tools", Authorization="")[0] == 401
    assert api.ask("/mcp/tools", Authorization="Bearer wrong")[0] == 401
    assert api.ask("/mcp/tools", Host="evil.example.com")[0] == 421
    assert api.ask("/mcp/tools", Origin="http://evil.example.com")[0] == 403
    assert api.ask("/mcp/tools", Origin="null")[0] == 403
    assert api.ask("/mcp/call", call, Content_Type="text/plain")[0] == 415
    assert api.ask("/mcp/call", {"toolName": "x" * 5_000_000})[0] == 413


def test_nothing_listens_beyond_loopback_and_the_token_is_the_owners(
    api: Api, octave: Octave
) -> None:
    assert api.url.startswith("http://127.0.0.1:")
    for path in (octave.home / "run").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert api.token.encode() not in path.read_bytes()
        except OSError:
            continue
