"""MCPB bundles: a zip archive with a server and all it needs, known by its address and its sha256.

A graph has one row: `name`, `version` and `hashes` of the archive. It lies in the cache under its
hash, and is verified whenever it is looked at.
"""

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from octave.errors import InstallFailed, IntegrityFailed
from octave.packages import downloads, toolchains
from octave.packages.ecosystems import mcpb_manifest, mcpb_zip
from octave.packages.ecosystems.base import Bench, Newest, Resolved, Wanted
from octave.packages.ecosystems.mcpb_manifest import (
    MANIFEST,
    MANIFEST_BYTES,
    PLACE,
    Bundle,
    refused,
)
from octave.packages.ecosystems.npm_tar import BadArchive
from octave.packages.lockfile import Pin
from octave.packages.names import decides_what_runs

_PYTHON_PACKAGES = "server/lib"
"""Where bundles have what their Python server needs, by the specification."""
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm64": 183}
"""`e_machine` (elf(5)) by `uname -m`."""
_SYSTEMS = ("linux", "darwin", "win32")
"""What a bundle may tell apart, as `sys.platform` has it."""
_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xce\xfa\xed\xfe")


@dataclass(frozen=True, slots=True)
class Source:
    """A bundle's identity, as `mcpb:` is followed by it."""

    url: str
    """Empty: it came from a file of this machine."""
    sha256: str
    label: str
    """The last part of its address; what a person calls it."""

    @classmethod
    def of(cls, package: str) -> "Source":
        """Return the parts of `URL#sha256=HEX` or `FILE#sha256=HEX`, which `names` has checked."""
        place, _, sha256 = package.partition("#sha256=")
        label = place if "://" not in place else urlsplit(place).path.rpartition("/")[2]
        return cls(place if "://" in place else "", sha256, label or place)

    def open(self, bench: Bench) -> BinaryIO:
        """Return the verified archive, from the cache or the network; raises as `open_file`."""
        return downloads.open_file(
            self.wanted,
            downloads.bundles(bench.home),
            offline=bench.offline,
            begins=lambda: bench.progress(f"fetching {self.label}"),
            counted=lambda done, total: bench.counted(done, total, "bytes"),
        )

    @property
    def wanted(self) -> downloads.Wanted:
        """The archive, as a download."""
        return downloads.Wanted(self.label, self.url, self.sha256)


def read(package: str, bench: Bench, system: str = sys.platform) -> Bundle:
    """Return what the bundle says of itself, as the platform `system` starts it.

    Raises:
        IntegrityFailed, PackageNotFound, RegistryUnreachable: it cannot be had.
        InstallFailed: it is no bundle, or none for this machine.
    """
    source = Source.of(package)
    with source.open(bench) as file:
        try:
            text = mcpb_zip.read_member(file, MANIFEST, MANIFEST_BYTES)
            has_packages = mcpb_zip.holds_folder(file, _PYTHON_PACKAGES)
        except BadArchive as error:
            raise refused(source.label, f"it {error}") from error
    bundle = mcpb_manifest.read(text, source.label, system)
    if bundle.kind == "python" and has_packages and "PYTHONPATH" not in bundle.env:
        path = f"{{folder}}/{PLACE}/{_PYTHON_PACKAGES}"
        bundle = replace(bundle, env={**bundle.env, "PYTHONPATH": path})
    return bundle


class Mcpb:
    """The ecosystem of `mcpb:URL#sha256=HEX`."""

    kind = "mcpb"

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return what the archive is; its address and hash say all of it."""
        bundle = read(wanted.package, bench)
        digest = f"sha256:{Source.of(wanted.package).sha256}"
        requires = {**bundle.requires, **wanted.requires}
        return Resolved(
            version=bundle.version,
            integrity=digest,
            graph=({"name": bundle.name, "version": bundle.version, "hashes": [digest]},),
            requires=requires,
            toolchain={},
            entry=f"{PLACE}/{bundle.entry}",
        )

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse to start it in another way than it says itself, on whatever platform."""
        if not any(_says(bundle, pin) for bundle in _readings(pin.package, bench)):
            raise IntegrityFailed(
                f"the lockfile starts `{pin.name}` in another way than its bundle says",
                hint=f"remove `{pin.name}` from `octave.lock`, then run `octave lock`",
            )

    def install(self, pin: Pin, target: Path, bench: Bench) -> None:
        """Unpack the archive into `target/bundle`, once its hash was found to hold."""
        self.check(pin, bench)
        source = Source.of(pin.package)
        with source.open(bench) as file:
            bench.progress(f"unpacking {source.label}")
            unpack(file, source, target)
        bundle = read(pin.package, bench)
        entry = target / PLACE / bundle.entry
        if not entry.is_file():
            raise refused(source.label, f"its entry point `{bundle.entry}` is not in it")
        if bundle.program:
            _require_program(entry, source)
            entry.chmod(0o755)

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Never asked: `resolve` knows it."""
        raise InstallFailed(f"`{package}` names no entry point")

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return nothing: its address is the whole of it."""
        return ""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Whether it is the server `name`: its registry says so by the hash."""
        return True

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return the program in the bundle, or interpreter and entry."""
        bundle = read(pin.package, bench)
        entry = (str(target / PLACE / bundle.entry),)
        if bundle.program:
            return entry
        return (_interpreter(bundle.kind, pin, bench), *(entry if bundle.starts_with_entry else ()))


def _readings(package: str, bench: Bench) -> Iterator[Bundle]:
    # What is locked may have been locked elsewhere.
    yield read(package, bench)
    for system in _SYSTEMS:
        with contextlib.suppress(InstallFailed):
            yield read(package, bench, system)


def _says(bundle: Bundle, pin: Pin) -> bool:
    defaults = {each.name: each.default for each in bundle.settings}
    own = {**bundle.env, **defaults}
    decisive = filter(decides_what_runs, pin.env)
    return pin.args[: len(bundle.args)] == bundle.args and all(
        pin.env[name] == own.get(name) for name in decisive
    )


def unpack(file: BinaryIO, source: Source, target: Path) -> None:
    """Unpack the archive into `target/bundle`, which is made.

    Raises:
        InstallFailed: the archive is refused.
        OSError: the disk is full or not writable.
    """
    folder = target / PLACE
    folder.mkdir(mode=0o755)
    try:
        mcpb_zip.unpack(file, folder)
    except BadArchive as error:
        raise refused(source.label, f"it {error}") from error


def newest(wanted: Wanted, staging: Path, bench: Bench) -> Newest:
    """Return the version that is in the bundle: another one has another address.

    Raises:
        IntegrityFailed, PackageNotFound, RegistryUnreachable, InstallFailed.
    """
    return Newest(read(wanted.package, bench).version)


def _interpreter(kind: str, pin: Pin, bench: Bench) -> str:
    if kind == "node":
        ranges = tuple(filter(None, [pin.requires.get("node")]))
        return str(toolchains.node(bench, ranges).path)
    # Some write the range as npm does.
    wanted = re.sub(r"(?<=\d) +(?=[<>=!~])", ",", pin.requires.get("python", ""))
    return str(toolchains.python(bench, wanted).path)


def _require_program(path: Path, source: Source) -> None:
    """Refuse a program of another platform: the error of a start would not say so."""
    with path.open("rb") as file:
        head = file.read(20)
    if head.startswith(b"#!"):
        return
    if sys.platform == "darwin":
        fits = head.startswith(_MACH_O)
    else:
        machine = _ELF_MACHINES.get(platform.machine())
        order = "big" if head[5:6] == b"\2" else "little"
        found = int.from_bytes(head[18:20], order)  # type: ignore[arg-type] # a Literal to mypy
        fits = head.startswith(b"\x7fELF") and machine in {None, found}
    if not fits:
        raise refused(
            source.label,
            f"`{path.name}` is no program for {sys.platform} on {os.uname().machine}",
        )
