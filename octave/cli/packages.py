"""`uninstall`, `lock`, `trust`: verbs about what is on disk, locked and allowed to run."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from octave.cli.asking import can_ask, confirm
from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.cli.outcomes import each, report
from octave.cli.output import safe, tell, write_json
from octave.cli.reach import reload
from octave.cli.site import (
    open_site,
)
from octave.errors import MissingAnswer, NotTrusted
from octave.packages import ledger, lockfile, manifest, sync, workspaces
from octave.packages.manifest import ServerEntry
from octave.packages.uninstall import uninstall as remove


def uninstall(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=server_names)],
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Its data, logs and secrets too.")] = False,
) -> int:
    """Stop servers and remove them from manifest, lockfile and disk."""
    terms = manners(context)
    began = time.monotonic()
    with open_site(terms) as site:
        outcomes = [
            each(name, lambda name: remove(name, site, purge=purge))
            for name in dict.fromkeys(names)
        ]
    return report(terms, outcomes, time.monotonic() - began)


def lock(
    context: typer.Context,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell: exit 7 when it is stale.")
    ] = False,
) -> int:
    """Write octave.lock so that it answers octave.toml; installs nothing."""
    terms = manners(context)
    workspace = terms.workspace()
    if check:
        wanted = manifest.load(workspace.manifest)
        ledger.require_fresh(wanted, lockfile.read(workspace.lockfile))
        if terms.as_json:
            write_json({"fresh": True})
        elif not terms.quiet:
            tell(f"`{workspace.lockfile.name}` answers `{workspace.manifest.name}`")
        return 0
    began = time.monotonic()
    with open_site(terms) as site:
        outcomes = sync.lock_all(site)
    return report(terms, outcomes, time.monotonic() - began)


def trust(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Allow the servers of this folder's octave.toml to run."""
    terms = manners(context)
    workspace = terms.workspace()
    wanted = manifest.load(workspace.manifest)
    if not workspaces.trusted(workspace, wanted):
        tell(f"`{safe(str(workspace.manifest))}` wants to run:")
        for server in wanted.servers.values():
            for line in _consent_lines(server):
                tell(f"  {safe(line)}")
        for name, registry in wanted.registries.items():
            tell(f"  {safe(f'names packages: registry {name} at {registry.url}')}")
            for key, value in registry.headers.items():
                tell(f"    {safe(f'{key} = {value}')}")
        if not yes and not can_ask():
            raise MissingAnswer("nobody can be asked for consent", hint="octave trust -y")
        if not yes and not confirm("Trust it?"):
            raise NotTrusted(f"`{workspace.manifest}` is not trusted", hint="octave trust")
        workspaces.trust(workspace, wanted)
        reload(workspace)
    if terms.as_json:
        write_json({"manifest": str(workspace.manifest), "trusted": True})
    elif workspace.is_home:
        tell("the home's own `octave.toml` is always trusted")
    else:
        tell(f"`{safe(str(workspace.manifest))}` is trusted as it is now; a change asks again")
    return 0


def _consent_lines(server: ServerEntry) -> Iterator[str]:
    """Yield all that decides what runs, and what it is given: the whole of what is consented to."""
    source = server.package or server.url or " ".join(map(str, server.command or ()))
    version = "" if server.version == "*" else f"@{server.version}"
    yield " ".join([f"{server.name}: {source}{version}", *map(str, server.args)])
    if server.registry_name is not None:
        yield f"  started as a registry says of {server.registry_name}"
    if server.cwd is not None:
        yield f"  in {server.cwd}"
    if server.mounts:
        yield f"  its container sees {', '.join(server.mounts)}"
    for name, value in (*server.env.items(), *server.headers.items()):
        yield f"  {name} = {value}"
    if server.allow_scripts:
        yield f"  runs the install scripts of: {', '.join(server.allow_scripts)}"
    if server.allow_build:
        yield f"  builds from source, which runs code of: {', '.join(server.allow_build)}"
    if server.pass_env:
        yield f"  of your environment: {', '.join(server.pass_env)}"
