"""Make this machine, or the lockfile alone, equal what stands in the manifest."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from octave.errors import InstallFailed, IntegrityFailed, OctaveError, storage_told
from octave.packages import ledger, lock_conflict, lockfile, manifest, store, workspaces
from octave.packages.ecosystems import ECOSYSTEMS
from octave.packages.install import Outcome, keep_offered, outcome_of, resolved, write_down
from octave.packages.lockfile import Lock, Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.names import split_package
from octave.packages.placement import Site, place, undone_on_error
from octave.packages.resolve import answers, of_manifest
from octave.packages.together import Desk, all_of


def install_all(site: Site, *, locked: bool) -> list[Outcome]:
    """Make this machine equal manifest and lockfile; one outcome for each server with a package.

    Several are installed at once; outcomes and what is said of each come in the manifest's order.

    With `locked` the lockfile must already answer everything, and nothing is resolved or written.

    Raises:
        LockStale: `locked`, and the lockfile answers something else.
    """
    store.prepare(site.workspace.home)
    wanted = manifest.load(site.workspace.manifest)
    workspaces.require_trust(site.workspace, wanted)
    lock = lockfile.read(site.workspace.lockfile)
    if locked:
        ledger.require_fresh(wanted, lock)
    servers = [s for s in wanted.servers.values() if s.package is not None and s.enabled]

    def work(server: ServerEntry, desk: Desk) -> tuple[Outcome, _Said]:
        said: _Said = []
        beside = _beside(site, desk, said) if len(servers) > 1 else site
        return _install_wanted(server, wanted, lock, beside, desk, locked=locked), said

    outcomes = [outcome for outcome, _ in all_of(servers, work, _tell)]
    if locked:
        ledger.remember(site.workspace, lock.pins)
    else:
        ledger.prune(site.workspace)
    site.changed()
    return outcomes


def lock_all(site: Site) -> list[Outcome]:
    """Write a lockfile that answers the manifest, installing nothing; one outcome a server.

    One that a merge left in conflict is settled first. Of a manifest that is not trusted nothing
    is built.
    """
    store.prepare(site.workspace.home)
    wanted = manifest.load(site.workspace.manifest)
    notes = lock_conflict.settle(site.workspace, site.bench.environ)
    pins = lockfile.read(site.workspace.lockfile).pins
    servers = [server for server in wanted.servers.values() if server.package is not None]
    outcomes = [_lock_wanted(server, wanted, pins.get(server.name), site) for server in servers]
    outcomes = [replace(one, note=notes.get(one.name, "")) for one in outcomes]
    ledger.prune(site.workspace)
    return outcomes


def _lock_wanted(server: ServerEntry, wanted: Manifest, pin: Pin | None, site: Site) -> Outcome:
    try:
        before = pin if answers(pin, server) else None
        if pin is None or before is None or not _holds(before, site):
            if server.allow_build or split_package(server.package or "")[0] == "folder":
                workspaces.require_trust(site.workspace, wanted)
            with (
                storage_told(),
                store.locked(site.workspace.home, server.name, site.bench.progress),
            ):
                pin = resolved(of_manifest(server, site.registry), server, site)
                if before is not None:
                    # What was approved stays so: rows that were lost are no reason to ask less.
                    pin = replace(pin, tools=before.tools)
            with ledger.changing(site.workspace):
                current = lockfile.read(site.workspace.lockfile).pins
                ledger.write_pins(site.workspace, {**current, server.name: pin})
    except OctaveError as error:
        return Outcome(server.name, "failed", error=error)
    return Outcome(server.name, "locked", pin.version)


def _holds(pin: Pin, site: Site) -> bool:
    try:
        ECOSYSTEMS[pin.kind].check(pin, site.bench)
    except IntegrityFailed as error:
        site.bench.note(f"`{pin.name}` is locked anew: {error.message}")
        return False
    except InstallFailed:
        # Not for this machine; the lockfile is for others too.
        return True
    return True


_Said = list[Callable[[], None]]


def _beside(site: Site, desk: Desk, said: _Said) -> Site:
    """Return `site` for one of several threads; what it has to say goes to `said`.

    Each server's sentences stay together, and servers are started one after another.
    """
    bench = replace(
        site.bench,
        note=lambda text: said.append(partial(site.bench.note, text)),
        detail=lambda text: said.append(partial(site.bench.detail, text)),
        # Of which of them, nobody could tell.
        counted=lambda _done, _total, _unit: None,
    )
    return replace(site, bench=bench, check=lambda spec: desk.do(partial(site.check, spec)))


def _tell(result: tuple[Outcome, _Said]) -> None:
    for say in result[1]:
        say()


def _install_wanted(
    server: ServerEntry, wanted: Manifest, lock: Lock, site: Site, desk: Desk, *, locked: bool
) -> Outcome:
    write = keep_offered if locked else write_down
    try:
        with (
            storage_told(),
            store.locked(site.workspace.home, server.name, site.bench.progress),
            undone_on_error(server.name, site),
        ):
            pin = lock.pins.get(server.name)
            is_locked = answers(pin, server)
            choice = desk.do(partial(of_manifest, server, site.registry, is_locked=is_locked))
            if not is_locked:
                pin = resolved(choice, server, site)
            assert pin is not None
            placed = place(pin, wanted, server, choice.known, site)
            desk.do(partial(write, site, placed))
            return outcome_of(placed)
    except OctaveError as error:
        return Outcome(server.name, "failed", error=error)
