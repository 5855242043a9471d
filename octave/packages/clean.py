"""Remove what nobody needs any more: versions, litter of what died, caches, locks of nothing.

What a known lockfile names stays, and what a rollback there would return to, and what runs. Each
name is looked at under its lock and against the lockfiles as they are then: what is being
installed right now is left alone. What `octave run` fetched stays while it was used lately.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from octave.errors import IntegrityFailed, StorageFailed
from octave.home import Home, Workspace, private_folder
from octave.packages import clean_catalogue, one_off, store, workspaces
from octave.packages.manifest import is_server_name

_BLOCK_BYTES = 512
"""What `st_blocks` counts in, whatever the file system (stat(2))."""


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that went, or would go."""

    kind: str
    """`version`, `run`, `staging`, `cache`, `lists` or `lock`; `run`: what `octave run` fetched."""
    name: str
    """Of the server, the part of the cache, or the lock."""
    folder: str
    """VERSION-DIGEST8 of what was installed; else empty."""
    size_bytes: int
    """On disk."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went, and why something stayed that might have gone."""

    removed: tuple[Removed, ...]
    notes: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """Of all that went."""
        return sum(each.size_bytes for each in self.removed)


def clean(home: Home, runs: Callable[[Path], bool], *, dry_run: bool = False) -> Cleaned:
    """Remove it, or with `dry_run` only tell; `runs` tells whether a process runs from a folder.

    Raises:
        StorageFailed: something cannot be removed.
        OSError: the home cannot be written.
    """
    if not home.root.exists():
        return Cleaned(())
    private_folder(home.root)
    notes: list[str] = []
    removed = [
        *_staging(home, dry_run=dry_run),
        *_versions(home, runs, notes, dry_run=dry_run),
        *_one_offs(home, runs, notes, dry_run=dry_run),
        *_caches(home, notes, dry_run=dry_run),
        *_catalogues(home, dry_run=dry_run),
        *_locks(home, dry_run=dry_run),
    ]
    return Cleaned(tuple(removed), tuple(notes))


def needed(home: Home) -> dict[str, set[str]]:
    """Return the version folders of each name that some workspace means, or would return to.

    A workspace whose lockfile is gone needs none.

    Raises:
        IntegrityFailed: a lockfile cannot be read, so that nobody knows what it means.
    """
    found: dict[str, set[str]] = {}
    for manifest in workspaces.known_manifests(home):
        workspace = Workspace(home, manifest)
        if not workspace.lockfile.exists():
            continue
        # In this order: what it means now may tell what it meant before.
        for meant in (workspaces.installed(workspace), workspaces.previous(workspace)):
            for name, folder in meant.items():
                found.setdefault(name, set()).add(folder)
    return found


def _staging(home: Home, *, dry_run: bool) -> Iterator[Removed]:
    for room in _entries(home.staging):
        with _free(home, room.name) as is_free:
            if is_free:
                yield _remove(home, Removed("staging", room.name, "", _size(room)), room, dry_run)


def _versions(
    home: Home, runs: Callable[[Path], bool], notes: list[str], *, dry_run: bool
) -> Iterator[Removed]:
    for place in _entries(home.servers):
        with _free(home, place.name) as is_free:
            if not is_free:
                notes.append(f"`{place.name}` is being installed, so its versions stay")
                continue
            try:
                kept = needed(home).get(place.name, set())
            except IntegrityFailed as error:
                notes.append(f"no versions are removed: {error.message}")
                return
            for folder in _entries(place):
                if folder.name in kept:
                    continue
                if runs(folder):
                    notes.append(f"`{place.name}` {folder.name} is running, so it stays")
                    continue
                compiled = store.compile_cache(home, place.name, folder.name)
                size = _size(folder) + _size(compiled)
                if not dry_run:
                    store.remove(home, place.name, folder.name)
                yield Removed("version", place.name, folder.name, size)


def _one_offs(
    home: Home, runs: Callable[[Path], bool], notes: list[str], *, dry_run: bool
) -> Iterator[Removed]:
    """Remove what `octave run` was not asked for lately, and the versions it has newer ones of."""
    for path in _entries(one_off.room(home)):
        with one_off.unused(Home(path)) as used_at:
            found = one_off.find(Home(path))
            name, folder = (found.name, found.folder) if found else (path.name, "")
            if used_at is None or runs(path):
                notes.append(f"`{name}` is running, so what `octave run` fetched for it stays")
                continue
            if not 0 <= time.time() - used_at < one_off.KEPT_S:
                yield _remove(home, Removed("run", name, folder, _size(path)), path, dry_run)
                continue
            for version in _entries(path / "servers" / name):
                if version.name != folder:
                    removed = Removed("run", name, version.name, _size(version))
                    yield _remove(home, removed, version, dry_run)


def _caches(home: Home, notes: list[str], *, dry_run: bool) -> Iterator[Removed]:
    with contextlib.ExitStack() as held:
        # Whoever installs reads from them, and would find half a cache.
        for path in _entries(home.locks):
            is_installers = path.suffix == ".lock" and "." not in path.stem
            if is_installers and not held.enter_context(_free(home, path.stem)):
                notes.append("the caches stay while something is being installed")
                return
        if any(one_off.is_installing(Home(path)) for path in _entries(one_off.room(home))):
            notes.append("the caches stay while something is being installed")
            return
        for folder in _entries(home.cache):
            if folder == one_off.room(home):
                continue
            yield _remove(home, Removed("cache", folder.name, "", _size(folder)), folder, dry_run)


def _catalogues(home: Home, *, dry_run: bool) -> Iterator[Removed]:
    for name, path in clean_catalogue.orphans(home):
        with contextlib.ExitStack() as held:
            # Who installs or adds it just now names it in the manifest last.
            is_free = not name or held.enter_context(_free(home, name))
            if is_free and (name, path) in clean_catalogue.orphans(home):
                removed = Removed("lists", name or path.name, "", _size(path))
                yield _remove(home, removed, path, dry_run)


def _locks(home: Home, *, dry_run: bool) -> Iterator[Removed]:
    """Remove lock files of names that nothing is installed under; filelock sees that and waits."""
    names = {place.name for place in _entries(home.servers)}
    for path in _entries(home.locks):
        if path.suffix != ".lock" or not is_server_name(path.stem) or path.stem in names:
            continue
        with _free(home, path.stem) as is_free:
            if not is_free:
                continue
            if not dry_run:
                path.unlink(missing_ok=True)
            yield Removed("lock", path.stem, "", 0)


@contextlib.contextmanager
def _free(home: Home, name: str) -> Iterator[bool]:
    """Hold the lock of `name` if nobody does; yield whether it is held here."""
    lock = FileLock(home.locks / f"{name}.lock", timeout=0, mode=0o600)
    try:
        private_folder(home.locks)
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove(home: Home, removed: Removed, path: Path, dry_run: bool) -> Removed:  # noqa: FBT001
    if dry_run:
        return removed
    grave = path
    if path.parent != home.staging:
        # Gone at once: nobody finds half of it.
        grave = private_folder(home.staging) / f"gone-{secrets.token_hex(4)}"
        path.rename(grave)
    try:
        grave.unlink() if not grave.is_dir() or grave.is_symlink() else shutil.rmtree(grave)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageFailed(
            f"cannot remove `{error.filename or grave}`: {error.strerror}",
            hint="check who owns it, then `octave clean` again",
        ) from error
    return removed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    """Return what `path` and all below take on disk; what vanishes meanwhile takes nothing."""
    total = 0
    stack = [os.fspath(path)]
    while stack:
        here = stack.pop()
        with contextlib.suppress(OSError):
            total += os.lstat(here).st_blocks * _BLOCK_BYTES
            if os.path.isdir(here) and not os.path.islink(here):  # noqa: PTH112, PTH114
                stack += [entry.path for entry in os.scandir(here)]
    return total
