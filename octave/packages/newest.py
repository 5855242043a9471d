"""Which version is the newest within a range: one question to a registry, nothing is resolved."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from octave.errors import InstallFailed
from octave.home import Home
from octave.packages import toolchains
from octave.packages.ecosystems import pypi
from octave.packages.ecosystems.base import Bench, Newest, Wanted
from octave.packages.ecosystems.npm_versions import check_wanted, find_version, required_node
from octave.packages.resolve import Choice, require_index


def newest_of(choice: Choice, version_range: str, staging: Path, bench: Bench) -> Newest:
    """Return the newest version of what `choice` means; its dependencies are not looked at.

    Raises:
        PackageNotFound, VersionNotFound, RegistryUnreachable, InstallFailed.
    """
    known = choice.known
    if known is not None and known.index_host:
        require_index(known, staging, bench)
    requires = known.requires if known else {}
    wanted = Wanted(choice.package, version_range, requires=requires, builds=choice.builds)
    return _NEWEST[choice.kind](wanted, staging, bench)


def _npm(wanted: Wanted, staging: Path, bench: Bench) -> Newest:
    check_wanted(wanted)
    # npm would look for a project further up.
    (staging / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
    # Without a cache: from it npm answers without a word where the registry cannot be reached.
    asking = replace(bench, home=Home(staging / "home"))
    found = find_version(wanted, toolchains.node(bench), staging, asking)
    version = str(found["version"])
    try:
        toolchains.fitting_system_node(bench, required_node(found, wanted.requires.get("node")))
    except InstallFailed as error:
        return Newest(version, error.message)
    return Newest(version)


_NEWEST: Mapping[str, Callable[[Wanted, Path, Bench], Newest]] = {
    "npm": _npm,
    "pypi": pypi.newest,
}
