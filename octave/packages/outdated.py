"""Which servers have newer versions than the locked ones: asked of their registries, no more."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octave.errors import OctaveError, ServerNotFound
from octave.packages import bundles, lockfile, manifest, manifest_change, workspaces
from octave.packages.ecosystems.base import Newest
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.names import split_package
from octave.packages.newest import newest_of
from octave.packages.placement import Site
from octave.packages.resolve import of_manifest
from octave.packages.together import all_of
from octave.packages.versions import is_newer

AT_ONCE = 4
"""Each is a process that mostly waits for a network; more would fight for the processor."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one server stands against its registry."""

    name: str
    kind: str
    current: str | None
    """The locked version; None when nothing is locked for it."""
    wanted: str | None = None
    """The newest one in the manifest's range."""
    latest: str | None = None
    """The newest of all."""
    is_pinned: bool = False
    notes: tuple[str, ...] = ()
    """Why the newest cannot run here; sentences."""
    error: OctaveError | None = None
    """Why neither `wanted` nor `latest` is known."""

    @property
    def is_outdated(self) -> bool:
        """Whether there is something else to have."""
        if self.error is not None or self.wanted is None or self.latest is None:
            return False
        if self.current is None or self.wanted != self.current:
            return True
        return is_newer(self.kind, self.latest, self.current)


def look(names: Sequence[str], site: Site) -> list[Standing]:
    """Return how the named servers stand, all that have a package for none; in that order.

    A name that the manifest does not have is told last, beside what is known of the others.

    Raises:
        ServerNotFound: the manifest has none of them.
        ManifestError, NotTrusted, IntegrityFailed: manifest or lockfile cannot be used.
    """
    workspace = site.workspace
    wanted = manifest.load(workspace.manifest)
    servers: list[ServerEntry] = []
    unknown: list[Standing] = []
    for name in dict.fromkeys(names):
        try:
            servers.append(manifest_change.find_server(wanted, name))
        except ServerNotFound as error:
            unknown.append(Standing(name, "", None, error=error))
    if unknown and not servers and unknown[0].error is not None:
        raise unknown[0].error
    workspaces.require_trust(workspace, wanted)
    pins = lockfile.read(workspace.lockfile).pins
    packaged = [s for s in servers or wanted.servers.values() if s.package is not None]
    known = all_of(
        packaged, lambda server, _: _look(server, pins.get(server.name), site), hands=AT_ONCE
    )
    return [*known, *unknown]


def _look(server: ServerEntry, pin: Pin | None, site: Site) -> Standing:
    kind, package = split_package(server.package or "")
    current = pin.version if pin and (pin.kind, pin.package) == (kind, package) else None
    shown = server.name if kind == "mcpb" else package
    site.bench.progress(f"asking for versions of {shown}")
    try:
        wanted, latest = _newest(server, site)
        if current and site.bench.min_age is not None:
            # A locked version that is too young was chosen already: nothing leads back.
            wanted, latest = (
                Newest(current) if is_newer(kind, current, found.version) else found
                for found in (wanted, latest)
            )
    except OctaveError as error:
        if current and "tooYoung" in error.details:
            return Standing(server.name, kind, current, current, current, server.pinned)
        return Standing(server.name, kind, current, is_pinned=server.pinned, error=error)
    if kind == "oci" and wanted.version == current:
        told = (
            f"what `{package}:{current}` stands for by now only a pull can tell: "
            f"`octave update {server.name}`"
        )
        return Standing(
            server.name, kind, current, wanted.version, latest.version, server.pinned, (told,)
        )
    notes = {
        found.version: f"`{server.name}` {found.version} does not run here: {found.problem}"
        for found in (wanted, latest)
        if found.problem
    }
    return Standing(
        server.name,
        kind,
        current,
        wanted.version,
        latest.version,
        server.pinned,
        tuple(notes.values()),
    )


def _newest(server: ServerEntry, site: Site) -> tuple[Newest, Newest]:
    server = bundles.followed(server, site.registry)
    choice = of_manifest(server, site.registry)
    # Not in `staging`, where what bears no lock is swept: to look takes no lock.
    with tempfile.TemporaryDirectory(prefix="octave-") as folder:
        wanted = newest_of(choice, server.version, Path(folder), site.bench)
        if server.version == "*":
            return wanted, wanted
        return wanted, newest_of(choice, "*", Path(folder), site.bench)
