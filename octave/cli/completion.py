"""`completion`: the shell scripts, and what completes inside verbs.

Every TAB runs the program, so names come from small files: the manifest, the registry's folder
listing, and the catalogue of a server.
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # no `as` there

from octave.cli.output import write
from octave.errors import OctaveError
from octave.home import Home, find_workspace

VARIABLE = "_OCTAVE_COMPLETE"
"""Set by the scripts when they ask what comes next."""


class Shell(StrEnum):
    """The shells there is a script for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def script(shell: Shell) -> str:
    """Return the completion script for `shell`, as shipped in `completions/`."""
    return str(get_completion_script(prog_name="octave", complete_var=VARIABLE, shell=shell.value))


def completion(shell: Annotated[Shell, typer.Argument()]) -> int:
    """Print the completion script: `source <(octave completion bash)`."""
    write(script(shell))
    return 0


def server_names(incomplete: str) -> list[str]:
    """Return the servers of this workspace that begin with `incomplete`."""
    from octave.packages import manifest

    workspace = find_workspace(Home.find(os.environ), Path.cwd(), os.environ.get("OCTAVE_MANIFEST"))
    try:
        names = manifest.load(workspace.manifest).servers
    except OctaveError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def registry_names(incomplete: str) -> list[str]:
    """Return the registry's short names that begin with `incomplete`."""
    from octave.packages.registry import Registry, bundled_folder

    return [name for name in Registry(bundled_folder()).names() if name.startswith(incomplete)]


def tool_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the tools of the server already typed that begin with `incomplete`."""
    workspace = find_workspace(Home.find(os.environ), Path.cwd(), os.environ.get("OCTAVE_MANIFEST"))
    try:
        found = json.loads(workspace.catalogue(str(context.params["server"])).read_bytes())
        names = [str(tool["name"]) for tool in found["lists"]["tools"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if name.startswith(incomplete)]
