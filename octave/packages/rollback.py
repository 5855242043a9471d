"""Rollback: the lockfile names a version again that lies on disk; nothing is fetched or built."""

import shlex
from dataclasses import replace

from octave.errors import InstallFailed, OctaveError, UsageError, VersionNotFound
from octave.home import Workspace
from octave.packages import (
    bundles,
    kept,
    ledger,
    lockfile,
    manifest,
    manifest_change,
    manifest_edit,
    store,
    workspaces,
)
from octave.packages.install import Outcome
from octave.packages.lockfile import Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.names import split_package
from octave.packages.placement import Site, brought_up_to, can_run
from octave.packages.resolve import answers
from octave.packages.store import Record
from octave.packages.swap import Old, swap
from octave.packages.versions import is_in_range


def rollback(name: str, version: str | None, site: Site) -> Outcome:
    """Return a server to the version before, or to `version`; doing it twice goes forward again.

    Raises:
        ServerNotFound: the manifest has no such server.
        VersionNotFound: no such version lies on disk; the message says which do.
        InstallFailed: it lies there, and cannot run any more.
        StartFailed: it does not become ready in the running runtime, which goes on as it was.
    """
    workspace, home = site.workspace, site.workspace.home
    wanted = manifest.load(workspace.manifest)
    server = manifest_change.find_server(wanted, name)
    workspaces.require_trust(workspace, wanted)
    if server.package is None:
        raise UsageError(
            f"`{name}` comes from no package, so it has no versions", hint="octave list"
        )
    with store.locked(home, name, site.bench.progress):
        wanted = manifest.load(workspace.manifest)
        server = manifest_change.find_server(wanted, name)
        current = lockfile.read(workspace.lockfile).pins.get(name)
        pin = _target(server, version, current, site)
        server, pin = _matched(server, pin)
        record = _runnable(pin, site)
        old = _old(wanted, server, current, site)
        _write_down(wanted, server, pin, record, site)
        if old is None:
            site.changed()
        else:
            swap(site, old, pin.version)
    return Outcome(
        name,
        "rolled-back",
        pin.version,
        record.checked,
        record.tools,
        note="" if server.pinned else f"`octave pin {name}` keeps `octave update` from it",
        previous=current.version if current else "",
    )


def _target(server: ServerEntry, version: str | None, current: Pin | None, site: Site) -> Pin:
    workspace = site.workspace
    there = {
        folder: pin
        for folder, pin in kept.pins(workspace.home, server.name).items()
        if bundles.is_of(server, pin) and (current is None or folder != current.folder)
    }
    before = workspaces.previous(workspace).get(server.name, "")
    if version is None and before in there:
        return there[before]
    fitting = [folder for folder, pin in there.items() if pin.version == version]
    if version is not None and fitting:
        return there[before if before in fitting else fitting[-1]]
    raise _not_there(server, version, sorted({pin.version for pin in there.values()}))


def _not_there(server: ServerEntry, version: str | None, versions: list[str]) -> VersionNotFound:
    name = server.name
    listed = ", ".join(f"`{each}`" for each in versions)
    which = "no version before this one" if version is None else f"no version `{version}`"
    return VersionNotFound(
        f"{which} of `{name}` lies on this disk{f'; there is {listed}' if listed else ''}",
        hint=f"octave rollback {name} {versions[-1]}"
        if versions
        else _elsewhere(server, version or "VERSION"),
        details={"versions": versions},
    )


def _elsewhere(server: ServerEntry, version: str) -> str:
    """Return how to get a version that does not lie on this disk."""
    kind, package = split_package(server.package or "")
    if kind == "folder":
        return f"put the files in `{package}` back, then octave update {server.name}"
    if kind == "mcpb":
        return f"octave set {server.name} 'package=mcpb:URL#sha256=HEX', then octave install"
    return f"octave install {server.name}@{version}"


def _request(pin: Pin, package: str) -> str:
    """Return how one asks for `package` at the version of `pin`; some have the one they have."""
    one = f"{package}@{pin.integrity if pin.kind == 'oci' else pin.version}"
    return shlex.quote(package if pin.kind in {"folder", "mcpb"} else one)


def _matched(server: ServerEntry, pin: Pin) -> tuple[ServerEntry, Pin]:
    """Return the manifest's entry and the pin so that one answers the other.

    The range of the manifest stays where the version lies in it; else the range returns too.

    Raises:
        UsageError: the manifest wants something else of it by now.
    """
    server = bundles.named(server, pin)
    if is_in_range(pin.kind, pin.version, server.version):
        pin = replace(pin, request=f"{server.package}@{server.version}")
    else:
        server = replace(server, version=pin.request.removeprefix(f"{server.package}@"))
    if not answers(pin, server):
        raise UsageError(
            f"`{server.name}` {pin.version} was installed with other `bin`, `constraints` or "
            "`registry_name` than `octave.toml` has now",
            hint=f"octave install {_request(pin, server.package or '')} --as {server.name}",
        )
    return server, pin


def _runnable(pin: Pin, site: Site) -> Record:
    home = site.workspace.home
    folder = home.servers / pin.name / pin.folder
    record = store.find(home, pin.name, pin.folder)
    if record is None or not can_run(record, folder, site):
        raise InstallFailed(
            f"`{pin.name}` {pin.version} cannot run any more: part of it is gone",
            hint=f"octave install {_request(pin, f'{pin.kind}:{pin.package}')} --as {pin.name}",
        )
    found = brought_up_to(pin, record, folder, site)
    if found != record:
        store.rewrite(home, found, pin.folder)
    return found


def _old(wanted: Manifest, server: ServerEntry, current: Pin | None, site: Site) -> Old | None:
    """Return what there is to return to; None where the version that counts is damaged."""
    workspace, name = site.workspace, server.name
    if current is None:
        return None
    record = store.find(workspace.home, name, current.folder)
    if record is None:
        return None

    def put_back() -> None:
        # It may have been edited meanwhile, by whom nobody knows.
        was_trusted = workspaces.trusted(workspace, manifest.load(workspace.manifest))
        _set_range(workspace, name, wanted.servers[name].version, server.version)
        bundles.write_name(workspace, current)
        if was_trusted:
            workspaces.trust(workspace, manifest.load(workspace.manifest))

    return Old(current, record, workspaces.previous(workspace).get(name), put_back)


def _set_range(workspace: Workspace, name: str, wanted: str, before: str) -> None:
    if wanted != before:
        key = ("version",)
        values: dict[tuple[str, ...], object] = {} if wanted == "*" else {key: wanted}
        manifest_edit.change_server(
            workspace.manifest, name, values, [key] if wanted == "*" else ()
        )


def _write_down(
    wanted: Manifest, server: ServerEntry, pin: Pin, record: Record, site: Site
) -> None:
    workspace, name = site.workspace, server.name
    with ledger.changing(workspace):
        if manifest.load(workspace.manifest).servers != wanted.servers:
            raise OctaveError(
                f"`{workspace.manifest}` was changed meanwhile", hint=f"octave rollback {name}"
            )
        _set_range(workspace, name, server.version, wanted.servers[name].version)
        bundles.write_name(workspace, pin)
        pins = lockfile.read(workspace.lockfile).pins
        ledger.write_pins(workspace, {**pins, name: pin})
        kept.restore_lists(workspace, pin)
        # It was before, else nothing of this would have begun.
        workspaces.trust(workspace, manifest.load(workspace.manifest))
