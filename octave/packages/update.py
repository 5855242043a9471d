"""The story of an update: the new version beside the old one, started once, shown, agreed to.

Only then do lockfile and runtime change, and both return to the old version by themselves where
the new one does not come up. The old version stays on disk.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    RuntimeSilent,
    StartFailed,
    VersionNotFound,
)
from octave.packages import (
    allowed,
    bundles,
    ledger,
    lockfile,
    manifest,
    manifest_change,
    neighbours,
    offered,
    store,
    workspaces,
)
from octave.packages.install import Outcome, keep_offered, resolved
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.newest import newest_of
from octave.packages.package_changes import (
    PackageChanges,
    package_changes,
    republished,
    with_scripts,
)
from octave.packages.placement import Placed, Site, place, undone_on_error
from octave.packages.resolve import Choice, answers, of_manifest
from octave.packages.store import Record
from octave.packages.swap import Old, swap
from octave.packages.tool_changes import ToolChanges, tool_changes
from octave.packages.versions import is_newer

_NAMED = 3
"""So many packages are named; the rest is a number."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an update brings to one server; it is installed beside the old one by now."""

    before: Pin
    after: Pin
    record: Record
    packages: PackageChanges
    scripts: tuple[str, ...]
    """Packages with install scripts that were not there before."""
    tools: ToolChanges | None
    """None: it could not be started, as the old one could not."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How far an update may go."""

    agrees: Callable[[Change], bool]
    """Shows the change and tells whether it may happen."""
    begins: Callable[[Pin, Pin], None] = lambda _, __: None
    """Called when something would change, before anything is installed; may raise."""
    only_tells: bool = False
    """Say whether something would change, and install nothing."""
    asks: bool = False
    """`agrees` waits for a person: others may do something to the server meanwhile."""


class _Declined(Exception):
    """Leaves an update on the way that undoes it; says what would have come of it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.name)
        self.outcome = outcome


def update(name: str, site: Site, terms: Terms) -> Outcome:
    """Bring one server to the newest version of its range, or leave everything as it was.

    Raises:
        ServerNotFound: the manifest has no such server.
        InstallFailed: it is not installed, or the new version cannot be.
        IntegrityFailed: a version that is locked has other contents in its registry by now.
        RegistryUnreachable: nobody can say what the newest version is.
        StartFailed: the new version does not start; the old one goes on. Or a running runtime has
            an older one than the lockfile, and the locked one does not start there.
    """
    workspace = site.workspace
    wanted = manifest.load(workspace.manifest)
    server = manifest_change.find_server(wanted, name)
    workspaces.require_trust(workspace, wanted)
    pin = lockfile.read(workspace.lockfile).pins.get(name)
    reason = _reason_to_leave(server)
    if reason:
        return Outcome(name, "kept", pin.version if pin else "", note=reason)
    store.prepare(workspace.home)
    try:
        with (
            store.locked(workspace.home, name, site.bench.progress) as given_up,
            undone_on_error(name, site),
        ):
            return _update(name, site, _without_lock(terms, given_up))
    except _Declined as declined:
        return declined.outcome


def _without_lock(
    terms: Terms, given_up: Callable[[], contextlib.AbstractContextManager[None]]
) -> Terms:
    def agrees(change: Change) -> bool:
        with given_up():
            return terms.agrees(change)

    return replace(terms, agrees=agrees) if terms.asks else terms


def _reason_to_leave(server: ServerEntry) -> str:
    if server.package is None:
        return f"`{server.name}` comes from no package, so Octave cannot update it"
    if server.pinned:
        return f"`{server.name}` is pinned: `octave unpin {server.name}` lets it be updated"
    if not server.enabled:
        return f"`{server.name}` is disabled: `octave enable {server.name}` first"
    return ""


def _update(name: str, site: Site, terms: Terms) -> Outcome:
    workspace, home = site.workspace, site.workspace.home
    wanted = manifest.load(workspace.manifest)
    workspaces.require_trust(workspace, wanted)
    server = manifest_change.find_server(wanted, name)
    before = lockfile.read(workspace.lockfile).pins.get(name)
    record = None if before is None else store.find(home, name, before.folder)
    if before is None or record is None:
        raise InstallFailed(f"`{name}` is not installed", hint="octave install")
    server = bundles.followed(server, site.registry)
    choice = of_manifest(server, site.registry)
    after = _newest(choice, server, before, site)
    if after == before:
        warning = "" if terms.only_tells else _had(name, site)
        return Outcome(name, "current", before.version, record.checked, record.tools, warning)
    _refuse_republished(before, after)
    facts: dict[str, object] = {"packages": _packages_json(package_changes(before, after))}
    if terms.only_tells:
        return Outcome(name, "available", after.version, previous=before.version, facts=facts)
    terms.begins(before, after)
    with _record_back_on_error(site, before, after, record):
        placed = _placed(choice, server, before, after, site)
        _require_as_good(record, placed)
        change = _change(before, placed, site)
        if change.tools is not None and placed.offered is not None:
            facts["toolChanges"] = _tools_json(change.tools)
            looks = neighbours.suspicions_of(workspace, name, placed.offered)
            facts["suspicious"] = [each.as_json() for each in looks]
        if not terms.agrees(change):
            refused = facts | {"available": after.version}
            raise _Declined(Outcome(name, "kept", before.version, facts=refused))
        earlier = workspaces.previous(workspace).get(name)
        _write_down(site, before, placed)
        site.bench.progress(f"changing `{name}` over to {after.version}")
        old = Old(before, record, earlier, partial(bundles.write_name, workspace, before))
        swap(site, old, after.version)
    return Outcome(
        name,
        "updated",
        after.version,
        placed.record.checked,
        placed.record.tools,
        warning="" if placed.record.checked else _unchecked(placed.record),
        previous=before.version,
        facts=facts,
    )


def _had(name: str, site: Site) -> str:
    """Let a running runtime have the locked version; return why nobody knows whether it has."""
    try:
        # An update that was killed may have left it with the version before.
        site.swapped(name)
    except RuntimeSilent as error:
        return f"{error.message}, and may have another version: {error.hint}"
    return ""


def _refuse_republished(before: Pin, after: Pin) -> None:
    """Refuse what has other contents under a version that is locked: no author does that."""
    found = republished(before, after)
    if found:
        named = ", ".join(f"`{each}`" for each in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise IntegrityFailed(
            f"the registry has other contents for {named}{more} than `octave.lock` has hashes of, "
            f"so `{before.name}` stays as it is",
            hint=f"find out why; `octave uninstall {before.name}` and an installation trust it",
        )


def _newest(choice: Choice, server: ServerEntry, before: Pin, site: Site) -> Pin:
    """Return the pin of the newest version; `before` itself where it says the same."""
    scratch = store.stage(site.workspace.home, server.name)
    try:
        # What resolves may answer from a cache where the registry cannot be reached.
        newest_of(choice, server.version, scratch, site.bench)
        after = resolved(choice, server, site)
    except VersionNotFound as error:
        if "tooYoung" not in error.details:
            raise
        site.bench.note(error.message)
        return before
    finally:
        store.discard(scratch)
    if site.bench.min_age is not None and is_newer(before.kind, before.version, after.version):
        # It was chosen before anybody asked for its age.
        return before
    # The first two are known only once it is installed; the last is this machine's affair.
    found = replace(
        after,
        tools=before.tools,
        entry=after.entry or before.entry,
        toolchain=before.toolchain,
    )
    return before if found == before else after


def _placed(choice: Choice, server: ServerEntry, before: Pin, after: Pin, site: Site) -> Placed:
    for note in allowed.in_vain(after, server):
        site.bench.note(note)
    wanted = manifest.load(site.workspace.manifest)
    try:
        placed = place(after, wanted, server, choice.known, site)
    except StartFailed as error:
        raise StartFailed(
            f"`{server.name}` stays at {before.version}: {error.message}",
            hint=error.hint,
            details=error.details,
        ) from error
    if placed.offered is None:
        # Nobody has seen its tools: what was approved is what they must be.
        return replace(placed, pin=replace(placed.pin, tools=before.tools))
    return placed


def _require_as_good(record: Record, placed: Placed) -> None:
    """Refuse a version that does not start where the old one did: nobody saw its tools."""
    new = placed.record
    if record.checked and not new.checked:
        raise StartFailed(
            f"`{new.name}` stays at {record.version}: {new.version} does not start with what it "
            f"is given here: {new.unchecked_reason}",
            hint=f"octave install {new.name} -e KEY, or `octave set`, then try again",
        )


def _change(before: Pin, placed: Placed, site: Site) -> Change:
    known = offered.load(site.workspace.catalogue(before.name), before.version, before.graph_digest)
    offer = placed.offered
    # It is shown now, and asked about.
    site.bench.progress("")
    return Change(
        before,
        placed.pin,
        placed.record,
        package_changes(before, placed.pin),
        tuple(sorted(with_scripts(placed.pin) - with_scripts(before))),
        None if offer is None else tool_changes(known, before.tools, offer),
    )


@contextlib.contextmanager
def _record_back_on_error(site: Site, before: Pin, after: Pin, record: Record) -> Iterator[None]:
    """Let the old version be started as before where both share a folder: the same packages."""
    try:
        yield
    except BaseException:
        is_there = store.find(site.workspace.home, before.name, before.folder) is not None
        if before.folder == after.folder and is_there:
            store.rewrite(site.workspace.home, record, before.folder)
        raise


def _write_down(site: Site, before: Pin, placed: Placed) -> None:
    workspace, name = site.workspace, before.name
    with ledger.changing(workspace):
        wanted = manifest.load(workspace.manifest)
        workspaces.require_trust(workspace, wanted)
        pins = lockfile.read(workspace.lockfile).pins
        server = wanted.servers.get(name)
        named = None if server is None else bundles.named(server, placed.pin)
        is_as_it_was = named is not None and answers(placed.pin, named) and pins.get(name) == before
        if not is_as_it_was or store.find(workspace.home, name, placed.pin.folder) is None:
            raise OctaveError(
                f"`{name}` was changed by somebody else meanwhile, so it was not updated",
                hint=f"octave update {name}",
            )
        bundles.write_name(workspace, placed.pin)
        ledger.write_pins(workspace, {**pins, name: placed.pin})
        keep_offered(site, placed)


def _unchecked(record: Record) -> str:
    return f"`{record.name}` was not checked: {record.unchecked_reason}"


def _packages_json(changes: PackageChanges) -> dict[str, object]:
    changed = {name: {"from": old, "to": new} for name, (old, new) in changes.changed.items()}
    return {"added": dict(changes.added), "removed": dict(changes.removed), "changed": changed}


def _tools_json(changes: ToolChanges) -> dict[str, object]:
    return {
        "added": [tool.name for tool in changes.added],
        "removed": list(changes.removed),
        "changed": [{"name": tool.name, "diff": "\n".join(tool.diff)} for tool in changes.changed],
        "instructions": "\n".join(changes.instructions) or None,
    }
