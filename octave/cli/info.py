"""`info`: what the registry knows about a server, and what of it is installed."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.completion import registry_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.cli.site_options import RegistryOption
from octave.clients import looks
from octave.errors import IntegrityFailed, RegistryUnreachable, ServerNotFound, StartFailed
from octave.home import Workspace
from octave.packages import bundles, lockfile, manifest, specs, store, workspaces
from octave.packages import info as facts
from octave.packages.ecosystems.base import Bench
from octave.packages.entries import Entry
from octave.packages.info import BUNDLED
from octave.packages.launch_place import Place
from octave.packages.manifest import ServerEntry
from octave.packages.registries import Asking, of_workspace
from octave.packages.registry import Registry, bundled_folder
from octave.settings import Reference, Value


def info(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=registry_names)],
    *,
    registry: RegistryOption = None,
    inside: Annotated[
        bool, typer.Option("--inside", help="Fetch its bundle, and show what that asks for.")
    ] = False,
) -> int:
    """Show everything the registries know about a server."""
    terms = manners(context)
    workspace = terms.workspace()
    entry = _entry(workspace, name, registry)
    if entry is not None and inside:
        entry = bundles.opened(entry, Bench(workspace.home, os.environ))
    known = facts.describe(entry) if entry is not None else None
    server = manifest.load(workspace.manifest).servers.get(name)
    found = {
        **(known or {"name": name}),
        "installed": _installed(workspace, server) if server else None,
        "configured": _configured(server) if server else None,
    }
    if terms.as_json:
        write_json(found)
    else:
        for line in page(found):
            write(safe(line))
    return 0


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of what `info --json` says, for a person."""
    title = found.get("title")
    yield f"{found['name']}: {title}" if title else str(found["name"])
    for line in (found.get("description"), *(f"note: {note}" for note in found.get("notes", ()))):
        if line:
            yield line
    if found.get("deleted"):
        yield f"deleted from its registry: {found['deleted']}"
    yield ""
    yield from _installed_lines(found)
    for package in found.get("packages", ()):
        yield ""
        yield from _package_lines(package, found.get("notes", ()))
    for remote in found.get("remotes", ()):
        yield ""
        yield f"remote {remote['url']} ({remote['transport']})"
        yield from _input_lines(remote["headers"])
    facts_lines = []
    if found.get("registry", BUNDLED) != BUNDLED:
        facts_lines.append(f"registry: {found['registry']}, as {found['registryName']}")
    if found.get("systemRequires"):
        facts_lines.append(f"needs on this machine: {', '.join(found['systemRequires'])}")
    if found.get("vendorOfficial"):
        facts_lines.append("maintained by the maker of what it serves")
    facts_lines += [
        f"{key}: {', '.join(value) if isinstance(value, list) else value}"
        for key in ("license", "categories", "repository", "website")
        if (value := found.get(key))
    ]
    if facts_lines:
        yield ""
        yield from facts_lines


def _installed_lines(found: Mapping[str, Any]) -> Iterator[str]:
    installed, configured = found["installed"], found["configured"]
    if installed is not None:
        count = installed["tools"]
        state = render.count(count or 0, "tool") if installed["checked"] else "never started"
        yield f"installed: {installed['package']} {installed['version']}, {state}"
        yield f"  runs: {' '.join(installed['command'])}"
    elif configured is None or configured["package"]:
        way = f"install it with `{found['install']}`" if found.get("install") else ""
        yield f"not installed; {way or 'Octave installs nothing of what it comes as'}"
        return
    elif configured["url"]:
        yield f"connects {configured['url']}"
    else:
        yield f"a command of your own: {' '.join(configured['command'])}"
    if configured is not None:
        yield from _configured_lines(configured)


def _configured_lines(configured: Mapping[str, Any]) -> Iterator[str]:
    for said, key in (
        ("is given", "variables"),
        ("sends", "headers"),
        ("runs the install scripts of", "allowScripts"),
        ("built from source", "allowBuild"),
    ):
        if configured[key]:
            yield f"  {said}: {', '.join(configured[key])}"


def _package_lines(package: Mapping[str, Any], told: Sequence[str]) -> Iterator[str]:
    words = [f"{package['kind']}:{package['package']}", package["version"] or ""]
    words += ["(archived)"] if package["archived"] else []
    words += [] if package["installable"] else ["(not installed by Octave)"]
    yield " ".join(filter(None, words))
    yield from (f"  note: {note}" for note in package["notes"] if note not in told)
    if package["command"]:
        yield f"  command: {package['command']}"
    for key in ("environment", "arguments"):
        # Values the author fixed stand in the command already.
        yield from _input_lines([each for each in package[key] if each.get("value") is None])
    for name, value in package["defaultEnvironment"].items():
        yield f"  sets {name}={value}"
    for group in package["environmentOneOf"]:
        yield f"  enough: {' with '.join(group)}"
    needs = [*(f"{name} {version}" for name, version in package["requires"].items())]
    needs += [package["needsAtStart"]] if package["needsAtStart"] else []
    needs += ["the network when it starts"] if package["network"] == "start" else []
    needs += package["constraints"]
    if needs:
        yield f"  needs: {', '.join(needs)}"
    if package["figures"]:
        yield f"  tested: {_tested(package['figures'])}"


def _input_lines(inputs: list[dict[str, Any]]) -> Iterator[str]:
    for each in inputs:
        marks = [mark for mark in ("required", "secret") if each[mark]]
        marks += [f"default {each['default']}"] if each["default"] is not None else []
        shown = each.get("usage") or each["name"]
        marked = f" ({', '.join(marks)})" if marks else ""
        yield f"  {shown}{marked}: {each['description']}".rstrip(": ")


def _tested(figures: Mapping[str, Any]) -> str:
    parts = [] if figures["tools"] is None else [render.count(figures["tools"], "tool")]
    if figures["startSeconds"] is not None:
        parts.append(f"starts in {figures['startSeconds']:.1f} s")
    if figures["memoryBytes"] is not None:
        parts.append(render.size(figures["memoryBytes"]))
    parts += [f"protocol {figures['protocolVersion']}"] if figures["protocolVersion"] else []
    return ", ".join(parts)


def _entry(workspace: Workspace, name: str, also: str | None) -> Entry | None:
    """Return what is known of `name`; None for a server of one's own that no registry knows.

    Raises:
        ServerNotFound, Ambiguous, RegistryUnreachable: it is neither.
    """
    bundled = Registry(bundled_folder())
    known = of_workspace(workspace, Asking(os.environ, warn=_warn), also=also)
    if ":" in name:
        kind, _, package = name.partition(":")
        return bundled.find_package(kind, package) or bundled.get(name)
    if name not in manifest.load(workspace.manifest).servers:
        return known.get(name)
    # Another server of the same name could be in any registry on the network.
    with contextlib.suppress(ServerNotFound):
        return bundled.get(name)
    full_name = _registry_name(workspace, name)
    try:
        return known.get(full_name) if full_name else None
    except ServerNotFound:
        return None
    except RegistryUnreachable as error:
        _warn(error.message)
        return None


def _warn(text: str) -> None:
    tell(f"warning: {safe(text)}")


def _registry_name(workspace: Workspace, server: str) -> str:
    """Return the full name under which a registry had the installed `server`; may be empty."""
    try:
        pin = lockfile.read(workspace.lockfile).pins.get(server)
    except IntegrityFailed:
        return ""
    return pin.registry_name if pin else ""


def _configured(server: ServerEntry) -> dict[str, Any]:
    """Return what octave.toml says of `server`: names, and no value that looks like a secret."""
    has_secret = server.url is not None and looks.why_value(server.url) is not None
    url = server.url.partition("?")[0] if server.url and has_secret else server.url
    return {
        "package": server.package,
        "command": None if server.command is None else _masked(server.command),
        "url": url,
        "variables": sorted({*server.env, *server.pass_env}),
        "headers": sorted(server.headers),
        "allowScripts": list(server.allow_scripts),
        "allowBuild": list(server.allow_build),
    }


def _masked(words: Sequence[Value]) -> list[str]:
    shown = looks.masked(list(map(str, words)))
    return [
        str(word) if isinstance(word, Reference) else text
        for word, text in zip(words, shown, strict=True)
    ]


def _installed(workspace: Workspace, server: ServerEntry) -> dict[str, Any] | None:
    folder = workspaces.installed(workspace).get(server.name)
    record = store.find(workspace.home, server.name, folder) if folder else None
    if record is None or folder is None:
        return None
    place = Place(workspace, server, record, workspace.home.servers / server.name / folder)
    command: tuple[str, ...] = ()
    with contextlib.suppress(StartFailed):
        command = place.told(specs.passed(os.environ))
    return {
        "package": f"{record.kind}:{record.package}",
        "version": record.version,
        "integrity": record.integrity,
        "checked": record.checked,
        "tools": record.tools,
        "command": [*command, *_masked(server.args)],
    }
