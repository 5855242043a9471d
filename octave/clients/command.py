"""How an AI tool starts Octave: words and variables that hold wherever it runs.

Graphical tools have neither the PATH nor the folder nor the variables of a person's shell, so
everything is absolute and nothing is left to be found.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octave.home import Home, Workspace


@dataclass(frozen=True, slots=True)
class Command:
    """What an entry says, whatever the tool calls its parts."""

    program: str
    """An absolute path."""
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
