"""From locked npm rows to an installed server: for which node, and Octave's way or npm's."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import nodesemver

from octave.errors import InstallFailed, IntegrityFailed, RegistryUnreachable
from octave.packages import toolchains
from octave.packages.ecosystems import npm_tree, npm_variants
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.npm_command import (
    NeedsNpm,
    RegistryAccess,
    failure,
    registry_access,
    run_npm,
    write_json,
)
from octave.packages.ecosystems.npm_graph import (
    Platform,
    check_rows,
    is_inside,
    lock_from_rows,
    names_platform,
    root_path,
    select,
)
from octave.packages.ecosystems.npm_versions import overrides_of
from octave.packages.graph_rows import marked, row_name
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.together import all_of
from octave.packages.toolchains import Node

TARBALLS = "npm-tarballs"
"""The folder in the cache."""


def install(pin: Pin, target: Path, bench: Bench) -> None:
    """Fill `target/node_modules` with the locked packages and check the tree."""
    by_path = checked(pin)
    try:
        node, rows = _filled(by_path, pin, target, bench)
    except NeedsNpm as reason:
        node = node_of(pin, bench)
        rows = selected(by_path, pin, node, bench)
        _install_with_npm(pin, node, target, bench, str(reason))
    bench.progress(f"checking the packages of {pin.package}")
    npm_tree.verify(rows, target, pin.package, pin.entry)
    _run_scripts(rows, node, target, bench)


def _filled(
    by_path: Mapping[str, GraphRow], pin: Pin, target: Path, bench: Bench
) -> tuple[Node, tuple[GraphRow, ...]]:
    """Fill `target`; a node that must be downloaded for the server comes meanwhile."""
    here = toolchains.fitting_system_node(bench)
    if here is None or not _awaits_node(pin, here, bench):
        node = node_of(pin, bench)
        return node, _fill(by_path, pin, node, target, bench)
    nodes: list[Node] = []
    trees: list[tuple[GraphRow, ...]] = []
    jobs: tuple[Callable[[], None], ...] = (
        lambda: nodes.append(node_of(pin, bench)),
        lambda: trees.append(_fill(by_path, pin, here, target, bench)),
    )
    all_of(jobs, lambda job, _: job(), hands=len(jobs))
    (node,), (rows,) = nodes, trees
    # Two nodes of one machine may be for two processors, one of them emulated.
    if selected(by_path, pin, node, bench) != rows:
        npm_tree.empty(target)
        rows = _fill(by_path, pin, node, target, bench)
    return node, rows


def _awaits_node(pin: Pin, here: Node, bench: Bench) -> bool:
    """Whether the server is not for the system's node, and the private one is not there yet."""
    ranges = (*_required(pin), *_asked(pin.graph))
    return not _fits(here.version, ranges) and not toolchains.has_private_node(bench)


def _fill(
    by_path: Mapping[str, GraphRow], pin: Pin, node: Node, target: Path, bench: Bench
) -> tuple[GraphRow, ...]:
    rows = selected(by_path, pin, node, bench)
    bench.progress(f"installing {pin.package} {pin.version} ({len(rows)} in all)")
    cache = bench.home.cache / TARBALLS
    npm_tree.fill(
        rows,
        target,
        cache,
        _access(rows, node, target.parent, bench),
        lambda done, total: bench.counted(done, total, "packages"),
    )
    return rows


def checked(pin: Pin) -> dict[str, GraphRow]:
    """Return the rows of `pin` by their paths.

    Raises:
        IntegrityFailed: no tree could be made of them.
    """
    by_path = check_rows(pin.graph, pin.package, pin.integrity)
    # The programs of its dependencies do more than servers do.
    others = (path for path in by_path if path.startswith(f"{root_path(pin.package)}/"))
    is_own = is_inside(pin.entry, root_path(pin.package))
    if not is_own or any(is_inside(pin.entry, path) for path in others):
        raise IntegrityFailed(
            f"the lockfile's entry `{pin.entry}` lies outside `{pin.package}`",
            hint="octave lock",
        )
    return by_path


def selected(
    by_path: Mapping[str, GraphRow], pin: Pin, node: Node, bench: Bench
) -> tuple[GraphRow, ...]:
    """Return the rows that belong into a tree for `node`, see `npm_graph.select`."""
    rows = by_path.values()
    platform = Platform("")
    if names_platform(rows) or npm_variants.absent(rows):
        platform = Platform(*toolchains.platform_of(node, bench))
    selected = select(by_path, pin.package, platform)
    npm_variants.require(selected, by_path, platform)
    return selected


def node_of(pin: Pin, bench: Bench) -> Node:
    """Return the node that the server of `pin` runs on."""
    return node_for(_required(pin), pin.graph, bench)


def _required(pin: Pin) -> tuple[str, ...]:
    asked = pin.requires.get("node")
    return (asked,) if asked else ()


def node_for(requires: tuple[str, ...], rows: Iterable[GraphRow], bench: Bench) -> Node:
    """Return a node for the package, and for its dependencies where one can be had.

    npm only warns when a dependency asks for another node, and most of those work.
    """
    node = toolchains.node(bench, requires)
    asked = _asked(rows)
    if _fits(node.version, asked):
        return node
    try:
        return toolchains.node(bench, (*requires, *asked))
    except (InstallFailed, RegistryUnreachable):
        return node


def _asked(rows: Iterable[GraphRow]) -> tuple[str, ...]:
    """Return the ranges of node that the packages ask for."""
    found = sorted(
        str(engines["node"])
        for row in rows
        if isinstance(engines := row.get("engines"), Mapping) and not row.get("optional")
    )
    return tuple(dict.fromkeys(found))


def _fits(version: str, ranges: Iterable[str]) -> bool:
    return all(_is_in(version, text) for text in ranges)


def _is_in(version: str, version_range: str) -> bool:
    try:
        return bool(nodesemver.satisfies(version, version_range, loose=True))
    except ValueError:
        return True


def _access(
    rows: Iterable[GraphRow], node: Node, folder: Path, bench: Bench
) -> Callable[[], RegistryAccess] | None:
    if bench.offline:
        return None
    names = map(row_name, rows)
    scopes = frozenset(name.partition("/")[0] for name in names if name.startswith("@"))

    def ask() -> RegistryAccess:
        with tempfile.TemporaryDirectory(dir=folder, prefix="npm-") as scratch:
            write_json(Path(scratch) / "package.json", {"private": True})
            return registry_access(node, bench, Path(scratch), scopes)

    return ask


def _install_with_npm(pin: Pin, node: Node, target: Path, bench: Bench, reason: str) -> None:
    bench.progress(f"installing {pin.package} with npm")
    bench.detail(f"npm installs `{pin.package}`: {reason}.")
    npm_tree.empty(target)
    manifest, lock = lock_from_rows(
        pin.graph, pin.package, pin.version, overrides_of(pin.constraints)
    )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="npm-") as name:
        folder = Path(name)
        write_json(folder / "package.json", manifest)
        write_json(folder / "package-lock.json", lock)
        output = run_npm(node, bench, ("ci", "--prefer-offline"), folder)
        if output.exit_code:
            names = {str(row.get("integrity")): f"`{row_name(row)}`" for row in pin.graph}
            raise failure(output, f"`{pin.package}`", names)
        modules = folder / "node_modules"
        (modules / ".package-lock.json").unlink(missing_ok=True)
        modules.rename(target / "node_modules")


def _run_scripts(rows: Iterable[GraphRow], node: Node, target: Path, bench: Bench) -> None:
    names = sorted(marked(rows, "runScripts"))
    if names:
        bench.progress(f"running the install scripts of {', '.join(names)}")
        # Of these alone, once every byte in the tree has been checked.
        words = ("rebuild", "--ignore-scripts=false", "--", *names)
        output = run_npm(node, bench, words, target)
        if output.exit_code:
            raise failure(output, f"the install scripts of `{'`, `'.join(names)}`")
