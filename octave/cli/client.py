"""`client`: which AI tools are here, and Octave's entry in their files."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.clients import connect
from octave.clients.command import command, words
from octave.clients.connect import Change, Connection
from octave.clients.table import CLIENTS, Client, Here, Scope
from octave.errors import NotFound, OctaveError, UsageError, did_you_mean
from octave.home import Home, Workspace, find_workspace

client = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Connect AI tools to Octave.",
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
    """List AI tools: which are on this machine, which are connected."""
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
    for row in rows:
        if row["problem"]:
            tell(f"warning: {safe(row['problem'])}")
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
    """Write Octave's entry into their files."""
    terms = manners(context)
    outcomes = _all(ids, scope, terms, lambda link: connect.add(link, force=force, dry_run=dry_run))
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
    """Take it out again."""
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


def _each(name: str, scope: Scope, terms: Manners, act: Callable[[Connection], Change]) -> _Outcome:
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
    file = tool.places[scope].file(Here(Path.home(), Path.cwd(), os.environ))
    return Connection(tool, file, command(workspace, sys.executable), workspace.home)


def _workspace(scope: Scope, terms: Manners) -> Workspace:
    if scope == "project":
        return terms.workspace()
    # An entry for all projects must not depend on the folder one happens to stand in.
    named = terms.manifest or os.environ.get("OCTAVE_MANIFEST")
    return find_workspace(Home.find(os.environ), Path.cwd(), named, home_only=True)


def _seen(tool: Client, terms: Manners) -> dict[str, Any]:
    """Return the row of one tool, with the file that is connected, else the user's."""
    links = [_connection(tool, scope, terms) for scope in tool.places]
    row = {
        "id": tool.id,
        "title": tool.title,
        "present": bool(shutil.which(tool.executable)) or any(link.file.exists() for link in links),
        "connected": False,
        "here": False,
        "file": str(links[0].file),
        "problem": None,
    }
    for link in links:
        try:
            found = connect.look(link)
        except OctaveError as error:
            row["problem"] = row["problem"] or error.message
            continue
        if found is not None:
            return {**row, "connected": True, "here": found == "here", "file": str(link.file)}
    return row


def _verdict(row: dict[str, Any]) -> str:
    if row["connected"]:
        return "yes" if row["here"] else "to another Octave"
    return "unknown" if row["problem"] else "no"


def _report(terms: Manners, outcomes: Sequence[_Outcome], *, dry_run: bool) -> int:
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        write_json({"results": [_as_json(outcome, dry_run=dry_run) for outcome in outcomes]})
    else:
        for outcome in outcomes:
            _tell_outcome(outcome, terms, dry_run=dry_run)
    codes = {error.exit_code for error in failures}
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def _tell_outcome(outcome: _Outcome, terms: Manners, *, dry_run: bool) -> None:
    change = outcome.change
    if outcome.error is not None or change is None:
        if outcome.error is not None:
            tell_error(outcome.error, as_json=False)
        return
    diff = safe(change.diff.rstrip("\n"))
    if dry_run and diff:
        write(diff)
        return
    if diff and not terms.quiet:
        tell(diff)
    write(f"{change.status} {outcome.name} {safe(str(change.file))}")
    if not terms.quiet:
        for note in _notes(outcome.name, outcome.scope, change, terms):
            tell(note)


def _notes(name: str, scope: Scope, change: Change, terms: Manners) -> Iterator[str]:
    """Yield what a person should know after a change."""
    if change.status not in {"added", "updated"}:
        return
    if change.backup:
        yield f"backup: {change.backup}"
    if scope == "user" and not terms.home_only and not terms.workspace().is_home:
        manifest = terms.workspace().manifest
        if _workspace(scope, terms).manifest != manifest:
            yield f"note: `{manifest}` is not part of it; for this folder add --scope project"
    first, (ours, *more) = shutil.which("octave"), words(sys.executable)
    if first and not more and not Path(first).samefile(ours):
        yield f"note: `octave` on your PATH is `{first}`; the entry runs `{ours}`"
    yield f"next: {CLIENTS[name].places[scope].next_step}"


def _as_json(outcome: _Outcome, *, dry_run: bool) -> dict[str, Any]:
    change = outcome.change
    return {
        "id": outcome.name,
        "status": change.status if change else "failed",
        "file": str(change.file) if change else None,
        "diff": change.diff if change else "",
        "backup": str(change.backup) if change and change.backup else None,
        "dryRun": dry_run,
        "error": outcome.error.as_json() if outcome.error else None,
    }
