"""`export`: the same servers, in the words of another engine."""

import os
import pwd
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, write_json
from octave.clients.table import command, words
from octave.errors import StorageFailed, UsageError, storage_hint
from octave.export import compose, kubernetes, mcp_json, subject, systemd
from octave.export.subject import Exported, Subject
from octave.home import Workspace


class Format(StrEnum):
    """What there is a text for."""

    compose = "compose"
    kubernetes = "kubernetes"
    systemd = "systemd"
    mcp_json = "mcp-json"


def export_servers(
    context: typer.Context,
    format_: Annotated[Format, typer.Argument(metavar="compose|kubernetes|systemd|mcp-json")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="mcp-json: each server through this Octave.")
    ] = False,
    system: Annotated[
        bool, typer.Option("--system", help="systemd: a unit of the system, not the user's own.")
    ] = False,
) -> int:
    """Write the servers of octave.toml as another engine reads them; no secrets."""
    terms = manners(context)
    _require_fitting(format_, names or [], proxy=proxy, system=system)
    if output is not None and not force and os.path.lexists(output):
        raise UsageError(f"`{output}` is there already", hint="use `--force` to replace it")
    found = subject.read(terms.workspace(), names or [])
    made = _made(format_, found, proxy=proxy, system=system)
    if output is not None:
        _write(output, made.text, force=force)
    _tell(terms, format_, made, output)
    return 0


def _require_fitting(format_: Format, names: list[str], *, proxy: bool, system: bool) -> None:
    if proxy and format_ is not Format.mcp_json:
        raise UsageError("`--proxy` goes with `mcp-json`", hint="octave export mcp-json --proxy")
    if system and format_ is not Format.systemd:
        raise UsageError("`--system` goes with `systemd`", hint="octave export systemd --system")
    if names and format_ is Format.systemd:
        raise UsageError(
            "a unit runs the whole of octave.toml, so it takes no names",
            hint="`octave disable NAME` keeps one from being run",
        )


def _made(format_: Format, found: Subject, *, proxy: bool, system: bool) -> Exported:
    match format_:
        case Format.compose:
            return compose.file(found)
        case Format.kubernetes:
            return kubernetes.resources(found)
        case Format.systemd:
            return systemd.unit(found, _unit(found.workspace, system=system))
        case Format.mcp_json if proxy:
            return mcp_json.through_octave(found, command(found.workspace, sys.executable))
        case Format.mcp_json:
            return mcp_json.standing_alone(found)


def _unit(workspace: Workspace, *, system: bool) -> systemd.Unit:
    lead = command(workspace, sys.executable)
    own = ["-g"] if workspace.is_home else ["--manifest", str(workspace.manifest)]
    try:
        user = pwd.getpwuid(os.getuid()).pw_name if system else None
    except KeyError as error:
        raise UsageError("this user has no name, which a unit of the system needs") from error
    # systemd's own PATH has neither the user's node nor docker.
    env = {"PATH": os.environ.get("PATH", os.defpath), **lead.env}
    return systemd.Unit([*words(sys.executable), "serve", *own], env, user)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        # Exclusive: what came about since it was looked for is kept, too.
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"`{path}` is there already", hint="use `--force`") from error
    except OSError as error:
        hint = storage_hint(error) or "name a file in a folder that is there, with `-o FILE`"
        raise StorageFailed(f"cannot write `{path}`: {error.strerror}", hint=hint) from error


def _tell(terms: Manners, format_: Format, made: Exported, output: Path | None) -> None:
    if terms.as_json:
        write_json(
            {
                "format": format_.value,
                "text": made.text,
                "servers": list(made.servers),
                "notes": list(made.notes),
                "file": None if output is None else str(output.absolute()),
            }
        )
        return
    if output is None:
        # As it is, not through the filter for terminals: it is meant for a file.
        sys.stdout.write(made.text)
    for note in () if terms.quiet else made.notes:
        tell(f"note: {safe(note)}")
    if output is not None and not terms.quiet:
        tell(f"wrote {safe(str(output))}")
