"""A folder with a package in it: packed as for a registry, then handled as any other package.

The graph is one of npm or of PyPI. Its root is the packed folder, known by its hash and fetched
from nowhere: it lies in the cache, and is packed anew from the folder where that has lost it.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from octave.errors import InstallFailed, OctaveError
from octave.packages.ecosystems.base import Bench, Ecosystem, Newest, Resolved, Wanted
from octave.packages.ecosystems.folder_npm import NpmFolder
from octave.packages.ecosystems.folder_pin import as_packed
from octave.packages.ecosystems.folder_pypi import PypiFolder
from octave.packages.lockfile import Pin


class Packer(Protocol):
    """What can be done with the folders of one ecosystem."""

    ecosystem: Ecosystem

    def newest(self, folder: Path, staging: Path, bench: Bench) -> Newest:
        """Return the version that the folder has now."""

    def resolve(self, folder: Path, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Pack the folder into the cache and lock it with its dependencies."""

    def install(self, folder: Path, pin: Pin, target: Path, bench: Bench) -> None:
        """Fill `target` with what is locked, `pin` as the ecosystem's own; `folder` is packed anew
        only where the cache has lost it."""


_PACKERS: Mapping[str, Packer] = {"npm": NpmFolder(), "pypi": PypiFolder()}
"""By what the package in the folder is one of."""


class Folder:
    """The ecosystem of `folder:PATH`; paths count from the manifest's folder."""

    kind = "folder"

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return what the folder holds now, with its whole graph."""
        folder = _existing(wanted.package, bench)
        bench.progress(f"packing {wanted.package}")
        try:
            return _packer_of(folder).resolve(folder, wanted, staging, bench)
        except OctaveError as error:
            # It has a name in no registry.
            words = f"octave install {shlex.quote(f'{self.kind}:{wanted.package}')}"
            error.hint = re.sub(
                r"octave install (?:npm|pypi):[^\s`]+", lambda _: words, error.hint or ""
            )
            raise

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse rows that do not hold together."""
        inner = as_packed(pin)
        _PACKERS[inner.kind].ecosystem.check(inner, bench, target)

    def install(self, pin: Pin, target: Path, bench: Bench) -> None:
        """Fill `target` as the locked graph says."""
        inner = as_packed(pin)
        try:
            _PACKERS[inner.kind].install(_place(pin.package, bench), inner, target, bench)
        except InstallFailed:
            # That the folder is gone says more than what could not be done with it.
            _existing(pin.package, bench)
            raise

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Raise, since what is packed here names its entry when it is packed."""
        raise InstallFailed(f"nothing says how `{package}` is started", hint="octave lock")

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return nothing: it comes from no index."""
        return ""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Return False: no registry speaks of it."""
        return False

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return interpreter and entry file."""
        inner = as_packed(pin)
        return _PACKERS[inner.kind].ecosystem.argv(inner, target, bench)


def newest(wanted: Wanted, staging: Path, bench: Bench) -> Newest:
    """Return the version that the folder has now.

    Raises:
        UsageError, InstallFailed: there is no package in it.
    """
    folder = _existing(wanted.package, bench)
    return _packer_of(folder).newest(folder, staging, bench)


def _place(package: str, bench: Bench) -> Path:
    return Path(os.path.normpath(bench.base / package))


def _existing(package: str, bench: Bench) -> Path:
    folder = _place(package, bench)
    try:
        if folder.is_dir():
            # What may not be searched tells of no file in it.
            (folder / "package.json").exists()
            return folder
    except OSError as error:
        raise InstallFailed(
            f"the folder `{folder}` cannot be read: {error.strerror}",
            hint="check who owns it and who may read it",
        ) from error
    raise InstallFailed(
        f"the folder `{folder}` is not there",
        hint="put it back, or `octave uninstall` the server that comes from it",
    )


def _packer_of(folder: Path) -> Packer:
    if (folder / "package.json").is_file():
        return _PACKERS["npm"]
    if any((folder / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
        return _PACKERS["pypi"]
    raise InstallFailed(
        f"`{folder}` has no package in it: neither a package.json nor a pyproject.toml",
        hint="a server without a package is added by its command: `octave add NAME -- COMMAND`",
    )
