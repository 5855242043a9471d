"""`clean`: what nobody needs any more goes, and how much that was."""

import time
from typing import Annotated

import psutil
import typer

from octave.cli import render
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.packages import clean as story
from octave.packages.clean import Removed


def clean(
    context: typer.Context,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be removed.")
    ] = False,
) -> int:
    """Remove versions that no lockfile names, litter and caches."""
    terms = manners(context)
    began = time.monotonic()
    home = terms.workspace(may_be_missing=True).home
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        step("looking for what nobody needs")
        words = _running_words()
        found = story.clean(
            home, lambda folder: any(f"{folder}/" in each for each in words), dry_run=dry_run
        )
    if terms.as_json:
        write_json(
            {
                "removed": [_json(each) for each in found.removed],
                "freedBytes": found.freed_bytes,
                "notes": list(found.notes),
                "dryRun": dry_run,
                "tookSeconds": round(time.monotonic() - began, 3),
            }
        )
        return 0
    verb = "would remove" if dry_run else "removed"
    for each in found.removed:
        if each.kind != "lock":
            write(safe(f"{verb} {_called(each)} ({render.size(each.size_bytes)})"))
    for note in () if terms.quiet else found.notes:
        tell(f"note: {safe(note)}")
    if not terms.quiet:
        freed = f"{'would free' if dry_run else 'freed'} {render.size(found.freed_bytes)}"
        tell(f"{freed} in {time.monotonic() - began:.1f} s")
    return 0


def _running_words() -> list[str]:
    """Return every word of every command line that runs here, and where each runs."""
    words: list[str] = []
    for process in psutil.process_iter(["cmdline", "exe", "cwd"]):
        facts = process.info
        words += [*(facts["cmdline"] or ()), *(f"{facts[key]}/" for key in ("exe", "cwd"))]
    return words


def _called(removed: Removed) -> str:
    match removed.kind:
        case "version":
            return f"{removed.name} {removed.folder}"
        case "staging":
            return f"what an installation of {removed.name} left"
        case "run":
            return f"what `octave run` fetched: {removed.name} {removed.folder}".rstrip()
        case "lists":
            return f"what is kept of the tools of {removed.name}"
        case _:
            return f"cache {removed.name}"


def _json(removed: Removed) -> dict[str, object]:
    return {
        "kind": removed.kind,
        "name": removed.name,
        "folder": removed.folder or None,
        "bytes": removed.size_bytes,
    }
