"""Which version of an npm package is meant, asked of the registry through `npm view`.

Exact, whatever node is there: npm itself would quietly take an older version when the newest
does not fit the node in hand. Pre-releases count only where there is nothing else.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodesemver

from octave.errors import OctaveError, PackageNotFound, UsageError, VersionNotFound
from octave.packages.commands import Output
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.npm_command import error_of, failure, run_npm
from octave.packages.ecosystems.npm_graph import NAME
from octave.packages.release_age import ReleaseAge
from octave.packages.toolchains import Node

_ANY = {"", "*", "latest"}
_TAG = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)
_RANGE = re.compile(r"[0-9A-Za-z*^~<>=v][0-9A-Za-z.*^~<>=|+ -]*")
_FILE = re.compile(r"\.(?:tgz|tar\.gz|tar)$", re.IGNORECASE)
"""What npm reads as the name of a file, whatever stands before it."""
_VIEWED = (
    *("name", "version", "engines", "bin", "dist", "deprecated", "dist-tags"),
    *("_npmUser", "maintainers", "author", "repository", "homepage"),
)
_NEWEST = 5
"""Versions worth showing to somebody who asked for one that does not exist."""
_TOO_YOUNG = re.compile(
    r"No (?:matching version found|versions available) for (@?[^@\s]+)(?:@(\S+))?"
)
_LOOKED_AT = 20
"""So many of the highest versions are looked at for one that is not deprecated."""
_CONSTRAINT = re.compile(r"((?:@[\w.-]+/)?\w[\w.-]*) ?@?([<>=~^].*|[0-9].*)", re.ASCII)


def check_wanted(wanted: Wanted) -> None:
    """Refuse names and ranges that are none.

    Raises:
        UsageError: npm would read it as something else, or not at all.
    """
    # npm would read other spellings as a URL, a file, a git address or an option.
    if not NAME.fullmatch(wanted.package) or _FILE.search(wanted.package):
        raise UsageError(
            f"`{wanted.package}` is not the name of an npm package",
            hint="a name looks like `some-package` or `@scope/some-package`",
        )
    text = wanted.version_range
    if text not in _ANY and not _is_tag(text) and not _is_range(text):
        raise UsageError(
            f"`{text}` is not an npm version range",
            hint=f"use a version or a range, `octave install npm:{wanted.package}@^1.2`",
        )


def _is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text)) and not _FILE.search(text)


def _is_range(text: str) -> bool:
    if not _RANGE.fullmatch(text) or _FILE.search(text):
        return False
    try:
        return nodesemver.valid_range(text, loose=True) is not None
    except ValueError:
        return False


def overrides_of(constraints: Sequence[str]) -> dict[str, str]:
    """Return package.json's `overrides` for constraints such as `zod<4`.

    Raises:
        UsageError: one is none.
    """
    overrides = {}
    for text in constraints:
        found = _CONSTRAINT.fullmatch(text)
        version_range = found[2].replace(",", " ").strip() if found else ""
        if found is None or not _is_range(version_range):
            raise UsageError(
                f"`{text}` is not a constraint on an npm package",
                hint='write the name and a range: `constraints = ["zod<4"]`',
            )
        overrides[found[1]] = version_range
    return overrides


def find_version(wanted: Wanted, node: Node, staging: Path, bench: Bench) -> dict[str, Any]:
    """Return what the registry says about the version that `wanted` means: `npm view`'s members.

    Raises:
        PackageNotFound, VersionNotFound, RegistryUnreachable, InstallFailed.
    """
    if bench.min_age is not None:
        return _find_old_enough(wanted, bench.min_age, node, staging, bench)
    package, asked = wanted.package, wanted.version_range
    found = _view(package, "latest" if asked in _ANY else asked, node, staging, bench)
    if not found:
        told = _published(package, node, staging, bench)
        version = _highest_of(told.versions, "*" if asked in _ANY else asked)
        if version is None:
            raise _no_such_version(package, asked, told.versions, told.tags)
        found = _view(package, version, node, staging, bench)
    if not found:
        raise VersionNotFound(
            f"`{package}` has no version `{asked}`", hint=f"octave install npm:{package}"
        )
    return _preferred(found)


def _preferred(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kept = [one for one in found if not one.get("deprecated")] or found
    version = _highest([str(one["version"]) for one in kept])
    return next(one for one in kept if one["version"] == version)


def _find_old_enough(
    wanted: Wanted, age: ReleaseAge, node: Node, staging: Path, bench: Bench
) -> dict[str, Any]:
    """Return as `find_version`, of the versions that are old enough.

    Where a tag means a younger one, the highest below it counts, as npm does with `--before`.
    """
    package, asked = wanted.package, wanted.version_range
    told = _published(package, node, staging, bench)
    tag = told.tags.get("latest" if asked in _ANY else asked)
    fitting = _fitting(told.versions, asked, tag)
    if not fitting:
        raise _no_such_version(package, asked, told.versions, told.tags)
    if not any(version in told.times for version in fitting):
        raise age.unknown(package)
    old = [version for version in fitting if age.admits(told.times.get(version, ""))]
    if not old:
        newest = _highest(fitting)
        raise age.nothing(package, {newest: told.times.get(newest, "")})
    if tag in old:
        old = [tag]
    stable = [version for version in old if "-" not in version.partition("+")[0]] or old
    asking = " || ".join(nodesemver.sort(stable, loose=True)[-_LOOKED_AT:])
    return _preferred(_view(package, asking, node, staging, bench))


def too_young(output: Output, node: Node, staging: Path, bench: Bench) -> OctaveError | None:
    """Return the error where npm failed for want of a dependency that is old enough.

    Raises:
        RegistryUnreachable, InstallFailed: nobody can say how old it is.
    """
    found = _TOO_YOUNG.search(output.stderr + output.stdout)
    if bench.min_age is None or found is None or not NAME.fullmatch(found[1]):
        return None
    package, asked = found[1], found[2] or "*"
    told = _published(package, node, staging, bench)
    fitting = _fitting(told.versions, asked, told.tags.get(asked)) or told.versions
    newest = _highest(fitting) if fitting else ""
    if newest not in told.times:
        return None
    return bench.min_age.nothing(package, {newest: told.times[newest]})


def _fitting(versions: Sequence[str], asked: str, tag: str | None) -> list[str]:
    version_range = f"<={tag}" if tag else "*" if asked in _ANY else asked
    if not _is_range(version_range):
        return []
    return [
        version
        for version in versions
        if nodesemver.satisfies(version, version_range, loose=True, include_prerelease=True)
    ]


def is_published(package: str, wanted: str, node: Node, staging: Path, bench: Bench) -> bool:
    """Return whether the registry has what a package.json wants of `package`: a range, an alias.

    What comes from elsewhere, a git address or a file, has no version in any registry.

    Raises:
        RegistryUnreachable, InstallFailed: it does not say.
    """
    if wanted.startswith("npm:"):
        package, _, wanted = wanted.removeprefix("npm:").rpartition("@")
    if not NAME.fullmatch(package) or not (wanted in _ANY or _is_tag(wanted) or _is_range(wanted)):
        return False
    try:
        return bool(_view(package, wanted or "*", node, staging, bench))
    except PackageNotFound:
        return False


def _view(
    package: str, asked: str, node: Node, staging: Path, bench: Bench
) -> list[dict[str, Any]]:
    """Return what the registry says about each fitting version; empty when none fits."""
    words = ("view", f"{package}@{asked}", *_VIEWED, "--json")
    output = bench.ask((*node.npm, *words), lambda: run_npm(node, bench, words, staging))
    if output.exit_code:
        code, summary = error_of(output)
        if code == "ETARGET" or (code == "E404" and summary.startswith("No match")):
            return []
        if code == "E404":
            raise _no_such_package(package)
        raise failure(output, f"`{package}`")
    said = json.loads(output.stdout or "[]")
    return said if isinstance(said, list) else [said]


@dataclass(frozen=True, slots=True)
class _Published:
    versions: list[str]
    tags: Mapping[str, str]
    times: Mapping[str, str]
    """When each version was published, RFC 3339; empty where the registry does not tell."""


def _published(package: str, node: Node, staging: Path, bench: Bench) -> _Published:
    members = ("versions", "dist-tags", "time", "--json")
    output = run_npm(node, bench, ("view", package, *members), staging)
    if not output.stdout.strip() and not output.exit_code:
        # A package without `latest` shows nothing until it is asked for everything.
        output = run_npm(node, bench, ("view", f"{package}@>=0.0.0-0", *members), staging)
    if output.exit_code:
        if error_of(output)[0] == "E404":
            raise _no_such_package(package)
        raise failure(output, f"`{package}`")
    said = json.loads(output.stdout or "{}")
    said = (said[0] if said else {}) if isinstance(said, list) else said
    versions, times = said.get("versions", []), said.get("time")
    return _Published(
        [versions] if isinstance(versions, str) else list(versions),
        dict(said.get("dist-tags", {})),
        {str(key): str(when) for key, when in times.items()} if isinstance(times, dict) else {},
    )


def _no_such_package(package: str) -> PackageNotFound:
    return PackageNotFound(
        f"the registry has no npm package `{package}`",
        hint="check the name; a private package also needs `npm login`",
    )


def _no_such_version(
    package: str, asked: str, published: list[str], tags: Mapping[str, str]
) -> VersionNotFound:
    newest = nodesemver.sort(list(published), loose=True)[::-1][:_NEWEST]
    listed = ", ".join(f"`{version}`" for version in newest)
    suggested = tags.get("latest") or (newest[0] if newest else "latest")
    return VersionNotFound(
        f"`{package}` has no version `{asked}`; the newest are {listed or 'none'}",
        hint=f"octave install npm:{package}@{suggested}",
        details={"newest": newest},
    )


def _highest_of(versions: Sequence[str], version_range: str) -> str | None:
    """Return the highest version in the range, pre-releases only when nothing else fits."""
    if not _is_range(version_range):
        return None
    for prereleases in (False, True):
        found = nodesemver.max_satisfying(
            list(versions), version_range, loose=True, include_prerelease=prereleases
        )
        if found is not None:
            return str(found)
    return None


def _highest(versions: Sequence[str]) -> str:
    stable = [text for text in versions if "-" not in text.partition("+")[0]]
    return str(nodesemver.sort(list(stable or versions), loose=True)[-1])


def required_node(found: Mapping[str, Any], known: str | None) -> tuple[str, ...]:
    """Return the range of node versions, none or one, that the package and the registry allow."""
    engines = found.get("engines")
    asked = engines.get("node") if isinstance(engines, dict) else None
    texts = [text.strip() for text in (asked, known) if isinstance(text, str)]
    ranges = [text for text in texts if text not in _ANY and _is_range(text)]
    if not ranges:
        return ()
    return (intersection(*ranges) if len(set(ranges)) == 2 else ranges[0],)


def intersection(first: str, second: str) -> str:
    """Return the npm range of versions that lie in both ranges."""
    plain = [re.sub(r"(\S+)\s+-\s+(\S+)", r">=\1 <=\2", text) for text in (first, second)]
    left, right = ([part.strip() for part in text.split("||")] for text in plain)
    return " || ".join(f"{one} {other}" for one in left for other in right)
