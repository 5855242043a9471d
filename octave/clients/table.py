"""The AI tools Octave can connect: one row each, and no tool is mentioned anywhere else.

A row says where the tool's configuration lies, in which format, under which names, what an entry
looks like, and what a person does next.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octave.clients import json_file
from octave.clients.command import Command
from octave.clients.editor import Editor, Entry

Scope = Literal["user", "project"]


@dataclass(frozen=True, slots=True)
class Here:
    """Whose files, in which folder, on which system."""

    user: Path
    """The user's home folder."""
    folder: Path
    environ: Mapping[str, str]
    system: str = sys.platform


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tool keeps the servers of one scope.

    Names beginning with `~/` count from the user's home, others from the current folder. Of
    several the first that exists is the one, else the last.
    """

    names: tuple[str, ...]
    next_step: str
    """A sentence for the time after writing."""
    macos: tuple[str, ...] = ()
    """The same on macOS, where it differs."""
    variable: str | None = None
    """A variable of the environment that names the folder to use instead."""
    moved: tuple[str, ...] = ()
    """The names inside that folder."""

    def file(self, here: Here) -> Path:
        """Return the file; it need not exist."""
        moved_to = here.environ.get(self.variable) if self.variable else None
        if moved_to:
            files = [here.folder / moved_to / name for name in self.moved]
        else:
            names = self.macos if self.macos and here.system == "darwin" else self.names
            files = [
                here.user / name[2:] if name.startswith("~/") else here.folder / name
                for name in names
            ]
        return next((file for file in files if file.exists()), files[-1])


@dataclass(frozen=True, slots=True)
class Client:
    """An AI tool."""

    id: str
    title: str
    executable: str
    places: Mapping[Scope, Place]
    editor: Editor
    path: tuple[str, ...]
    """The names in its file that lead to Octave's entry."""
    entry: Callable[[Command], Entry]
    lock_suffix: str | None = None
    """The tool itself holds a folder FILE + suffix while it rewrites FILE."""


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
                names=("~/.claude/.config.json", "~/.claude.json"),
                variable="CLAUDE_CONFIG_DIR",
                moved=(".config.json", ".claude.json"),
                next_step="restart Claude Code; `claude mcp list` tells whether it connects",
            ),
            "project": Place(
                names=(".mcp.json",),
                next_step="start Claude Code in this folder and approve the server `octave`; "
                "`claude mcp list` tells whether it connects",
            ),
        },
        editor=json_file,
        path=("mcpServers", "octave"),
        entry=_stdio,
        lock_suffix=".lock",
    ),
)

CLIENTS: Mapping[str, Client] = {client.id: client for client in _ROWS}
"""By id, the word of the command line."""
