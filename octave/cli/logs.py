"""`logs`: what servers write to stderr, and the runtime's own events; read from the files."""

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, write
from octave.errors import ServerNotFound, UsageError, did_you_mean
from octave.home import Workspace
from octave.packages import manifest
from octave.runtime.logs import Entry, follow, merge, read, stamp
from octave.settings import parse_duration

LINES = 100


def logs(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=server_names)
    ] = None,
    *,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="So many last lines.")] = LINES,
    since: Annotated[
        str | None, typer.Option("--since", metavar="10m", help="Not older than this.")
    ] = None,
    times: Annotated[bool, typer.Option("--timestamps", "-t", help="Show the times.")] = False,
    pattern: Annotated[
        str | None, typer.Option("--grep", metavar="RE", help="Only lines that match.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The bytes as the server wrote them.")] = False,
) -> int:
    """Show the logs of servers, merged by time."""
    terms = manners(context)
    workspace = terms.workspace()
    paths = _paths(workspace, names)
    start = _start(since)
    wanted = _pattern(pattern)
    if following:
        entries: Iterable[Entry] = follow(paths, lines, start)
    else:
        entries = list(merge(*(read(path, lines, start) for path in paths)))
        entries = entries[-lines:] if lines else []
    for entry in entries:
        if wanted is None or wanted.search(entry.line.decode(errors="replace")):
            _show(terms, entry, times=times, raw=raw, named=len(paths) > 1)
    return 0


def _paths(workspace: Workspace, names: list[str] | None) -> list[Path]:
    if names:
        known = set(manifest.load(workspace.manifest).servers)
        for name in names:
            path = workspace.log(name)
            if name not in known and not path.exists():
                raise ServerNotFound(
                    f"there is no server `{name}`", hint=did_you_mean(name, known) or "octave list"
                )
        return [workspace.log(name) for name in names]
    return [workspace.log(name) for name in manifest.load(workspace.manifest).servers]


def _start(since: str | None) -> str | None:
    if since is None:
        return None
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(f"`--since`: {error}", hint="octave logs --since 10m") from error
    return None if seconds is None else stamp(time.time() - seconds)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(f"`--grep {text}` is no regular expression: {error}") from error


def _show(terms: Manners, entry: Entry, *, times: bool, raw: bool, named: bool) -> None:
    line = entry.line.decode(errors="replace")
    if terms.as_json:
        fields = {"at": entry.at, "server": entry.server, "stream": entry.stream, "line": line}
        write(json.dumps(fields, ensure_ascii=False))
        return
    parts = [entry.at] if times else []
    parts += [f"{entry.server} |"] if named else []
    write(" ".join([*parts, line if raw else safe(line)]))
