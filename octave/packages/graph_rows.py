"""What a row of a dependency graph must hold to be locked, and in which order rows are written."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Row = Mapping[str, object]

_NPM_HASH = re.compile(r"sha(?:256|384|512)-[A-Za-z0-9+/]{43,}={0,2}")
_PYPI_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def npm_hashes(row: Row) -> frozenset[str] | None:
    """Return the hashes of a row of package-lock; None when there is none, or no good one.

    A package that lies inside its parent's archive (`inBundle`) needs none.
    """
    integrity = row.get("integrity")
    if integrity is None and row.get("inBundle") is True:
        return frozenset()
    words = integrity.split(" ") if isinstance(integrity, str) else []
    good = words and all(_NPM_HASH.fullmatch(word) for word in words)
    return frozenset(words) if good else None


def pypi_hashes(row: Row) -> frozenset[str] | None:
    """Return the sha256 values of a row's files; None when there are none, or not all are good."""
    hashes = row.get("hashes")
    if not isinstance(hashes, list | tuple) or not hashes:
        return None
    good = all(isinstance(value, str) and _PYPI_HASH.fullmatch(value) for value in hashes)
    return frozenset(hashes) if good else None


HASHES: Mapping[str, Callable[[Row], frozenset[str] | None]] = {
    "npm": npm_hashes,
    "pypi": pypi_hashes,
    "mcpb": pypi_hashes,
    "oci": pypi_hashes,
    "folder": lambda row: npm_hashes(row) if "path" in row else pypi_hashes(row),
}
"""By ecosystem."""


def holds_address(value: object) -> bool:
    """Tell whether a URL stands anywhere in `value`: a lock must work behind any mirror."""
    if isinstance(value, str):
        return "://" in value
    if isinstance(value, Mapping):
        return any(holds_address(key) or holds_address(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(holds_address(item) for item in value)


def row_name(row: Row) -> str:
    """Return the name of the row's package in its registry; an alias of npm has another path."""
    return str(row.get("name") or f"/{row.get('path')}".rpartition("/node_modules/")[2])


def marked(rows: Iterable[Row], mark: str) -> frozenset[str]:
    """Return the packages whose rows bear `mark`.

    npm: `hasInstallScript`, and `runScripts` where these run; PyPI: `build` for a source.
    """
    return frozenset(row_name(row) for row in rows if row.get(mark))


def buildable(rows: Iterable[Row]) -> frozenset[str]:
    """Return the packages that may be built from their source, where that is allowed."""
    return frozenset(row_name(row) for row in rows if "path" not in row)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return `rows` by path or name; whatever order they came in, they give the same list."""
    return sorted(
        rows,
        key=lambda row: (
            str(row.get("path") or row.get("name")),
            json.dumps(row, sort_keys=True),
        ),
    )


_FIRST = ("path", "name", "version")


def ordered_keys(value: Any) -> Any:
    """Return `value` with its tables in one order: what it is, then the rest by name."""
    if not isinstance(value, Mapping):
        return value
    order = sorted(value, key=lambda key: (key not in _FIRST, key))
    return {key: ordered_keys(value[key]) for key in order}
