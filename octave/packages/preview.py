"""What can be told of a locked package before anything of it is installed or run.

Who published it, as far as its registry says, and which file or script would start it. Nothing is
guessed: what is not told stays empty.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octave.errors import OctaveError
from octave.packages import toolchains, uv
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.npm_versions import find_version
from octave.packages.ecosystems.pypi_rows import as_requirements, only_wheels
from octave.packages.lockfile import Pin


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of the package itself; texts of its author and its registry."""

    published_by: str = ""
    """Who published this version."""
    maintainers: tuple[str, ...] = ()
    """Who may publish the next one, or else who says to have written it."""
    page: str = ""
    """Its repository, else its home page."""
    entry: str = ""
    """As `Pin.entry`, where only the package can tell; empty where it cannot be told yet."""


def preview(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    """Return what is told of `pin`, which was resolved within `version_range`.

    `staging` is a scratch folder. A registry that tells nothing is no error.
    """
    look = _LOOKS.get(pin.kind)
    return look(pin, version_range, staging, bench) if look else Preview()


def _npm(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
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


def _pypi(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    own = [row for row in pin.graph if set(pin.integrity.split()) == set(_hashes(row))]
    if not own or own[0].get("build"):
        # To look into a source would run its code.
        return Preview()
    from octave.packages.ecosystems.pypi import plain_choice
    from octave.packages.wheels import Site

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


def _hashes(row: Mapping[str, object]) -> list[str]:
    found = row.get("hashes")
    return [str(value) for value in found] if isinstance(found, list | tuple) else []


_LOOKS: Mapping[str, Callable[[Pin, str, Path, Bench], Preview]] = {"npm": _npm, "pypi": _pypi}
