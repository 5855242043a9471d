"""Uninstall: out of the manifest and lockfile first, off the running runtime, then off the disk.

Where the disk is too full for the first, the last makes room for it.
"""

import contextlib
import shutil
from pathlib import Path

from octave.errors import DISK_FULL, IntegrityFailed, ServerNotFound, StorageFailed, did_you_mean
from octave.home import Home, Workspace
from octave.packages import (
    approvals,
    ledger,
    lockfile,
    manifest,
    manifest_edit,
    store,
    workspaces,
)
from octave.packages.install import Outcome
from octave.packages.placement import Site
from octave.packages.secrets import Secrets


def uninstall(name: str, site: Site, *, purge: bool = False) -> Outcome:
    """Remove a server from manifest, lockfile and disk; with `purge` its data and secrets too.

    What another workspace's lockfile names stays: its version folder, and the secrets. Doing it
    again finishes what was killed.

    Raises:
        ServerNotFound: neither does the manifest name it, nor is anything left of it.
        OSError: a disk is full, and nothing of the server lies on it: nothing has changed.
        StorageFailed: what was removed has not made enough room for the rest.
    """
    workspace, home = site.workspace, site.workspace.home
    # Before anything is locked or made.
    _require_known(workspace, name, purge=purge)
    store.prepare(home)
    with store.locked(home, name, site.bench.progress):
        elsewhere = _folders_elsewhere(workspace, name)
        try:
            _strike_out(workspace, name)
        except OSError as error:
            if error.errno not in DISK_FULL or not _is_where(error, home):
                raise
            _remove_versions(workspace, name, elsewhere)
            _strike_out_at_last(workspace, name)
        site.changed()
        _remove_versions(workspace, name, elsewhere)
        with contextlib.suppress(OSError):
            # A removal that was killed before its last step leaves it empty.
            (home.servers / name).rmdir()
        workspace.catalogue(name).unlink(missing_ok=True)
        approvals.path_of(workspace.catalogue(name)).unlink(missing_ok=True)
        warning = _purge(workspace, name, shared=elsewhere != set()) if purge else ""
    return Outcome(name, "removed", warning=warning)


def _require_known(workspace: Workspace, name: str, *, purge: bool) -> None:
    names = manifest.load(workspace.manifest).servers
    # Only a name that a manifest may hold is fit for a path.
    if name in names or (manifest.is_server_name(name) and _is_left(workspace, name, purge=purge)):
        return
    raise ServerNotFound(
        f"`{name}` is not in `{workspace.manifest}`",
        hint=did_you_mean(name, names) or "octave list",
    )


def _is_left(workspace: Workspace, name: str, *, purge: bool) -> bool:
    """Whether an uninstall, or an install, that was killed left something to remove."""
    elsewhere = _folders_elsewhere(workspace, name)
    place, folders = workspace.home.servers / name, set(store.folders(workspace.home, name))
    is_used = elsewhere is None or (folders and folders <= elsewhere)
    return (
        (place.exists() and not is_used)
        or name in lockfile.read(workspace.lockfile).pins
        or workspace.catalogue(name).exists()
        or (purge and workspace.data(name).exists())
    )


def _remove_versions(workspace: Workspace, name: str, elsewhere: set[str] | None) -> None:
    for folder in store.folders(workspace.home, name):
        if elsewhere is not None and folder not in elsewhere:
            store.remove(workspace.home, name, folder)


def _strike_out(workspace: Workspace, name: str) -> None:
    with ledger.changing(workspace):
        wanted = manifest.load(workspace.manifest)
        was_trusted = workspaces.trusted(workspace, wanted)
        manifest_edit.remove_server(workspace.manifest, name)
        pins = lockfile.read(workspace.lockfile).pins
        if name in pins or name in wanted.servers:
            ledger.write_pins(workspace, {key: pin for key, pin in pins.items() if key != name})
        if was_trusted:
            workspaces.trust(workspace, manifest.load(workspace.manifest))


def _strike_out_at_last(workspace: Workspace, name: str) -> None:
    try:
        _strike_out(workspace, name)
    except OSError as error:
        if error.errno not in DISK_FULL or store.folders(workspace.home, name):
            raise
        raise StorageFailed(
            f"the files of `{name}` are removed, but cannot write `{error.filename}`: "
            f"{error.strerror}",
            hint=f"free some space, then `octave uninstall {name}` finishes it",
        ) from error


def _is_where(error: OSError, home: Home) -> bool:
    """Whether it was raised on the disk that versions lie on: removing them makes room there."""
    if error.filename is None:
        return True
    return Path(error.filename).parent.stat().st_dev == home.servers.stat().st_dev


def _folders_elsewhere(workspace: Workspace, name: str) -> set[str] | None:
    """Return the version folders of `name` that other lockfiles mean; None: any, one is damaged."""
    try:
        pins = [
            lockfile.read(path).pins.get(name)
            for path in workspaces.known_lockfiles(workspace.home)
            if path != workspace.lockfile
        ]
    except IntegrityFailed:
        return None
    return {pin.folder for pin in pins if pin is not None}


def _purge(workspace: Workspace, name: str, *, shared: bool) -> str:
    """Remove data, logs and secrets; return what the user should know about it."""
    shutil.rmtree(workspace.data(name), ignore_errors=True)
    for path in workspace.logs.glob(f"{name}.log*"):
        path.unlink(missing_ok=True)
    secrets = Secrets(workspace.home)
    keys = [key for key in secrets.list() if key.startswith(f"{name}/")]
    if keys and shared:
        return f"the secrets of `{name}` are kept: another `octave.toml` may use them"
    return "; ".join(filter(None, [_forget(secrets, key) for key in keys]))


def _forget(secrets: Secrets, key: str) -> str:
    """Remove a secret; return why it is still there. All else is gone by then."""
    try:
        secrets.remove(key)
    except StorageFailed as error:
        return error.message
    return ""
