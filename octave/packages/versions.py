"""Compare versions and ranges as npm and PyPI do, each its own way. Pure.

Bundles and images have versions like npm's, mostly, and no ranges.
"""

import nodesemver
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

_ANY = frozenset(("*", "latest", ""))


def is_newer(kind: str, version: str, other: str) -> bool:
    """Whether `version` comes after `other`; false for what is no version."""
    try:
        if kind != "pypi":
            return bool(nodesemver.gt(version, other, loose=True))
        return Version(version) > Version(other)
    except (ValueError, InvalidVersion):
        return False


def is_in_range(kind: str, version: str, version_range: str) -> bool:
    """Whether `version` lies in `version_range`; never in what is none, such as an npm tag."""
    if version_range in _ANY or version == version_range:
        return True
    if kind in {"mcpb", "oci"}:
        return False
    try:
        if kind == "npm":
            return bool(
                nodesemver.satisfies(version, version_range, loose=True, include_prerelease=True)
            )
        exact = version_range[0].isdigit() or version_range[0] == "v"
        wanted = SpecifierSet(f"=={version_range}" if exact else version_range)
        return wanted.contains(version, prereleases=True)
    except (ValueError, InvalidSpecifier, InvalidVersion):
        return False


def is_outside(kind: str, version: str, version_range: str) -> bool:
    """Whether `version` is none of `version_range`; false where only a registry could tell.

    As for npm's tags, and images and bundles, whose hashes say more.
    """
    if kind == "npm" and nodesemver.valid_range(version_range, loose=True) is None:
        return False
    return kind in {"npm", "pypi"} and not is_in_range(kind, version, version_range)
