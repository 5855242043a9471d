"""`approve`: accept changed or new definitions of a server's tools, after they were shown."""

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.asking import can_ask
from octave.cli.completion import server_names, tool_names
from octave.cli.options import Manners, manners
from octave.cli.output import one_line, safe, tell, write, write_json
from octave.cli.reach import reload
from octave.cli.site import check_once
from octave.errors import MissingAnswer, NotApproved, ServerNotFound, did_you_mean
from octave.home import Workspace
from octave.packages import offered, specs, suspicious
from octave.packages.approve import Change, approve, changes
from octave.packages.launch import LaunchSpec


def approve_tools(
    context: typer.Context,
    server: Annotated[str, typer.Argument(metavar="NAME", autocompletion=server_names)],
    tools: Annotated[
        list[str] | None, typer.Argument(metavar="TOOL", autocompletion=tool_names)
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Accept changed or new tool definitions after showing how they differ."""
    terms = manners(context)
    workspace = terms.workspace()
    spec = _spec(workspace, server)
    listed = _listed(terms, workspace, spec)
    found = changes(workspace, spec, listed, tools or ())
    if found and (not terms.as_json or can_ask(yes=yes)):
        for change in found:
            _show(change)
    if found and not yes:
        _ask(server, found)
    if found:
        approve(workspace, spec, listed, tools or ())
        reload(workspace)
    if terms.as_json:
        write_json({"name": server, "approved": [_as_json(change) for change in found]})
    elif found:
        write(safe(f"approved {server} ({render.count(len(found), 'tool')})"))
    else:
        tell(f"nothing of `{safe(server)}` waits for approval")
    return 0


def _spec(workspace: Workspace, name: str) -> LaunchSpec:
    found = {spec.name: spec for spec in specs.launch_specs(workspace, os.environ)}
    if name not in found:
        raise ServerNotFound(
            f"`{name}` is not installed here, or is disabled",
            hint=did_you_mean(name, found) or f"octave install {name}",
        )
    return found[name]


def _listed(terms: Manners, workspace: Workspace, spec: LaunchSpec) -> Sequence[bytes]:
    """Return the tools as the server was last seen to list them; one that never was is started."""
    known = offered.load(workspace.catalogue(spec.name), spec.version, spec.digest)
    if known is None:
        if spec.problem is not None:
            raise spec.problem
        with render.progress(quiet=terms.quiet or terms.as_json) as step:
            step(f"starting `{spec.name}` once")
            known = check_once(spec)
        workspace.prepare()
        offered.save(workspace.catalogue(spec.name), known, spec.version, spec.digest)
    return known.tools


def _ask(server: str, found: Sequence[Change]) -> None:
    if not can_ask():
        raise MissingAnswer("nobody can be asked for consent", hint=f"octave approve {server} -y")
    question = f"Approve {render.count(len(found), 'definition')}?"
    if not typer.confirm(question, default=False, err=True):
        raise NotApproved(f"nothing of `{server}` was approved", hint=f"octave approve {server}")


def _show(change: Change) -> None:
    tell(safe(f"{change.tool}: {_FINDINGS[change.finding]}"))
    if not change.is_text_known:
        tell("  what was approved is known by its hash alone; all of it as it is now:")
    for line in change.diff:
        tell(f"  {one_line(line)}")
    for each in suspicious.suspicions(change.definition):
        tell(f"  warning: {one_line(each.sentence)}")


_FINDINGS = {
    "new": "not approved yet",
    "changed": "another definition than was approved",
    "annotations": "other annotations than were approved",
    "unreadable": "not to be read without doubt",
}


def _as_json(change: Change) -> dict[str, Any]:
    return {
        "tool": change.tool,
        "finding": change.finding,
        "diff": list(change.diff),
        "textKnown": change.is_text_known,
        "suspicious": [each.as_json() for each in suspicious.suspicions(change.definition)],
    }
