"""Manifest and lockfile change together or not at all, and the home remembers the result."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping

from octave.errors import LockStale, ManifestError
from octave.home import Workspace
from octave.packages import kept, lockfile, manifest, store, undo, workspaces
from octave.packages.lockfile import Lock, Pin
from octave.packages.manifest import Manifest
from octave.packages.resolve import difference

_WAIT_S = 120.0
"""The lock is held for moments; longer is a hung process."""


@contextlib.contextmanager
def changing(workspace: Workspace) -> Iterator[None]:
    """Hold the lock of this workspace's manifest and lockfile; held for moments only.

    Leaving it with an error puts both files back as they were.
    """
    digest = hashlib.sha256(os.fsencode(workspace.manifest)).hexdigest()[:12]
    busy = f"changing `{workspace.manifest}`"
    with (
        store.locked(workspace.home, f"manifest.{digest}", busy=busy, wait_s=_WAIT_S),
        undo.restored_on_error(workspace.manifest, workspace.lockfile),
    ):
        yield


def write_pins(workspace: Workspace, pins: Mapping[str, Pin], or_hash: str | None = None) -> None:
    """Write the lockfile with `pins` and the hash of the manifest as it stands.

    What a pin leaves behind can be returned to. The caller holds `changing`.

    Raises:
        ManifestError: the manifest cannot be read, and there is no `or_hash` to write instead.
    """
    before = lockfile.read(workspace.lockfile).pins
    for name, pin in before.items():
        if name in pins and pins[name].folder != pin.folder:
            kept.keep(workspace, pin)
    try:
        servers_hash = manifest.load(workspace.manifest).servers_hash
    except ManifestError:
        if or_hash is None:
            raise
        servers_hash = or_hash
    lockfile.write(workspace.lockfile, Lock(servers_hash, pins))
    remember(workspace, pins)


def remember(workspace: Workspace, pins: Mapping[str, Pin]) -> None:
    """Note in the home which installed folder each locked name means."""
    workspaces.remember(workspace, {name: pin.folder for name, pin in pins.items()})


def prune(workspace: Workspace) -> None:
    """Drop the pins of servers the manifest no longer names."""
    with changing(workspace):
        wanted = manifest.load(workspace.manifest)
        lock = lockfile.read(workspace.lockfile)
        pins = {name: pin for name, pin in lock.pins.items() if name in wanted.servers}
        if len(pins) == len(lock.pins) and lock.manifest_hash == wanted.servers_hash:
            remember(workspace, pins)
        elif lock.pins:
            write_pins(workspace, pins)


def require_fresh(wanted: Manifest, lock: Lock) -> None:
    """Refuse a lockfile that does not answer exactly what the manifest asks.

    Raises:
        LockStale: `details["differences"]` says what differs, a sentence each.
    """
    packages = {s.name: s for s in wanted.servers.values() if s.package is not None}
    found = {name: difference(lock.pins.get(name), packages[name]) for name in packages}
    differences = [f"`{name}` {clause}" for name, clause in found.items() if clause]
    differences += [
        f"`{name}` is locked but not wanted" for name in lock.pins if name not in packages
    ]
    if not differences and packages and lock.manifest_hash != wanted.servers_hash:
        differences.append("`octave.toml` was changed since `octave.lock` was written")
    if differences:
        raise LockStale(
            f"`octave.lock` is stale: {'; '.join(differences)}",
            hint="run `octave install`, and commit `octave.lock`",
            details={"differences": differences},
        )
