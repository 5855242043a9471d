"""`update` and `rollback`: to the newest version after showing what it brings, and back."""

import time
from typing import Annotated

import typer

from octave.cli import render
from octave.cli.asking import can_ask, confirm
from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.outcomes import each, report
from octave.cli.output import safe, tell
from octave.cli.site import open_site
from octave.cli.site_options import AgeOption
from octave.errors import MissingAnswer
from octave.packages import manifest
from octave.packages import update as story
from octave.packages.install import Outcome
from octave.packages.lockfile import Pin
from octave.packages.rollback import rollback as return_to
from octave.packages.tool_changes import ToolChange, ToolChanges
from octave.packages.update import Change, Terms
from octave.packages.versions import is_newer

LONGEST_LINES = 60
"""Of one tool's diff; the rest is told as a number, so that one tool does not hide the others."""
_FEW = 8
"""Packages named one by one; many servers bring hundreds."""


def update(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell: exit 1 if something would change.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Install it beside, show the change, keep nothing.")
    ] = False,
    min_release_age: AgeOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Show the change, ask nothing.")] = False,
) -> int:
    """Bring servers to the newest versions of their ranges, after showing what that changes."""
    terms = manners(context)
    began = time.monotonic()
    wanted = manifest.load(terms.workspace().manifest).servers
    chosen = list(dict.fromkeys(names)) if names else [s.name for s in wanted.values() if s.package]
    order = Terms(
        agrees=lambda change: _agrees(terms, change, yes=yes, dry_run=dry_run),
        begins=lambda before, after: _begins(before, after, yes=yes or dry_run),
        only_tells=check,
        asks=not (yes or dry_run),
    )
    with open_site(terms, min_age=min_release_age) as site:
        outcomes = [each(name, lambda name: story.update(name, site, order)) for name in chosen]
    code = report(terms, outcomes, time.monotonic() - began)
    is_due = check and any(outcome.status == "available" for outcome in outcomes)
    return code or int(is_due)


def rollback(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=server_names)],
    version: Annotated[str | None, typer.Argument(metavar="VERSION")] = None,
) -> int:
    """Return a server to the version before, or to VERSION, at once and offline."""
    terms = manners(context)
    began = time.monotonic()
    with open_site(terms, offline=True) as site:
        outcome: Outcome = return_to(name, version, site)
    return report(terms, [outcome], time.monotonic() - began)


def _begins(before: Pin, after: Pin, *, yes: bool) -> None:
    if not yes and not can_ask():
        raise MissingAnswer(
            f"`{before.name}` {before.version} can be updated to {after.version}, and nobody can "
            "be asked for consent",
            hint=f"octave update {before.name} -y, or `--dry-run` to see what it changes",
        )


def _agrees(terms: Manners, change: Change, *, yes: bool, dry_run: bool) -> bool:
    asks = not (yes or dry_run)
    if asks or not (terms.as_json or terms.quiet):
        for line in _lines(change):
            tell(safe(line))
    if not asks:
        return yes and not dry_run
    return confirm(f"Update {change.before.name}?")


def _lines(change: Change) -> list[str]:
    before, after = change.before, change.after
    older = " (older)" if is_newer(before.kind, before.version, after.version) else ""
    lines = [f"{before.name}: {before.version} -> {after.version}{older}"]
    packages = change.packages
    parts = [
        *(f"{name} {old} -> {new}" for name, (old, new) in packages.changed.items()),
        *(f"+ {name} {version}" for name, version in packages.added.items()),
        *(f"- {name} {version}" for name, version in packages.removed.items()),
    ]
    if parts:
        lines.append(f"  {render.count(len(parts), 'dependency')} changed:".replace("ys ", "ies "))
        lines += [f"    {part}" for part in parts[:_FEW]]
        lines += [f"    and {len(parts) - _FEW} more"] if len(parts) > _FEW else []
    if change.scripts:
        lines.append(f"  new install scripts, which are not run: {', '.join(change.scripts)}")
    if change.tools is None:
        return [*lines, f"  its tools are not known: {change.record.unchecked_reason}"]
    return lines + (_tool_lines(change.tools) or ["  its tools are the same"])


def _tool_lines(tools: ToolChanges) -> list[str]:
    lines = [f"  tool removed: {name}" for name in tools.removed]
    for word, changed in (("added", tools.added), ("changed", tools.changed)):
        for tool in changed:
            lines += [f"  tool {word}: {tool.name}", *_diff_lines(tool)]
    if tools.instructions:
        lines.append("  its instructions to the model changed:")
        lines += _diff_lines(ToolChange("", tools.instructions))
    return lines


def _diff_lines(tool: ToolChange) -> list[str]:
    # A text of the server that breaks a line must not look like a line of Octave's own.
    lines = [line.replace("\n", "\n    ") for line in tool.diff]
    lines = lines or ["(the old definition is not known)"]
    more = len(lines) - LONGEST_LINES
    shown = [f"    {line}" for line in lines[:LONGEST_LINES]]
    return shown + ([f"    ... and {more} more lines, all of them in `--json`"] if more > 0 else [])
