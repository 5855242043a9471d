"""A lockfile that a merge left in conflict becomes whole again, with what both sides had locked.

Each pin is taken whole from one side, so that nothing is locked or approved that neither side
had. Whichever side is merged into the other, the result has the same bytes.
"""

import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from octave.errors import InstallFailed
from octave.home import Workspace
from octave.packages import commands, ledger, lockfile, manifest
from octave.packages.lockfile import Lock, Pin
from octave.packages.resolve import answers
from octave.packages.toml_text import merge_conflict

_GIT_TIMEOUT_S = 20.0
"""It reads one object from a local store."""
_GIT_ENVIRON = {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
"""A repository's configuration names programs to run: none of them for this."""
_OURS, _THEIRS = ":2:", ":3:"
"""What git calls the two sides of a conflict in its index."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is locked of a server that both sides may have."""

    pin: Pin
    note: str = ""
    """What a person should know about the choice."""


def settle(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, str]:
    """Replace a lockfile in conflict by a whole one; of each server, what should be known of it.

    A server for which neither side answers the manifest is left out, to be resolved anew. A
    lockfile without a conflict is not touched.

    Raises:
        IntegrityFailed: a side is of a newer format.
        Locked: another process holds the lockfile.
        OSError: it cannot be read or written.
    """
    with ledger.changing(workspace):
        content = workspace.lockfile.read_bytes() if workspace.lockfile.exists() else b""
        text = content.decode(errors="replace")
        if merge_conflict(text) is None:
            return {}
        texts = _kept_by_git(workspace.lockfile, environ) or sides(text)
        wanted = manifest.load(workspace.manifest)
        found = [pin for side in texts for pin in lockfile.sound_pins(side, workspace.lockfile)]
        chosen = {
            name: choose([pin for pin in found if pin.name == name and answers(pin, server)])
            for name, server in wanted.servers.items()
            if any(pin.name == name and answers(pin, server) for pin in found)
        }
        pins = {name: one.pin for name, one in chosen.items()}
        lockfile.write(workspace.lockfile, Lock(wanted.servers_hash, pins))
        ledger.remember(workspace, pins)
    return {name: one.note for name, one in chosen.items()}


def sides(text: str) -> tuple[str, str]:
    """Return the two texts that a merge put into one; what it held before both is left out."""
    ours: list[str] = []
    theirs: list[str] = []
    into: tuple[list[str], ...] = (ours, theirs)
    for line in text.splitlines(keepends=True):
        if merge_conflict(line) is None:
            for side in into:
                side.append(line)
        else:
            into = {"<": (ours,), "|": (), "=": (theirs,), ">": (ours, theirs)}[line[0]]
    return "".join(ours), "".join(theirs)


def choose(pins: Sequence[Pin]) -> Chosen:
    """Return the newest of `pins`, which all answer the same, one or more.

    Of the same packages in two of them, the approvals of both hold: but not for a tool that they
    approve differently.
    """
    # In the order of their bytes, so that it does not matter which side is whose.
    by_bytes = {lockfile.dump(Lock("", {pin.name: pin})): pin for pin in pins}
    ordered = [by_bytes[content] for content in sorted(by_bytes)]
    taken = functools.reduce(_later, ordered)
    return _with_approvals(taken, [pin for pin in ordered if pin is not taken])


def _later(one: Pin, other: Pin) -> Pin:
    # Loaded late: installing starts without what comparing versions takes.
    from octave.packages.versions import is_newer

    return one if is_newer(one.kind, one.version, other.version) else other


def _with_approvals(taken: Pin, others: Iterable[Pin]) -> Chosen:
    notes = []
    approved = {tool.name: tool for tool in taken.tools}
    doubtful: set[str] = set()
    for other in others:
        if other.version != taken.version:
            notes.append(f"both sides answer `octave.toml`: {other.version} is not taken")
        elif other.folder != taken.folder:
            notes.append(f"the sides lock {taken.version} with other dependencies: one is taken")
        else:
            for tool in other.tools:
                if approved.setdefault(tool.name, tool) != tool:
                    doubtful.add(tool.name)
    agreed = tuple(approved[name] for name in sorted(approved.keys() - doubtful))
    if doubtful:
        named = ", ".join(f"`{name}`" for name in sorted(doubtful))
        notes.append(f"the sides approve {named} differently: `octave approve {taken.name}`")
    # Without any, the next start would approve whatever it finds.
    return Chosen(replace(taken, tools=agreed or taken.tools), "; ".join(notes))


def _kept_by_git(path: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the sides as git keeps them; empty where it does not.

    They are exact: what one side alone changed, a merge writes into both.
    """
    git = shutil.which("git", path=environ.get("PATH", ""))
    if git is None:
        return []
    texts = []
    for side in (_OURS, _THEIRS):
        try:
            output = commands.run(
                (git, "-c", "core.fsmonitor=false", "cat-file", "blob", f"{side}./{path.name}"),
                cwd=path.parent,
                environ={**environ, **_GIT_ENVIRON},
                timeout_s=_GIT_TIMEOUT_S,
            )
        except InstallFailed:
            return []
        if output.exit_code:
            return []
        texts.append(output.stdout)
    return texts
