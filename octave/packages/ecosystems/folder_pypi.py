"""A folder with a pyproject.toml: uv builds its wheel, and what that depends on is locked.

Whoever names the folder has its build code run, as pip and uv do. What it depends on comes as
wheels alone, as for any package.
"""

import configparser
import hashlib
import re
import shutil
import tomllib
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from packaging.utils import canonicalize_name

from octave.errors import InstallFailed, IntegrityFailed
from octave.home import atomic_write, private_folder
from octave.packages import toolchains, uv
from octave.packages.ecosystems import folder_metadata, pypi
from octave.packages.ecosystems.base import Bench, Ecosystem, Newest, Resolved, Wanted
from octave.packages.ecosystems.pypi_scripts import choose_script
from octave.packages.lockfile import Pin

_EPOCH_S = "315532800"
"""1980, the first time that a zip file can name: the same files give the same wheel."""

_PYPI = pypi.Pypi()


class PypiFolder:
    """See `folder.Packer`."""

    ecosystem: Ecosystem = _PYPI

    def newest(self, folder: Path, staging: Path, bench: Bench) -> Newest:
        """Return the version in the folder's pyproject.toml, else that of what it builds."""
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
            return Newest(str(project["version"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Newest(_build(folder, staging, bench).version)

    def resolve(self, folder: Path, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Build the folder, and have uv lock what its wheel asks for."""
        if not bench.runs_code:
            return folder_metadata.resolve(folder, wanted, staging, bench)
        built = _build(folder, staging, bench)
        found = pypi.resolve_wheel(built.path, built.name, built.version, wanted, staging, bench)
        _keep(built, bench)
        entry = choose_script(built.name, built.scripts, wanted.executable)
        return replace(found, integrity=built.sha256, entry=entry)

    def install(self, folder: Path, pin: Pin, target: Path, bench: Bench) -> None:
        """Have PyPI's own way fill `target`, with the built wheel at hand."""
        place = _place(bench, pin.integrity)
        if not _is_kept(place, pin.integrity):
            built = _build(folder, target.parent, bench)
            if built.sha256 != pin.integrity:
                raise IntegrityFailed(
                    f"`{folder}` does not build what was locked: its files have changed since",
                    hint=f"octave update {pin.name}",
                )
            _keep(built, bench)
        _PYPI.install(pin, target, bench, wheels=place)


@dataclass(frozen=True, slots=True)
class _Built:
    path: Path
    name: str
    version: str
    scripts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return _sha256(self.path)


def _place(bench: Bench, sha256: str) -> Path:
    return bench.home.cache / "wheels" / sha256.removeprefix("sha256:")


def _is_kept(place: Path, sha256: str) -> bool:
    """Whether the wheel lies in `place`; what is damaged is dropped, as no index has it."""
    for wheel in place.glob("*.whl"):
        if _sha256(wheel) == sha256:
            return True
        wheel.unlink()
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _keep(built: _Built, bench: Bench) -> None:
    place = private_folder(_place(bench, built.sha256))
    atomic_write(place / built.path.name, built.path.read_bytes(), 0o600)


def _build(folder: Path, staging: Path, bench: Bench) -> _Built:
    place = staging / "built"
    shutil.rmtree(place, ignore_errors=True)
    bench.progress(f"building {folder.name}")
    words: list[str | Path] = ["build", "--wheel", "--out-dir", place, folder]
    words += ["--python", toolchains.python(bench).path]
    timeless = replace(bench, environ={**bench.environ, "SOURCE_DATE_EPOCH": _EPOCH_S})
    output = uv.run(timeless, words, cwd=staging)
    wheels = sorted(place.glob("*.whl"))
    if output.exit_code or len(wheels) != 1:
        raise uv.failure(output, str(folder))
    return _look_into(wheels[0])


def _look_into(wheel: Path) -> _Built:
    try:
        with ZipFile(wheel) as archive:
            name = next(
                n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)
            )
            said = HeaderParser().parsestr(archive.read(name).decode())
            points = name.replace("METADATA", "entry_points.txt")
            text = archive.read(points).decode() if points in archive.namelist() else ""
    except (BadZipFile, StopIteration, ValueError) as error:
        raise InstallFailed(f"what was built, `{wheel.name}`, is no wheel") from error
    return _Built(wheel, canonicalize_name(said["Name"]), said["Version"], _scripts(text))


def _scripts(entry_points: str) -> tuple[str, ...]:
    reader = configparser.RawConfigParser(delimiters=("=",))
    reader.optionxform = str  # type: ignore[assignment,method-assign]
    reader.read_string(entry_points)
    names = reader.options("console_scripts") if reader.has_section("console_scripts") else ()
    return tuple(sorted(name for name in names if name == Path(name).name))
