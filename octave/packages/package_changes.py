"""What differs between the dependency graphs of two pins. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from octave.packages.graph_rows import HASHES, marked, row_name
from octave.packages.lockfile import Pin


@dataclass(frozen=True, slots=True)
class PackageChanges:
    """From one pin to the next; the server's own package is not among them."""

    added: Mapping[str, str]
    """Name -> versions, joined by a comma: a tree of npm may hold several of one package."""
    removed: Mapping[str, str]
    changed: Mapping[str, tuple[str, str]]
    """Name -> versions before and after."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)


def package_changes(before: Pin, after: Pin) -> PackageChanges:
    """Return what differs in the packages that `after` brings along."""
    old, new = _versions(before), _versions(after)
    return PackageChanges(
        {name: text for name, text in new.items() if name not in old},
        {name: text for name, text in old.items() if name not in new},
        {
            name: (old[name], text)
            for name, text in new.items()
            if name in old and old[name] != text
        },
    )


def with_scripts(pin: Pin) -> set[str]:
    """Return the packages of a graph that have install scripts."""
    return set(marked(pin.graph, "hasInstallScript"))


def republished(before: Pin, after: Pin) -> list[str]:
    """Return what has none of its hashes left under the same version, as `NAME VERSION`.

    A registry that adds files to a version, as wheels for another Python, leaves the others. A
    folder changes under its version, and a source has another hash than its wheels.
    """
    if before.kind in {"oci", "mcpb"} or before.kind != after.kind:
        # A tag moves; the hash of a bundle is a part of its name. Elsewhere a name is another's.
        return []
    old, new = _hashes(before), _hashes(after)
    return [
        f"{key[0]} {key[1]}"
        for key in sorted(old.keys() & new.keys())
        if old[key].isdisjoint(new[key])
    ]


def _hashes(pin: Pin) -> dict[tuple[str, str, bool], frozenset[str]]:
    """Return the hashes of each package and version, its source apart from what is built of it."""
    found: dict[tuple[str, str, bool], frozenset[str]] = {}
    for row in pin.graph:
        key = row_name(row), str(row.get("version")), bool(row.get("build"))
        hashes = HASHES[pin.kind](row)
        if hashes and not (pin.kind == "folder" and pin.integrity in hashes):
            found[key] = found.get(key, frozenset()) | hashes
    return found


def _versions(pin: Pin) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for row in pin.graph:
        found.setdefault(row_name(row), set()).add(str(row.get("version")))
    own = pin.package.partition("[")[0].lower() if pin.kind == "pypi" else pin.package
    return {name: ", ".join(sorted(found[name])) for name in sorted(found) if name != own}
