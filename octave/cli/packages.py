"""`install`, `uninstall`, `lock`, `trust`: the verbs that change what is on disk."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import registry_names, server_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.errors import (
    MissingAnswer,
    NotTrusted,
    OctaveError,
    RuntimeNotRunning,
    StartFailed,
    UsageError,
)
from octave.home import Workspace
from octave.packages import install as story
from octave.packages import ledger, lockfile, manifest, variables, workspaces
from octave.packages.ecosystems.base import Bench
from octave.packages.install import Outcome, Request
from octave.packages.launch import LaunchSpec
from octave.packages.manifest import ServerEntry
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.uninstall import uninstall as remove
from octave.packages.variables import Answers
from octave.remote import Remote

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME[@RANGE]", autocompletion=registry_names)
]


def install(
    context: typer.Context,
    names: Names = None,
    *,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="KEY[=VALUE]", help="A variable; a secret by its name alone."
        ),
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", help="Variables, a `KEY=VALUE` each line.")
    ] = None,
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
    no_start: Annotated[bool, typer.Option("--no-start", help="Do not start it once.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when a server could not be checked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> int:
    """Install servers: NAME, npm:PACKAGE or pypi:PACKAGE; without names, all of octave.toml."""
    terms = manners(context)
    given = [arg, env, env_file, name, executable]
    if len(names or ()) != 1 and any(given):
        raise UsageError("`--env`, `--env-file`, `--arg`, `--as` and `--bin` go with one name")
    if locked and names:
        raise UsageError("`--locked` installs what the lockfile says, so it takes no names")
    answers = Answers(
        tuple(env or ()),
        variables.read_file(env_file) if env_file else {},
        _ask if _can_ask(yes=yes) else None,
    )
    began = time.monotonic()
    with _site(terms, start=not no_start, offline=offline, creates=bool(names)) as site:
        if names:
            outcomes = [
                _each(
                    text,
                    lambda text: story.install(
                        Request(text, name, tuple(arg or ()), answers, executable), site
                    ),
                )
                for text in names
            ]
        else:
            outcomes = story.install_all(site, locked=locked)
    return _report(terms, outcomes, time.monotonic() - began, check=check)


def uninstall(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=server_names)],
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Its data, logs and secrets too.")] = False,
) -> int:
    """Stop servers and remove them from manifest, lockfile and disk."""
    terms = manners(context)
    began = time.monotonic()
    with _site(terms) as site:
        outcomes = [_each(name, lambda name: remove(name, site, purge=purge)) for name in names]
    return _report(terms, outcomes, time.monotonic() - began)


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
    with _site(terms) as site:
        outcomes = story.lock_all(site)
    return _report(terms, outcomes, time.monotonic() - began)


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
        if not yes and not _can_ask(yes=False):
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
    if server.cwd is not None:
        yield f"  in {server.cwd}"
    for name, value in (*server.env.items(), *server.headers.items()):
        yield f"  {name} = {value}"
    if server.pass_env:
        yield f"  of your environment: {', '.join(server.pass_env)}"


@contextmanager
def _site(
    terms: Manners, *, start: bool = True, offline: bool = False, creates: bool = False
) -> Iterator[Site]:
    workspace = terms.workspace(may_be_missing=creates)
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        yield Site(
            workspace=workspace,
            registry=Registry(bundled_folder()),
            bench=Bench(workspace.home, os.environ, step, _note(terms), offline),
            check=_check,
            changed=lambda: reload(workspace),
            start=start,
        )


def reload(workspace: Workspace) -> None:
    """Let a running runtime read the manifest anew; without one nothing needs to be done."""
    try:
        with Remote.connect(workspace) as remote:
            remote.request("octave/reload", {})
    except RuntimeNotRunning:
        return
    except OctaveError as error:
        # What is on disk is done and right; only the runtime does not know it yet.
        tell(f"warning: the running runtime did not take it over: {safe(error.message)}")


def _check(spec: LaunchSpec) -> Offered:
    # Imported late: asyncio is only needed when a server is really started.
    from octave.runtime.probe import probe

    return probe(spec)


def _note(terms: Manners) -> Callable[[str], None]:
    return (
        (lambda _: None)
        if terms.quiet or terms.as_json
        else lambda text: tell(f"note: {safe(text)}")
    )


def _can_ask(*, yes: bool) -> bool:
    return not yes and sys.stdin.isatty() and "CI" not in os.environ


def _ask(name: str) -> str:
    return str(typer.prompt(f"Value of {name}", hide_input=True, err=True))


def _each(name: str, act: Callable[[str], Outcome]) -> Outcome:
    try:
        return act(name)
    except OctaveError as error:
        return Outcome(name, "failed", error=error)


def _report(
    terms: Manners, outcomes: Sequence[Outcome], took_s: float, *, check: bool = False
) -> int:
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        results = [_as_json(outcome) for outcome in outcomes]
        write_json({"results": results, "tookSeconds": round(took_s, 3)})
    else:
        for outcome in outcomes:
            _tell_outcome(outcome)
        if not outcomes:
            tell("`octave.toml` names no package, so there is nothing to do")
        if not terms.quiet and not failures and outcomes:
            tell(f"done in {took_s:.1f} s")
        if not terms.quiet and any(o.status == "installed" and o.checked for o in outcomes):
            first = next(o.name for o in outcomes if o.checked)
            tell(f"next: `octave tools {first}`, or `octave client add claude`")
    codes = {error.exit_code for error in failures}
    if check and any(o.status in {"installed", "present"} and not o.checked for o in outcomes):
        codes.add(StartFailed.exit_code)
    return codes.pop() if len(codes) == 1 else min(len(codes), 1)


def _tell_outcome(outcome: Outcome) -> None:
    if outcome.error is not None:
        tell_error(outcome.error, as_json=False)
        return
    tools = f" ({render.count(outcome.tools, 'tool')})" if outcome.tools is not None else ""
    write(safe(f"{outcome.status} {outcome.name} {outcome.version}{tools}".rstrip()))
    if outcome.warning:
        tell(f"warning: {safe(outcome.warning)}")


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "status": outcome.status,
        "version": outcome.version or None,
        "checked": outcome.checked,
        "tools": outcome.tools,
        "warning": outcome.warning or None,
        "error": outcome.error.as_json() if outcome.error else None,
    }
