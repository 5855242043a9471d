"""What lies in a virtual environment, read from the metadata of its wheels, and whether it holds.

uv checks the hash of what it downloads but not what it copies out of its cache; a file that
changed there arrives without a word. So every file is compared with the RECORD of its wheel
(https://packaging.python.org/en/latest/specifications/recording-installed-packages/).
"""

import base64
import csv
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from octave.errors import InstallFailed, IntegrityFailed

_REQUIRES = re.compile(r"^Requires-Dist:[ \t]*(.*?)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Site:
    """A folder wheels were installed into, and the packages it holds."""

    folder: Path
    packages: Mapping[str, Distribution]
    """By normalised name."""

    @classmethod
    def at(cls, folder: Path) -> "Site":
        """Return what lies in `folder`, a site-packages or the target of an installation."""
        found = distributions(path=[str(folder)])
        return cls(folder, {canonicalize_name(_told(one, "Name")): one for one in found})

    @classmethod
    def of(cls, environment: Path) -> "Site":
        """Return what the virtual environment in folder `environment` holds.

        Raises:
            InstallFailed: it is none.
        """
        found = sorted(environment.glob("lib/python3.*/site-packages"))
        if len(found) != 1:
            raise InstallFailed(
                f"`{environment}` is not a virtual environment", hint="install the server anew"
            )
        return cls.at(found[0])

    def console_scripts(self, package: str) -> list[str]:
        """Return the names of the console scripts of `package`, sorted.

        Raises:
            InstallFailed: it is not here.
        """
        points = self._package(package).entry_points.select(group="console_scripts")
        # A name that is a path would lead out of the environment.
        return sorted(point.name for point in points if point.name == Path(point.name).name)

    def requires_python(self, package: str) -> str | None:
        """Return the range of Pythons that `package` itself names, a PEP 440 specifier.

        Raises:
            InstallFailed: it is not here.
        """
        found = self._package(package).metadata.get_all("Requires-Python")
        return found[0] if found else None

    def requirements(self, package: str) -> list[str]:
        """Return what `package` depends on, each as its metadata has it (PEP 508).

        Raises:
            InstallFailed: it is not here.
        """
        head = _head(self._package(package))
        return [found[1] for found in _REQUIRES.finditer(head)]

    def readme(self, package: str) -> str:
        """Return the long description that `package` came with; empty when it has none.

        Raises:
            InstallFailed: it is not here.
        """
        return str(self._package(package).metadata.json.get("description", ""))

    def runs_on(self, minor: str) -> bool:
        """Whether this belongs to an environment of that feature release of Python, `3.11`."""
        return self.folder.parent.name == f"python{minor}"

    def check_packages(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Compare what is here with locked rows; a row with a marker may be absent.

        Raises:
            IntegrityFailed: a package is missing, too much, or of another version.
        """
        locked = [(str(row["name"]), Version(str(row["version"])), "marker" in row) for row in rows]
        here = {(name, Version(_told(one, "Version"))) for name, one in self.packages.items()}
        known = {(name, version) for name, version, _ in locked}
        needed = {(name, version) for name, version, optional in locked if not optional}
        wrong = sorted(name for name, _ in (here - known) | (needed - here))
        if wrong:
            raise IntegrityFailed(
                f"what was installed is not what is locked: `{'`, `'.join(wrong)}`",
                hint="remove the server from `octave.lock`, then install it again",
            )

    def held(self, rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """Return those of the locked `rows` that are here, in the version they name."""
        here = {name: Version(_told(one, "Version")) for name, one in self.packages.items()}
        return [row for row in rows if here.get(str(row["name"])) == Version(str(row["version"]))]

    def changed_files(self) -> dict[str, str]:
        """Return, by package, a file that is missing or not what the wheel's RECORD says of it.

        Files without a hash (bytecode, the RECORD itself) say nothing.
        """
        # Hashing leaves the other cores to Python, and reading does.
        with ThreadPoolExecutor(_READERS) as readers:
            found = list(readers.map(self._changed_file, self.packages))
        return {name: path for name, path in zip(self.packages, found, strict=True) if path}

    def sources(self, package: str) -> list[str]:
        """Return the paths of the modules of `package` in here, with slashes.

        Raises:
            InstallFailed: it is not here.
        """
        paths = [row[0] for row in self._recorded(package) if row[0].endswith(".py")]
        return [path for path in paths if not path.startswith("/") and ".." not in path.split("/")]

    def _changed_file(self, package: str) -> str:
        """Return a file of `package` that is not what its RECORD says; empty: there is none."""
        rows = self._recorded(package)
        if not rows:
            return "RECORD"
        listed = ((path, said) for path, said, *_ in rows if said and path[-4:] != ".pyc")
        return next((path for path, said in listed if not self._is_unchanged(path, said)), "")

    def _recorded(self, package: str) -> list[list[str]]:
        record = self._package(package).read_text("RECORD") or ""
        return [row for row in csv.reader(record.splitlines()) if len(row) > 1]

    def _is_unchanged(self, path: str, said: str) -> bool:
        method, _, expected = said.partition("=")
        # Outside of its folder a wheel may name a device, which has no end.
        if (path.startswith("/") or ".." in path) and not (self.folder / path).is_file():
            return False
        try:
            # A Path for each of some thousand files takes as long as reading them, a buffer half.
            with open(f"{self.folder}/{path}", "rb", buffering=0) as file:  # noqa: PTH123
                digest = hashlib.new(method, file.read()).digest()
        except (OSError, ValueError):
            return False
        # Some builders write hexadecimal digits where the specification wants base64.
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return expected.rstrip("=") in {encoded, digest.hex()}

    def _package(self, name: str) -> Distribution:
        found = self.packages.get(canonicalize_name(name))
        if found is None:
            raise InstallFailed(f"`{name}` is not in the environment that was made for it")
        return found


def _told(package: Distribution, field: str) -> str:
    found = re.search(rf"^{field}:[ \t]*(.*?)[ \t]*$", _head(package), re.IGNORECASE | re.MULTILINE)
    return found[1] if found else str(package.metadata[field])


def _head(package: Distribution) -> str:
    # `metadata` parses whole descriptions as mail, anew each time: a tenth of an installation.
    return (package.read_text("METADATA") or "").partition("\n\n")[0]
