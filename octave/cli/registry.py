"""`registry`: which registries are asked for servers, and in what order."""

import os
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import registry_ids
from octave.cli.headers import read_headers, stored
from octave.cli.options import Manners, manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.cli.site_options import (
    HeaderEnvOption,
    HeaderOption,
)
from octave.errors import NotFound, OctaveError, UsageError, common_code, did_you_mean
from octave.home import Workspace
from octave.packages import manifest, registries, registry_edit, store, workspaces
from octave.packages.info import BUNDLED
from octave.packages.manifest import RegistryEntry
from octave.packages.mcp_registry import Access, Change, McpRegistry
from octave.packages.names import check_address, check_server_name
from octave.packages.registries import OFFICIAL, OFFICIAL_URL
from octave.packages.registry import Registry, bundled_folder

_NAMES_SHOWN = 10
"""Of each kind of change; `--json` has them all."""

registry = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Registries of MCP servers: the bundled one first, then those of octave.toml.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=registry_ids)]


@registry.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        write(context.get_help())


@registry.command("list")
def list_registries(context: typer.Context) -> int:
    """List the registries in the order in which they are asked."""
    terms = manners(context)
    workspace = terms.workspace()
    wanted = manifest.load(workspace.manifest)
    trusted = not wanted.registries or workspaces.trusted(workspace, wanted)
    rows = [_row(BUNDLED, None, len(Registry(bundled_folder()).names()), None)]
    for name, entry in wanted.registries.items():
        servers, age_s = _opened(workspace, name, entry).kept()
        rows.append(_row(name, entry.url, servers, age_s) | {"asked": trusted})
    if terms.as_json:
        write_json(rows)
        return 0
    render.table(
        ("NAME", "ADDRESS", "SERVERS", "UPDATED"),
        [
            (
                row["name"],
                row["url"] or "came with Octave",
                "not kept here" if row["servers"] is None else str(row["servers"]),
                _updated(row),
            )
            for row in rows
        ],
    )
    if not trusted:
        tell(f"note: those of `{safe(str(workspace.manifest))}` are not asked: `octave trust`")
    if OFFICIAL not in wanted.registries and not terms.quiet:
        tell(f"the official MCP registry is not among them: `octave registry add {OFFICIAL}`")
    return 0


@registry.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    url: Annotated[str | None, typer.Argument(metavar="URL")] = None,
    *,
    header: HeaderOption = None,
    header_env: HeaderEnvOption = None,
    header_secret: Annotated[
        list[str] | None,
        typer.Option(
            "--header-secret", metavar="'K: KEY'", help="The same, from `octave secret set NAME`."
        ),
    ] = None,
) -> int:
    """Ask this registry too, behind the others; `official` needs no URL."""
    terms = manners(context)
    headers = read_headers(header or (), header_env or ())
    entry = RegistryEntry(_address(name, url), headers | stored(name, header_secret or ()))
    workspace = terms.workspace(may_be_missing=True)
    before = manifest.load(workspace.manifest).registries
    if before.get(name) == entry:
        return _tell(terms, "present", name, entry.url)
    if name in before:
        raise UsageError(
            f"`{name}` is the registry at {before[name].url} already",
            hint=f"octave registry remove {name}",
        )
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        step(f"asking {entry.url}")
        _opened(workspace, name, entry).check()
    store.prepare(workspace.home)
    registry_edit.add(workspace, name, entry)
    return _tell(terms, "added", name, entry.url)


@registry.command("remove")
def remove(context: typer.Context, name: Name) -> int:
    """Do not ask it any more."""
    terms = manners(context)
    workspace = terms.workspace()
    known = manifest.load(workspace.manifest).registries
    if name == BUNDLED:
        raise UsageError("the bundled registry is part of Octave", hint="octave registry list")
    if name not in known:
        hint = did_you_mean(name, known) or "octave registry list"
        raise NotFound(f"there is no registry `{name}` in `{workspace.manifest.name}`", hint=hint)
    store.prepare(workspace.home)
    registry_edit.remove(workspace, name)
    removed = _opened(workspace, name, known[name])
    servers = manifest.load(workspace.manifest).servers.values()
    orphans = [each.name for each in servers if removed.knows(each.registry_name or "")]
    removed.forget()
    if orphans and not terms.quiet:
        tell(
            f"note: {', '.join(f'`{each}`' for each in orphans)} came from it and stays as it is "
            "locked; what its registry says of a newer version is not known any more"
        )
    return _tell(terms, "removed", name, known[name].url)


@registry.command("update")
def update(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=registry_ids)
    ] = None,
) -> int:
    """Fetch their lists, so that searches need no network; tell what changed."""
    terms = manners(context)
    workspace = terms.workspace()
    began = time.monotonic()
    outcomes: list[tuple[str, Change | OctaveError]] = []
    store.prepare(workspace.home)
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        asking = registries.Asking(
            os.environ, warn=lambda text: tell(f"warning: {safe(text)}"), progress=step
        )
        for name in dict.fromkeys(names or [""]):
            opened = registries.opened(workspace, asking, only=name or None)
            outcomes += [_updated_list(each) for each in opened]
    return _report(terms, outcomes, time.monotonic() - began)


def _updated_list(each: McpRegistry) -> tuple[str, Change | OctaveError]:
    try:
        return each.name, each.update()
    except OctaveError as error:
        return each.name, error


def _address(name: str, url: str | None) -> str:
    """Return the address of a registry to be added.

    Raises:
        UsageError: the name cannot be one, is taken, or needs an address.
    """
    try:
        check_server_name(name)
    except ValueError as error:
        raise UsageError(
            f"`{name}` cannot name a registry",
            hint="use up to 40 lower-case letters, digits and dashes",
        ) from error
    if name == BUNDLED:
        raise UsageError(
            "`bundled` is the registry that came with Octave",
            hint="octave registry add OTHER-NAME https://...",
        )
    if url is None and name != OFFICIAL:
        raise UsageError(
            f"where is `{name}`? Give its address", hint=f"octave registry add {name} https://..."
        )
    # People copy the address of a list, too.
    try:
        address = check_address(url or OFFICIAL_URL).rstrip("/")
    except ValueError as error:
        raise UsageError(str(error), hint=f"octave registry add {name} https://...") from None
    for ending in ("/servers", "/v0.1", "/v0"):
        address = address.removesuffix(ending)
    if name == OFFICIAL and address != OFFICIAL_URL:
        raise UsageError(
            f"`{OFFICIAL}` is the registry at {OFFICIAL_URL}", hint="choose another name"
        )
    return address


def _opened(workspace: Workspace, name: str, entry: RegistryEntry) -> McpRegistry:
    headers = registries.headers_of(workspace, os.environ, name, entry)
    return McpRegistry(name, entry.url, Access(registries.cache_folder(workspace.home)), headers)


def _row(name: str, url: str | None, servers: int | None, age_s: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "url": url,
        "servers": servers,
        "ageSeconds": None if age_s is None else round(age_s),
        "asked": True,
    }


def _updated(row: dict[str, Any]) -> str:
    return "-" if row["ageSeconds"] is None else f"{render.span(row['ageSeconds'])} ago"


def _tell(terms: Manners, status: str, name: str, url: str) -> int:
    if terms.as_json:
        write_json({"results": [{"name": name, "status": status, "url": url}]})
        return 0
    write(safe(f"{status} {name} {url}"))
    if status == "added" and not terms.quiet:
        tell(f"next: `octave search QUERY`, or `octave registry update {name}` to search offline")
    return 0


def _report(
    terms: Manners, outcomes: Sequence[tuple[str, Change | OctaveError]], took_s: float
) -> int:
    failures = [result for _, result in outcomes if isinstance(result, OctaveError)]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        results = [_as_json(name, result) for name, result in outcomes]
        write_json({"results": results, "tookSeconds": round(took_s, 3)})
    else:
        for name, result in outcomes:
            if isinstance(result, OctaveError):
                tell_error(result, as_json=False)
            else:
                _tell_change(terms, name, result)
        if not outcomes:
            tell(f"no registry is configured; `octave registry add {OFFICIAL}` adds one")
        elif not terms.quiet and not failures:
            tell(f"done in {took_s:.1f} s")
    return common_code(failures)


def _tell_change(terms: Manners, name: str, change: Change) -> None:
    counts = [
        f"{len(names)} {word}"
        for word, names in _kinds(change).items()
        if names and len(names) < change.servers
    ]
    write(safe(f"updated {name}: {render.count(change.servers, 'server')}"
               f"{''.join(f', {one}' for one in counts)}"))  # fmt: skip
    if change.unreadable and not terms.quiet:
        tell(f"warning: {render.count(change.unreadable, 'entry')} of it cannot be read")
    if terms.quiet or not counts:
        return
    for word, names in _kinds(change).items():
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        if names:
            tell(safe(f"  {word}: {', '.join(names[:_NAMES_SHOWN])}{more}"))


def _kinds(change: Change) -> dict[str, Sequence[str]]:
    return {"new": change.added, "changed": change.changed, "removed": change.removed}


def _as_json(name: str, result: Change | OctaveError) -> dict[str, Any]:
    if isinstance(result, OctaveError):
        return {"name": name, "status": "failed", "error": result.as_json()}
    return {
        "name": name,
        "status": "updated",
        "servers": result.servers,
        "added": list(result.added),
        "changed": list(result.changed),
        "removed": list(result.removed),
        "unreadable": result.unreadable,
        "error": None,
    }
