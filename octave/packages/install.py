"""The story of installing: choose, resolve, build, start once, write down.

Short sequences of calls into the other modules. What exists on disk is decided by two renames:
the version's folder, then octave.lock. A crash anywhere before leaves the previous state.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from octave.errors import OctaveError, UsageError
from octave.packages import (
    ledger,
    lockfile,
    manifest,
    manifest_edit,
    offered,
    store,
    variables,
    workspaces,
)
from octave.packages.lockfile import Lock, Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.placement import Placed, Site, place, undone_on_error
from octave.packages.resolve import Choice, answers, choose, of_manifest, pin_of
from octave.packages.secrets import Secrets
from octave.packages.variables import Answers, Given


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to install."""

    text: str
    """`NAME[@RANGE]`, `npm:PKG[@RANGE]` or `pypi:PKG[@RANGE]`."""
    name: str | None = None
    args: tuple[str, ...] = ()
    answers: Answers = field(default_factory=Answers)
    executable: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one server."""

    name: str
    status: str
    """`installed`, `present`, `locked`, `removed` or `failed`."""
    version: str = ""
    checked: bool = False
    tools: int | None = None
    warning: str = ""
    error: OctaveError | None = None


def install(request: Request, site: Site) -> Outcome:
    """Install one server and write it into manifest and lockfile.

    A server that only lacks configuration or the network is installed unchecked, with a warning.

    Raises:
        OctaveError: nothing was installed, the previous state is untouched.
    """
    choice = choose(request.text, site.registry)
    for note in choice.entry.notes_for(choice.known) if choice.entry and choice.known else ():
        site.bench.note(note)
    name = _name_for(request, choice)
    home = site.workspace.home
    store.prepare(home)
    workspaces.require_trust(site.workspace, manifest.load(site.workspace.manifest))
    # May ask a person: nobody else waits for the answer, and no step is shown over the question.
    given = variables.sort(name, request.answers, choice.known, site.bench.environ)
    with store.locked(home, name, site.bench.progress):
        wanted = manifest.load(site.workspace.manifest)
        workspaces.require_trust(site.workspace, wanted)
        server = _as_wanted(wanted, choice, request, name, given)
        with _stored(Secrets(home), given), undone_on_error(name, site):
            pin = lockfile.read(site.workspace.lockfile).pins.get(name)
            if not answers(pin, server):
                pin = _resolved(choice, server, site)
            assert pin is not None
            placed = place(pin, wanted, server, choice.known, site)
            _write_down(site, placed, _table(server, request, given))
    site.changed()
    return _outcome(placed)


def install_all(site: Site, *, locked: bool) -> list[Outcome]:
    """Make this machine equal manifest and lockfile; one outcome for each server with a package.

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
    outcomes = [_install_wanted(server, wanted, lock, site, locked=locked) for server in servers]
    if locked:
        ledger.remember(site.workspace, lock.pins)
    else:
        ledger.prune(site.workspace)
    site.changed()
    return outcomes


def lock_all(site: Site) -> list[Outcome]:
    """Write a lockfile that answers the manifest, installing nothing; one outcome a server."""
    store.prepare(site.workspace.home)
    wanted = manifest.load(site.workspace.manifest)
    pins = lockfile.read(site.workspace.lockfile).pins
    servers = [server for server in wanted.servers.values() if server.package is not None]
    outcomes = [_lock_wanted(server, pins.get(server.name), site) for server in servers]
    ledger.prune(site.workspace)
    return outcomes


def _lock_wanted(server: ServerEntry, pin: Pin | None, site: Site) -> Outcome:
    try:
        if not answers(pin, server):
            with store.locked(site.workspace.home, server.name, site.bench.progress):
                pin = _resolved(of_manifest(server, site.registry), server, site)
            with ledger.changing(site.workspace):
                current = lockfile.read(site.workspace.lockfile).pins
                ledger.write_pins(site.workspace, {**current, server.name: pin})
    except OctaveError as error:
        return Outcome(server.name, "failed", error=error)
    assert pin is not None
    return Outcome(server.name, "locked", pin.version)


def _install_wanted(
    server: ServerEntry, wanted: Manifest, lock: Lock, site: Site, *, locked: bool
) -> Outcome:
    try:
        with (
            store.locked(site.workspace.home, server.name, site.bench.progress),
            undone_on_error(server.name, site),
        ):
            choice = of_manifest(server, site.registry)
            pin = lock.pins.get(server.name)
            if not answers(pin, server):
                pin = _resolved(choice, server, site)
            assert pin is not None
            placed = place(pin, wanted, server, choice.known, site)
            if locked:
                _keep_offered(site, placed)
            else:
                _write_down(site, placed, None)
            return _outcome(placed)
    except OctaveError as error:
        return Outcome(server.name, "failed", error=error)


def _resolved(choice: Choice, server: ServerEntry, site: Site) -> Pin:
    staging = store.stage(site.workspace.home, server.name)
    try:
        return pin_of(replace(choice, version_range=server.version), server, staging, site.bench)
    finally:
        store.discard(staging)


def _name_for(request: Request, choice: Choice) -> str:
    """Return the name in the manifest; checked here, since locks and folders bear it."""
    name = choice.name if request.name is None else request.name
    if not manifest.is_server_name(name):
        if request.name is None:
            raise UsageError(
                f"`{request.text}` gives no usable name", hint="choose one with `--as NAME`"
            )
        raise UsageError(
            f"`{name}` cannot name a server",
            hint="use up to 40 lower-case letters, digits and dashes",
        )
    return name


def _as_wanted(
    wanted: Manifest, choice: Choice, request: Request, name: str, given: Given
) -> ServerEntry:
    """Return the manifest's entry as it will stand after this install."""
    server = wanted.servers.get(name)
    if server is None:
        server = ServerEntry(name=name, package=choice.source)
    elif server.package != choice.source:
        raise UsageError(
            f"`{name}` already names `{server.package or 'another server'}` in `octave.toml`",
            hint=f"octave install {request.text} --as OTHER-NAME",
        )
    return replace(
        server,
        version=choice.version_range if choice.version_range != "*" else server.version,
        args=request.args or server.args,
        env={**server.env, **given.values},
        executable=request.executable or server.executable,
    )


def _table(server: ServerEntry, request: Request, given: Given) -> dict[str, object]:
    """Return the keys of the manifest's table that this install sets."""
    table: dict[str, object] = {"package": server.package}
    if server.version != "*":
        table["version"] = server.version
    if request.args:
        table["args"] = list(request.args)
    if request.executable:
        table["bin"] = request.executable
    if given.values:
        table["env"] = dict(server.env)
    return table


def _write_down(site: Site, placed: Placed, table: Mapping[str, object] | None) -> None:
    workspace, pin = site.workspace, placed.pin
    with ledger.changing(workspace):
        if table is not None:
            # Whoever changed it meanwhile does not become trusted by this.
            workspaces.require_trust(workspace, manifest.load(workspace.manifest))
            manifest_edit.add_server(workspace.manifest, pin.name, table)
        pins = lockfile.read(workspace.lockfile).pins
        ledger.write_pins(workspace, {**pins, pin.name: pin})
        _keep_offered(site, placed)
        if table is not None:
            workspaces.trust(workspace, manifest.load(workspace.manifest))


def _keep_offered(site: Site, placed: Placed) -> None:
    if placed.offered is not None:
        site.workspace.prepare()
        path = site.workspace.catalogue(placed.pin.name)
        offered.save(path, placed.offered, placed.pin.version, placed.pin.graph_digest)


@contextlib.contextmanager
def _stored(secrets: Secrets, given: Given) -> Iterator[None]:
    """Keep the given secrets if what follows succeeds, else what was stored before."""
    before = {key: secrets.get(key) for key in given.secrets}
    try:
        for key, value in given.secrets.items():
            secrets.set(key, value)
        yield
    except BaseException:
        for key, old in before.items():
            if old is None:
                secrets.remove(key)
            else:
                secrets.set(key, old)
        raise


def _outcome(placed: Placed) -> Outcome:
    record = placed.record
    warning = (
        "" if record.checked else f"`{record.name}` was not checked: {record.unchecked_reason}"
    )
    return Outcome(
        record.name, placed.status, record.version, record.checked, record.tools, warning
    )
