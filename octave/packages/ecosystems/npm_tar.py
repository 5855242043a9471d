"""Unpack one npm tarball into a folder, as npm would, and trust nothing in it.

Reads a gzip stream of tar blocks with constant memory: whatever an archive claims, no more is
held than two chunks. Refuses everything that could write outside the folder, links, devices,
damage and bombs; what it accepts has npm's names and modes. Half a tree may be left behind by a
refusal: the caller unpacks into a folder that it throws away.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

zlib: ModuleType
try:
    # Most of the work of an installation; here it takes two thirds of the time. Not everywhere is
    # there a wheel of it: imported so, its types are checked nowhere instead of sometimes.
    zlib = import_module("zlib_ng.zlib_ng")
except ImportError:
    zlib = import_module("zlib")

_Unsound: type[Exception] = zlib.error
_BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(_BLOCK_BYTES)
_CHUNK_BYTES = 256 * 2**10
"""Read and inflated at once; larger ones gain nothing, smaller ones cost calls."""
_META_BYTES = 2**20
"""Most that a long name or a pax header may claim; npm's own limit."""
_GZIP = 31
"""zlib's wbits for a gzip member with its checksum verified."""
_GZIP_MAGIC = b"\x1f\x8b"
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:")
_LINKS = {b"1": "a hard link", b"2": "a symbolic link"}
_DEVICES = {b"3": "a device", b"4": "a device", b"6": "a named pipe"}
_FILES = {b"0", b"\0", b"7"}
_FOLDER = b"5"
_META = {b"x", b"g", b"L", b"K"}

FOLDER_MODE = 0o755


class BadArchive(Exception):
    """The archive is damaged, or wants what no package needs. The text ends a sentence."""


class Collision(BadArchive):
    """Two files would lie in one place: their names differ in case, or another package is there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an archive may go before it counts as a bomb."""

    unpacked_bytes: int = 4 * 2**30
    """The largest packages, with browsers or native tools in them, unpack to some hundred MB."""
    members: int = 500_000


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    mode: int
    size_bytes: int
    kind: bytes


def unpack(
    file: BinaryIO,
    folder: Path,
    limits: Limits = Limits(),
    *,
    fold_case: bool = False,
    apart: frozenset[str] = frozenset(),
) -> int:
    """Write the files of the tarball `file` into the existing `folder`; return how many there were.

    The first component of every name is dropped, whatever it is. Of a name that occurs twice
    the last one wins. `fold_case` says that the file system ignores case. `apart` are folders
    inside that others fill.

    Raises:
        BadArchive: it is refused, see the module.
        Collision: it is not to blame.
        OSError: the disk is full, a name is too long.
    """
    plain = _Plain(_inflated(file), limits.unpacked_bytes)
    tree = _Tree(folder, apart, fold_case=fold_case)
    files = 0
    for count, member in enumerate(_members(plain)):
        if count >= limits.members:
            raise BadArchive(f"holds more than {limits.members} files")
        inner = _inner_path(member.path)
        if member.kind == _FOLDER or member.path.endswith("/"):
            if member.size_bytes:
                raise BadArchive(f"has a folder with content, `{member.path}`")
            tree.make_folder(inner)
            continue
        pieces = plain.pieces(member.size_bytes)
        if inner and tree.write(inner, member.mode, pieces):
            files += 1
        else:
            for _ in pieces:
                pass
    return files


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    inflate = zlib.decompressobj(_GZIP)
    pending = b""
    while True:
        pending = pending or file.read(_CHUNK_BYTES)
        try:
            plain = inflate.decompress(pending, _CHUNK_BYTES)
        except _Unsound as error:
            raise BadArchive("is not a sound gzip file") from error
        if plain:
            yield plain
        if inflate.eof:
            pending = inflate.unused_data
            # Padding after the last member is common and harmless.
            if not pending.startswith(_GZIP_MAGIC):
                return
            inflate = zlib.decompressobj(_GZIP)
        elif not pending and not plain:
            raise BadArchive("ends too early")
        else:
            pending = inflate.unconsumed_tail


class _Plain:
    """The inflated bytes, taken in exact amounts, up to a limit."""

    __slots__ = ("_at", "_chunk", "_chunks", "_left_bytes", "_limit_bytes")

    def __init__(self, chunks: Iterator[bytes], limit_bytes: int) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self._limit_bytes = self._left_bytes = limit_bytes

    def _next(self) -> bool:
        self._chunk, self._at = next(self._chunks, b""), 0
        self._left_bytes -= len(self._chunk)
        if self._left_bytes < 0:
            raise BadArchive(f"unpacks to more than {self._limit_bytes} bytes")
        return bool(self._chunk)

    def pieces(self, size_bytes: int) -> Iterator[memoryview]:
        """Yield the next `size_bytes` bytes in pieces, without copying them."""
        while size_bytes:
            if self._at == len(self._chunk) and not self._next():
                raise BadArchive("ends too early")
            piece = memoryview(self._chunk)[self._at : self._at + size_bytes]
            self._at += len(piece)
            size_bytes -= len(piece)
            yield piece

    def take(self, size_bytes: int) -> bytes:
        end = self._at + size_bytes
        if end <= len(self._chunk):
            start, self._at = self._at, end
            return self._chunk[start:end]
        return b"".join(self.pieces(size_bytes))

    def block(self) -> bytes:
        """Return the next block, empty at the end of the stream."""
        if self._at == len(self._chunk) and not self._next():
            return b""
        return self.take(_BLOCK_BYTES)

    def drain(self) -> None:
        """Read to the end: only there is the gzip checksum."""
        while self._next():
            pass


def _members(plain: _Plain) -> Iterator[_Member]:
    # Whoever iterates takes `size_bytes` from `plain` before asking for the next member.
    extended: dict[str, str] = {}
    zero_blocks = 0
    while zero_blocks < 2 and (block := plain.block()):
        if block == _ZERO_BLOCK:
            zero_blocks += 1
            continue
        zero_blocks = 0
        member = _header(block)
        if member.kind in _META:
            extended |= _meta(member, plain)
        else:
            member = _extend(member, extended)
            extended = {}
            yield member
        plain.take(-member.size_bytes % _BLOCK_BYTES)
    plain.drain()


def _header(block: bytes) -> _Member:
    # Layout: POSIX.1-2017 pax, "ustar Interchange Format". The checksum counts itself as spaces.
    if sum(block) - sum(block[148:156]) + 8 * 0x20 != _number(block[148:156]):
        raise BadArchive("has a header with a wrong checksum")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    kind = block[156:157]
    what = _LINKS.get(kind) or _DEVICES.get(kind)
    if what:
        raise BadArchive(f"holds {what}, `{name}`")
    if kind not in _FILES | _META | {_FOLDER}:
        raise BadArchive(f"holds something of an unknown type, `{name}`")
    # Some writers put the size of the folder's own inode into its header.
    size_bytes = 0 if kind == _FOLDER else _number(block[124:136])
    return _Member(name, _number(block[100:108]), size_bytes, kind)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU: base 256, for sizes of 8 GiB and more
        return int.from_bytes(field[1:])
    digits = field.partition(b"\0")[0].strip() or b"0"
    try:
        # Alone, int would take signs and underscores too.
        return int(digits if digits.isdigit() else b"none", 8)
    except ValueError:
        raise BadArchive("has a header with a number that is none") from None


def _meta(member: _Member, plain: _Plain) -> dict[str, str]:
    if member.size_bytes > _META_BYTES:
        raise BadArchive("has a header that is too long")
    data = plain.take(member.size_bytes)
    if member.kind == b"L":
        return {"path": _text(data)}
    return _pax_records(data) if member.kind == b"x" else {}


def _pax_records(data: bytes) -> dict[str, str]:
    records = {}
    while data and data != bytes(len(data)):
        length_text, _, _ = data.partition(b" ")
        length = int(length_text) if re.fullmatch(rb"[0-9]{1,7}", length_text) else 0
        record = data[len(length_text) + 1 : length]
        key, found, value = record.partition(b"=")
        if not found or length > len(data) or not value.endswith(b"\n"):
            raise BadArchive("has a broken pax header")
        records[key.decode(errors="replace")] = value[:-1].decode(errors="replace")
        data = data[length:]
    return records


def _extend(member: _Member, extended: dict[str, str]) -> _Member:
    if not extended:
        return member
    size_bytes = member.size_bytes
    if "size" in extended and member.kind != _FOLDER:
        if not re.fullmatch(r"[0-9]{1,15}", extended["size"]):
            raise BadArchive("has a broken pax header")
        size_bytes = int(extended["size"])
    return replace(member, path=extended.get("path", member.path), size_bytes=size_bytes)


def _inner_path(path: str) -> str:
    if "\0" in path or "\\" in path or path.startswith("/") or _DRIVE.search(path):
        raise BadArchive(f"holds a name that is no plain path, `{path}`")
    parts = path.split("/")
    if ".." in parts:
        raise BadArchive(f"wants to write outside its folder, `{path}`")
    return "/".join(part for part in parts[1:] if part not in {"", "."})


class _Tree:
    """The folder that is being filled."""

    __slots__ = ("_apart", "_fold_case", "_made", "_names", "_npmignores", "_root")

    def __init__(self, root: Path, apart: frozenset[str], *, fold_case: bool) -> None:
        self._root = str(root)
        self._apart = apart
        self._fold_case = fold_case
        self._made = {""}
        self._names: dict[str, str] = {}
        self._npmignores: set[str] = set()

    def make_folder(self, inner: str) -> None:
        if inner in self._made:
            return
        if inner in self._apart:
            raise Collision(f"brings a `{inner}` of its own")
        self.make_folder(inner.rpartition("/")[0])
        self._check_case(inner)
        path = self._path(inner)
        try:
            os.mkdir(path)  # noqa: PTH102 - a Path object for each of some ten thousand names is half the cost
            os.chmod(path, FOLDER_MODE)  # noqa: PTH101
        except FileExistsError:
            # Never follow what is there already: another package's folder is fine, a file is not.
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise BadArchive(f"has `{inner}` as a file and as a folder") from None
        self._made.add(inner)

    def write(self, inner: str, mode: int, pieces: Iterator[memoryview]) -> bool:
        """Write one file; False when npm would leave it out. Takes all `pieces` or none."""
        folder, _, name = inner.rpartition("/")
        if name == ".npmignore":
            self._npmignores.add(folder)
        elif name == ".gitignore":
            # npm packs and unpacks it under this name, unless there is one.
            if folder in self._npmignores:
                return False
            inner = f"{folder}/.npmignore" if folder else ".npmignore"
        self.make_folder(folder)
        self._check_case(inner)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path(inner), flags, 0o600)
        except IsADirectoryError:
            raise BadArchive(f"has `{inner}` as a file and as a folder") from None
        try:
            # npm: readable for all, writable for the owner; not subject to this process' umask.
            os.fchmod(descriptor, ((mode | 0o666) & 0o755) | 0o600)
            for piece in pieces:
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
        finally:
            os.close(descriptor)
        return True

    def _path(self, inner: str) -> str:
        return f"{self._root}/{inner}" if inner else self._root

    def _check_case(self, inner: str) -> None:
        if not self._fold_case:
            return
        folded = unicodedata.normalize("NFC", inner).casefold()
        if self._names.setdefault(folded, inner) != inner:
            raise Collision(f"has `{inner}` and `{self._names[folded]}`")
