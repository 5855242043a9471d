"""`client`: which AI tools are here, and Octave's entry in their files."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.clients import connect
from octave.clients.command import Command, command, words
from octave.clients.connect import Change, Connection
from octave.clients.table import CLIENTS, Client, Here, Scope
from octave.errors import NotFound, OctaveError, UsageError, did_you_mean
from octave.home import Home, Workspace, find_workspace

client = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Connect AI tools (Claude Code) to Octave, or see which are.",
)


class _Scope(StrEnum):
    user = "user"
    project = "project"


def client_ids(incomplete: str) -> list[str]:
    """Return the ids of AI tools that begin with `incomplete`."""
    return [name for name in CLIENTS if name.startswith(incomplete)]


Ids = Annotated[list[str], typer.Argument(metavar="ID...", autocompletion=client_ids)]
ScopeOption = Annotated[
    _Scope,
    typer.Option("--scope", help="All your projects, or a file in this folder."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the diff, write nothing.")]


@client.command("list")
def list_clients(context: typer.Context) -> int:
    """List the AI tools Octave knows, which are on this machine, and which are connected."""
    terms = manners(context)
    rows = [_seen(tool, terms) for tool in CLIENTS.values()]
    if terms.as_json:
        write_json(rows)
        return 0
    render.table(
        ("ID", "NAME", "PRESENT", "CONNECTED", "FILE"),
        [
            (row["id"], row["title"], "yes" if row["present"] else "no", _verdict(row), row["file"])
            for row in rows
        ],
    )
    return 0


@client.command("add")
def add(
    context: typer.Context,
    ids: Ids,
    *,
    scope: ScopeOption = _Scope.user,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an entry that Octave did not write.")
    ] = False,
) -> int:
    """Write Octave's entry into the configuration of AI tools; keeps a backup."""
    terms = manners(context)
    outcomes = _all(
        ids, scope, terms, lambda link: connect.add(link, force=force, dry_run=dry_run)
    )
    return _report(terms, outcomes, dry_run=dry_run)


@client.command("remove")
def remove(
    context: typer.Context,
    ids: Ids,
    *,
    scope: ScopeOption = _Scope.user,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take out an entry that Octave did not write, too.")
    ] = False,
) -> int:
    """Take Octave's entry out of the configuration of AI tools, which is then as before."""
    terms = manners(context)
    outcomes = _all(
        ids, scope, terms, lambda link: connect.remove(link, force=force, dry_run=dry_run)
    )
    return _report(terms, outcomes, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Outcome:
    name: str
    scope: Scope
    change: Change | None = None
    error: OctaveError | None = None


def _all(
    ids: list[str], scope: _Scope, terms: Manners, act: Callable[[Connection], Change]
) -> list[_Outcome]:
    return [_each(name, scope.value, terms, act) for name in dict.fromkeys(ids)]


def _each(
    name: str, scope: Scope, terms: Manners, act: Callable[[Connection], Change]
) -> _Outcome:
    try:
        if name not in CLIENTS:
            hint = did_you_mean(name, CLIENTS) or "octave client list"
            raise NotFound(f"there is no AI tool `{name}`", hint=hint)
        return _Outcome(name, scope, act(_connection(CLIENTS[name], scope, terms)))
    except OctaveError as error:
        return _Outcome(name, scope, error=error)


def _connection(tool: Client, scope: Scope, terms: Manners) -> Connection:
    if scope not in tool.places:
        raise UsageError(f"{tool.title} has no {scope} scope")
    workspace = _workspace(scope, terms)
    entry = tool.entry(command(workspace, sys.executable))
    return Connection(tool, tool.places[scope].file(_here()), entry, workspace.home)


def _workspace(scope: Scope, terms: Manners) -> Workspace:
    if scope == "project":
        return terms.workspace()
    # An entry for all projects must not depend on the folder one happens to stand in.
    named = terms.manifest or os.environ.get("OCTAVE_MANIFEST")
    return find_workspace(Home.find(os.environ), Path.cwd(), named, home_only=True)


def _here() -> Here:
    return Here(Path.home(), Path.cwd(), os.environ)


def _seen(tool: Client, terms: Manners) -> dict[str, Any]:
    """Return the row of one tool; the scope that is connected is shown, else the user's."""
    links = [_connection(tool, scope, terms) for scope in tool.places]
    present = bool(shutil.which(tool.executable)) or any(link.file.exists() for link in links)
    row: dict[str, Any] = {"id": tool.id, "title": tool.title, "present": present}
    problem = None
    for link in links:
        try:
            found = connect.look(link)
        except OctaveError as error:
            problem = problem or error.message
            continue
        if found is not None:
            ours = command(Workspace.of_home(link.home), sys.executable)
            state = {"connected": True, "here": _is_here(found.value, tool.entry(ours))}
            return {**row, **state, "file": str(link.file), "problem": None}
    state = {"connected": False, "here": False}
    return {**row, **state, "file": str(links[0].file), "problem": problem}
