"""Real AI tools at `octave proxy`, no account needed: the inspector, Claude Code, Codex, Gemini
CLI, and the official SDK.

Where an AI tool calls tools for a model only, a stand-in on loopback is that model. What reached
the servers is told by themselves. The tools see none of the accounts of whoever runs the tests.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from octave.runtime.guardian import find
from tests.e2e.conftest import COMMAND_S, OCTAVE, Conversation, Octave, run
from tests.e2e.fleet import events, wait_until, write_manifest

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
CLAUDE = "@anthropic-ai/claude-code@2.1.330"
CODEX = "@openai/codex@0.169.0"
GEMINI = "@google/gemini-cli@0.61.0"
ACCOUNTS = ("ANTHROPIC", "CLAUDE", "CODEX", "OPENAI", "GEMINI", "GOOGLE")
TOKEN = "token-17"
"""The model asks for its echo; nothing else in a conversation reads like that."""

MODERN = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}

pytestmark = pytest.mark.xdist_group("clients")


def private_node(octave: Octave) -> tuple[Path, Path]:
    """Return node 24 and its npm, as Octave installs them where no node is."""
    bare = Octave(octave.home, octave.cwd, {**octave.extra, "PATH": "/nonexistent"})
    bare("install", "everything")
    node = next((octave.home / "runtimes").rglob("bin/node"))
    return node, next((octave.home / "runtimes").rglob("npm/bin/npm-cli.js"))


@dataclass(frozen=True)
class Bench:
    """What the tests here share: a home with `everything` and a node 24, and the AI tools."""

    octave: Octave
    node: Path
    npm_cli: Path
    shared: Path
    """A folder of all the workers of this run, which do not keep to `xdist_group`:
    github.com/pytest-dev/pytest-xdist/issues/1386. The folder may go when they do."""

    def installed(self, package: str) -> Path:
        """Return the node_modules with an npm package, installed once in a run."""
        folder = self.shared / package.strip("@").replace("/", "-")
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                fresh = folder.with_name(f"{folder.name}.fresh")
                self._install(package, fresh)
                fresh.rename(folder)
        return folder / "node_modules"

    def _install(self, package: str, folder: Path) -> None:
        folder.mkdir()
        words = ("install", "--ignore-scripts", "--no-audit", "--no-fund", package)
        environ = {**self.octave.environ, "npm_config_cache": str(self.shared / "npm-cache")}
        environ["PATH"] = f"{self.node.parent}{os.pathsep}{environ['PATH']}"
        done = run([self.node, self.npm_cli, *words], cwd=folder, env=environ)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    user = tmp_path_factory.mktemp("clients")
    octave = Octave(user / ".octave", user, {"HOME": str(user)})
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    yield Bench(octave, *private_node(octave), shared)
    end(octave)


def end(octave: Octave) -> None:
    """Shut the runtime down; then no process is left of what its user started."""
    octave("shutdown", code=None)
    wait_until(lambda: not find([f"HOME={octave.cwd}".encode()]))


@pytest.fixture
def octave(tmp_path: Path) -> Iterator[Octave]:
    """The command of a user whose home is the usual one: clients pass few variables on.

    There is one server, `good`, that speaks what HOSTILE_ERA says.
    """
    user = tmp_path / "user"
    user.mkdir()
    command = Octave(user / ".octave", user, {"HOME": str(user)})
    write_manifest(command, ("good",), server='pass_env = ["HOSTILE_ERA"]')
    yield command
    end(command)


def without_accounts(octave: Octave, **more: str) -> dict[str, str]:
    """Return the environment of an AI tool that belongs to nobody."""
    kept = {key: value for key, value in octave.environ.items() if not key.startswith(ACCOUNTS)}
    del kept["OCTAVE_HOME"]  # the usual one, and what Codex passes on does not include it
    return {**kept, **more}


@contextmanager
def proxied(octave: Octave, *words: str) -> Iterator[Conversation]:
    """A conversation with `octave proxy WORDS`, which ends in order unless something fails."""
    conversation = Conversation(octave.start("proxy", *words))
    try:
        yield conversation
        assert conversation.close() == 0
    finally:
        conversation.process.kill()
        conversation.process.communicate()


def calls_of(octave: Octave) -> int:
    """Return how often the tool `echo` of `good` was called, by what both sides count."""
    (server,) = octave("status", "--json").document["servers"]
    heard = events(octave, "good").count("call:echo")
    assert server["calls"] == heard
    return heard


@dataclass(frozen=True)
class Inspector:
    """The official inspector's command line, in one protocol era."""

    words: tuple[Path, ...]
    environ: Mapping[str, str]
    era: str

    def __call__(self, *words: str | Path) -> Any:
        done = run([*self.words, "--cli", *words, "--protocol-era", self.era], env=self.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def echo(self, target: tuple[str | Path, ...], tool: str, key: str) -> str:
        words = ("--method", "tools/call", "--tool-name", tool, "--tool-arg", f"{key}={TOKEN}")
        return str(self(*target, *words)["content"][0]["text"])

    def tools(self, target: tuple[str | Path, ...]) -> list[str]:
        return [tool["name"] for tool in self(*target, "--method", "tools/list")["tools"]]


@pytest.fixture(params=["legacy", "modern"])
def inspector(bench: Bench, request: pytest.FixtureRequest) -> Inspector:
    folder = bench.installed(INSPECTOR) / "@modelcontextprotocol/inspector"
    entry = folder / json.loads((folder / "package.json").read_text())["bin"]["mcp-inspector"]
    environ = {**bench.octave.environ, "MCP_INSPECTOR_SECRET_STORE": "memory"}
    return Inspector((bench.node, entry), environ, request.param)


@pytest.mark.campaign
def test_the_inspector_lists_and_calls_an_installed_server(inspector: Inspector) -> None:
    target = (OCTAVE, "proxy", "everything")
    assert "echo" in inspector.tools(target)
    assert inspector.echo(target, "echo", "message") == f"Echo: {TOKEN}"


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("path", "prefix"), [("/mcp", "good__"), ("/mcp/servers/good", "")], ids=["all", "one"]
)
def test_the_inspector_lists_and_calls_over_http(
    inspector: Inspector, octave: Octave, tmp_path: Path, path: str, prefix: str
) -> None:
    url = octave("serve", "--detach", "--json").document["url"]
    token = (octave.home / "run" / "token").read_text()
    entry = {"url": url + path, "headers": {"Authorization": f"Bearer {token}"}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"octave": {"type": "streamable-http", **entry}}}))
    target = ("--config", config, "--server", "octave")
    assert inspector.tools(target) == [f"{prefix}{name}" for name in ("echo", "pid", "sleep")]
    assert inspector.echo(target, f"{prefix}echo", "text") == TOKEN
    assert calls_of(octave) == 1


Event = Mapping[str, Any]
Answer = Callable[[Any], list[Event]]
"""Takes the body of a request to a model and returns the events of its answer."""


class Model(ThreadingHTTPServer):
    """A model on loopback that wants the echo of `TOKEN` and then says that it is done."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _ModelRequest)
        self.answer = answer
        self.asked: list[Any] = []
        """The bodies of what it was asked."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _ModelRequest(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not body.get("tools"):
            # Titles, token counts and the like; no tool depends on them.
            self.send_error(404)
            return
        self.server.asked.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in self.server.answer(body):
            name = f"event: {event['type']}\n" if "type" in event else ""
            self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def standing_in(answer: Answer) -> Iterator[Model]:
    with Model(answer) as model:
        thread = threading.Thread(target=model.serve_forever)
        thread.start()
        try:
            yield model
        finally:
            model.shutdown()
            thread.join()


def as_claude(body: Any) -> list[Event]:
    """Answer in the manner of the Messages API, streamed."""
    content = body["messages"][-1]["content"]
    wanted = [tool["name"] for tool in body["tools"] if tool["name"].endswith("good__echo")]
    block: Event = {"type": "text", "text": ""}
    delta: Event = {"type": "text_delta", "text": "done"}
    if wanted and TOKEN not in json.dumps(content):
        block = {"type": "tool_use", "id": "toolu_1", "name": wanted[0], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps({"text": TOKEN})}
    stop = {"stop_reason": "tool_use" if "id" in block else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"]}
    return [
        {"type": "message_start", "message": {**message, "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": usage},
        {"type": "message_stop"},
    ]


def as_gemini(body: Any) -> list[Event]:
    """Answer in the manner of `streamGenerateContent`."""
    wanted = [name for name in gemini_tools(body) if name.endswith("good__echo")]
    part: Event = {"text": "done"}
    if wanted and TOKEN not in json.dumps(body["contents"][-1]):
        part = {"functionCall": {"name": wanted[0], "args": {"text": TOKEN}}}
    content = {"role": "model", "parts": [part]}
    return [{"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}]


def gemini_tools(body: Any) -> list[str]:
    return [each["name"] for tool in body["tools"] for each in tool.get("functionDeclarations", ())]


def test_claude_code_connects_after_client_add_and_calls(bench: Bench, octave: Octave) -> None:
    claude = next((bench.installed(CLAUDE) / "@anthropic-ai").glob("claude-code-*/claude"))
    environ = without_accounts(octave, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1")
    octave("client", "add", "claude")
    listed = run([claude, "mcp", "list"], env=environ, cwd=octave.cwd)
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("octave:")]
    assert line.endswith("Connected"), listed
    with standing_in(as_claude) as model:
        environ |= {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "none"}
        # All definitions at once, and no first request before the proxy has answered.
        environ |= {"ENABLE_TOOL_SEARCH": "false", "MCP_CONNECTION_NONBLOCKING": "0"}
        words = ("-p", "go", "--allowedTools", "mcp__octave__good__echo", "--max-turns", "4")
        asked = run([claude, *words, "--output-format", "json"], env=environ, cwd=octave.cwd)
    assert json.loads(asked.stdout)["result"] == "done", asked
    tools = [tool["name"] for tool in model.asked[0]["tools"] if "octave" in tool["name"]]
    assert tools == [f"mcp__octave__good__{name}" for name in ("echo", "pid", "sleep")]
    assert TOKEN in json.dumps(model.asked[-1]["messages"][-1])
    assert calls_of(octave) == 1
    octave("client", "remove", "claude")
    gone = run([claude, "mcp", "list"], env=environ, cwd=octave.cwd)
    assert "octave" not in gone.stdout


@pytest.mark.campaign
def test_gemini_cli_connects_and_calls(bench: Bench, octave: Octave) -> None:
    gemini = (bench.node, bench.installed(GEMINI) / "@google/gemini-cli/bundle/gemini.js")
    environ = without_accounts(octave, GEMINI_CLI_TRUST_WORKSPACE="true")
    (octave.cwd / ".gemini").mkdir()
    entry = {"command": str(OCTAVE), "args": ["proxy"], "trust": True}
    account = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    settings = {"mcpServers": {"octave": entry}, **account}
    (octave.cwd / ".gemini/settings.json").write_text(json.dumps(settings))
    listed = run([*gemini, "mcp", "list"], env=environ, cwd=octave.cwd)
    # Without a terminal it says what it has to say on stderr.
    assert f"octave: {OCTAVE} proxy (stdio) - Connected" in listed.stderr, listed
    with standing_in(as_gemini) as model:
        environ |= {"GOOGLE_GEMINI_BASE_URL": model.url, "GEMINI_API_KEY": "none"}
        words = ("-p", "go", "-m", "gemini-2.5-flash", "-o", "json")
        asked = run([*gemini, *words], env=environ, cwd=octave.cwd)
    assert json.loads(asked.stdout)["response"] == "done", asked
    tools = [name for name in gemini_tools(model.asked[0]) if "octave" in name]
    assert tools == [f"mcp_octave_good__{name}" for name in ("echo", "pid", "sleep")]
    assert TOKEN in json.dumps(model.asked[-1]["contents"][-1])
    assert calls_of(octave) == 1


class AppServer:
    """`codex app-server`: what an editor asks of Codex, a line of JSON at a time."""

    def __init__(self, codex: Path, environ: Mapping[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            [codex, "app-server"],
            env=environ,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._next = 0

    def ask(self, method: str, **params: Any) -> Any:
        """Return the result; what Codex tells meanwhile is passed over."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            told = json.loads(line)
            if told.get("id") == self._next and "method" not in told:
                return told["result"]
        raise AssertionError("codex ended")

    def close(self) -> None:
        self.process.communicate(timeout=COMMAND_S)
        assert self.process.returncode == 0


@pytest.mark.campaign
def test_codex_lists_and_calls(bench: Bench, octave: Octave) -> None:
    codex = next((bench.installed(CODEX) / "@openai").glob("codex-*/vendor/*/bin/codex"))
    environ = without_accounts(octave)
    (octave.cwd / ".codex").mkdir()
    added = run([codex, "mcp", "add", "octave", "--", OCTAVE, "proxy"], env=environ)
    assert added.returncode == 0, added
    server = AppServer(codex, environ, octave.cwd)
    server.ask("initialize", clientInfo={"name": "e2e", "title": "e2e", "version": "0"})
    (status,) = server.ask("mcpServerStatus/list")["data"]
    assert status["serverInfo"]["name"] == "octave"
    assert sorted(status["tools"]) == ["good__echo", "good__pid", "good__sleep"]
    thread = server.ask("thread/start", ephemeral=True)["thread"]["id"]
    call = {"server": "octave", "tool": "good__echo", "arguments": {"text": TOKEN}}
    result = server.ask("mcpServer/tool/call", threadId=thread, **call)
    assert result["content"] == [{"type": "text", "text": TOKEN}]
    assert calls_of(octave) == 1
    server.close()


@pytest.mark.parametrize(("mode", "version"), [("auto", MODERN), ("legacy", "2025-11-25")])
def test_the_official_sdk_lists_and_calls(bench: Bench, mode: str, version: str) -> None:
    script = Path(__file__).with_name("sdk_client.py")
    words = (sys.executable, script, mode, OCTAVE, "proxy", "everything")
    done = run(words, env=bench.octave.environ, cwd=bench.octave.cwd)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == version
    assert found["text"] == "Echo: octave"
    assert "get-sum" in found["tools"]


@pytest.mark.parametrize(
    ("words", "tool"), [(("good",), "echo"), ((), "good__echo")], ids=["one", "all"]
)
@pytest.mark.parametrize("era", ["legacy", "modern", "dual"])
def test_a_client_may_probe_and_then_shake_hands_on_the_same_pipe(
    octave: Octave, era: str, words: tuple[str, ...], tool: str
) -> None:
    speaking = Octave(octave.home, octave.cwd, {**octave.extra, "HOSTILE_ERA": era})
    with proxied(speaking, *words) as client:
        found = client.request("server/discover", {"_meta": ENVELOPE})["result"]
        assert MODERN in found["supportedVersions"]
        assert "tools" in found["capabilities"]
        assert client.initialize()["protocolVersion"] == "2025-11-25"
        called = {"name": tool, "arguments": {"text": TOKEN}}
        result = client.request("tools/call", called)["result"]
        assert result["content"] == [{"type": "text", "text": TOKEN}]
        result = client.request("tools/call", {**called, "_meta": ENVELOPE})["result"]
        assert result["resultType"] == "complete"
        assert result["content"] == [{"type": "text", "text": TOKEN}]
        assert client.request("ping", {})["result"] == {}
    assert calls_of(octave) == 2
