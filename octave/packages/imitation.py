"""Packages that look like one the bundled registry knows: mistyped, or made to be mistaken for it.

Letters of other scripts, digits for letters, other separators, a scope more or less, the same name
in the other ecosystem, one or two letters off. Pure but for the registry that is asked.
"""

import re
import unicodedata

from octave.packages.names import pypi_name
from octave.packages.registry import Registry
from octave.packages.spelling import IMITATED, distance, looks_like

_LOOKALIKES = str.maketrans(
    # Cyrillic, Greek and others as they are drawn; digits as they are read.
    "аеорсухіјѕһԁԛԝкмтвнԍӏαονρτυικεγωıɡℓ01|",  # noqa: RUF001 - they are the point
    "aeopcyxijshdqwkmtbhglaovptuikeywigloll",
)
_COMMON = frozenset(("mcp", "mcpserver", "server", "servermcp", "cli", "core"))
"""Last parts of names that many scopes have without meaning each other."""


def imitated(kind: str, package: str, registry: Registry) -> str | None:
    """Return the known package, `npm:NAME` or `pypi:NAME`, that `package` may be mistaken for.

    None where it is known itself, or looks like no other. A folder is nobody's name.
    """
    if kind == "folder":
        return None
    known = {
        (choice.kind, choice.identifier.partition("[")[0]): entry.short_name
        for entry in registry.entries()
        for choice in entry.packages
        if choice.installable
    }
    if any(_is_same(kind, package, *one) for one in known):
        return None
    alike = [one for one in known if _is_twin(package, one[1])] or sorted(
        (one for one in known if looks_like(_drawn(package), _drawn(one[1]))),
        key=lambda one: distance(_drawn(package), _drawn(one[1]), IMITATED),
    )
    # `github` is the name of a server here, and of something else in npm.
    alike += [one for one, short in known.items() if _drawn(package) == _drawn(short)]
    return ":".join(alike[0]) if alike else None


def _is_same(kind: str, package: str, other_kind: str, other: str) -> bool:
    if kind != other_kind:
        return False
    return pypi_name(package) == pypi_name(other) if kind == "pypi" else package == other


def _is_twin(package: str, other: str) -> bool:
    """Whether both are drawn the same but for separators and the scope."""
    if _drawn(package) == _drawn(other):
        return True
    last = _drawn(package.rpartition("/")[2])
    return last == _drawn(other.rpartition("/")[2]) and last not in _COMMON


def _drawn(name: str) -> str:
    """Return `name` with one letter for all that look alike, without what is between words."""
    folded = unicodedata.normalize("NFKD", name.partition("[")[0]).casefold()
    letters = "".join(c for c in folded if not unicodedata.combining(c)).translate(_LOOKALIKES)
    return re.sub(r"[^a-z0-9]+", "", letters)
