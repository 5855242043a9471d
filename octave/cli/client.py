"""`client`: which AI tools are here, and Octave's entry in their files."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import client_ids
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.clients import connect, journal
from octave.clients.document import Change, Connection
from octave.clients.table import CLIENTS, Client, Scope, command, words
from octave.errors import NotFound, OctaveError, UsageError, common_code, did_you_mean
from octave.home import Workspace
from octave.packages.secrets import Secrets

Outcomes = Sequence[tuple[str, Change | OctaveError]]
"""What became of each id."""

client = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Connect AI tools to Octave.",
)


class _Scope(StrEnum):
    user = "user"
    project = "project"


Ids = Annotated[list[str], typer.Argument(metavar="ID...", autocompletion=client_ids)]
ScopeOption = Annotated[
    _Scope,
    typer.Option("--scope", help="All your projects, or a file in this folder."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the diff, write nothing.")]


@client.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        write(context.get_help())


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
    outcomes = _each(
        ids, scope.value, terms, lambda link: connect.add(link, force=force, dry_run=dry_run)
    )
    return _report(terms, scope.value, outcomes, dry_run=dry_run)


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
    outcomes = _each(
        ids, scope.value, terms, lambda link: connect.remove(link, force=force, dry_run=dry_run)
    )
    return _report(terms, scope.value, outcomes, dry_run=dry_run)


@client.command("undo")
def undo(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", autocompletion=client_ids)
    ] = None,
    *,
    dry_run: DryRun = False,
) -> int:
    """Take back the last change of their files: an entry, or an import."""
    terms = manners(context)
    for name in ids or ():
        tool_of(name)
    home = terms.workspace(may_be_missing=True).home
    outcomes = journal.undo(home, Secrets(home).get, ids or (), dry_run=dry_run)
    return _report(terms, "user", outcomes, dry_run=dry_run)


def lend(ids: Sequence[str], terms: Manners, *, dry_run: bool = False) -> Outcomes:
    """Write Octave's entry for all projects into the files of these AI tools."""
    act = partial(connect.add, force=False, dry_run=dry_run)
    return _each(ids, "user", terms, act)


def rows(outcomes: Outcomes, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Return what became of each, as scripts are told."""
    return [_as_json(name, result, dry_run=dry_run) for name, result in outcomes]


def tell_lent(terms: Manners, outcomes: Outcomes, *, dry_run: bool = False) -> int:
    """Tell what `lend` did, unless that was part of a JSON document; return the exit code."""
    return _code(outcomes) if terms.as_json else _report(terms, "user", outcomes, dry_run=dry_run)


def _each(
    ids: Sequence[str], scope: Scope, terms: Manners, act: Callable[[Connection], Change]
) -> Outcomes:
    outcomes: list[tuple[str, Change | OctaveError]] = []
    for name in dict.fromkeys(ids):
        try:
            outcomes.append((name, act(_link(tool_of(name), scope, terms))))
        except OctaveError as error:
            outcomes.append((name, error))
    return outcomes


def tool_of(name: str) -> Client:
    """Return the AI tool of that id.

    Raises:
        NotFound: there is none; the hint has near ones.
    """
    if name not in CLIENTS:
        hint = did_you_mean(name, CLIENTS) or "octave client list"
        raise NotFound(f"there is no AI tool `{name}`", hint=hint)
    return CLIENTS[name]


def connection_of(tool: Client, scope: Scope, workspace: Workspace) -> Connection:
    """Return the tool's file of that scope, with Octave's entry leading to `workspace`.

    Raises:
        UsageError: the tool has no such scope, or the user no home folder.
    """
    place = tool.places.get(scope)
    if place is None:
        raise UsageError(f"{tool.title} has no {scope} scope")
    try:
        folder = Path.home() if scope == "user" else Path.cwd()
    except RuntimeError as error:
        raise UsageError("this user has no home folder", hint="set HOME") from error
    file = place.file(folder, os.environ)
    lead = command(workspace, sys.executable)
    return Connection(tool, file, place.lock_suffix, lead, workspace.home)


def terms_of(scope: Scope, terms: Manners) -> Manners:
    """Return `terms` for an entry of that scope.

    One for all projects must not depend on the folder one happens to stand in.
    """
    return replace(terms, home_only=True) if scope == "user" else terms


def _link(tool: Client, scope: Scope, terms: Manners) -> Connection:
    return connection_of(tool, scope, terms_of(scope, terms).workspace())


def _seen(tool: Client, terms: Manners) -> dict[str, Any]:
    """Return the row of one tool, with the file that is connected, else the first."""
    links = [_link(tool, scope, terms) for scope in tool.places]
    row = {
        "id": tool.id,
        "title": tool.title,
        # A project's file tells what its authors use, not what is on this machine.
        "present": bool(shutil.which(tool.executable)) or links[0].file.exists(),
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


def _report(terms: Manners, scope: Scope, outcomes: Outcomes, *, dry_run: bool) -> int:
    failures = [result for _, result in outcomes if isinstance(result, OctaveError)]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        results = [_as_json(name, result, dry_run=dry_run) for name, result in outcomes]
        write_json({"results": results})
    else:
        for name, result in outcomes:
            if isinstance(result, OctaveError):
                tell_error(result, as_json=False)
            else:
                _tell_change(terms, name, scope, result, dry_run=dry_run)
    return _code(outcomes)


def _code(outcomes: Outcomes) -> int:
    return common_code(result for _, result in outcomes if isinstance(result, OctaveError))


def _tell_change(terms: Manners, name: str, scope: Scope, change: Change, *, dry_run: bool) -> None:
    diff = safe(change.diff.rstrip("\n"))
    if dry_run and diff:
        write(diff)
        return
    if diff and not terms.quiet:
        tell(diff)
    write(f"{change.status} {name} {safe(str(change.file))}")
    for note in change.notes:
        tell(f"note: {safe(note)}")
    if change.status in {"added", "updated"} and not terms.quiet:
        for note in _notes(terms, name, scope, change):
            tell(safe(note))


def _notes(terms: Manners, name: str, scope: Scope, change: Change) -> Iterator[str]:
    """Yield what a person should know after a change."""
    if change.backup:
        yield f"backup: {change.backup}"
    manifest = terms.workspace().manifest
    if scope == "user" and manifest != terms_of(scope, terms).workspace().manifest:
        yield f"note: `{manifest}` is not part of it; for this folder add --scope project"
    first, (ours, *more) = shutil.which("octave"), words(sys.executable)
    if first and not more and not Path(first).samefile(ours):
        yield f"note: `octave` on your PATH is `{first}`; the entry runs `{ours}`"
    yield f"next: {CLIENTS[name].places[scope].next_step}"


def _as_json(name: str, result: Change | OctaveError, *, dry_run: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name}
    row |= {"status": "failed", "file": None, "diff": "", "backup": None, "notes": []}
    error = None
    if isinstance(result, OctaveError):
        error = result.as_json()
    else:
        row |= {"status": result.status, "file": str(result.file), "diff": result.diff}
        row["notes"] = list(result.notes)
        row |= {"backup": str(result.backup) if result.backup else None}
    return {**row, "dryRun": dry_run, "error": error}
