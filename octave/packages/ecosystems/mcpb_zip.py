"""Unpack a bundle, a zip archive, into a folder, and trust nothing in it.

Refuses whatever could write outside the folder, links, twins of one name, encryption, damage and
bombs, before the first file is written as far as the directory of the archive tells. Half a tree
may be left behind by a refusal: the caller unpacks into a folder that it throws away.
"""

import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from octave.packages.ecosystems.npm_tar import FOLDER_MODE, BadArchive

_CHUNK_BYTES = 256 * 2**10
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:")
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What every tool writes; others are slow to unpack, or not there on every Python."""
_UNIX = 3
"""`create_system` of archives whose members have modes (APPNOTE.TXT, 4.4.2)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an archive may go before it counts as a bomb."""

    unpacked_bytes: int = 2 * 2**30
    """Bundles bring their dependencies, some with browsers or native tools of some hundred MB."""
    members: int = 200_000
    ratio: int = 100
    """Programs and texts shrink to a tenth at best; of small archives it says nothing."""
    ratio_from_bytes: int = 64 * 2**20
    name_characters: int = 1024


def unpack(file: BinaryIO, folder: Path, limits: Limits = Limits()) -> None:
    """Write the files of the archive `file` into the existing `folder`.

    Raises:
        BadArchive: it is refused, see the module.
        OSError: the disk is full, a name is too long.
    """
    with _opened(file) as archive:
        members = list(_checked(archive, limits))
        for path, member in members:
            place = folder / path
            if member.is_dir():
                _make_folder(place, folder)
                continue
            _make_folder(place.parent, folder)
            with archive.open(member) as packed:
                _write(place, member, packed)


def read_member(file: BinaryIO, name: str, most_bytes: int) -> bytes:
    """Return one file of the archive `file`.

    Raises:
        BadArchive: there is none of that name, it is too large, or the archive is damaged.
    """
    with _opened(file) as archive:
        found = [member for member in archive.infolist() if member.filename == name]
        if len(found) != 1:
            raise BadArchive(f"has {'no' if not found else 'more than one'} `{name}` at its top")
        _check_member(found[0])
        if found[0].file_size > most_bytes:
            raise BadArchive(f"has a `{name}` of more than {most_bytes} bytes")
        return archive.read(found[0])


def holds_folder(file: BinaryIO, path: str) -> bool:
    """Whether the archive `file` has anything in the folder `path`.

    Raises:
        BadArchive: it is damaged.
    """
    with _opened(file) as archive:
        return any(name.startswith(f"{path}/") for name in archive.namelist())


@contextmanager
def _opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchive(f"is not a sound zip archive: {error}") from error
    except (ValueError, OverflowError) as error:
        # Offsets beyond the file, names that no encoding gives.
        raise BadArchive("is not a sound zip archive") from error


def _checked(archive: zipfile.ZipFile, limits: Limits) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the members with the paths they are written to, all of them looked at."""
    members = archive.infolist()
    if len(members) > limits.members:
        raise BadArchive(f"holds more than {limits.members} files")
    _check_sizes(members, limits)
    names = _Names()
    found: list[tuple[str, zipfile.ZipInfo]] = []
    for member in members:
        _check_member(member)
        path = _plain_path(member.filename, limits)
        if not path:
            continue
        names.add(path, is_folder=member.is_dir())
        found.append((path, member))
    yield from found


def _check_sizes(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if unpacked > limits.unpacked_bytes:
        raise BadArchive(f"unpacks to more than {limits.unpacked_bytes} bytes")
    if unpacked > limits.ratio_from_bytes and unpacked > packed * limits.ratio:
        raise BadArchive(f"unpacks to more than {limits.ratio} times its size")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if member.flag_bits & _ENCRYPTED:
        raise BadArchive(f"is encrypted, `{name}`")
    if member.compress_type not in _METHODS:
        raise BadArchive(f"is packed in a way nobody expects, `{name}`")
    kind = stat.S_IFMT(member.external_attr >> 16) if member.create_system == _UNIX else 0
    if kind == stat.S_IFLNK:
        raise BadArchive(f"holds a symbolic link, `{name}`")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise BadArchive(f"holds what is neither a file nor a folder, `{name}`")
    if member.is_dir() and member.file_size:
        raise BadArchive(f"has a folder with content, `{name}`")


def _plain_path(name: str, limits: Limits) -> str:
    is_plain = name.isprintable() and len(name) <= limits.name_characters
    # zipfile has cut a NUL and what follows it already; on Windows it also turns backslashes.
    if not is_plain or "\\" in name or name.startswith("/") or _DRIVE.search(name):
        raise BadArchive(f"holds a name that is no plain path, `{name}`")
    parts = name.split("/")
    if ".." in parts:
        raise BadArchive(f"wants to write outside its folder, `{name}`")
    return "/".join(part for part in parts if part not in {"", "."})


class _Names:
    """What is there already, where file systems may ignore case too."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def add(self, path: str, *, is_folder: bool) -> None:
        """Raises BadArchive where two would lie in one place."""
        parts = path.split("/")
        for length in range(1, len(parts) + is_folder):
            folder = "/".join(parts[:length])
            known = self._folders.setdefault(_folded(folder), folder)
            if known != folder or _folded(folder) in self._files:
                raise BadArchive(f"has `{folder}` and another of that name")
        if not is_folder:
            if _folded(path) in self._files or _folded(path) in self._folders:
                raise BadArchive(f"has `{path}` and another of that name")
            self._files[_folded(path)] = path


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _make_folder(place: Path, root: Path) -> None:
    if place == root or place.is_dir():
        return
    _make_folder(place.parent, root)
    place.mkdir(mode=FOLDER_MODE)
    place.chmod(FOLDER_MODE)


def _write(place: Path, member: zipfile.ZipInfo, packed: IO[bytes]) -> None:
    mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o600), "wb") as file:
        # Not subject to this process' umask, and no set-user-id bit comes along.
        os.fchmod(file.fileno(), mode)
        while chunk := packed.read(_CHUNK_BYTES):
            file.write(chunk)
