"""A server that comes from no package: a command of one's own, or an address.

Checked before it is written down: its program is there, and it is started once. What only lacks
configuration, a login or the network is added unchecked, with a warning.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from octave.errors import (
    AuthorizationNeeded,
    InstallFailed,
    ManifestError,
    NotTrusted,
    RemoteUnreachable,
    StartFailed,
    UsageError,
)
from octave.home import Workspace
from octave.packages import (
    approvals,
    ledger,
    manifest,
    manifest_change,
    manifest_edit,
    offered,
    specs,
    store,
    trial,
    variables,
    workspaces,
)
from octave.packages.definitions import pins_of
from octave.packages.entries import Entry
from octave.packages.install import Outcome, tell_place
from octave.packages.launch import LaunchSpec
from octave.packages.manifest import Manifest, ServerEntry, Value, is_server_name
from octave.packages.offered import Offered
from octave.packages.placement import Site, undone_on_error
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import short_name
from octave.packages.secrets import Secrets, stored
from octave.packages.variables import Answers


@dataclass(frozen=True, slots=True)
class Own:
    """What is to be added; either a command or an address."""

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    headers: Mapping[str, Value] = field(default_factory=dict)
    folder: Path = Path()
    """Where the words of the command were typed, absolute; some may be paths from there."""
    answers: Answers = field(default_factory=Answers)


def add(own: Own, site: Site) -> Outcome:
    """Start the server once, and write it into the manifest.

    Raises:
        UsageError: its name cannot be one or is taken, or its program is not there.
        StartFailed: it is broken. Nothing was added then.
    """
    workspace, home = site.workspace, site.workspace.home
    _require_name(own.name)
    _require_free(workspace, manifest.load(workspace.manifest), own.name)
    if own.command:
        _require_program(own, site.bench.environ)
    store.prepare(home)
    # May ask a person: nobody else waits for the answer, and no step is shown over the question.
    given = variables.sort(own.name, own.answers, None, site.bench.environ)
    return put(own.name, _table(own, workspace, given.values), given.secrets, site)


def name_of(url: str) -> str:
    """Return a name for the server at `url`: that of the registry, else of its host.

    Raises:
        UsageError: the address gives none.
    """
    for entry in Registry(bundled_folder()).entries():
        if any(remote.url.rstrip("/") == url.rstrip("/") for remote in entry.remotes):
            return entry.short_name
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    parts = [part for part in host.split(".") if part not in _GENERIC]
    # The last one says where it is registered, and an address of numbers says nothing.
    name = short_name(parts[-2] if len(parts) > 1 and not parts[-1].isdigit() else "")
    if not is_server_name(name):
        raise UsageError(
            f"`{url}` gives no usable name", hint=f"octave install {shlex.quote(url)} --as NAME"
        )
    return name


_BRACES = re.compile(r"\{[^{}]*\}")
"""Parts of an address that a user fills in (server.json, 2025-12-11)."""
_GENERIC = frozenset(("www", "api", "mcp"))


def connect(
    text: str, name: str | None, site: Site, agrees: Callable[[Entry], bool] = lambda _: True
) -> Outcome:
    """Add the server that the registry calls `text` at the place where it is hosted, as `name`.

    `agrees` shows where that is, the first of the entry's remotes, and tells whether it may be.

    Raises:
        NotTrusted: it may not.
        InstallFailed: it is hosted nowhere.
        UsageError: it wants a header that only a person can fill in; or as `add`.
        NotFound: the registry does not know it, as `Registries.get` says.
    """
    entry = site.registry.get(text)
    entry.require_offered()
    if not entry.remotes:
        raise InstallFailed(
            f"`{entry.request}` is hosted nowhere that is known",
            hint=f"octave install {entry.request}",
        )
    remote, called = entry.remotes[0], name or entry.short_name
    if parts := _BRACES.findall(remote.url):
        raise UsageError(
            f"`{entry.request}` has an address of its own for each user: `{remote.url}` with your "
            f"{' and '.join(f'`{part}`' for part in parts)}",
            hint=f"octave add {called} {shlex.quote(remote.url)}, each part in braces filled in",
        )
    needed = [header.name for header in remote.headers if header.required]
    if needed:
        words = " ".join(f"--header-env '{header}: VARIABLE'" for header in needed)
        raise UsageError(
            f"`{entry.request}` wants {' and '.join(f'`{header}`' for header in needed)}",
            hint=f"octave add {called} {remote.url} {words}",
        )
    site.bench.progress("")
    if not agrees(entry):
        raise NotTrusted(f"`{called}` was not added, as you said")
    return add(Own(called, url=remote.url), site)


def put(name: str, table: Mapping[str, object], secrets: Mapping[str, str], site: Site) -> Outcome:
    """Start the server of the manifest's `table` once, and write that and its `secrets` down.

    Raises:
        UsageError: its name is taken.
        StartFailed: it is broken. Nothing was added then.
    """
    workspace, home = site.workspace, site.workspace.home
    with (
        store.locked(home, name, site.bench.progress),
        stored(Secrets(home), secrets) as kept,
        undone_on_error(name, site),
    ):
        tell_place(kept, site)
        wanted = _with(workspace, name, table)
        spec, offer, reason = _try(wanted, wanted.servers[name], site)
        with ledger.changing(workspace):
            _require_free(workspace, manifest.load(workspace.manifest), name)
            manifest_edit.add_server(workspace.manifest, name, table)
            if offer is not None and spec is not None:
                workspace.prepare()
                seen = {pin.name: pin for pin in pins_of(offer.tools)}
                key = (spec.version, spec.digest)
                # No lockfile says what was approved of it.
                approvals.keep(workspace.catalogue(name), *key, seen, offer.tools)
                offered.save(workspace.catalogue(name), offer, *key)
            manifest_change.settle(workspace, was_trusted=True)
    site.changed()
    warning = f"`{name}` was not checked: {reason}" if reason else ""
    tools = None if offer is None else len(offer.tools)
    return Outcome(name, "added", "", offer is not None, tools, warning)


def _with(workspace: Workspace, name: str, table: Mapping[str, object]) -> Manifest:
    """Return the manifest as it will stand.

    Raises:
        UsageError: it cannot hold that.
        ManifestError: it was wrong before.
    """
    manifest.load(workspace.manifest)
    try:
        text = manifest_edit.with_server(workspace.manifest, name, table)
    except ManifestError as error:
        # It speaks of lines that are nowhere: nothing was written.
        raise UsageError(str(error.details["problem"]), hint="octave add --help") from None
    return manifest.parse(workspace.manifest, text)


def _require_name(name: str) -> None:
    if not is_server_name(name):
        raise UsageError(
            f"`{name}` cannot name a server",
            hint="use up to 40 lower-case letters, digits and dashes",
        )


def _require_free(workspace: Workspace, wanted: Manifest, name: str) -> None:
    # Whoever changed it meanwhile does not become trusted by this.
    workspaces.require_trust(workspace, wanted)
    if name in wanted.servers:
        raise UsageError(
            f"`{workspace.manifest}` already has a server `{name}`",
            hint=f"choose another name, or `octave set {name} KEY=VALUE`, "
            f"or `octave uninstall {name}` first",
        )


def _require_program(own: Own, environ: Mapping[str, str]) -> None:
    program = own.command[0]
    path = own.folder / program if "/" in program else Path(program)
    if shutil.which(path, path=environ.get("PATH")) is None:
        where = f"`{path}` is no program" if "/" in program else f"no program `{program}` on PATH"
        raise UsageError(
            f"`{own.name}` cannot be started: {where}",
            hint="check the spelling, or give the whole path",
        )


def _table(own: Own, workspace: Workspace, env: Mapping[str, Value]) -> dict[str, object]:
    """Return the keys of the manifest's table."""
    if own.url:
        return {"url": own.url} | ({"headers": dict(own.headers)} if own.headers else {})
    table: dict[str, object] = {"command": list(own.command)}
    if any(_is_path(own, index) for index in range(len(own.command))):
        table["cwd"] = _from(workspace.manifest.parent, own.folder)
    return table | ({"env": dict(env)} if env else {})


def _is_path(own: Own, index: int) -> bool:
    """Whether a word of the command means a place that is to be found from where it was typed."""
    word = own.command[index]
    if index == 0:
        return "/" in word and not word.startswith("/")
    return bool(word) and word[0] not in "-/" and os.path.lexists(own.folder / word)


def _from(base: Path, folder: Path) -> str:
    """Return `folder` as it is written in a manifest in `base`: a project may move as a whole."""
    base, folder = Path(os.path.realpath(base)), Path(os.path.realpath(folder))
    return str(folder.relative_to(base)) if folder.is_relative_to(base) else str(folder)


def _try(
    wanted: Manifest, server: ServerEntry, site: Site
) -> tuple[LaunchSpec | None, Offered | None, str]:
    """Start the server once; return its spec, what it offers, and why that is not known."""
    if not site.start:
        return None, None, "not started, as asked"
    try:
        spec = specs.spec_of_own(site.workspace, wanted, server, site.bench.environ)
        # A reference that does not resolve is no fault of the server.
        _ = spec.environment() if spec.endpoint is None else spec.endpoint.headers()
    except StartFailed as error:
        return None, None, trial.with_command(error)
    site.bench.progress(f"starting `{server.name}` once")
    try:
        return spec, site.check(spec), ""
    except (AuthorizationNeeded, RemoteUnreachable) as error:
        return spec, None, trial.with_command(error)
    except StartFailed as error:
        said = None if trial.is_broken(error) else trial.wanted_by(error)
        if said is None:
            raise StartFailed(
                f"`{server.name}` was not added: {error.message}", error.hint, error.details
            ) from error
        return spec, None, f"it says: {said}"
