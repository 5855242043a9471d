"""Uninstall: out of the manifest and lockfile first, off the running runtime, then off the disk."""

import shutil

from octave.errors import ServerNotFound, did_you_mean
from octave.home import Workspace
from octave.packages import ledger, lockfile, manifest, store, workspaces
from octave.packages.install import Outcome, Site
from octave.packages.secrets import Secrets


def uninstall(name: str, site: Site, *, purge: bool = False) -> Outcome:
    """Remove a server from manifest, lockfile and disk; with `purge` its data and secrets too.

    Raises:
        ServerNotFound: the manifest does not name it.
    """
    workspace, home = site.workspace, site.workspace.home
    home.prepare()
    with store.locked(home, name, site.bench.progress):
        with ledger.changing(workspace):
            _strike_out(workspace, name)
        site.changed()
        for folder in store.versions(home, name):
            if not _wanted_elsewhere(workspace, name, folder):
                store.remove(home, name, folder)
        workspace.catalogue(name).unlink(missing_ok=True)
        if purge:
            _purge(workspace, name)
    return Outcome(name, "removed")


def _strike_out(workspace: Workspace, name: str) -> None:
    if not manifest.remove_server(workspace.manifest, name):
        names = manifest.load(workspace.manifest).servers
        raise ServerNotFound(
            f"`{name}` is not in `{workspace.manifest}`",
            hint=did_you_mean(name, names) or "octave list",
        )
    workspaces.trust(workspace, manifest.load(workspace.manifest))
    pins = lockfile.read(workspace.lockfile).pins
    ledger.write_pins(workspace, {key: pin for key, pin in pins.items() if key != name})


def _wanted_elsewhere(workspace: Workspace, name: str, folder: str) -> bool:
    for path in workspaces.known_lockfiles(workspace.home):
        if path != workspace.lockfile:
            pin = lockfile.read(path).pins.get(name)
            if pin is not None and pin.folder == folder:
                return True
    return False


def _purge(workspace: Workspace, name: str) -> None:
    shutil.rmtree(workspace.data(name), ignore_errors=True)
    for path in workspace.logs.glob(f"{name}.log*"):
        path.unlink(missing_ok=True)
    secrets = Secrets(workspace.home)
    for key in secrets.list():
        if key.startswith(f"{name}/"):
            secrets.remove(key)
