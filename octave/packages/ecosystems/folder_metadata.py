"""What a folder's pyproject.toml says by itself, for whoever may not have its build code run."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from octave.packages.ecosystems import pypi
from octave.packages.ecosystems.base import Bench, Resolved, Wanted
from octave.packages.lockfile import GraphRow


def resolve(folder: Path, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
    """Return what the folder says that it is and depends on; of what it would build no hash.

    Raises:
        RegistryUnreachable, InstallFailed: as `pypi.resolve_wheel`.
    """
    told = _project(folder)
    name, version = _name(told), _version(told)
    row: GraphRow = {"name": name, "version": version}
    if not name or not version or "dependencies" in _names(told.get("dynamic")):
        return Resolved(version, "", (row,), {}, {})
    wheel = _stand_in(told, name, version, staging)
    found = pypi.resolve_wheel(wheel, name, version, wanted, staging, bench)
    others = (each for each in found.graph if each["name"] != name)
    return replace(found, integrity="", graph=(row, *others))


def _project(folder: Path) -> Mapping[str, Any]:
    try:
        found = tomllib.loads((folder / "pyproject.toml").read_text("utf-8")).get("project")
    except (OSError, ValueError):
        # One with a setup.py alone; what is wrong in it, its build will say.
        return {}
    return found if isinstance(found, dict) else {}


def _name(told: Mapping[str, Any]) -> str:
    """Return its name, which can stand in a path; empty: it has none that is one."""
    try:
        return canonicalize_name(str(told.get("name") or ""), validate=True)
    except InvalidName:
        return ""


def _version(told: Mapping[str, Any]) -> str:
    try:
        return str(Version(str(told.get("version") or "")))
    except InvalidVersion:
        return ""


def _names(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _stand_in(told: Mapping[str, Any], name: str, version: str, staging: Path) -> Path:
    """Return a wheel with that metadata and nothing else, for uv to read."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if isinstance(told.get("requires-python"), str):
        lines.append(f"Requires-Python: {told['requires-python']}")
    lines += [f"Requires-Dist: {one}" for one in _names(told.get("dependencies"))]
    stem = f"{name.replace('-', '_')}-{version}"
    path = staging / f"{stem}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        info = f"{stem}.dist-info"
        archive.writestr(f"{info}/METADATA", "\n".join([*lines, "", ""]))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path
