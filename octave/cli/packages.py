"""`install`, `uninstall`, `lock`, `trust`: the verbs that change what is on disk."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from octave.cli.asking import ask, can_ask
from octave.cli.completion import registry_names, server_names
from octave.cli.options import manners
from octave.cli.outcomes import each, report
from octave.cli.output import safe, tell, write_json
from octave.cli.reach import reload
from octave.cli.site import (
    EnvFileOption,
    EnvOption,
    NoStartOption,
    RegistryOption,
    YesOption,
    open_site,
)
from octave.errors import MissingAnswer, NotTrusted, UsageError
from octave.packages import install as story
from octave.packages import ledger, lockfile, manifest, own, variables, workspaces
from octave.packages.install import Request
from octave.packages.manifest import ServerEntry
from octave.packages.uninstall import uninstall as remove
from octave.packages.variables import Answers

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME[@RANGE]", autocompletion=registry_names)
]


def install(
    context: typer.Context,
    names: Names = None,
    *,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", help="An argument for the server; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--as", help="Call it this.")] = None,
    executable: Annotated[
        str | None, typer.Option("--bin", help="Which of the package's executables.")
    ] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Exactly the lockfile, or exit 7. For CI.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Only what is in the cache.")] = False,
    no_start: NoStartOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when a server could not be checked.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Connect it where it is hosted; installs nothing.")
    ] = False,
    registry: RegistryOption = None,
    yes: YesOption = False,
) -> int:
    """Install servers: NAME, npm:PACKAGE or pypi:PACKAGE; without names, all of octave.toml."""
    terms = manners(context)
    given = [arg, env, env_file, name, executable]
    if len(names or ()) != 1 and any(given):
        raise UsageError("`--env`, `--env-file`, `--arg`, `--as` and `--bin` go with one name")
    if remote and (not names or any([arg, env, env_file, executable, locked, offline])):
        raise UsageError(
            "`--remote` takes names of the registry, and only `--as`, `--no-start`, `--check`"
        )
    if locked and names:
        raise UsageError("`--locked` installs what the lockfile says, so it takes no names")
    answers = Answers(
        tuple(env or ()),
        variables.read_file(env_file) if env_file else {},
        ask if can_ask(yes=yes) else None,
    )
    began = time.monotonic()
    with open_site(
        terms, start=not no_start, offline=offline, creates=bool(names), registry=registry
    ) as site:
        if names and remote:
            outcomes = [each(text, lambda text: own.connect(text, name, site)) for text in names]
        elif names:
            outcomes = [
                each(
                    text,
                    lambda text: story.install(
                        Request(text, name, tuple(arg or ()), answers, executable), site
                    ),
                )
                for text in names
            ]
        else:
            outcomes = story.install_all(site, locked=locked)
    return report(terms, outcomes, time.monotonic() - began, check=check)


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
        outcomes = [each(name, lambda name: remove(name, site, purge=purge)) for name in names]
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
        outcomes = story.lock_all(site)
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
        for name, url in wanted.registries.items():
            tell(f"  {safe(f'names packages: registry {name} at {url}')}")
        if not yes and not can_ask():
            raise MissingAnswer("nobody can be asked for consent", hint="octave trust -y")
        if not yes and not typer.confirm("Trust it?", default=False, err=True):
            raise NotTrusted(f"`{workspace.manifest}` is not trusted")
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
    if server.pass_env:
        yield f"  of your environment: {', '.join(server.pass_env)}"
