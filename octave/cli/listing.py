"""`list`: the servers of a workspace, running or not."""

import os
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.options import manners
from octave.cli.output import safe, tell, write_json
from octave.errors import OctaveError, RuntimeNotRunning
from octave.home import Workspace
from octave.packages import containers, manifest, store, workspaces
from octave.packages.ecosystems.base import Bench
from octave.packages.manifest import ServerEntry
from octave.packages.store import Record
from octave.remote import Remote
from octave.serve import claim


def list_servers(
    context: typer.Context,
    *,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Only those with newer versions, as `outdated`.")
    ] = False,
) -> int:
    """List the servers of this workspace, running or not."""
    if outdated:
        # Imported late: whoever only lists asks no registry.
        from octave.cli.outdated import outdated as list_outdated

        return list_outdated(context)
    terms = manners(context)
    workspace = terms.workspace()
    wanted = manifest.load(workspace.manifest)
    installed = workspaces.installed(workspace)
    stopped = {name: {"state": "stopped"} for name in claim.read_choices(workspace)}
    alive = {**stopped, **_alive(workspace)}
    rows = [
        _row(workspace, server, installed.get(name), alive.get(name, {}))
        for name, server in wanted.servers.items()
    ]
    if terms.as_json:
        write_json(rows)
    elif not rows:
        tell("nothing is installed here; try `octave install everything`")
    else:
        render.table(
            ("NAME", "VERSION", "KIND", "STATE", "TOOLS", "MEMORY", "RESTARTS"),
            [
                (
                    row["name"],
                    row["version"] or "-",
                    row["kind"],
                    row["state"],
                    "-" if row["tools"] is None else str(row["tools"]),
                    render.size(row["memoryBytes"]),
                    str(row["restarts"]),
                )
                for row in rows
            ],
        )
    return 0


def _alive(workspace: Workspace) -> dict[str, dict[str, Any]]:
    try:
        with Remote.connect(workspace) as remote:
            servers = remote.request("octave/status", {})["servers"]
    except RuntimeNotRunning:
        return {}
    return {server["name"]: server for server in servers}


def _record(workspace: Workspace, name: str, folder: str) -> Record | None:
    """Return the record; say what is wrong with one that cannot be used, for the rest goes on."""
    try:
        return store.require(workspace.home, name, folder)
    except OctaveError as error:
        tell(f"warning: {safe(error.message)}; hint: {error.hint}")
        return None


def _has_lost_image(workspace: Workspace, record: Record) -> bool:
    """Whether docker or podman have no more what `record` starts; says so."""
    if record.kind != "oci":
        return False
    image = containers.reference(record.package, record.integrity)
    # Neither docker nor podman lies in the home, so the path is whole.
    if not containers.is_gone(record.command[0], image, Bench(workspace.home, os.environ)):
        return False
    tell(f"warning: {safe(containers.gone(record.name, image))}; hint: octave install")
    return True


def _row(
    workspace: Workspace, server: ServerEntry, folder: str | None, alive: dict[str, Any]
) -> dict[str, Any]:
    record = _record(workspace, server.name, folder) if folder else None
    if record is not None and alive.get("pid") is None and _has_lost_image(workspace, record):
        alive = {**alive, "state": "failed"}
    if server.package is not None:
        kind = server.package.partition(":")[0]
        state = "idle" if record else "failed"
    else:
        kind, state = ("remote", "idle") if server.url else ("command", "idle")
    return {
        "name": server.name,
        "kind": kind,
        "package": server.package,
        "version": record.version if record else None,
        "state": alive.get("state", state) if server.enabled else "disabled",
        "tools": alive.get("tools", record.tools if record else None),
        "memoryBytes": alive.get("memoryBytes"),
        "restarts": alive.get("restarts", 0),
    }
