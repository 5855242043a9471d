"""Approve definitions of tools: show what differs from what was approved, and write it down."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from octave.errors import ToolNotFound, did_you_mean
from octave.home import Workspace
from octave.packages import approvals, ledger, lockfile
from octave.packages.definitions import Finding, ToolPin, difference, findings, pins_of
from octave.packages.launch import LaunchSpec
from octave.packages.lockfile import Lock


@dataclass(frozen=True, slots=True)
class Change:
    """A tool that is not as it was approved."""

    tool: str
    finding: Finding
    diff: tuple[str, ...]
    """Lines as of `definitions.difference`."""
    definition: bytes
    is_text_known: bool
    """Whether the diff had something to compare with; so it has for a new tool."""


def changes(
    workspace: Workspace, spec: LaunchSpec, tools: Sequence[bytes], names: Collection[str] = ()
) -> list[Change]:
    """Return what among `tools` was not approved; those of `names`, all when none is named.

    What cannot be read without doubt cannot be approved, and of two tools with one name only the
    first.

    Raises:
        ToolNotFound: the server has no tool of one of `names`.
    """
    offered = _by_name(tools)
    for name in names:
        if name not in offered:
            raise ToolNotFound(
                f"`{spec.name}` has no tool `{name}`",
                hint=did_you_mean(name, offered) or f"octave tools {spec.name}",
            )
    approved = spec.approvals.tools or {}
    kept = approvals.texts(workspace.catalogue(spec.name), spec.version, spec.digest) or {}
    found = []
    for name, (pin, definition) in sorted(offered.items()):
        finding = findings([definition], approved).get(0)
        if finding is None or (names and name not in names):
            continue
        before = kept.get(name)
        if before is not None and pins_of([before]) != (approved.get(pin.name),):
            before = None
        diff = tuple(difference(before, definition))
        is_known = before is not None or finding == "new"
        found.append(Change(name, finding, diff, definition, is_known))
    return found


def approve(
    workspace: Workspace, spec: LaunchSpec, tools: Sequence[bytes], names: Collection[str] = ()
) -> None:
    """Approve of `tools` those of `names`; without any, all, and nothing that is not there.

    Raises:
        IntegrityFailed: the lockfile cannot be read.
        Locked: another process holds it.
        OSError: something cannot be written.
    """
    offered = _by_name(tools)
    pins: dict[str, ToolPin] = {name: pin for name, (pin, _) in offered.items()}
    if names:
        pins = {**(spec.approvals.tools or {}), **{name: pins[name] for name in names}}
    with ledger.changing(workspace):
        lock = lockfile.read(workspace.lockfile)
        catalogue = workspace.catalogue(spec.name)
        approvals.keep(catalogue, spec.version, spec.digest, pins, tools)
        pin = lock.pins.get(spec.name)
        if pin is not None:
            ordered = tuple(pins[name] for name in sorted(pins))
            changed = {**lock.pins, spec.name: replace(pin, tools=ordered)}
            # Whether it answers the manifest is not what was asked for: that stays as it was.
            lockfile.write(workspace.lockfile, Lock(lock.manifest_hash, changed))
            ledger.remember(workspace, changed)


def _by_name(tools: Sequence[bytes]) -> dict[str, tuple[ToolPin, bytes]]:
    found: dict[str, tuple[ToolPin, bytes]] = {}
    for tool in tools:
        for pin in pins_of([tool]):
            found.setdefault(pin.name, (pin, tool))
    return found
