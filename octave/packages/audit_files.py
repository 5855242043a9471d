"""What lies on disk of an installed server, against what the lockfile says; without the network.

npm: the tree is unpacked anew from the cached tarballs, each with the hash that is locked, and
compared file by file. PyPI: every file against the RECORD of its wheel; a RECORD that was changed
along with its files goes unnoticed, as no lockfile holds its hash.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from octave.errors import InstallFailed, IntegrityFailed
from octave.home import Home
from octave.packages import store
from octave.packages.ecosystems import npm_tree
from octave.packages.ecosystems.npm_command import NeedsNpm
from octave.packages.graph_rows import row_name
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.wheels import Site

_CHUNK_BYTES = 2**20


class Unverifiable(Exception):
    """Nothing can be said of the files; the text ends a sentence."""


def differences(home: Home, pin: Pin) -> list[str]:
    """Return what is not as it is locked, a phrase each: `FILE was changed`; the caller locks.

    Raises:
        Unverifiable: there is nothing to compare with.
        OSError: the disk cannot be read, or has no room for the comparison.
    """
    folder = home.servers / pin.name / pin.folder
    return _npm(home, pin, folder) if pin.kind == "npm" else _pypi(pin, folder)


def _pypi(pin: Pin, folder: Path) -> list[str]:
    try:
        site = Site.of(folder / "venv")
        site.check_packages(pin.graph)
    except (IntegrityFailed, InstallFailed) as error:
        return [error.message]
    changed = site.changed_files()
    return [f"`{path}` of `{name}` was changed" for name, path in sorted(changed.items())]


def _npm(home: Home, pin: Pin, folder: Path) -> list[str]:
    rows = [row for row in pin.graph if _belongs(row, folder)]
    staging = store.stage(home, pin.name)
    try:
        npm_tree.fill(rows, staging, home.cache / "npm-tarballs", None)
        npm_tree.verify(rows, staging, pin.package, pin.entry)
        scripted = [str(row["path"]) for row in rows if row.get("runScripts")]
        found = _compared(staging / "node_modules", folder / "node_modules")
        return [phrase for path, phrase in found if not _is_in(path, scripted)]
    except NeedsNpm as reason:
        raise Unverifiable(str(reason)) from reason
    except IntegrityFailed as error:
        raise Unverifiable(f"the cache is damaged: {error.message}") from error
    finally:
        store.discard(staging)


def _belongs(row: GraphRow, folder: Path) -> bool:
    """Whether the row is on disk, or should be on any platform."""
    is_there = (folder / str(row["path"])).is_dir()
    return is_there or not (row.get("optional") or row.get("peer") or row_name(row) == "")


def _is_in(path: str, folders: list[str]) -> bool:
    # What an install script that was allowed has made or changed is not known.
    return any(f"node_modules/{path}".startswith(f"{folder}/") for folder in folders)


def _compared(wanted: Path, found: Path) -> Iterator[tuple[str, str]]:
    one, other = dict(_files(wanted)), dict(_files(found))
    for path in sorted(one.keys() | other.keys()):
        if path not in other:
            yield path, f"`{path}` is missing"
        elif path not in one:
            yield path, f"`{path}` is too much"
        elif not _is_same(one[path], other[path]):
            yield path, f"`{path}` was changed"


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, names, files in os.walk(root):
        links = [name for name in names if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        for name in (*files, *links):
            path = Path(folder, name)
            yield str(path.relative_to(root)), path


def _is_same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        both = one.is_symlink() and other.is_symlink()
        return both and one.readlink() == other.readlink()
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK_BYTES):
            if chunk != right.read(_CHUNK_BYTES):
                return False
    return True
