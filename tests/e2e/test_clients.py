"""Real AI tools at `octave proxy`: the official inspector and Claude Code, no account needed."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import OCTAVE, Conversation, Octave, run

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
CLAUDE = "@anthropic-ai/claude-code@2.1.330"


def npm_install(package: str, folder: Path, node: Path, npm_cli: Path) -> None:
    folder.mkdir(exist_ok=True)
    done = run(
        [node, npm_cli, "install", "--ignore-scripts", "--no-audit", "--no-fund", package],
        cwd=folder,
        env={**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr


def private_node(octave: Octave) -> tuple[Path, Path]:
    """Return node 24 and its npm, as Octave installs them where no node is."""
    bare = Octave(octave.home, octave.cwd, {**octave.extra, "PATH": "/nonexistent"})
    bare("install", "everything")
    node = next((octave.home / "runtimes").rglob("bin/node"))
    return node, next((octave.home / "runtimes").rglob("npm/bin/npm-cli.js"))


@pytest.fixture
def octave(tmp_path: Path) -> Iterator[Octave]:
    """The command of a user whose home is the usual one: clients pass few variables on."""
    user = tmp_path / "user"
    user.mkdir()
    command = Octave(user / ".octave", user, {"HOME": str(user)})
    yield command
    command("shutdown", code=None)


@pytest.mark.xdist_group("clients")
def test_the_official_inspector_lists_and_calls(octave: Octave, tmp_path: Path) -> None:
    node, npm_cli = private_node(octave)
    npm_install(INSPECTOR, tmp_path / "inspector", node, npm_cli)
    inspector = tmp_path / "inspector/node_modules/@modelcontextprotocol/inspector"
    entry = inspector / json.loads((inspector / "package.json").read_text())["bin"]["mcp-inspector"]

    def inspect(*words: str) -> Any:
        done = run(
            [node, entry, "--cli", OCTAVE, "proxy", "everything", *words],
            env=octave.environ,
            cwd=octave.cwd,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    tools = inspect("--method", "tools/list")["tools"]
    assert "echo" in [tool["name"] for tool in tools]
    words = ("--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=octave")
    assert inspect(*words)["content"][0]["text"] == "Echo: octave"


@pytest.mark.xdist_group("clients")
def test_claude_code_connects_after_client_add(octave: Octave, tmp_path: Path) -> None:
    node, npm_cli = private_node(octave)
    npm_install(CLAUDE, tmp_path / "claude", node, npm_cli)
    claude = next((tmp_path / "claude/node_modules/@anthropic-ai").glob("claude-code-*/claude"))
    octave("client", "add", "claude")
    done = run([claude, "mcp", "list"], env=octave.environ, cwd=octave.cwd)
    lines = [line for line in done.stdout.splitlines() if "octave" in line]
    assert lines, done.stdout + done.stderr
    assert "Connected" in lines[0], done.stdout + done.stderr
    octave("client", "remove", "claude")
    gone = run([claude, "mcp", "list"], env=octave.environ, cwd=octave.cwd)
    assert "octave" not in gone.stdout


def test_the_official_sdk_probes_falls_back_lists_and_calls(octave: Octave) -> None:
    octave("install", "everything")
    script = Path(__file__).with_name("sdk_client.py")
    done = run(
        [sys.executable, script, OCTAVE, "proxy", "everything"],
        env=octave.environ,
        cwd=octave.cwd,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == "2025-11-25"
    assert found["text"] == "Echo: octave"
    assert len(found["tools"]) == 13


def test_two_clients_at_once_get_their_own_answers(octave: Octave) -> None:
    octave("install", "everything")
    failures: list[str] = []

    def converse(name: str) -> None:
        conversation = Conversation(octave.start("proxy", "everything"))
        conversation.initialize()
        for number in range(200):
            text = f"{name} {number}"
            params = {"name": "echo", "arguments": {"message": text}}
            answer = conversation.request("tools/call", params)
            if answer["result"]["content"][0]["text"] != f"Echo: {text}":
                failures.append(text)
        conversation.close()

    clients = [threading.Thread(target=converse, args=(name,)) for name in ("one", "two")]
    for client in clients:
        client.start()
    for client in clients:
        client.join(timeout=120)
    assert failures == []
    assert not any(client.is_alive() for client in clients)
