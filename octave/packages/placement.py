"""Make what a pin says lie on disk, whole and started once, or leave no trace of the attempt."""

import contextlib
import errno
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from octave.errors import IntegrityFailed, StartFailed
from octave.home import Workspace, private_folder
from octave.packages import containers, definitions, kept, lockfile, store, trial, workspaces
from octave.packages.ecosystems import ECOSYSTEMS
from octave.packages.ecosystems.base import Bench
from octave.packages.graph_rows import marked
from octave.packages.launch import LaunchSpec
from octave.packages.lockfile import Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.offered import Offered
from octave.packages.registry import Lookup, PackageChoice
from octave.packages.specs import spec_of_record
from octave.packages.store import Record

_READ_ONLY = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))


@dataclass(frozen=True, slots=True)
class Site:
    """Where things get installed, and with what."""

    workspace: Workspace
    registry: Lookup
    bench: Bench
    check: Callable[[LaunchSpec], Offered]
    """Starts a server once and asks what it offers; raises StartFailed."""
    changed: Callable[[], None] = lambda: None
    """Called when manifest or lockfile changed, before anything is deleted: a running runtime
    must reload."""
    swapped: Callable[[str], None] = lambda _: None
    """Called when that server has another version from now on: a running runtime must reload, and
    where the server was up have it up again; raises StartFailed when it does not come up."""
    start: bool = True
    """False: trust the files, do not start the server once."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A server that lies on disk."""

    pin: Pin
    """With what only the installed server could tell: its entry, its tools."""
    record: Record
    offered: Offered | None
    """None: it was not started this time."""
    status: str = "installed"
    """`installed`, or `present` when it was there before."""


def place(
    pin: Pin, wanted: Manifest, server: ServerEntry, known: PackageChoice | None, site: Site
) -> Placed:
    """Make sure that what `pin` says lies on disk, started once where it can be."""
    home = site.workspace.home
    found = store.find(home, pin.name, pin.folder)
    folder = home.servers / pin.name / pin.folder
    if found is None or not can_run(found, folder, site):
        return _build(pin, wanted, server, known, site)
    _require_claim(pin, known, folder)
    pin = _with_entry(pin, server, known, folder)
    record = brought_up_to(pin, found, folder, site)
    if record != found:
        ECOSYSTEMS[pin.kind].check(pin, site.bench, folder)
    if record.checked and pin.tools:
        return Placed(pin, record, None, "present")
    checked, offer = _try(record, folder, wanted, server, known, site)
    store.rewrite(home, checked, pin.folder)
    return Placed(_with_tools(pin, offer), checked, offer, "present")


def can_run(record: Record, folder: Path, site: Site) -> bool:
    """Whether interpreter and entry file, or the image, are there, and no audit found changes.

    Others update and remove them.
    """
    if store.is_suspect(folder):
        return False
    command = store.absolute(record.command, folder, site.workspace.home)
    if not all(Path(word).exists() for word in command):
        return False
    if record.kind != "oci":
        return True
    image = containers.reference(record.package, record.integrity)
    return containers.is_there(command[0], image, site.bench)


def brought_up_to(pin: Pin, record: Record, folder: Path, site: Site) -> Record:
    """Return `record`, or one that was not checked yet where `pin` now says something else.

    The folder is named after the packages alone: the same ones may be started in another way.
    """
    command = record.command
    # How a bundle is started it says itself, and the folder is named after its hash.
    if pin.kind != "mcpb" and not command[-1].endswith(f"/{pin.entry}"):
        argv = ECOSYSTEMS[pin.kind].argv(pin, folder, site.bench)
        command = store.portable(argv, folder, site.workspace.home)
    said = record_of(pin, command)
    before = replace(record, checked=False, tools=None, unchecked_reason="")
    return record if said == before else said


def _build(
    pin: Pin, wanted: Manifest, server: ServerEntry, known: PackageChoice | None, site: Site
) -> Placed:
    home, ecosystem = site.workspace.home, ECOSYSTEMS[pin.kind]
    staging = store.stage(home, pin.name)
    try:
        ecosystem.install(pin, staging, site.bench)
        _require_claim(pin, known, staging)
        pin = _with_entry(pin, server, known, staging)
        command = store.portable(ecosystem.argv(pin, staging, site.bench), staging, home)
        with _scripts_named(pin):
            record, offer = _try(record_of(pin, command), staging, wanted, server, known, site)
        pin = _with_tools(pin, offer)
        kept.keep_pin(staging, pin)
        store.publish(home, staging, record, pin.folder)
    finally:
        store.discard(staging)
    return Placed(pin, record, offer)


def _require_claim(pin: Pin, known: PackageChoice | None, place: Path) -> None:
    """Refuse a package that does not say itself that it is what a registry says it is.

    Anybody can name any package in a registry; only its author can make it agree. Before it is
    started.
    """
    if known is None or not known.claim:
        return
    if not ECOSYSTEMS[pin.kind].claims(pin.package, known.claim, place):
        raise IntegrityFailed(
            f"`{known.request}` {pin.version} does not say that it is `{known.claim}`, as a "
            "registry has it",
            hint="its author may not know of that entry; if you trust the package itself: "
            f"`octave install {known.request}`",
        )


def _with_entry(pin: Pin, server: ServerEntry, known: PackageChoice | None, place: Path) -> Pin:
    """Return `pin` with its entry, which some ecosystems can tell only from what is installed."""
    if pin.entry:
        return pin
    executable = server.executable or (known.executable if known else None)
    return replace(pin, entry=ECOSYSTEMS[pin.kind].find_entry(pin.package, executable, place))


def record_of(pin: Pin, command: tuple[str, ...]) -> Record:
    """Return the record of `pin`, not checked yet; `command` is portable."""
    return Record(
        name=pin.name,
        kind=pin.kind,
        package=pin.package,
        version=pin.version,
        integrity=pin.integrity,
        digest=pin.graph_digest,
        command=command,
        args=pin.args,
        env=pin.env,
        required_env=pin.required_env,
        env_one_of=pin.env_one_of,
        title=pin.title,
    )


def _try(
    record: Record,
    folder: Path,
    wanted: Manifest,
    server: ServerEntry,
    known: PackageChoice | None,
    site: Site,
) -> tuple[Record, Offered | None]:
    if not site.start:
        return replace(record, unchecked_reason="not started, as asked"), None
    try:
        private_folder(site.workspace.data(record.name))
        spec = spec_of_record(site.workspace, wanted, server, record, folder, site.bench.environ)
    except StartFailed as error:
        return trial.unchecked(record, error), None
    except OSError as error:
        if site.workspace.is_home or error.errno not in _READ_ONLY:
            raise
        # A checkout that a CI mounts read-only: what is installed lies in the home.
        reason = f"`{site.workspace.state}`, where its data belongs, cannot be written"
        return replace(record, unchecked_reason=reason), None
    site.bench.progress(f"starting `{record.name}` once")
    tried = trial.start_once(
        record,
        server,
        spec,
        site.check,
        trial.lacking(server, known),
    )
    missing = trial.lacking_arguments(server, known) if known is not None else None
    if tried[0].checked and missing is not None:
        site.bench.note(f"`{record.name}` starts, but {missing}")
    return tried


@contextlib.contextmanager
def _scripts_named(pin: Pin) -> Iterator[None]:
    """Say which install scripts were not run, where a server does not start: it may need them."""
    try:
        yield
    except StartFailed as error:
        idle = sorted(marked(pin.graph, "hasInstallScript") - marked(pin.graph, "runScripts"))
        if idle and not (error.hint or "").startswith("octave "):
            source = shlex.quote(f"{pin.kind}:{pin.package}")
            error.hint = (
                "it may need an install script, which was not run: "
                f"`octave install {source} --allow-scripts {','.join(idle)}`"
            )
        raise


def _with_tools(pin: Pin, offer: Offered | None) -> Pin:
    # What a lockfile brought along was approved by somebody: what differs is told, not taken over.
    if offer is None or pin.tools:
        return pin
    return replace(pin, tools=definitions.pins_of(offer.tools))


@contextlib.contextmanager
def undone_on_error(name: str, site: Site) -> Iterator[None]:
    """Take away what an attempt that failed has installed: the version, and its first data.

    The caller holds the lock of `name`: what was not there before is this attempt's. What a
    lockfile names stays, however late the attempt was cut off, and so does the data of a server
    that is locked: a runtime may have started it meanwhile.
    """
    home, data = site.workspace.home, site.workspace.data(name)
    before, had_data = store.folders(home, name), data.exists()
    try:
        yield
    except BaseException:
        own = _named(site.workspace.lockfile, name)
        named = {own, *(_named(path, name) for path in workspaces.known_lockfiles(home))}
        for folder in store.folders(home, name):
            if folder not in before and folder not in named:
                store.remove(home, name, folder)
        if not had_data:
            if own is None:
                shutil.rmtree(data, ignore_errors=True)
            with contextlib.suppress(OSError):
                data.rmdir()
            with contextlib.suppress(OSError):
                data.parent.rmdir()
                site.workspace.state.rmdir()
        raise


def _named(path: Path, name: str) -> str | None:
    try:
        pin = lockfile.read(path).pins.get(name)
    except IntegrityFailed:
        # It is not of our making, and what went wrong first is told.
        return None
    return pin.folder if pin else None
