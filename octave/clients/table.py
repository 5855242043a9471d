"""The AI tools Octave can connect: one row each, and no tool is mentioned anywhere else.

A row says where the tool's configuration lies, under which names, what an entry looks like, and
what a person does next. A `Command` is what every entry says, whatever the tool calls its parts.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octave.clients.json_edit import Entry
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
    """An AI tool whose file is JSON, with or without comments."""

    id: str
    title: str
    executable: str
    places: Mapping[Scope, Place]
    path: tuple[str, ...]
    """The names in its file that lead to Octave's entry."""
    entry: Callable[[Command], Entry]


def _stdio(command: Command) -> Entry:
    return {
        "type": "stdio",
        "command": command.program,
        "args": list(command.args),
        "env": dict(command.env),
    }


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
    ),
)

CLIENTS: Mapping[str, Client] = {client.id: client for client in _ROWS}
"""By id, the word of the command line."""
