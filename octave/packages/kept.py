"""What it takes to return to a version that was left: its lock entry and its lists, in its folder.

So that a return needs no network and is exact: the tools that were approved, the arguments, the
whole graph.
"""

import contextlib
from pathlib import Path

from octave.errors import OctaveError
from octave.home import Home, Workspace, atomic_write
from octave.packages import lockfile, offered, store
from octave.packages.lockfile import Lock, Pin

PIN = "pin.lock"
"""A lockfile with this server alone, which answers no manifest."""
LISTS = "offered.json"


def keep(workspace: Workspace, pin: Pin) -> None:
    """Keep `pin`, and what the server offered, in the folder of the version, if that is there.

    Raises:
        OSError: it cannot be written.
    """
    folder = workspace.home.servers / pin.name / pin.folder
    if not (folder / store.RECORD).exists():
        return
    keep_pin(folder, pin)
    known = offered.load(workspace.catalogue(pin.name), pin.version, pin.graph_digest)
    if known is not None:
        offered.save(folder / LISTS, known, pin.version, pin.graph_digest)


def keep_pin(folder: Path, pin: Pin) -> None:
    """Keep `pin` in the folder of its version: a lockfile may lose it without our doing.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write(folder / PIN, lockfile.dump(Lock("", {pin.name: pin})))


def pins(home: Home, name: str) -> dict[str, Pin]:
    """Return the versions of `name` that can be returned to, by their folder, last left last."""
    found: dict[str, Pin] = {}
    for folder in sorted(store.folders(home, name), key=lambda each: _left_at(home, name, each)):
        # One that cannot be read cannot be returned to.
        with contextlib.suppress(OctaveError):
            pin = lockfile.read(_place(home, name, folder) / PIN).pins.get(name)
            if pin is not None and pin.folder == folder:
                found[folder] = pin
    return found


def restore_lists(workspace: Workspace, pin: Pin) -> None:
    """Make what the version offered known again, if that was kept.

    Raises:
        OSError: it cannot be written.
    """
    folder = workspace.home.servers / pin.name / pin.folder
    known = offered.load(folder / LISTS, pin.version, pin.graph_digest)
    if known is not None:
        offered.save(workspace.catalogue(pin.name), known, pin.version, pin.graph_digest)


def _left_at(home: Home, name: str, folder: str) -> float:
    try:
        return (_place(home, name, folder) / PIN).stat().st_mtime
    except OSError:
        return 0.0


def _place(home: Home, name: str, folder: str) -> Path:
    return home.servers / name / folder
