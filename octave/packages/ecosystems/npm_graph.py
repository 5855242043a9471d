"""The dependency graph of an npm server: rows of octave.lock, made from package-lock v3 and back.

A row keeps what decides the tree and its bytes, and drops everything else, the registry's
addresses first. Pure; rows that were read from a lockfile are checked before anything uses them.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from octave.errors import InstallFailed, IntegrityFailed
from octave.packages.graph_rows import row_name
from octave.packages.lockfile import GraphRow

NAME = re.compile(r"(?:@[A-Za-z0-9][A-Za-z0-9._~-]*/)?[A-Za-z0-9][A-Za-z0-9._~-]*")
VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]*")
_SHA512 = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
_PATH = re.compile(rf"node_modules/{NAME.pattern}(?:/node_modules/{NAME.pattern})*")
_ALIAS = re.compile(rf"npm:({NAME.pattern})(?:@.*)?")
_MAPS = ("dependencies", "optionalDependencies", "peerDependencies")
_FLAGS = ("optional", "peer", "inBundle", "hasInstallScript", "hasShrinkwrap")
_LISTS = ("os", "cpu", "libc")


@dataclass(frozen=True, slots=True)
class Platform:
    """What packages may ask for, in node's words: `linux`, `x64`, `glibc`."""

    os: str
    cpu: str = ""
    libc: str = ""
    """Empty where there is no choice."""


def root_path(package: str) -> str:
    """Return the place of `package` itself in the tree."""
    return f"node_modules/{package}"


def is_inside(entry: str, folder: str) -> bool:
    """Whether the path `entry` is of something in `folder`, and says so plainly."""
    path = PurePosixPath(entry)
    return path.is_relative_to(folder) and str(path) != folder and ".." not in path.parts


def rows_from_lock(
    lock: Mapping[str, Any], package: str, scripts: Collection[str] = ()
) -> tuple[GraphRow, ...]:
    """Return the rows of a package-lock, sorted by path.

    Those of `scripts` that have install scripts are marked: these may run.

    Raises:
        InstallFailed: it holds what cannot be locked: git, file or URL sources, no sha512.
    """
    if lock.get("lockfileVersion") != 3:
        raise InstallFailed(
            f"npm wrote a lock of version `{lock.get('lockfileVersion')}` for `{package}`",
            hint="install a newer node with its npm, then try again",
        )
    packages = lock.get("packages", {})
    rows = [row_of(path, entry, package) for path, entry in sorted(packages.items()) if path]
    return tuple(
        {**row, "runScripts": True}
        if row.get("hasInstallScript") and row_name(row) in scripts
        else row
        for row in rows
    )


def row_of(path: str, entry: Mapping[str, Any], package: str) -> GraphRow:
    """Return the row of one `entry` of a package-lock's `packages`, for the graph of `package`.

    Raises:
        InstallFailed: as `rows_from_lock`.
    """
    # npm leaves `resolved` out for packages of the registry, so what is left is something else.
    if entry.get("link") or "resolved" in entry or not _PATH.fullmatch(path):
        raise InstallFailed(
            f"`{package}` cannot be locked: its dependency `{path}` does not come from a registry",
            hint="ask its author to publish the dependency",
        )
    row: dict[str, object] = {"path": path, "version": str(entry.get("version", ""))}
    if "name" in entry:
        row["name"] = str(entry["name"])
    found = _SHA512.search(str(entry.get("integrity", "")))
    if found:
        row["integrity"] = found[0]
    elif not _in_bundle({"path": path, **entry}):
        raise InstallFailed(
            f"`{package}` cannot be locked: the registry has no sha512 of `{row_name(row)}`"
        )
    row |= {key: _texts(entry[key]) for key in _MAPS if entry.get(key)}
    row |= {key: True for key in _FLAGS if entry.get(key)}
    row |= {key: _list(entry[key]) for key in _LISTS if entry.get(key)}
    row |= _nested(entry)
    if path == root_path(package) and entry.get("bin"):
        row["bin"] = entry["bin"]
    return row


def _nested(entry: Mapping[str, Any]) -> dict[str, object]:
    nested: dict[str, object] = {}
    engines = entry.get("engines")
    if isinstance(engines, dict) and isinstance(engines.get("node"), str):
        nested["engines"] = {"node": engines["node"]}
    optional = sorted(
        name
        for name, meta in (entry.get("peerDependenciesMeta") or {}).items()
        if isinstance(meta, dict) and meta.get("optional")
    )
    if optional:
        nested["peerDependenciesMeta"] = {name: {"optional": True} for name in optional}
    return nested


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(text) for key, text in sorted(value.items())}


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def lock_from_rows(
    rows: Iterable[GraphRow], package: str, version: str, overrides: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the package.json and the package-lock from which `npm ci` makes the tree of `rows`."""
    manifest = manifest_of(package, version, overrides)
    by_path = {str(row["path"]): row for row in rows}
    packages: dict[str, Any] = {"": {"dependencies": {package: version}}}
    for path, row in by_path.items():
        entry = {key: value for key, value in row.items() if key != "path"}
        # Variants for other platforms may not be published (yet); `npm ci` would miss their rows.
        names = _names(row, "optionalDependencies")
        absent = {name for name in names if locate(by_path, path, name) is None}
        for key in ("dependencies", "optionalDependencies"):
            kept = [name for name in _names(row, key) if name not in absent]
            entry[key] = {name: row[key][name] for name in kept}  # type: ignore[index]
        packages[path] = entry
    return manifest, {"lockfileVersion": 3, "requires": True, "packages": packages}


def manifest_of(package: str, version: str, overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return the package.json that asks for exactly one package."""
    manifest: dict[str, Any] = {"private": True, "dependencies": {package: version}}
    return manifest | ({"overrides": dict(overrides)} if overrides else {})


def check_rows(rows: Iterable[GraphRow], package: str, integrity: str) -> dict[str, GraphRow]:
    """Return the rows by path, once every member that is used has the form it must have.

    Raises:
        IntegrityFailed: a row could lead outside the tree or is not verifiable.
    """
    by_path: dict[str, GraphRow] = {}
    for row in rows:
        path = str(row.get("path", ""))
        sound = (
            _PATH.fullmatch(path)
            and NAME.fullmatch(row_name(row))
            and VERSION.fullmatch(str(row.get("version", "")))
            and (_in_bundle(row) or _SHA512.fullmatch(str(row.get("integrity", ""))))
        )
        if not sound:
            raise IntegrityFailed(
                f"the lockfile's row `{path}` of `{package}` is not sound", hint="octave lock"
            )
        by_path[path] = row
    root = by_path.get(root_path(package))
    if root is None or (root.get("integrity"), row_name(root)) != (integrity, package):
        raise IntegrityFailed(
            f"the lockfile's graph of `{package}` does not hold the package it names",
            hint="octave lock",
        )
    # What a package brings along in its archive it may not even name.
    lost = {path for path, row in by_path.items() if not row.get("inBundle")}
    lost -= _reached(by_path, package)
    if lost:
        raise IntegrityFailed(
            f"the lockfile's row `{min(lost)}` belongs to nothing that `{package}` needs:"
            " dependencies are missing in it",
            hint="octave lock",
        )
    require_asked_for(by_path, by_path)
    return by_path


def require_asked_for(
    by_path: Mapping[str, GraphRow], manifests: Mapping[str, Mapping[str, object]]
) -> None:
    """Refuse a package in the place of another one: only an alias has a foreign name.

    `manifests` say by path, as rows or package.json, what each asks for. Where one asks for an
    alias, npm takes it for all others too that want something of that name in that place.

    Raises:
        IntegrityFailed: nobody asks for that package there.
    """
    meant: dict[str, set[str]] = {}
    for path, manifest in manifests.items():
        for key in _MAPS:
            wanted = manifest.get(key)
            for name, spec in wanted.items() if isinstance(wanted, Mapping) else ():
                alias = _ALIAS.fullmatch(str(spec))
                found = locate(by_path, path, str(name))
                if found is not None:
                    meant.setdefault(found, set()).add(alias[1] if alias else str(name))
    for path, row in by_path.items():
        names = meant.get(path) or {path.rpartition("node_modules/")[2]}
        if row_name(row) not in names and not row.get("inBundle"):
            raise IntegrityFailed(
                f"the lockfile has `{row_name(row)}` at `{path}`, where `{min(names)}` is needed",
                hint="octave lock",
            )


def _reached(by_path: Mapping[str, GraphRow], package: str) -> set[str]:
    found: set[str] = set()
    waiting = [root_path(package)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _needs(by_path, path)
    return found


def _in_bundle(row: GraphRow) -> bool:
    # What comes with its parent has the parent's hash; at the top there is no parent.
    return row.get("inBundle") is True and str(row["path"]).count("node_modules/") > 1


def names_platform(rows: Iterable[GraphRow]) -> bool:
    """Return whether any row is meant for some platforms only."""
    return any(row.get(key) for row in rows for key in _LISTS)


def suits(row: GraphRow, platform: Platform) -> bool:
    """Return whether the row's package is meant for `platform`; npm's `os`, `cpu` and `libc`."""
    here = {"os": platform.os, "cpu": platform.cpu, "libc": platform.libc}
    for key, value in here.items():
        entries = row.get(key)
        if isinstance(entries, list) and entries and not _listed(value, entries):
            return False
    return True


def _listed(value: str, entries: list[str]) -> bool:
    if entries == ["any"]:
        return True
    denied = [entry[1:] for entry in entries if entry.startswith("!")]
    if value in denied:
        return False
    return value in entries or len(denied) == len(entries)


def select(
    by_path: Mapping[str, GraphRow], package: str, platform: Platform
) -> tuple[GraphRow, ...]:
    """Return the rows that belong into the tree on `platform`, parents before what is in them.

    Walked from the root: what only an excluded optional package needs is not wanted either.

    Raises:
        InstallFailed: the package, or what it cannot do without, is not meant for `platform`.
        IntegrityFailed: a dependency has no row.
    """
    excluded = _excluded(by_path, platform)
    root = root_path(package)
    if root in excluded:
        raise InstallFailed(
            f"`{package}` does not run on {platform.os} {platform.cpu}:"
            f" `{row_name(by_path[excluded[root]])}` is not made for it"
        )
    wanted: set[str] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        if path not in wanted:
            wanted.add(path)
            waiting += [found for found in _needs(by_path, path) if found not in excluded]
    return tuple(by_path[path] for path in sorted(wanted))


def _excluded(by_path: Mapping[str, GraphRow], platform: Platform) -> dict[str, str]:
    # Each excluded path with the path of the package to blame, grown until nothing changes.
    excluded = {path: path for path, row in by_path.items() if not suits(row, platform)}
    grown = bool(excluded)
    while grown:
        grown = False
        for path, row in by_path.items():
            if path in excluded:
                continue
            needed = (locate(by_path, path, name) for name in _required(row))
            blamed = next((found for found in needed if found in excluded), None)
            if blamed is not None:
                excluded[path] = excluded[blamed]
                grown = True
    return excluded


def _needs(by_path: Mapping[str, GraphRow], path: str) -> Iterator[str]:
    row = by_path[path]
    for name in _required(row):
        found = locate(by_path, path, name)
        if found is None:
            raise IntegrityFailed(
                f"the lockfile has no row for `{name}`, which `{row_name(row)}` needs",
                hint="octave lock",
            )
        yield found
    # npm leaves out what could not be had, and peers that are optional or known to be missing.
    for name in (*_names(row, "optionalDependencies"), *_names(row, "peerDependencies")):
        found = locate(by_path, path, name)
        if found is not None:
            yield found


def _required(row: GraphRow) -> list[str]:
    optional = set(_names(row, "optionalDependencies"))
    return [name for name in _names(row, "dependencies") if name not in optional]


def _names(row: GraphRow, key: str) -> tuple[str, ...]:
    value = row.get(key)
    return tuple(value) if isinstance(value, Mapping) else ()


def unmet(paths: Collection[str], path: str, manifest: Mapping[str, object]) -> str | None:
    """Return a dependency in the package.json of the one at `path` that no place in `paths` has.

    What may be missing, as optional ones, does not count.
    """
    needed = _names(manifest, "dependencies")
    optional = _names(manifest, "optionalDependencies")
    missing = (name for name in needed if name not in optional)
    return next((name for name in missing if locate(paths, path, name) is None), None)


def locate(paths: Collection[str], path: str, name: str) -> str | None:
    """Return the path of the package that `name` means to the one at `path`, as node does."""
    folder = path
    while True:
        candidate = f"{folder}/node_modules/{name}" if folder else f"node_modules/{name}"
        if candidate in paths:
            return candidate
        if not folder:
            return None
        folder = f"/{folder}".rpartition("/node_modules/")[0].lstrip("/")
