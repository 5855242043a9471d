"""Servers that AI tools fetch anew at each start become locked ones, from the real registries."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Octave

TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
CODEX = """model = "some-model"  # keep

[mcp_servers.clock]
command = "uvx"
args = ["mcp-server-time", "--local-timezone=UTC"]
"""


@pytest.fixture
def octave(octave: Octave) -> Octave:
    """The command of a user with a home folder of their own."""
    return Octave(octave.home, octave.cwd, {"HOME": str(octave.cwd)})


def write(folder: Path) -> tuple[Path, Path]:
    claude, codex = folder / ".claude.json", folder / ".codex" / "config.toml"
    entry = {
        "type": "stdio",
        "command": "npx",
        "args": ["-y", "@modelcontextprotocol/server-everything@latest"],
        "env": {"A_TOKEN": TOKEN},
    }
    claude.write_text(
        json.dumps({"numStartups": 3, "mcpServers": {"all": entry}}, indent=2), encoding="utf-8"
    )
    codex.parent.mkdir()
    codex.write_text(CODEX, encoding="utf-8")
    return claude, codex


def test_npx_and_uvx_entries_are_installed_locked_and_called(octave: Octave) -> None:
    files = write(octave.cwd)
    before = [file.read_bytes() for file in files]
    document = octave("import", "-y", "--json").document
    results = {row["name"]: row for row in document["results"]}
    assert {name: (row["status"], row["checked"]) for name, row in results.items()} == {
        "everything": ("installed", True),
        "time": ("installed", True),
    }
    assert [(each["client"], each["status"]) for each in document["files"]] == [
        ("claude", "moved"),
        ("codex", "moved"),
    ]
    octave("install", "--locked", "--no-start")
    called = octave("call", "everything", "get-env").stdout
    assert TOKEN in called
    called = octave("call", "time", "get_current_time", "timezone=UTC").stdout
    assert '"timezone": "UTC"' in called
    assert list(json.loads(files[0].read_bytes())["mcpServers"]) == ["octave"]
    assert octave("import", "-y").stderr.endswith("there is nothing to take over\n")
    octave("client", "undo")
    assert [file.read_bytes() for file in files] == before
