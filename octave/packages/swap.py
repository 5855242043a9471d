"""A running runtime takes another version over, or lockfile and manifest are as they were.

The runtime starts the other version beside the one that serves, which it ends only then: where that
fails nobody has noticed anything.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from octave.errors import ManifestError, NotTrusted, OctaveError, StartFailed
from octave.packages import kept, ledger, lockfile, store, workspaces
from octave.packages.lockfile import Pin
from octave.packages.placement import Site
from octave.packages.store import Record


@dataclass(frozen=True, slots=True)
class Old:
    """What is returned to when the other version does not come up."""

    pin: Pin
    record: Record
    previous: str | None
    """The folder that a rollback meant before."""
    put_back: Callable[[], object] = lambda: None
    """Undoes what else was changed; under the lock of manifest and lockfile."""


def swap(site: Site, old: Old, version: str) -> None:
    """Let the runtime have the version that the lockfile names by now, or return to the old one.

    Raises:
        ManifestError, NotTrusted: the manifest was edited meanwhile; the old one serves on.
        StartFailed: the other version did not become ready; the old one serves on.
    """
    name = old.pin.name
    try:
        site.swapped(name)
    except BaseException as error:
        _return(site, old)
        if not isinstance(error, OctaveError):
            raise
        if isinstance(error, ManifestError | NotTrusted):
            raise type(error)(
                f"`{name}` stays at {old.pin.version}: {error.message}",
                hint=error.hint,
                details=error.details,
            ) from error
        raise StartFailed(
            f"`{name}` {version} did not become ready in the running runtime, "
            f"so {old.pin.version} is back: {error.message}",
            hint=error.hint,
            details=error.details,
        ) from error


def _return(site: Site, old: Old) -> None:
    workspace, name = site.workspace, old.pin.name
    store.rewrite(workspace.home, old.record, old.pin.folder)
    with ledger.changing(workspace):
        # What was edited meanwhile and cannot be read stays as it is; the lockfile must not wait.
        with contextlib.suppress(ManifestError):
            old.put_back()
        lock = lockfile.read(workspace.lockfile)
        ledger.write_pins(workspace, {**lock.pins, name: old.pin}, or_hash=lock.manifest_hash)
        kept.restore_lists(workspace, old.pin)
        workspaces.set_previous(workspace, name, old.previous)
    site.changed()
