"""Fill a folder with the packages of locked rows, without npm, and check a tree made either way.

Every tarball comes verified from `npm_tarballs`. Only files, folders and the links of executables
are ever written; nothing of a package runs.
"""

import contextlib
import json
import os
import queue
import shutil
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octave.errors import InstallFailed, IntegrityFailed, OctaveError, from_os_error
from octave.packages import interrupts
from octave.packages.ecosystems import npm_bins, npm_tar
from octave.packages.ecosystems.npm_command import NeedsNpm, RegistryAccess
from octave.packages.ecosystems.npm_graph import require_asked_for, unmet
from octave.packages.ecosystems.npm_tarballs import Tarball, Tarballs
from octave.packages.graph_rows import row_name
from octave.packages.lockfile import GraphRow

_THREADS = 8
"""Most of them wait for the network. Tarballs are streamed to the cache and from there: each
thread holds some hundred KB, never a whole one."""
COUNT_S = 0.5
"""How often it is told how many packages are in place."""
_UNPACKING = min(4, os.cpu_count() or 1)
"""How many of them unpack at once; more only get in each other's way at the folders."""


@dataclass(slots=True)
class _Work:
    """What the threads share."""

    target: Path
    tarballs: Tarballs
    waiting: deque[GraphRow]
    apart: Mapping[str, frozenset[str]]
    """By path, the folders in a package that belong to other rows."""
    fold_case: bool
    placed: deque[GraphRow] = field(default_factory=deque)
    stopped: threading.Event = field(default_factory=threading.Event)
    unpacking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_UNPACKING))
    ended: "queue.SimpleQueue[BaseException | None]" = field(default_factory=queue.SimpleQueue)


def fill(
    rows: Sequence[GraphRow],
    target: Path,
    cache: Path,
    access: Callable[[], RegistryAccess] | None,
    counted: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Unpack the tarball of every row into its place below the empty folder `target`.

    `cache` is the folder of tarballs. `access` is asked at most once, when the first one is
    missing; None means offline. `counted` is told how many are in place, of how many.

    Raises:
        NeedsNpm: the registry, an archive or the file system asks for npm; `target` is unusable.
        IntegrityFailed: a tarball is not the locked one.
        RegistryUnreachable: one cannot be downloaded.
        InstallFailed: an archive is refused.
        StorageFailed: the disk is full or not writable.
    """
    if any(row.get("hasShrinkwrap") for row in rows):
        raise NeedsNpm("a package brings a lock of its own")
    own = [row for row in rows if not row.get("inBundle")]
    try:
        fold_case = _folds_case(target)
        if fold_case and len({_folded(str(row["path"])) for row in own}) < len(own):
            raise NeedsNpm("two packages differ in case only")
        work = _Work(target, Tarballs(cache, access), deque(own), _apart(own), fold_case)
        _make_folders(target, own)
    except OSError as error:
        raise _failed("the packages", error) from error
    # No pool: leaving one waits for all of its threads, and one may wait long for the network.
    threads = [
        threading.Thread(target=_work_off, args=(work,), name="npm-tree", daemon=True)
        for _ in range(min(_THREADS, len(own)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            problem = _next_end(work, lambda: counted(len(work.placed), len(own)))
            if problem is not None:
                raise problem
        counted(len(own), len(own))
    finally:
        _stop(work)


def _next_end(work: _Work, meanwhile: Callable[[], None]) -> BaseException | None:
    looks_s = time.monotonic() + COUNT_S
    while True:
        interrupts.look()
        with contextlib.suppress(queue.Empty):
            return work.ended.get(timeout=interrupts.patience_s(COUNT_S))
        if time.monotonic() >= looks_s:
            looks_s = time.monotonic() + COUNT_S
            meanwhile()


def _stop(work: _Work) -> None:
    """Also on Ctrl-C: nobody writes into the target any more once this returns."""
    work.stopped.set()
    work.tarballs.stop()
    for _ in range(_UNPACKING):
        work.unpacking.acquire()
    work.unpacking.release(_UNPACKING)
    work.tarballs.close()


def _work_off(work: _Work) -> None:
    try:
        while not work.stopped.is_set():
            try:
                row = work.waiting.popleft()
            except IndexError:
                break
            _place(work, row)
            work.placed.append(row)
    except BaseException as error:  # noqa: BLE001 - raised again by who waits for the threads
        work.ended.put(error)
    else:
        work.ended.put(None)


def _apart(rows: Iterable[GraphRow]) -> dict[str, frozenset[str]]:
    paths = {str(row["path"]) for row in rows}
    found: dict[str, set[str]] = {}
    for path in paths:
        above = path
        while above := above.rpartition("/node_modules/")[0]:
            if above in paths:
                found.setdefault(above, set()).add(path.removeprefix(f"{above}/"))
                break
    return {path: frozenset(folders) for path, folders in found.items()}


def _make_folders(target: Path, rows: Iterable[GraphRow]) -> None:
    # Beforehand and in one thread: a package's folder may lie inside another package's.
    for row in rows:
        folder = target
        for part in str(row["path"]).split("/"):
            folder /= part
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(npm_tar.FOLDER_MODE)


def _folds_case(folder: Path) -> bool:
    twin = folder.with_name(folder.name.swapcase())
    return twin.name != folder.name and twin.exists()


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _place(work: _Work, row: GraphRow) -> None:
    path = str(row["path"])
    what = Tarball(row_name(row), str(row["version"]), str(row["integrity"]))
    try:
        with work.tarballs.open(what) as file, work.unpacking:
            if not work.stopped.is_set():
                npm_tar.unpack(
                    file,
                    work.target / path,
                    fold_case=work.fold_case,
                    apart=work.apart.get(path, frozenset()),
                )
    except npm_tar.Collision as error:
        raise NeedsNpm(f"{what} {error}") from error
    except npm_tar.BadArchive as error:
        raise InstallFailed(
            f"the tarball of {what} is refused: it {error}", hint="do not use this package"
        ) from error
    except OSError as error:
        raise _failed(str(what), error) from error


def _failed(what: str, error: OSError) -> OctaveError:
    return from_os_error(error) or InstallFailed(f"cannot install {what}: {error}")


def verify(rows: Iterable[GraphRow], target: Path, package: str, entry: str) -> None:
    """Check that the tree below `target` is the one that `rows` describe, and make it usable.

    The executables that packages name become executable and are linked, as npm does.

    Raises:
        IntegrityFailed: a package is missing or another one.
        InstallFailed: the entry file is missing or lies outside its package.
        StorageFailed: the disk is full or not writable.
    """
    by_path = {str(row["path"]): row for row in rows}
    manifests: dict[str, dict[str, Any]] = {}
    for path, row in by_path.items():
        folder = target / path
        manifest = _manifest(folder)
        if manifest is None and (row.get("optional") or row.get("peer")):
            continue
        found = manifests[path] = manifest or {}
        if (found.get("name"), _plain_version(found)) != (row_name(row), row["version"]):
            raise IntegrityFailed(
                f"`{row['path']}` is not `{row_name(row)}` {row['version']} after the installation",
                hint="run `octave clean`, then try again",
            )
        missing = unmet(by_path, path, found)
        # A name of a package that lies in the archive itself has no row of its own.
        if missing is not None and not (folder / "node_modules" / missing).exists():
            raise IntegrityFailed(
                f"`{row_name(row)}` needs `{missing}`, which the lockfile does not have",
                hint="octave lock",
            )
        try:
            npm_bins.link(folder, found)
        except OSError as error:
            raise _failed(f"`{row['path']}`", error) from error
    # What the rows say of it may have been written to fit.
    require_asked_for(by_path, manifests)
    root = (target / "node_modules" / package).resolve()
    file = (target / entry).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        raise InstallFailed(
            f"`{package}` names the executable `{entry}`, which it does not contain",
            hint="choose another version",
        )


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "package.json").read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain_version(manifest: dict[str, Any]) -> str:
    # Registries drop a leading `v` or `=` that a published package.json may have.
    return str(manifest.get("version", "")).strip().lstrip("v= ")


def empty(target: Path) -> None:
    """Remove everything in `target`.

    Raises:
        StorageFailed: something cannot be removed.
    """
    try:
        for path in target.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise from_os_error(error) or OctaveError(f"cannot empty `{target}`: {error}") from error
