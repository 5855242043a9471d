"""What differs between the dependency graphs of two pins. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from octave.packages.graph_rows import marked, row_name
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


def _versions(pin: Pin) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for row in pin.graph:
        found.setdefault(row_name(row), set()).add(str(row.get("version")))
    own = pin.package.partition("[")[0].lower() if pin.kind == "pypi" else pin.package
    return {name: ", ".join(sorted(found[name])) for name in sorted(found) if name != own}
