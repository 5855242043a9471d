"""What was approved of each server's tools, as it is found at a launch.

The lockfile says it by hashes; what it does not lock, servers with a command or an address of
their own and those that could not be started yet, has but the file beside its catalogue. That
file holds definitions whole, so that a change can be shown as a diff; where the lockfile speaks,
it only lends them their text.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from octave.errors import IntegrityFailed
from octave.home import Workspace, atomic_write, private_folder
from octave.packages import lockfile, offered, state_file
from octave.packages.definitions import Approved, ToolPin, definition_hashes, pins_of
from octave.packages.launch import Approvals, LaunchSpec

FORMAT = 1

_Hashes = dict[str, dict[str, tuple[str, str]]]
"""By server and tool: its sha256, and that of its annotations."""


class _Texts(msgspec.Struct):
    format: int
    version: str
    digest: str
    tools: list[str]
    """As text in a string: there are definitions that no file of JSON could hold as they are."""


class _Key(msgspec.Struct):
    version: str
    digest: str


class _Cache(msgspec.Struct):
    format: int
    lock: str
    servers: _Hashes


def locked(workspace: Workspace) -> Mapping[str, Approved]:
    """Return what the lockfile says was approved, by server; of those with any.

    The lockfile, megabytes in some workspaces, is parsed only when its bytes are new.

    Raises:
        IntegrityFailed: it then turns out to be damaged, or cannot be read.
    """
    content = lockfile.read_bytes(workspace.lockfile)
    if content is None:
        return {}
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    cache = copy_of_lock(workspace)
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = msgspec.json.decode(cache.read_bytes(), type=_Cache)
        if (found.format, found.lock) == (FORMAT, digest):
            return {
                name: {tool: ToolPin(tool, *hashes) for tool, hashes in tools.items()}
                for name, tools in found.servers.items()
            }
    pins = lockfile.parse(content, workspace.lockfile).pins
    servers = {name: {tool.name: tool for tool in pin.tools} for name, pin in pins.items()}
    servers = {name: tools for name, tools in servers.items() if tools}
    hashes: _Hashes = {
        name: {tool.name: (tool.sha256, tool.annotations_sha256) for tool in tools.values()}
        for name, tools in servers.items()
    }
    # A folder that cannot be written costs time at each start, and nothing else.
    with contextlib.suppress(OSError):
        private_folder(cache.parent)
        atomic_write(cache, msgspec.json.encode(_Cache(FORMAT, digest, hashes)))
    return servers


def of(
    workspace: Workspace,
    spec: LaunchSpec,
    mode: Literal["warn", "block", "allow"],
    in_lock: Approved | None,
) -> Approvals:
    """Return the approvals of the server of `spec`, of which the lockfile says `in_lock`."""
    if in_lock is not None:
        return Approvals(mode, in_lock)
    found = texts(workspace.catalogue(spec.name), spec.version, spec.digest)
    return Approvals(mode, None if found is None else _pinned(found))


def of_catalogue(
    workspace: Workspace, server: str, mode: Literal["warn", "block", "allow"]
) -> Approvals:
    """Return the approvals of what the server's catalogue on disk is about."""
    in_lock = locked(workspace).get(server)
    if in_lock is not None:
        return Approvals(mode, in_lock)
    catalogue = workspace.catalogue(server)
    try:
        key = msgspec.json.decode(catalogue.read_bytes(), type=_Key)
    except (OSError, ValueError, RecursionError):
        return Approvals(mode)
    found = texts(catalogue, key.version, key.digest)
    return Approvals(mode, None if found is None else _pinned(found))


def _pinned(found: Mapping[str, bytes]) -> Approved:
    return {pin.name: pin for pin in pins_of(found.values())}


def path_of(catalogue: Path) -> Path:
    """Return the file with the approved definitions of the server with that catalogue file."""
    return catalogue.with_suffix(".approved.json")


def texts(catalogue: Path, version: str, digest: str) -> dict[str, bytes] | None:
    """Return the approved definitions that are kept, by name of the tool; None: no file for that.

    Some may be missing, or be of an older approval: their hashes tell.
    """
    path = path_of(catalogue)
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Texts)
    except OSError:
        return None
    except (ValueError, RecursionError):
        state_file.set_aside(path, content)
        return None
    if (found.format, found.version, found.digest) != (FORMAT, version, digest):
        return None
    kept: dict[str, bytes] = {}
    for tool in found.tools:
        with contextlib.suppress(IntegrityFailed):
            kept.setdefault(definition_hashes(tool.encode()).name, tool.encode())
    return kept


def keep(
    catalogue: Path, version: str, digest: str, approved: Approved, tools: Iterable[bytes]
) -> None:
    """Keep the text of what is `approved`: of `tools`, of the catalogue's, or as kept before.

    To be called before the catalogue's file is written anew.

    Raises:
        OSError: it cannot be written.
    """
    before = texts(catalogue, version, digest)
    listed = offered.load(catalogue, version, digest)
    known = (*tools, *(listed.tools if listed else ()), *(before or {}).values())
    kept: dict[str, bytes] = {}
    for tool in known:
        with contextlib.suppress(IntegrityFailed, UnicodeDecodeError):
            tool.decode()  # one that is no UTF-8 is left without its text
            pin = definition_hashes(tool)
            if approved.get(pin.name) == pin:
                kept.setdefault(pin.name, tool)
    if kept == before:
        return
    private_folder(catalogue.parent)
    told = [kept[name].decode() for name in sorted(kept)]
    content = msgspec.json.encode(_Texts(FORMAT, version, digest, told))
    atomic_write(path_of(catalogue), content)


def copy_of_lock(workspace: Workspace) -> Path:
    """Return the file that says what the lockfile approves, so that this need not be parsed."""
    return workspace.state / "catalogue" / "approved.lock.json"
