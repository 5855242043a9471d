"""What the home knows about workspaces: which are trusted, and what their lockfiles mean.

Kept in the home's workspaces.json. That file also tells which installed folder each locked name
means, by the hash of the lockfile's bytes: starting a server need not read a lockfile of
megabytes.
"""

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from octave.errors import Locked, NotTrusted
from octave.home import Home, Workspace, atomic_write, private_folder
from octave.packages import lockfile, state_file
from octave.packages.manifest import Manifest, Reference

FORMAT = 1
_OF_HOME = ""
"""The key of the home's own workspace: no path, so that a home that is moved knows itself."""
LOCK_WAIT_S = 60.0
"""The lock is held for the milliseconds of one read and write; longer is a hung process."""


def trusted(workspace: Workspace, manifest: Manifest) -> bool:
    """Tell whether `manifest` may start servers: the home's own, or trusted as it is now."""
    if workspace.is_home:
        return True
    known = _read(workspace.home).get(_key(workspace))
    return known is not None and known.get("trust") == manifest.trust_hash


def trust(workspace: Workspace, manifest: Manifest) -> None:
    """Remember the consent to what all servers of `manifest` say now; a change asks again.

    Raises:
        OSError: the home cannot be written.
    """
    if not workspace.is_home:
        _note(workspace, {"trust": manifest.trust_hash})


def require_trust(workspace: Workspace, manifest: Manifest) -> None:
    """Do nothing when `manifest` is trusted, or says nothing that could be started.

    Raises:
        NotTrusted: it is not, or was changed since.
    """
    says_nothing = not manifest.servers and not manifest.registries
    harmless = says_nothing and not isinstance(manifest.settings.token, Reference)
    if not harmless and not trusted(workspace, manifest):
        known = _read(workspace.home).get(_key(workspace), {})
        change = "was changed since it was trusted" if "trust" in known else "is not trusted yet"
        path = shlex.quote(str(workspace.manifest))
        raise NotTrusted(
            f"`{workspace.manifest}` {change}",
            hint=f"read it, then run `octave trust --manifest {path}`",
            details={"manifest": str(workspace.manifest)},
        )


def remember(workspace: Workspace, installed: Mapping[str, str]) -> None:
    """Note that in the lockfile as it stands each name means that folder of servers/NAME/.

    Raises:
        OSError: the home cannot be written, or the lockfile cannot be read.
    """
    content = workspace.lockfile.read_bytes() if workspace.lockfile.exists() else b""
    _note(workspace, {"lock": _digest(content), "installed": dict(sorted(installed.items()))})


def installed(workspace: Workspace) -> dict[str, str]:
    """Return the folder of servers/NAME/ that each name of the lockfile means.

    The lockfile is parsed only when its bytes are not those last remembered.

    Raises:
        IntegrityFailed: it then turns out to be damaged, or cannot be read.
    """
    content = lockfile.read_bytes(workspace.lockfile)
    if content is None:
        return {}
    known = _read(workspace.home).get(_key(workspace), {})
    folders = known.get("installed")
    if known.get("lock") == _digest(content) and isinstance(folders, dict):
        return {str(name): str(folder) for name, folder in folders.items()}
    pins = lockfile.parse(content, workspace.lockfile).pins
    found = {name: pin.folder for name, pin in sorted(pins.items())}
    # A home that cannot be written costs time at each start, and nothing else.
    with contextlib.suppress(OSError, Locked):
        _note(workspace, {"lock": _digest(content), "installed": found})
    return found


def previous(workspace: Workspace) -> dict[str, str]:
    """Return the folder of servers/NAME/ that each name meant before the one it means now."""
    folders = _read(workspace.home).get(_key(workspace), {}).get("previous")
    known = folders.items() if isinstance(folders, dict) else ()
    return {name: folder for name, folder in known if isinstance(folder, str)}


def set_previous(workspace: Workspace, name: str, folder: str | None) -> None:
    """Say what `name` meant before, where that is not what was last remembered.

    Raises:
        OSError: the home cannot be written.
    """
    known = {key: value for key, value in previous(workspace).items() if key != name}
    _note(workspace, {"previous": known | ({name: folder} if folder else {})})


def known_manifests(home: Home) -> list[Path]:
    """Return every manifest that the home knows of, its own included, sorted; not all exist."""
    return sorted({home.manifest, *(Path(key) for key in _read(home) if key != _OF_HOME)})


def known_lockfiles(home: Home) -> list[Path]:
    """Return every lockfile that may still name an installed version, sorted."""
    locks = (Workspace(home, manifest).lockfile for manifest in known_manifests(home))
    return sorted(path for path in locks if path.exists())


def _key(workspace: Workspace) -> str:
    return _OF_HOME if workspace.is_home else os.path.realpath(workspace.manifest)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _read(home: Home) -> dict[str, dict[str, Any]]:
    """Return what is known of each manifest, by its path; a broken file knows nothing."""
    known = state_file.read(home.workspaces, FORMAT).get("workspaces")
    entries = known.items() if isinstance(known, dict) else ()
    found = {key: entry for key, entry in entries if isinstance(entry, dict)}
    # There are files that know the home by its path.
    by_path = found.pop(str(home.manifest), None)
    return found if by_path is None else {_OF_HOME: by_path, **found}


def _note(workspace: Workspace, facts: Mapping[str, object]) -> None:
    home = workspace.home
    with _locked(home):
        known = _read(home)
        before = known.get(_key(workspace), {})
        after = {**before, **facts}
        if "installed" in facts:
            after["previous"] = _left(before, facts["installed"])
        if after in (before, {"previous": {}, **before}):
            return
        known[_key(workspace)] = after
        content = json.dumps({"format": FORMAT, "workspaces": known}, indent=1, sort_keys=True)
        atomic_write(home.workspaces, content.encode() + b"\n")


def _left(before: Mapping[str, Any], installed: object) -> dict[str, object]:
    """Return what each name meant before, now that each means what `installed` says."""
    past, known = before.get("installed"), before.get("previous")
    past = past if isinstance(past, dict) else {}
    known = known if isinstance(known, dict) else {}
    now = installed if isinstance(installed, dict) else {}
    changed = {name: past[name] for name in now if past.get(name, now[name]) != now[name]}
    return {name: folder for name, folder in {**known, **changed}.items() if name in now}


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    private_folder(home.locks)
    # The dot keeps it apart from the locks that are named after servers.
    lock = FileLock(home.locks / "workspaces.json.lock", timeout=LOCK_WAIT_S, mode=0o600)
    try:
        with lock:
            yield
    except Timeout as error:
        raise Locked(
            f"another process holds `{lock.lock_file}`", hint="end that process, then try again"
        ) from error
