"""What npm's registry tells of a locked package before it is installed."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octave.packages import toolchains
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.npm_versions import find_version
from octave.packages.lockfile import Pin
from octave.packages.preview import Preview


def preview(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    """Return what npm's registry tells of the locked package."""
    # The same question as when it was resolved: its answer is kept.
    wanted = Wanted(pin.package, version_range)
    found = find_version(wanted, toolchains.node(bench), staging, bench)
    if found.get("version") != pin.version:
        return Preview()
    people = _people(found.get("maintainers")) or _people(found.get("author"))
    repository = found.get("repository")
    if isinstance(repository, Mapping):
        repository = repository.get("url")
    page = re.sub(r"^git\+|\.git$", "", str(repository or found.get("homepage") or ""))
    return Preview("".join(_people(found.get("_npmUser"))[:1]), people, page)


def _people(said: Any) -> tuple[str, ...]:
    """Return the names in what npm says: texts or objects, one or several."""
    listed = said if isinstance(said, list) else [said]
    names = [one.get("name") if isinstance(one, Mapping) else one for one in listed]
    return tuple(name for name in names if isinstance(name, str) and name)


def download_bytes(pin: Pin, staging: Path, bench: Bench) -> int | None:
    """Return nothing where every tarball is in the cache; npm's registry tells no sizes."""
    del staging
    return 0 if all(_is_cached(row, bench) for row in pin.graph) else None


def _is_cached(row: Mapping[str, object], bench: Bench) -> bool:
    integrity = str(row.get("integrity", ""))
    if row.get("inBundle") or row.get("os") or row.get("cpu") or row.get("libc"):
        # With its parent, or perhaps not for this machine.
        return True
    digest = base64.b64decode(integrity.removeprefix("sha512-")).hex()
    tarball = bench.home.cache / "npm-tarballs" / digest[:2] / f"{digest[2:]}.tgz"
    return tarball.is_file()
