"""`audit`: is what is on disk, approved and listed what it should be."""

import os

import typer

from octave.cli import render
from octave.cli.options import manners
from octave.cli.output import one_line, tell, write, write_json
from octave.packages import specs
from octave.packages.audit import audit

FOUND_EXIT = 1


def audit_servers(context: typer.Context) -> int:
    """Verify what is installed, approved and listed; exit 1 when something is found."""
    terms = manners(context)
    workspace = terms.workspace()
    known = {spec.name: spec for spec in specs.launch_specs(workspace, os.environ)}
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        report = audit(workspace, known, step)
    if terms.as_json:
        write_json(
            {
                "findings": [
                    {
                        "server": each.server,
                        "kind": each.kind,
                        "message": each.message,
                        "fix": each.fix,
                    }
                    for each in report.findings
                ],
                "notes": list(report.notes),
            }
        )
        return FOUND_EXIT if report.findings else 0
    for each in report.findings:
        write(one_line(f"{each.kind}: {each.message}"))
        write(one_line(f"  fix: {each.fix}"))
    if not terms.quiet:
        for note in report.notes:
            tell(one_line(f"note: {note}"))
        if report.findings:
            tell(f"{render.count(len(report.findings), 'finding')}")
        else:
            tell(f"nothing found in {render.count(len(known), 'server')}")
    return FOUND_EXIT if report.findings else 0
