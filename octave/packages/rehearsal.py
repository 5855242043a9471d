"""What an installation would do, found out without doing it.

Resolved for real, but for what only code of a package could tell: none of it runs, not even to
build it. Written are only Octave's caches. A node that is missing here lands in a scratch
folder, and goes with it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from octave.errors import OctaveError
from octave.home import Home, private_folder
from octave.packages import allowed, ledger, lockfile, manifest, store, variables, workspaces
from octave.packages.imitation import imitated
from octave.packages.install import Request, as_wanted, wish_of
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.placement import Site
from octave.packages.plan import Plan, plan_of
from octave.packages.preview import download_bytes
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import Choice, answers, of_manifest, pin_of


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would become of one server."""

    name: str
    plan: Plan | None = None
    is_locked: bool = False
    """The lockfile answers it already: nothing would be chosen."""
    is_present: bool = False
    """It lies on disk: nothing would be fetched."""
    download_bytes: int | None = None
    """What would be fetched, at most; None where nobody tells."""
    error: OctaveError | None = None


def rehearse(request: Request, site: Site) -> Rehearsed:
    """Return what `install` would do for `request`.

    Raises:
        OctaveError: as `install`, as far as that is known without installing.
    """
    request, choice, name = wish_of(request, site)
    before = manifest.load(site.workspace.manifest)
    workspaces.require_trust(site.workspace, before)
    words = replace(request.answers, ask=None)
    given = variables.sort(name, words, choice.known, site.bench.environ)
    server = as_wanted(before, choice, request, name, given)
    found = _rehearsed(server, choice, site)
    if found.plan is not None:
        allowed.require_there(found.plan.pin, request.scripts, request.builds)
    if choice.entry is not None or found.plan is None:
        return found
    looks_like = imitated(choice.kind, choice.package, Registry(bundled_folder()))
    return replace(found, plan=replace(found.plan, looks_like=looks_like))


def rehearse_all(site: Site, *, locked: bool) -> list[Rehearsed]:
    """Return what `sync.install_all` would do for each server with a package.

    Raises:
        LockStale: `locked`, and the lockfile answers something else.
    """
    wanted = manifest.load(site.workspace.manifest)
    workspaces.require_trust(site.workspace, wanted)
    if locked:
        ledger.require_fresh(wanted, lockfile.read(site.workspace.lockfile))
    servers = [s for s in wanted.servers.values() if s.package is not None and s.enabled]
    return [_rehearsed_wanted(server, site) for server in servers]


def _rehearsed_wanted(server: ServerEntry, site: Site) -> Rehearsed:
    try:
        pin = lockfile.read(site.workspace.lockfile).pins.get(server.name)
        choice = of_manifest(server, site.registry, is_locked=answers(pin, server))
        return _rehearsed(server, choice, site)
    except OctaveError as error:
        return Rehearsed(server.name, error=error)


def _rehearsed(server: ServerEntry, choice: Choice, site: Site) -> Rehearsed:
    pin = locked = lockfile.read(site.workspace.lockfile).pins.get(server.name)
    is_locked = answers(locked, server)
    with _scratch(site) as (folder, scratch):
        (folder / "resolve").mkdir()
        if pin is None or not is_locked or choice.names_folder:
            pin = _pin(choice, server, folder / "resolve", scratch)
            is_locked = is_locked and locked is not None and locked.folder == pin.folder
        (folder / "plan").mkdir()
        plan = plan_of(pin, choice, server, site=scratch, staging=folder / "plan")
        is_present = store.find(site.workspace.home, server.name, pin.folder) is not None
        size = 0 if is_present else None
        if not is_present and plan.is_whole:
            size = download_bytes(pin, folder / "plan", scratch.bench)
        # Where it really would lie.
        real = str(site.workspace.home.root)
        scratch_root = str(scratch.bench.home.root)
        command = tuple(word.replace(scratch_root, real) for word in plan.command)
    return Rehearsed(server.name, replace(plan, command=command), is_locked, is_present, size)


def _pin(choice: Choice, server: ServerEntry, staging: Path, site: Site) -> Pin:
    return pin_of(replace(choice, version_range=server.version), server, staging, site.bench)


@contextmanager
def _scratch(site: Site) -> Iterator[tuple[Path, Site]]:
    """Yield a folder, and `site` with a home in it that shares the caches and nodes of the real."""
    real = site.workspace.home
    with tempfile.TemporaryDirectory(prefix="octave-") as name:
        home = Home(Path(name) / "home")
        home.root.mkdir(mode=0o700)
        if real.root.is_dir():
            private_folder(real.cache)
            home.cache.symlink_to(real.cache)
        for node in real.runtimes.glob("*/*"):
            shared = home.runtimes / node.relative_to(real.runtimes)
            shared.parent.mkdir(parents=True, exist_ok=True)
            shared.symlink_to(node)
        yield Path(name), replace(site, bench=replace(site.bench, home=home, runs_code=False))
