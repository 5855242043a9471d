"""The AI tools Octave can connect: one row each, and no tool is mentioned anywhere else.

A row says where the tool's configuration lies, under which names, what an entry looks like, and
what a person does next. A `Command` is what every entry says, whatever the tool calls its parts.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octave.clients.editors import Format
from octave.clients.json_edit import Entry
from octave.clients.references import Syntax
from octave.home import Home, Workspace

Scope = Literal["user", "project"]


@dataclass(frozen=True, slots=True)
class Command:
    """How an AI tool starts Octave: words and variables that hold wherever it runs.

    Graphical tools have neither the PATH nor the folder nor the variables of a person's shell,
    so everything is absolute and nothing is left to be found.
    """

    program: str
    args: tuple[str, ...]
    env: Mapping[str, str]


def command(workspace: Workspace, python: str) -> Command:
    """Return how to start the proxy of `workspace` with the Octave that `python` runs."""
    first, *rest = words(python)
    args = [*rest, "proxy"]
    if not workspace.is_home:
        args += ["--manifest", str(workspace.manifest)]
    home = workspace.home
    env = {} if home.root == Home.find({}).root else {"OCTAVE_HOME": str(home.root)}
    return Command(first, tuple(args), env)


def words(python: str) -> tuple[str, ...]:
    """Return the words that are `octave` for the interpreter `python`.

    The script beside it, when that is ours: GNU Octave installs an `octave` too, but no
    `octave-mcp`. Else the interpreter itself, with -P so that a folder named `octave` where the
    tool happens to run is not taken for this package.
    """
    # Links stay: resolving the interpreter of a virtual environment leads out of it.
    interpreter = Path(os.path.abspath(python))  # noqa: PTH100 - Path.resolve follows links
    scripts = [interpreter.parent / name for name in ("octave", "octave-mcp")]
    if all(script.is_file() and os.access(script, os.X_OK) for script in scripts):
        return (str(scripts[0]),)
    return (str(interpreter), "-P", "-m", "octave")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tool keeps the servers of one scope."""

    names: tuple[str, ...]
    """Below the user's home, or the project's folder; the first that exists, else the last."""
    next_step: str
    """A sentence for the time after writing."""
    variable: str | None = None
    """A variable of the environment that names the folder to use instead."""
    moved: tuple[str, ...] = ()
    """The names inside that folder."""
    lock_suffix: str | None = None
    """The tool itself holds a folder FILE + suffix while it rewrites FILE."""

    def file(self, folder: Path, environ: Mapping[str, str]) -> Path:
        """Return the file below `folder`; it need not exist."""
        moved_to = environ.get(self.variable) if self.variable else None
        files = [folder / name for name in self.names]
        if moved_to:
            files = [Path(moved_to).absolute() / name for name in self.moved]
        return next((file for file in files if file.exists()), files[-1])


@dataclass(frozen=True, slots=True)
class Client:
    """An AI tool and its files."""

    id: str
    title: str
    executable: str
    places: Mapping[Scope, Place]
    path: tuple[str, ...]
    """The names in its file that lead to Octave's entry."""
    entry: Callable[[Command], Entry]
    syntax: Syntax = "plain"
    """How its entries refer to variables."""
    format: Format = "json"
    """JSON with or without comments, or TOML."""


def _plain(command: Command) -> Entry:
    return {"command": command.program, "args": list(command.args), "env": dict(command.env)}


def _stdio(command: Command) -> Entry:
    return {"type": "stdio", **_plain(command)}


def _applications() -> tuple[str, str | None]:
    """Return where graphical tools keep their settings below the home, and what moves that."""
    if sys.platform == "darwin":
        return "Library/Application Support", None
    return ".config", "XDG_CONFIG_HOME"


def _application(file: str, next_step: str) -> Place:
    folder, variable = _applications()
    moved = (file,) if variable else ()
    return Place((f"{folder}/{file}",), next_step, variable=variable, moved=moved)


_ROWS = (
    Client(
        id="claude",
        title="Claude Code",
        executable="claude",
        places={
            "user": Place(
                names=(".claude/.config.json", ".claude.json"),
                variable="CLAUDE_CONFIG_DIR",
                moved=(".config.json", ".claude.json"),
                lock_suffix=".lock",
                next_step="restart Claude Code; `claude mcp list` tells whether it connects",
            ),
            "project": Place(
                names=(".mcp.json",),
                next_step="start Claude Code in this folder and approve the server `octave`; "
                "`claude mcp list` tells whether it connects",
            ),
        },
        path=("mcpServers", "octave"),
        entry=_stdio,
        syntax="shell",
    ),
    Client(
        id="claude-desktop",
        title="Claude Desktop",
        executable="claude-desktop",
        places={
            "user": _application("Claude/claude_desktop_config.json", "restart Claude Desktop"),
        },
        path=("mcpServers", "octave"),
        entry=_plain,
    ),
    Client(
        id="cursor",
        title="Cursor",
        executable="cursor",
        places={
            "user": Place((".cursor/mcp.json",), "restart Cursor"),
            "project": Place((".cursor/mcp.json",), "open this folder in Cursor and enable it"),
        },
        path=("mcpServers", "octave"),
        entry=_plain,
        syntax="braces",
    ),
    Client(
        id="windsurf",
        title="Windsurf",
        executable="windsurf",
        places={
            "user": Place((".codeium/windsurf/mcp_config.json",), "refresh the MCP servers there"),
        },
        path=("mcpServers", "octave"),
        entry=_plain,
        syntax="braces",
    ),
    Client(
        id="vscode",
        title="VS Code",
        executable="code",
        places={
            "user": _application("Code/User/mcp.json", "start the server `octave` in VS Code"),
            "project": Place((".vscode/mcp.json",), "open this folder in VS Code and start it"),
        },
        path=("servers", "octave"),
        entry=_stdio,
        syntax="braces",
    ),
    Client(
        id="codex",
        title="Codex",
        executable="codex",
        places={
            "user": Place(
                (".codex/config.toml",),
                "start Codex anew; `codex mcp list` shows the server",
                variable="CODEX_HOME",
                moved=("config.toml",),
            ),
            "project": Place((".codex/config.toml",), "trust this folder in Codex"),
        },
        path=("mcp_servers", "octave"),
        entry=_plain,
        format="toml",
    ),
    Client(
        id="gemini",
        title="Gemini CLI",
        executable="gemini",
        places={
            "user": Place(
                (".gemini/settings.json",), "`gemini mcp list` tells whether it connects"
            ),
            "project": Place(
                (".gemini/settings.json",),
                "trust this folder; `gemini mcp list` tells whether it connects",
            ),
        },
        path=("mcpServers", "octave"),
        entry=_plain,
        syntax="dollar",
    ),
)

CLIENTS: Mapping[str, Client] = {client.id: client for client in _ROWS}
"""By id, the word of the command line."""
