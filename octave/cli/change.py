"""`set`, `enable`, `disable`, `pin`, `unpin`: changes of octave.toml, comments and layout kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from octave.cli.completion import server_names
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.cli.reach import reload
from octave.errors import OctaveError, UsageError, common_code
from octave.home import Workspace
from octave.packages import assignments, lockfile, manifest, manifest_change, workspaces
from octave.packages.assignments import Keys
from octave.packages.entries import PackageChoice
from octave.packages.manifest import ServerEntry
from octave.packages.names import split_package
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import answers

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=server_names)]
Names = Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=server_names)]


@dataclass(frozen=True, slots=True)
class _Outcome:
    name: str
    status: str
    keys: tuple[str, ...] = ()
    version: str | None = None
    note: str = ""
    error: OctaveError | None = None


def set_keys(
    context: typer.Context,
    name: Name,
    words: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    *,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="KEY", help="Back to its default; repeatable."),
    ] = None,
) -> int:
    """Change keys of a server: `auto_start=true`, `env.MODE=fast`, `args=--x args=/tmp`."""
    terms = manners(context)
    workspace = terms.workspace()
    if not words and not unset:
        raise UsageError("nothing is to be changed", hint=f"octave set {name} KEY=VALUE")
    server = manifest_change.find_server(manifest.load(workspace.manifest), name)
    values = assignments.read(words or ())
    dropped = tuple(map(assignments.split, unset or ()))
    both = values.keys() & set(dropped)
    if both:
        key = ".".join(min(both))
        raise UsageError(
            f"`{key}` cannot be set and unset at once", hint=f"octave set {name} --unset {key}"
        )
    assignments.require_no_secret(name, values, _known(server))
    keys = tuple(".".join(each) for each in (*values, *dropped))

    return _all(
        terms,
        [name],
        lambda name: _changed(workspace, name, values, dropped, ("changed", "unchanged", *keys)),
    )


def enable(context: typer.Context, names: Names) -> int:
    """Let servers be started again."""
    return _switch(context, names, "enabled", on=True, word="enabled")


def disable(context: typer.Context, names: Names) -> int:
    """Stop servers and show them to nobody, until they are enabled."""
    return _switch(context, names, "enabled", on=False, word="disabled")


def pin(context: typer.Context, names: Names) -> int:
    """Have `update` leave servers alone."""
    return _switch(context, names, "pinned", on=True, word="pinned")


def unpin(context: typer.Context, names: Names) -> int:
    """Let `update` move servers again."""
    return _switch(context, names, "pinned", on=False, word="unpinned")


def _switch(context: typer.Context, names: Sequence[str], key: str, *, on: bool, word: str) -> int:
    terms = manners(context)
    workspace = terms.workspace()

    def switch(name: str) -> _Outcome:
        server = manifest_change.find_server(manifest.load(workspace.manifest), name)
        if key == "pinned" and server.package is None:
            raise UsageError(
                f"`{name}` comes from no package, so it has no version to stay at",
                hint="octave list",
            )
        # What it is already is not written down, also where only the default says so.
        values: dict[Keys, object] = {(key,): on} if getattr(server, key) != on else {}
        return _changed(workspace, name, values, (), (word, f"already {word}"))

    return _all(terms, names, switch)


def _changed(
    workspace: Workspace,
    name: str,
    values: Mapping[Keys, object],
    dropped: tuple[Keys, ...],
    words: Sequence[str],
) -> _Outcome:
    """Change a server; `words` are the status if that changed something, else, and the keys."""
    status, unchanged, *keys = words
    if not manifest_change.change_server(workspace, name, values, dropped):
        return _Outcome(name, unchanged, tuple(keys))
    server = manifest.load(workspace.manifest).servers[name]
    return _Outcome(name, status, tuple(keys), *_as_locked(workspace, server))


def _as_locked(workspace: Workspace, server: ServerEntry) -> tuple[str | None, str]:
    """Return the version of a package that is locked, and what is left to do for it to run."""
    if server.package is None:
        return None, ""
    found = lockfile.read(workspace.lockfile).pins.get(server.name)
    is_there = found is not None and workspaces.installed(workspace).get(server.name)
    note = "" if is_there and answers(found, server) else "`octave install` makes it so on disk"
    return found.version if found else None, note if server.enabled else ""


def _known(server: ServerEntry) -> PackageChoice | None:
    """Return what the registry's entry of the same name says about the package of `server`."""
    if server.package is None:
        return None
    try:
        entry = Registry(bundled_folder()).get(server.name)
    except OctaveError:
        return None
    return entry.package(*split_package(server.package))


def _all(terms: Manners, names: Sequence[str], act: Callable[[str], _Outcome]) -> int:
    outcomes = [_each(name, act) for name in dict.fromkeys(names)]
    if any(outcome.error is None for outcome in outcomes):
        reload(terms.workspace())
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        write_json({"results": [_as_json(outcome) for outcome in outcomes]})
    else:
        for outcome in outcomes:
            _tell(terms, outcome)
    return common_code(failures)


def _each(name: str, act: Callable[[str], _Outcome]) -> _Outcome:
    try:
        return act(name)
    except OctaveError as error:
        return _Outcome(name, "failed", error=error)


def _tell(terms: Manners, outcome: _Outcome) -> None:
    if outcome.error is not None:
        tell_error(outcome.error, as_json=False)
        return
    keys = f" ({', '.join(outcome.keys)})" if outcome.keys else ""
    write(safe(f"{outcome.status} {outcome.name}{keys}"))
    if outcome.note and not terms.quiet:
        tell(f"note: {outcome.note}")


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "status": outcome.status,
        "keys": list(outcome.keys),
        "version": outcome.version,
        "note": outcome.note or None,
        "error": outcome.error.as_json() if outcome.error else None,
    }
