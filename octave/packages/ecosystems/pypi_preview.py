"""What an index and the metadata of a wheel tell of a locked package before it is installed."""

import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from octave.errors import OctaveError
from octave.packages import toolchains, uv
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.pypi import plain_choice
from octave.packages.ecosystems.pypi_rows import as_requirements, hashes_of, only_wheels
from octave.packages.graph_rows import marked
from octave.packages.lockfile import Pin
from octave.packages.preview import Preview
from octave.packages.wheels import Site


def preview(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    """Return what the metadata of the locked wheel tell; no code of it runs."""
    own = [row for row in pin.graph if set(pin.integrity.split()) == set(hashes_of(row))]
    if not own or own[0].get("build"):
        # To look into a source would run its code.
        return Preview()
    folder = staging / "preview"
    words: list[str | Path] = ["pip", "install", "-r", "-", "--target", folder, "--no-deps"]
    words += ["--require-hashes", *only_wheels(()), "--python"]
    words += [toolchains.python(bench, pin.requires.get("python")).path]
    output = uv.run(bench, words, cwd=staging, stdin=as_requirements(own[:1]))
    if output.exit_code:
        return Preview()
    site = Site.at(folder)
    name = str(own[0]["name"])
    told = site.packages[name].metadata

    def said(key: str) -> list[str]:
        return [str(one) for one in told.get_all(key) or ()]

    entry = pin.executable
    if not entry:
        try:
            entry = plain_choice(name, site.console_scripts(name))
        except OctaveError:
            entry = ""
    keys = ("Maintainer", "Maintainer-email", "Author", "Author-email")
    authors = [one for key in keys for one in said(key)]
    pages = _pages(said("Project-URL"))
    found = [pages[key] for key in _PAGES if key in pages] + said("Home-page")
    shutil.rmtree(folder, ignore_errors=True)
    return Preview("", tuple(authors[:1]), "".join(found[:1]), entry)


_PAGES = ("repository", "source", "source code", "github", "homepage", "home page")


def _pages(said: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition(",") for line in said)
    return {key.strip().lower(): url.strip() for key, _, url in pairs}


def download_bytes(pin: Pin, staging: Path, bench: Bench) -> int | None:
    """Return the sizes that the index tells of the wheels that this machine takes."""
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
