"""`import`: the servers that AI tools are set up with become Octave's own."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import takeover_page as page
from octave.cli.asking import ask, can_ask
from octave.cli.client import connection_of, terms_of, tool_of
from octave.cli.completion import client_ids
from octave.cli.options import Manners, manners
from octave.cli.outcomes import tell_outcome
from octave.cli.output import safe, tell, write, write_json
from octave.cli.site import open_site
from octave.clients import configured, journal, moving
from octave.clients.configured import Broken, Configured, Desk
from octave.clients.document import Change, Connection
from octave.clients.drafts import Asked, Known
from octave.clients.moving import Taken
from octave.clients.plan import Left, Look, Row, rows, written
from octave.clients.records import digest
from octave.clients.table import CLIENTS, Scope
from octave.clients.takeover import Result, take
from octave.errors import (
    MissingAnswer,
    NotFound,
    OctaveError,
    UsageError,
    common_code,
    did_you_mean,
)
from octave.home import Workspace
from octave.packages import manifest, variables, workspaces
from octave.packages.install import Outcome
from octave.packages.registry import Registry, bundled_folder
from octave.packages.secrets import Secrets


def import_servers(
    context: typer.Context,
    client: Annotated[
        str | None, typer.Argument(metavar="[CLIENT]", autocompletion=client_ids)
    ] = None,
    *,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This one; repeatable.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the files of the AI tools as they are.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start them once.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Take over the MCP servers that AI tools are set up with: all tools, or CLIENT."""
    began = time.monotonic()
    terms = manners(context)
    plan = _plan(terms, client, only or [], keep=keep, asks=can_ask(yes=yes) and not dry_run)
    if dry_run or not plan.rows:
        return _only_shown(terms, plan, time.monotonic() - began, dry_run=dry_run)
    if can_ask(yes=yes) or not (terms.as_json or (terms.quiet and yes)):
        _tell(plan)
    if not yes:
        _ask_consent(client)
    answers = _answers(plan.rows, asks=can_ask(yes=yes))
    results = [
        result
        for group in plan.groups
        for result in _taken(terms, group, answers, start=not no_start)
    ]
    changes = [] if keep else list(_moved(plan, results, dry_run=False))
    return _report(terms, plan, results, changes, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class Group:
    """What goes into one octave.toml."""

    scope: Scope
    workspace: Workspace
    rows: Sequence[Row]
    look: Look


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that would be done, and what would not."""

    groups: Sequence[Group]
    left: Sequence[Left]
    broken: Sequence[Broken]
    places: Mapping[Scope, Workspace]
    """Both may be the home's."""
    keep: bool

    @property
    def rows(self) -> list[Row]:
        """All servers to be taken over."""
        return [row for group in self.groups for row in group.rows]


def _plan(
    terms: Manners, client: str | None, only: Sequence[str], *, keep: bool, asks: bool
) -> Plan:
    tools = [tool_of(client)] if client is not None else list(CLIENTS.values())
    places = _places(terms)
    try:
        desk = Desk(Path.home(), Path.cwd(), os.environ)
    except RuntimeError as error:
        raise UsageError("this user has no home folder", hint="set HOME") from error
    found, broken = configured.read(tools, desk)
    if client is not None and broken and not found:
        raise broken[0].error
    if not keep:
        found = list(_changeable(found, places))
    known = Known(Registry(bundled_folder()).entries)
    groups: list[Group] = []
    left: list[Left] = []
    for scope, workspace in {w.manifest: (s, w) for s, w in places.items()}.values():
        mine = [each for each in found if places[_scope(each)].manifest == workspace.manifest]
        wanted = manifest.load(workspace.manifest)
        look = cache(Secrets(workspace.home).get)
        taken, stay = rows(mine, known, wanted, look, only)
        if any(not row.is_present for row in taken):
            workspaces.require_trust(workspace, wanted)
        taken, undone = _doable(taken, workspace, keep=keep, asks=asks)
        groups.append(Group(scope, workspace, taken, look))
        left += [*stay, *undone]
    plan = Plan(groups, left, broken, places, keep)
    _require_found(plan, found, only)
    return plan


def _places(terms: Manners) -> dict[Scope, Workspace]:
    """Return the workspace of each scope; both may be the home's."""
    scopes: tuple[Scope, ...] = ("project", "user")
    return {scope: terms_of(scope, terms).workspace(may_be_missing=True) for scope in scopes}


def _scope(found: Configured) -> Scope:
    return "project" if found.level == "project" else "user"


def _changeable(
    found: Iterable[Configured], places: Mapping[Scope, Workspace]
) -> Iterator[Configured]:
    """Yield `found`; those in a file that could not be changed are off for that reason."""
    problems: dict[Path, str | None] = {}
    for each in found:
        if each.file not in problems:
            problems[each.file] = None
            try:
                moving.move(_connection(each, places), (), 0, dry_run=True)
            except OctaveError as error:
                problems[each.file] = f"{error.message}; {error.hint or 'see to that first'}"
        yield replace(each, off=each.off or problems[each.file])


def _connection(found: Configured, places: Mapping[Scope, Workspace]) -> Connection:
    scope = _scope(found)
    return connection_of(found.client, scope, places[scope])


def _doable(
    taken: Sequence[Row], workspace: Workspace, *, keep: bool, asks: bool
) -> tuple[list[Row], list[Left]]:
    """Take out of `taken` what there is nothing to do for, or nobody to answer."""
    done: list[Row] = []
    left: list[Left] = []
    for row in taken:
        reason = None
        if keep and row.is_present:
            reason = f"`{workspace.manifest}` has it already, as `{row.name}`"
        missing = [] if row.is_present or asks else [a for a in _asked(row) if _known(a) is None]
        if missing:
            label = missing[0].label
            reason = f"its user is asked for `{label}`; export {label}, or run this on a terminal"
        if reason is None:
            done.append(row)
        else:
            left += [Left(origin, reason) for origin in row.origins]
    return done, left


def _asked(row: Row) -> list[Asked]:
    return [word for word in row.draft.words() if isinstance(word, Asked)]


def _known(asked: Asked) -> str | None:
    """Return the answer that needs nobody: of the environment, else the tool's own default."""
    question = asked.question
    return os.environ.get(asked.label) or (None if asked.secret else question.default)


def _require_found(plan: Plan, found: Sequence[Configured], only: Sequence[str]) -> None:
    names = {origin.name for row in plan.rows for origin in row.origins}
    names |= {row.name for row in plan.rows} | {each.origin.name for each in plan.left}
    # What was taken over before is nothing to complain about.
    names |= {
        name for group in plan.groups for name in manifest.load(group.workspace.manifest).servers
    }
    for name in only:
        if name not in names:
            hint = did_you_mean(name, [each.name for each in found])
            raise NotFound(
                f"no AI tool has a server `{name}`", hint=hint or "octave import --dry-run"
            )


def _ask_consent(client: str | None) -> None:
    if not can_ask():
        words = f"octave import {client or ''}".strip()
        raise MissingAnswer("nobody can be asked for consent", hint=f"{words} -y")
    if not typer.confirm("Take them over?", default=False, err=True):
        raise OctaveError("nothing was changed")


def _answers(taken: Iterable[Row], *, asks: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in taken:
        for asked in () if row.is_present else _asked(row):
            question = asked.question
            if question.id in found:
                continue
            value = _known(asked)
            if asks and not os.environ.get(asked.label):
                typed = ask(
                    variables.Question(
                        asked.label,
                        asked.secret,
                        question.description,
                        optional=value is not None,
                    )
                )
                value = typed or value
            found[question.id] = value or ""
    return found


def _taken(
    terms: Manners, group: Group, answers: Mapping[str, str], *, start: bool
) -> Iterator[Result]:
    if not group.rows:
        return
    with open_site(terms_of(group.scope, terms), start=start, creates=True) as site:
        for row in group.rows:
            yield take(row, site, answers)


def _moved(plan: Plan, results: Sequence[Result], *, dry_run: bool) -> Iterator[page.Move]:
    """Change the files of what went well; yield each with what became of it."""
    done = {id(result.row): result for result in results if result.outcome.error is None}
    files: dict[tuple[str, Path], tuple[Connection, list[Taken]]] = {}
    for row in plan.rows:
        for origin in row.origins if id(row) in done else ():
            link = _connection(origin, plan.places)
            _, taken = files.setdefault((origin.client.id, origin.file), (link, []))
            secrets = done[id(row)].secrets
            taken.append(Taken(origin.path, digest(origin.raw), secrets))
    batch = None if dry_run or not files else journal.next_batch(plan.places["user"].home)
    for link, taken in files.values():
        names = [each.path[-1] for each in taken]
        try:
            yield link, names, moving.move(link, taken, batch or 0, dry_run=dry_run)
        except OctaveError as error:
            yield link, names, error


def _tell(plan: Plan) -> None:
    for line in _shown(plan):
        tell(safe(line))


def _shown(plan: Plan) -> Iterator[str]:
    for group in plan.groups:
        yield from page.group_lines(group.workspace, group.rows, group.look)
    yield from page.left_lines(plan.left, plan.broken)
    files = {origin.file: row for row in plan.rows for origin in row.origins}
    if files and not plan.keep:
        yield "files that change: " + ", ".join(f"`{file}`" for file in files)


def _only_shown(terms: Manners, plan: Plan, took_s: float, *, dry_run: bool) -> int:
    results = [
        Result(
            row,
            Outcome(row.name, "present" if row.is_present else "planned"),
            written(row, group.look, group.workspace.manifest.parent),
        )
        for group in plan.groups
        for row in group.rows
    ]
    has_diff = not plan.keep and (terms.as_json or terms.verbose)
    moves = list(_moved(plan, results, dry_run=True)) if has_diff else []
    if terms.as_json:
        write_json(_document(plan, results, moves, took_s, dry_run=dry_run))
        return 0
    for line in _shown(plan):
        write(safe(line))
    if terms.verbose:
        for _, _, change in moves:
            if isinstance(change, Change):
                write(safe(change.diff.rstrip("\n")))
    if not plan.rows:
        tell("there is nothing to take over")
    return 0


def _report(
    terms: Manners,
    plan: Plan,
    results: Sequence[Result],
    moves: Sequence[page.Move],
    took_s: float,
) -> int:
    outcomes = [result.outcome for result in results]
    failed = [each.error for each in outcomes if each.error is not None]
    failed += [change for _, _, change in moves if isinstance(change, OctaveError)]
    if terms.as_json:
        write_json(_document(plan, results, moves, took_s, dry_run=False))
    else:
        for outcome in outcomes:
            tell_outcome(outcome)
        page.tell_moves(moves, quiet=terms.quiet)
        if not failed and not terms.quiet:
            tell(f"done in {took_s:.1f} s")
    return common_code(failed)


def _document(
    plan: Plan,
    results: Sequence[Result],
    moves: Sequence[page.Move],
    took_s: float,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    places = {id(row): group.workspace for group in plan.groups for row in group.rows}
    return {
        "results": [page.row_json(result, places[id(result.row)]) for result in results],
        "skipped": page.left_json(plan.left, plan.broken),
        "files": [page.move_json(move, dry_run=dry_run) for move in moves],
        "dryRun": dry_run,
        "tookSeconds": round(took_s, 3),
    }
