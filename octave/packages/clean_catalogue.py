"""Which files beside the catalogues nobody needs any more: those of servers that no manifest names.

Where a manifest is gone or cannot be read nothing is guessed: its files stay.
"""

from collections.abc import Iterator
from pathlib import Path

from octave.errors import OctaveError
from octave.home import Home, Workspace
from octave.packages import approvals, manifest, workspaces
from octave.packages.manifest import is_server_name


def orphans(home: Home) -> Iterator[tuple[str, Path]]:
    """Yield each, with the name of the server that it was about.

    The approvals of a lockfile are read again from that where their copy is missing; without a
    lockfile they are of nobody, and the name is empty.
    """
    for path in workspaces.known_manifests(home):
        workspace = Workspace(home, path)
        try:
            servers = manifest.load(path).servers if path.exists() else None
        except OctaveError:
            continue
        if servers is None:
            continue
        copy = approvals.copy_of_lock(workspace)
        if copy.exists() and not workspace.lockfile.exists():
            yield "", copy
        for found in sorted(copy.parent.glob("*.json")):
            name = found.name.removesuffix(".json").removesuffix(".approved")
            if found != copy and is_server_name(name) and name not in servers:
                yield name, found
