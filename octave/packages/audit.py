"""The audit of a workspace: what is on disk, approved, deprecated, run at install, or suspicious.

Reads files, starts nothing and works offline. A version whose files were changed is noted as such.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from octave.errors import UNWRITABLE, OctaveError
from octave.home import Workspace
from octave.packages import audit_files, lockfile, manifest, offered, store, suspicious
from octave.packages.definitions import findings, pins_of
from octave.packages.graph_rows import row_name
from octave.packages.launch import LaunchSpec
from octave.packages.lockfile import Pin
from octave.packages.names import split_package
from octave.packages.offered import Offered
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import difference

Kind = Literal["files", "lock", "definitions", "deprecated", "scripts", "suspicious"]
_NAMED = 3
"""So many tools or files stand for all; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and the command that mends it."""

    server: str
    kind: Kind
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit has found, and what it could not look at."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def audit(
    workspace: Workspace,
    specs: Mapping[str, LaunchSpec],
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Look at every server of `specs`, by name.

    Raises:
        ManifestError, IntegrityFailed: manifest or lockfile cannot be read.
        OSError: the disk cannot be.
    """
    wanted = manifest.load(workspace.manifest)
    pins = lockfile.read(workspace.lockfile).pins
    lists = {
        name: known
        for name, spec in specs.items()
        if (known := offered.load(workspace.catalogue(name), spec.version, spec.digest))
    }
    found: list[Finding] = []
    notes: list[str] = []
    for name, spec in specs.items():
        progress(f"looking at `{name}`")
        server = wanted.servers[name]
        if server.package is not None:
            pin = pins.get(name)
            stale = difference(pin, server)
            if stale:
                found.append(Finding(name, "lock", f"`{name}` {stale}", "octave install"))
            if pin is not None:
                found += _on_disk(workspace, pin, notes)
                found += _scripts(pin, notes)
            found += _deprecated(name, server.package)
        if name in lists:
            found += _unapproved(spec, lists[name])
            found += _suspicious(name, lists)
    return Report(tuple(found), tuple(notes))


def _on_disk(workspace: Workspace, pin: Pin, notes: list[str]) -> Iterator[Finding]:
    home, fix = workspace.home, "octave install"
    with contextlib.ExitStack() as held:
        # Where nothing can be written, nobody installs or removes it meanwhile.
        try:
            held.enter_context(store.locked(home, pin.name))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
        try:
            store.require(home, pin.name, pin.folder)
            wrong = audit_files.differences(home, pin)
        except audit_files.Unverifiable as reason:
            notes.append(f"the files of `{pin.name}` could not be compared: {reason}")
            return
        except OctaveError as error:
            yield Finding(pin.name, "files", error.message, error.hint or fix)
            return
    store.suspect(home.servers / pin.name / pin.folder, is_so=bool(wrong))
    if wrong:
        yield Finding(pin.name, "files", f"{_some(wrong)} in `{pin.name}` {pin.version}", fix)


def _scripts(pin: Pin, notes: list[str]) -> Iterator[Finding]:
    ran = sorted({f"`{row_name(row)}`" for row in pin.graph if row.get("runScripts")})
    others = {f"`{row_name(row)}`" for row in pin.graph if row.get("hasInstallScript")}
    if ran:
        text = f"install scripts of {_some(ran)} were run for `{pin.name}`"
        yield Finding(pin.name, "scripts", text, f"octave info {pin.name}")
    left = sorted(others - set(ran))
    if left:
        notes.append(f"`{pin.name}` has install scripts that were not run: {_some(left)}")


def _deprecated(name: str, package: str) -> Iterator[Finding]:
    kind, identifier = split_package(package)
    entry = Registry(bundled_folder()).find_package(kind, identifier)
    choice = None if entry is None else entry.package(kind, identifier)
    if entry is not None and (entry.deprecated is not None or (choice and choice.archived)):
        said = entry.deprecated or "archived upstream, no longer maintained"
        fix = f"octave info {entry.short_name}"
        yield Finding(name, "deprecated", f"`{name}` is {said}", fix)


def _unapproved(spec: LaunchSpec, known: Offered) -> Iterator[Finding]:
    if spec.approvals.mode == "allow":
        return
    fix = f"octave approve {spec.name}"
    if spec.approvals.tools is None:
        if known.tools:
            text = f"nobody has approved the tools of `{spec.name}` yet"
            yield Finding(spec.name, "definitions", text, fix)
        return
    different = findings(known.tools, spec.approvals.tools)
    names = [f"`{pin.name}`" for place in different for pin in pins_of([known.tools[place]])]
    if names:
        text = f"{_some(names)} of `{spec.name}` not as approved"
        yield Finding(spec.name, "definitions", text, fix)
    if any(finding == "unreadable" for finding in different.values()):
        text = f"`{spec.name}` lists tools that cannot be read without doubt"
        yield Finding(spec.name, "definitions", text, f"octave tools {spec.name}")


def _suspicious(name: str, lists: Mapping[str, Offered]) -> Iterator[Finding]:
    known = lists[name]
    own = set(known.names())
    others = {other: set(offer.names()) - own for other, offer in lists.items() if other != name}
    looks = suspicious.of_tools(known.tools, others)
    looks += suspicious.of_server(known.initialize, others)
    for kind in ("prompts", "resources", "resourceTemplates"):
        looks += suspicious.of_tools(known.lists.get(kind, ()))
    for each in looks:
        text = f"{name}: {each.sentence} ({each.severity})"
        yield Finding(name, "suspicious", text, f"octave tools {name} --schema")


def _some(named: list[str]) -> str:
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
