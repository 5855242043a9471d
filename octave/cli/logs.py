"""`logs`: what servers write to stderr, and the runtime's own events; read from the files."""

import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.cli.output import json_text, safe, write
from octave.errors import ServerNotFound, UsageError, did_you_mean
from octave.home import Workspace
from octave.packages import manifest
from octave.runtime.log_reader import POLL_S, Entry, follow, merge, read
from octave.runtime.logs import stamp
from octave.settings import parse_duration

LINES = 100
"""Of all servers together, unless `-n` or `--since` says how far back to go."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How a line is shown."""

    as_json: bool
    raw: bool
    times: bool
    names: bool


def logs(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)
    ] = None,
    *,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", metavar="N", min=0, help="So many last ones; 100, or all of --since."
        ),
    ] = None,
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
    paths = _paths(terms.workspace(), names or [])
    start = _start(since)
    wanted = _pattern(pattern)
    if lines is None and start is None:
        lines = LINES
    form = _Form(terms.as_json, raw, times, len(paths) > 1)
    # What matches may lie further back than the last lines.
    per_file = lines if wanted is None else None

    def choose(found: Iterable[Entry]) -> Iterable[Entry]:
        found = _matching(found, wanted)
        return found if lines is None else deque(found, maxlen=lines)

    if following:
        entries = _matching(follow(paths, per_file, start, choose=choose, pause=_pause), wanted)
    else:
        entries = iter(choose(merge(*(read(path, per_file, start) for path in paths))))
    for entry in entries:
        _show(entry, form)
    return 0


def _paths(workspace: Workspace, names: list[str]) -> list[Path]:
    known = manifest.load(workspace.manifest).servers
    for name in names:
        # The log of a server that was removed is still of interest.
        there = manifest.is_server_name(name) and any(workspace.logs.glob(f"{name}.log*"))
        if name not in known and not there:
            raise ServerNotFound(
                f"there is no server `{name}`", hint=did_you_mean(name, known) or "octave list"
            )
    return [workspace.log(name) for name in dict.fromkeys(names or known)]


def _start(since: str | None) -> str | None:
    if since is None:
        return None
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        raise UsageError(f"`--since`: {error}", hint="octave logs --since 10m") from error
    return None if seconds is None else stamp(max(time.time() - seconds, 0.0))


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(
            f"`--grep {text}` is no regular expression: {error}", hint="octave logs --grep 'err.*'"
        ) from error


def _matching(entries: Iterable[Entry], wanted: re.Pattern[str] | None) -> Iterator[Entry]:
    for entry in entries:
        if wanted is None or wanted.search(entry.line.decode(errors="replace")):
            yield entry


def _pause() -> None:
    sys.stdout.flush()
    time.sleep(POLL_S)


def _show(entry: Entry, form: _Form) -> None:
    if form.as_json:
        line = entry.line.decode(errors="replace")
        fields = {"at": entry.at, "server": entry.server, "stream": entry.stream, "line": line}
        write(json_text(fields))
        return
    head = f"{entry.at} " * form.times + f"{entry.server} | " * form.names
    if form.raw:
        sys.stdout.buffer.write(head.encode() + entry.line + b"\n")
    else:
        write(head + safe(entry.line.decode(errors="replace").removesuffix("\r")))
