"""`outdated`: which servers have newer versions, without touching anything."""

from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, tell_error, write_json
from octave.cli.site import open_site
from octave.cli.site_options import AgeOption
from octave.errors import common_code
from octave.packages import outdated as story
from octave.packages.outdated import Standing


def outdated(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)
    ] = None,
    *,
    min_release_age: AgeOption = None,
) -> int:
    """List the servers that have newer versions; exit 1 if there are any."""
    terms = manners(context)
    with open_site(terms, min_age=min_release_age) as site:
        found = story.look(names or (), site)
    rows = [standing for standing in found if standing.is_outdated]
    failures = [standing.error for standing in found if standing.error is not None]
    if terms.as_json:
        write_json([_json(standing) for standing in found if standing in rows or standing.error])
    else:
        if rows:
            render.table(("NAME", "CURRENT", "WANTED", "LATEST"), [_cells(row) for row in rows])
        for error in failures:
            tell_error(error, as_json=False)
        for note in () if terms.quiet else _notes(rows, found):
            tell(f"note: {safe(note)}")
        is_known = not any(standing.notes for standing in found)
        if not rows and not failures and is_known and not terms.quiet:
            tell("every server is as new as it can be")
    return common_code(failures) or int(bool(rows))


def _cells(row: Standing) -> tuple[str, str, str, str]:
    mark = " (pinned)" if row.is_pinned else ""
    return row.name + mark, row.current or "-", row.wanted or "-", row.latest or "-"


def _notes(rows: list[Standing], found: list[Standing]) -> list[str]:
    held = [row.name for row in rows if row.wanted == row.current and not row.is_pinned]
    notes = [note for standing in found for note in standing.notes]
    return notes + [
        f"the range of `{name}` in `octave.toml` keeps it where it is: "
        f"`octave set {name} 'version=*'`"
        for name in held
    ]


def _json(row: Standing) -> dict[str, Any]:
    return {
        "name": row.name,
        "current": row.current,
        "wanted": row.wanted,
        "latest": row.latest,
        "pinned": row.is_pinned,
        "notes": list(row.notes),
        "error": row.error.as_json() if row.error else None,
    }
