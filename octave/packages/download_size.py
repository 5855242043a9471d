"""How many bytes an installation would fetch, where that can be told without fetching them."""

import base64
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from octave.packages import toolchains, uv
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.pypi_rows import as_requirements, only_wheels
from octave.packages.graph_rows import marked
from octave.packages.lockfile import Pin


def download_bytes(pin: Pin, staging: Path, bench: Bench) -> int | None:
    """Return the size of what `pin` takes on this machine; None where it cannot be told.

    npm's registry tells no sizes, so only what lies in the cache whole counts, as nothing. An index
    of Python packages may tell; what uv has in its cache already is counted all the same.
    """
    look = _LOOKS.get(pin.kind)
    return look(pin, staging, bench) if look else None


def _npm(pin: Pin, staging: Path, bench: Bench) -> int | None:
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


def _pypi(pin: Pin, staging: Path, bench: Bench) -> int | None:
    python = toolchains.python(bench, pin.requires.get("python"))
    if not python.is_own:
        # Which of several wheels another Python takes is not known here.
        return None
    words: list[str | Path] = ["pip", "compile", "-", "--format", "pylock.toml", "--no-header"]
    words += ["--no-deps", "--python", python.path, *only_wheels(marked(pin.graph, "build"))]
    output = uv.run(bench, words, cwd=staging, stdin=as_requirements(pin.graph))
    if output.exit_code:
        return None
    packages = tomllib.loads(output.stdout).get("packages", [])
    sizes = [_artifact_bytes(package) for package in packages]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _artifact_bytes(package: Mapping[str, Any]) -> int | None:
    wheels = [wheel for wheel in package.get("wheels", ()) if isinstance(wheel, dict)]
    if not wheels:
        return _size(package.get("sdist") or {})
    if len(wheels) == 1:
        return _size(wheels[0])
    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    ranked = [(rank, wheel) for wheel in wheels if (rank := _rank(wheel, ranks)) is not None]
    return _size(min(ranked, key=lambda one: one[0])[1]) if ranked else None


def _rank(wheel: Mapping[str, Any], ranks: Mapping[Any, int]) -> int | None:
    name = str(wheel.get("name") or str(wheel.get("url", "")).rpartition("/")[2])
    try:
        tags: Iterable[Any] = parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return None
    return min((ranks[tag] for tag in tags if tag in ranks), default=None)


def _size(artifact: Mapping[str, Any]) -> int | None:
    size = artifact.get("size")
    return size if isinstance(size, int) else None


_LOOKS: Mapping[str, Callable[[Pin, Path, Bench], int | None]] = {"npm": _npm, "pypi": _pypi}
