"""Variants of npm packages for some platforms only, where the rows of a graph lack one. Pure.

A package lists its variants as optional dependencies, and npm leaves out each that it could not
have, without a word: because nobody published it, because the registry did not answer, or because
an older lock was made on another machine.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from octave.errors import IntegrityFailed
from octave.packages.ecosystems.npm_graph import Platform, locate
from octave.packages.graph_rows import row_name
from octave.packages.lockfile import GraphRow

_OPTIONAL = "optionalDependencies"
_SYSTEMS: Mapping[str, str] = {
    "linux": "linux",
    "darwin": "darwin",
    "macos": "darwin",
    "osx": "darwin",
    "win32": "win32",
    "windows": "win32",
    "win": "win32",
    "android": "android",
    "freebsd": "freebsd",
}
_PROCESSORS: Mapping[str, str] = {
    "x64": "x64",
    "amd64": "x64",
    "arm64": "arm64",
    "aarch64": "arm64",
    "ia32": "ia32",
    "i686": "ia32",
    "386": "ia32",
    "arm": "arm",
    "armv7": "arm",
    "ppc64": "ppc64",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loong64": "loong64",
}
_LIBRARIES: Mapping[str, str] = {"musl": "musl", "gnu": "glibc", "glibc": "glibc"}
"""How names of packages say a platform, in node's words."""


@dataclass(frozen=True, slots=True)
class Absent:
    """An optional dependency without a row."""

    path: str
    """Of the package that names it."""
    name: str
    version_range: str


def absent(rows: Iterable[GraphRow]) -> list[Absent]:
    """Return the optional dependencies for which there is no row."""
    by_path = {str(row["path"]): row for row in rows}
    return [
        Absent(path, name, version_range)
        for path, row in by_path.items()
        for name, version_range in _variants(row).items()
        if locate(by_path, path, name) is None
    ]


def without(rows: Iterable[GraphRow], unpublished: Iterable[Absent]) -> tuple[GraphRow, ...]:
    """Return `rows` that no longer name what cannot be had: a lock then has a row for each name."""
    gone = {(one.path, one.name) for one in unpublished}
    return tuple(
        _without(row, {name for path, name in gone if path == row["path"]}) for row in rows
    )


def _without(row: GraphRow, gone: set[str]) -> GraphRow:
    if not gone:
        return row
    kept = dict(row)
    # Some packages list it under both keys.
    for key in (_OPTIONAL, "dependencies"):
        names = kept.pop(key, None)
        left = {name: names[name] for name in names if name not in gone} if names else {}  # type: ignore[attr-defined,index]
        if left:
            kept[key] = left
    return kept


def require(
    selected: Iterable[GraphRow], by_path: Mapping[str, GraphRow], platform: Platform
) -> None:
    """Refuse a graph that lacks the variant for `platform` of a package that is wanted there.

    Raises:
        IntegrityFailed: it does.
    """
    for row in selected:
        path = str(row["path"])
        for_here = [name for name in _variants(row) if _is_named_after(name, platform)]
        if for_here and all(locate(by_path, path, name) is None for name in for_here):
            raise IntegrityFailed(
                f"the lockfile has no row for `{for_here[0]}`, which `{row_name(row)}` needs on "
                f"{platform.os} {platform.cpu}: it was locked where npm left that out",
                hint="run `octave lock` here, and commit `octave.lock`",
            )


def _variants(row: GraphRow) -> Mapping[str, str]:
    names = row.get(_OPTIONAL)
    return names if isinstance(names, Mapping) else {}


def _is_named_after(name: str, platform: Platform) -> bool:
    """Whether `name` says that it is for `platform`, as `@esbuild/linux-x64` does."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"x86[_-]64", "x64", name.lower())))
    systems = {_SYSTEMS[word] for word in words & _SYSTEMS.keys()}
    processors = {_PROCESSORS[word] for word in words & _PROCESSORS.keys()}
    libraries = {_LIBRARIES[word] for word in words & _LIBRARIES.keys()}
    return (
        systems == {platform.os}
        and processors <= {platform.cpu}
        and (not libraries or libraries == {platform.libc})
    )
