"""npm servers: the user's npm resolves, Octave installs from the locked rows and starts the file.

A graph row is one package of the tree, see `npm_graph`. No script of any package runs, neither
while resolving nor while installing, but those of packages that somebody named.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from octave.errors import Ambiguous, InstallFailed
from octave.packages import toolchains
from octave.packages.ecosystems import npm_install, npm_variants
from octave.packages.ecosystems.base import Bench, Resolved, Wanted
from octave.packages.ecosystems.npm_command import (
    error_of,
    failure,
    run_npm,
    write_json,
)
from octave.packages.ecosystems.npm_graph import (
    is_inside,
    manifest_of,
    root_path,
    rows_from_lock,
)
from octave.packages.ecosystems.npm_install import checked, node_for, node_of, selected
from octave.packages.ecosystems.npm_versions import (
    check_wanted,
    find_version,
    is_published,
    overrides_of,
    required_node,
    too_young,
)
from octave.packages.graph_rows import marked
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.together import all_of
from octave.packages.toolchains import Node

_NOTE_CHARACTERS = 300
_QUESTIONS = 4
"""How many npm processes ask at once; each takes half a second of a core."""


class Npm:
    """The ecosystem of `npm:NAME`."""

    kind = "npm"

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return the exact version that npm's registry has for `wanted`, and its whole graph."""
        check_wanted(wanted)
        overrides = overrides_of(wanted.constraints)
        bench.progress(f"looking up {wanted.package}")
        write_json(staging / "package.json", {"private": True})
        found = find_version(wanted, toolchains.node(bench), staging, bench)
        version = str(found["version"])
        requires = required_node(found, wanted.requires.get("node"))
        node = _node_that_runs(wanted.package, version, requires, bench)
        bench.progress(f"locking {wanted.package} {version}")
        resolver, made_for = resolver_for(node, requires, staging)
        rows = _lock(wanted, version, overrides, resolver, staging, bench)
        rows = with_all_variants(rows, wanted.package, node, staging, bench)
        node = node_for(requires, rows, bench)
        root = next(row for row in rows if row["path"] == root_path(wanted.package))
        entry = choose_entry(wanted.package, found.get("bin"), wanted.executable)
        return Resolved(
            version=version,
            integrity=str(root["integrity"]),
            graph=rows,
            requires={"node": requires[0]} if requires else {},
            toolchain={"node": made_for.partition(".")[0]},
            entry=entry,
            notes=tuple(notes(wanted.package, found, rows, node, bench)),
        )

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse rows that no tree could be made of."""
        by_path = checked(pin)
        node = toolchains.fitting_system_node(bench)
        if node is not None:
            selected(by_path, pin, node, bench)

    def install(self, pin: Pin, target: Path, bench: Bench) -> None:
        """Fill `target/node_modules` with the locked packages and check the tree."""
        npm_install.install(pin, target, bench)

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Return the path of the entry file, `node_modules/NAME/...`."""
        return choose_entry(package, _package_json(package, target).get("bin"), executable)

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return the host of the registry that the user's npm has for the package's scope."""
        scope, slash, _ = package.partition("/")
        node = toolchains.node(bench)
        for key in ([f"{scope}:registry"] if slash else []) + ["registry"]:
            said = run_npm(node, bench, ("config", "get", key), staging).stdout.strip()
            if "://" in said:
                return urlsplit(said).hostname or ""
        return ""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Whether `mcpName` in its package.json is `name`."""
        return bool(_package_json(package, target).get("mcpName") == name)

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return node and the entry file."""
        return (str(node_of(pin, bench).path), str(target / pin.entry))


def _package_json(package: str, target: Path) -> Mapping[str, Any]:
    file = target / root_path(package) / "package.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InstallFailed(f"`{package}` has no readable package.json") from error
    return manifest if isinstance(manifest, dict) else {}


def choose_entry(package: str, binaries: object, executable: str | None) -> str:
    """Return the entry path that `bin` of a package.json gives.

    `executable` if one is named; else the only one, the one named as the package, or the first
    with `mcp` in its name.

    Raises:
        InstallFailed: no executable, not the named one, or a path that leaves the package.
        Ambiguous: none is plainly meant.
    """
    unscoped = package.rpartition("/")[2]
    if isinstance(binaries, str):
        binaries = {unscoped: binaries}
    known = {
        str(name): path
        for name, path in (binaries.items() if isinstance(binaries, Mapping) else ())
        if isinstance(path, str) and path
    }
    if not known:
        raise InstallFailed(
            f"`{package}` has no executable, so it is no server that can be started",
            hint="look for another package, or for another version of this one",
        )
    name = executable or _plainly_meant(unscoped, known)
    listed = ", ".join(f"`{candidate}`" for candidate in sorted(known))
    if name is None:
        raise Ambiguous(
            f"`{package}` has several executables: {listed}",
            hint=f"choose one with `--bin {min(known)}`",
            details={"candidates": sorted(known)},
        )
    if name not in known:
        raise InstallFailed(
            f"`{package}` has no executable `{name}`, it has {listed}",
            hint=f"choose one with `--bin {min(known)}`",
            details={"candidates": sorted(known)},
        )
    entry = str(PurePosixPath(root_path(package)) / known[name])
    if not is_inside(entry, root_path(package)):
        raise InstallFailed(f"the executable `{name}` of `{package}` lies outside the package")
    return entry


def _plainly_meant(unscoped: str, names: Iterable[str]) -> str | None:
    candidates = list(names)
    if len(candidates) == 1:
        return candidates[0]
    if unscoped in candidates:
        return unscoped
    return next((name for name in candidates if "mcp" in name), None)


def _lock(
    wanted: Wanted,
    version: str,
    overrides: Mapping[str, str],
    node: Node,
    staging: Path,
    bench: Bench,
) -> tuple[GraphRow, ...]:
    package = wanted.package
    write_json(staging / "package.json", manifest_of(package, version, overrides))
    words = locking(bench)
    output = run_npm(node, bench, words, staging)
    if output.exit_code and error_of(output)[0] == "EALLOWREMOTE":
        # npm takes the tarball of a package with bundled dependencies for one from anywhere. A
        # dependency that really is leaves its address in the lock, and is refused with the rows.
        output = run_npm(node, bench, (*words, "--allow-remote=all"), staging)
    if output.exit_code:
        raise too_young(output, node, staging, bench) or failure(
            output, f"the dependencies of `{package}`"
        )
    lock = json.loads((staging / "package-lock.json").read_text(encoding="utf-8"))
    rows = rows_from_lock(lock, package, wanted.scripts)
    roots = [row["version"] for row in rows if row["path"] == root_path(package)]
    if roots != [version]:
        raise InstallFailed(f"npm did not lock `{package}` {version}")
    return rows


def locking(bench: Bench) -> tuple[str, ...]:
    """Return the words that have npm choose versions and write its lock."""
    before = () if bench.min_age is None else (f"--before={bench.min_age.cutoff}",)
    return ("install", "--package-lock-only", *before)


def resolver_for(node: Node, requires: tuple[str, ...], staging: Path) -> tuple[Node, str]:
    """Return `node` with an npm that chooses as if the node was another one, and that version.

    Of dependencies npm quietly takes older versions where the newest do not fit the node that it
    runs on, and has no setting for another one: the same manifest would be locked differently on
    each machine, and with versions that nobody chose.
    """
    version = toolchains.node_to_resolve_for(node, requires)
    preload = staging / "node-version.cjs"
    preload.write_text(
        f"Object.defineProperty(process, 'version', {{value: {json.dumps(f'v{version}')}}})\n",
        encoding="utf-8",
    )
    program, *rest = node.npm
    return replace(node, npm=(program, "--require", str(preload), *rest)), version


def with_all_variants(
    rows: tuple[GraphRow, ...], package: str, node: Node, staging: Path, bench: Bench
) -> tuple[GraphRow, ...]:
    """Return `rows`, which npm made, without the names of optional packages nobody published.

    Raises:
        InstallFailed, RegistryUnreachable: one of those that npm left out may be there.
    """
    absent = npm_variants.absent(rows)
    if absent and not bench.offline:
        there = all_of(
            absent,
            lambda one, _: is_published(one.name, one.version_range, node, staging, bench),
            hands=_QUESTIONS,
        )
        left_out = [one.name for one, found in zip(absent, there, strict=True) if found]
        if left_out:
            raise InstallFailed(
                f"npm left `{left_out[0]}` out of the dependencies of `{package}`",
                hint="check the network and the registry, then try again",
            )
    return npm_variants.without(rows, absent)


def _node_that_runs(package: str, version: str, requires: tuple[str, ...], bench: Bench) -> Node:
    try:
        return toolchains.node(bench, requires)
    except InstallFailed as error:
        raise InstallFailed(
            f"`{package}` {version} does not run here: {error.message}",
            hint=f"{error.hint}; or ask for an older version, `npm:{package}@<{version}`",
            details=error.details,
        ) from error


def notes(
    package: str, found: Mapping[str, Any], rows: Sequence[GraphRow], node: Node, bench: Bench
) -> Iterable[str]:
    """Yield what a user should read about what npm's `view` or a package.json `found`."""
    deprecated = found.get("deprecated")
    if deprecated:
        text = " ".join(str(deprecated).split())[:_NOTE_CHARACTERS]
        yield f"`{package}` {found['version']} is deprecated: {text}"
    if node.path.is_relative_to(bench.home.runtimes):
        yield f"`{package}` runs on Octave's own node {node.version}."
    having, run = marked(rows, "hasInstallScript"), marked(rows, "runScripts")
    if run:
        yield f"Install scripts run: {_listed(run)}."
    if having - run:
        idle = _listed(having - run)
        yield f"Install scripts are not run: {idle}; `--allow-scripts NAME` runs those of one."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
