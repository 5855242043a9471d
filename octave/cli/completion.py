"""`completion`: the shell scripts, and what completes inside verbs.

Every TAB runs the program, so names come from small files: the manifest, the registry's folder
listing, and the catalogue of a server. Whatever goes wrong completes nothing and says nothing.
"""

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # no `as` there

from octave.cli.options import manners
from octave.cli.output import write, write_json
from octave.errors import OctaveError

VARIABLE = "_OCTAVE_COMPLETE"
"""Set by the scripts when they ask what comes next."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@][A-Za-z0-9_./:@-]*")
"""What a shell takes as it stands. The scripts hand words over unquoted, and zsh's evaluates
them: a tool called `$(reboot)` must not get there."""


class Shell(StrEnum):
    """The shells there is a script for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def script(shell: Shell) -> str:
    """Return the completion script for `shell`, as shipped in `completions/`."""
    return str(get_completion_script(prog_name="octave", complete_var=VARIABLE, shell=shell.value))


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(metavar="SHELL")]
) -> int:
    """Print the completion script: `source <(octave completion bash)`."""
    if manners(context).as_json:
        write_json({"shell": shell.value, "script": script(shell)})
    else:
        write(script(shell))
    return 0


def server_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the servers of this workspace that begin with `incomplete`."""
    from octave.packages import manifest

    try:
        names = manifest.load(manners(context).workspace().manifest).servers
    except OctaveError:
        return []
    return _beginning(names, incomplete)


def registry_names(incomplete: str) -> list[str]:
    """Return the registry's short names that begin with `incomplete`."""
    from octave.packages.registry import Registry, bundled_folder

    return _beginning(Registry(bundled_folder()).names(), incomplete)


def registry_ids(context: typer.Context, incomplete: str) -> list[str]:
    """Return the registries of this workspace, and the official one, that begin so."""
    from octave.packages import manifest

    try:
        known = manifest.load(manners(context).workspace().manifest).registries
    except OctaveError:
        known = {}
    return _beginning(dict.fromkeys(["official", *known]), incomplete)


def client_ids(incomplete: str) -> list[str]:
    """Return the ids of AI tools that begin with `incomplete`."""
    from octave.clients.table import CLIENTS

    return [name for name in CLIENTS if name.startswith(incomplete)]


def tool_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the tools of the server already typed that begin with `incomplete`."""
    try:
        path = manners(context).workspace().catalogue(str(context.params["server"]))
        found = json.loads(path.read_bytes())
        names = [str(tool["name"]) for tool in found["lists"]["tools"]]
    except (OctaveError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return _beginning(names, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
