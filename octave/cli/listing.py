"""`list` and `info`: what is installed, and what the registry knows."""

from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import registry_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.errors import RuntimeNotRunning, ServerNotFound
from octave.home import Workspace
from octave.packages import info as facts
from octave.packages import manifest, store, workspaces
from octave.packages.manifest import ServerEntry
from octave.packages.registry import Registry, bundled_folder
from octave.remote import Remote


def list_servers(context: typer.Context) -> int:
    """List the servers of this workspace, running or not."""
    terms = manners(context)
    workspace = terms.workspace()
    wanted = manifest.load(workspace.manifest)
    installed = workspaces.installed(workspace)
    alive = _alive(workspace)
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


def info(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=registry_names)],
) -> int:
    """Show everything the registry knows about a server."""
    terms = manners(context)
    workspace = terms.workspace()
    known = _described(name)
    server = manifest.load(workspace.manifest).servers.get(name)
    folder = workspaces.installed(workspace).get(name)
    record = store.find(workspace.home, name, folder) if folder else None
    if known is None and server is None:
        Registry(bundled_folder()).get(name)
    found: dict[str, Any] = {
        **(known or {"name": name}),
        "installed": None
        if record is None
        else {
            "package": f"{record.kind}:{record.package}",
            "version": record.version,
            "integrity": record.integrity,
            "checked": record.checked,
            "tools": record.tools,
        },
    }
    if terms.as_json:
        write_json(found)
    else:
        _tell(found, 0)
    return 0


def _described(name: str) -> dict[str, Any] | None:
    registry = Registry(bundled_folder())
    try:
        if ":" in name:
            kind, _, package = name.partition(":")
            entry = registry.find_package(kind, package)
            return facts.describe(entry) if entry else None
        return facts.describe(registry.get(name))
    except ServerNotFound:
        return None


def _alive(workspace: Workspace) -> dict[str, dict[str, Any]]:
    try:
        with Remote.connect(workspace) as remote:
            servers = remote.request("octave/status", {})["servers"]
    except RuntimeNotRunning:
        return {}
    return {server["name"]: server for server in servers}


def _row(
    workspace: Workspace, server: ServerEntry, folder: str | None, alive: dict[str, Any]
) -> dict[str, Any]:
    record = store.find(workspace.home, server.name, folder) if folder else None
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


def _tell(value: Any, depth: int) -> None:
    """Write nested facts as indented lines; what is empty is left out."""
    indent = "  " * depth
    for key, item in value.items():
        if item in (None, "", [], {}):
            continue
        if isinstance(item, dict):
            write(f"{indent}{key}:")
            _tell(item, depth + 1)
        elif isinstance(item, list) and any(isinstance(part, dict) for part in item):
            write(f"{indent}{key}:")
            for part in item:
                write(f"{indent}  -")
                _tell(part, depth + 2)
        elif isinstance(item, list):
            write(f"{indent}{key}: {safe(', '.join(map(str, item)))}")
        else:
            write(f"{indent}{key}: {safe(str(item))}")
