"""Graph rows of PyPI packages, and the requirement texts they come from and go back to. Pure."""

import re
from collections.abc import Collection, Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from octave.errors import InstallFailed, IntegrityFailed, UsageError
from octave.packages import names
from octave.packages.lockfile import GraphRow

OLDEST_PYTHON = Version("3.11")
"""Resolved for, unless a package needs a newer one: the lock then fits wherever Octave runs."""


def requirement(package: str, version_range: str) -> Requirement:
    """Return what is asked for as a requirement of PEP 508.

    Raises:
        UsageError: the name or the range cannot be one; an npm range is answered with its
            equivalent.
    """
    try:
        names.split_package(f"pypi:{package}")
        names.check_range("pypi", version_range)
        found = Requirement(package)
        found.specifier = _specifier(version_range)
    except (ValueError, InvalidRequirement, InvalidSpecifier) as error:
        raise UsageError(
            f"`{package}` cannot be asked for as `{version_range}`: {error}",
            hint='write a version or a range of PEP 440, such as `">=1.2,<2"`',
        ) from error
    return found


def _specifier(version_range: str) -> SpecifierSet:
    if version_range in {"*", "latest"}:
        return SpecifierSet()
    exact = version_range[0].isdigit() or version_range[0] == "v"
    return SpecifierSet(f"=={version_range}" if exact else version_range)


def constraint(text: str) -> Requirement:
    """Return a limit on a dependency, `mcp<2`.

    Raises:
        UsageError: it is none.
    """
    try:
        names.check_constraint(text)
        return Requirement(text)
    except (ValueError, InvalidRequirement) as error:
        raise UsageError(
            f"`{text}` is not a constraint: {error}", hint="write it as `NAME<VERSION`"
        ) from error


def parse_requirements(text: str) -> list[GraphRow]:
    """Return the rows of what `uv pip compile --generate-hashes` wrote, sorted.

    Raises:
        InstallFailed: a line is not `NAME==VERSION [; MARKER]` with hashes.
    """
    rows: list[GraphRow] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        head, *hashes = re.split(r"\s--hash=", line)
        rows.append(_row(head.strip(), [value.strip() for value in hashes]))
    return sorted(rows, key=lambda row: (row["name"], row["version"], row.get("marker", "")))


def _row(head: str, hashes: Iterable[str]) -> GraphRow:
    try:
        found = Requirement(head)
    except InvalidRequirement as error:
        raise InstallFailed(f"uv wrote a line that nobody can read: `{head}`") from error
    exact = re.fullmatch(r"==([^=*,]+)", str(found.specifier))
    kept = sorted(value for value in hashes if value.startswith("sha256:"))
    if exact is None or not kept:
        raise InstallFailed(
            f"`{head}` cannot be locked: it has no exact version with a sha256",
            hint="the package index must offer sha256 hashes",
        )
    row: dict[str, object] = {"name": canonicalize_name(found.name), "version": exact[1]}
    if found.marker is not None:
        row["marker"] = head.partition(";")[2].strip()
    return row | {"hashes": kept}


def with_builds(rows: Iterable[GraphRow], builds: Collection[str]) -> list[GraphRow]:
    """Return `rows` with those of `builds` marked: what is locked of them is their source."""
    return [{**row, "build": True} if row["name"] in builds else row for row in rows]


def only_wheels(builds: Iterable[str]) -> list[str]:
    """Return uv's options that keep it from building anything but `builds`."""
    # What is named comes as source even where there are wheels: uv knows no "may".
    named = [word for name in sorted(builds) for word in ("--no-binary", name)]
    return ["--only-binary", ":all:", *named]


def as_requirements(rows: Iterable[GraphRow]) -> str:
    """Return `rows` as a requirements file with hashes: what `parse_requirements` undoes.

    Raises:
        IntegrityFailed: a row lacks hashes, or a member could be read as something else.
    """
    lines = []
    for row in rows:
        marker = f" ; {row['marker']}" if row.get("marker") else ""
        head = f"{row.get('name')}=={row.get('version')}{marker}"
        hashes = hashes_of(row)
        # A row must stay one requirement: no further line, option, comment or `${VARIABLE}`.
        if not hashes or re.search(r"[\r\n\\#$]", head) or not _is_requirement(head):
            raise IntegrityFailed(
                f"the lockfile's row for `{row.get('name')}` is damaged or has no hashes",
                hint="remove the server from `octave.lock`, then install it again",
            )
        lines.append(" \\\n    ".join([head, *(f"--hash={value}" for value in hashes)]))
    return "\n".join([*lines, ""])


def _is_requirement(text: str) -> bool:
    try:
        return Requirement(text).url is None
    except InvalidRequirement:
        return False


def hashes_of(row: GraphRow) -> list[str]:
    """Return the sha256 values of a row, `sha256:` in front; nothing else counts as a hash."""
    found = row.get("hashes")
    if not isinstance(found, list | tuple):
        return []
    return [str(value) for value in found if re.fullmatch(r"sha256:[0-9a-f]{64}", str(value))]


def python_limits(text: str | None) -> SpecifierSet:
    """Return the range of Pythons that a registry entry names."""
    try:
        return SpecifierSet(text or "")
    except InvalidSpecifier:
        # Foreign text: what cannot be read limits nothing.
        return SpecifierSet()


def lowest_python(limits: SpecifierSet) -> Version:
    """Return the oldest Python to resolve for within `limits`."""
    lower = [limit.version for limit in limits if limit.operator in {">=", ">", "~=", "=="}]
    return max([OLDEST_PYTHON, *(Version(text.removesuffix(".*")) for text in lower)])


def python_range(floor: Version, limits: SpecifierSet) -> str:
    """Return `floor` and the upper `limits` as one PEP 440 specifier."""
    others = sorted(str(limit) for limit in limits if limit.operator not in {">=", ">"})
    return ",".join([f">={floor}", *others])
