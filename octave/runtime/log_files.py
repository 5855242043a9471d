"""The files of one log: NAME.log, and the older ones, NAME.log.1.gz and so on.

A full NAME.log is renamed to NAME.log.1; `pack` moves the packed ones up by one and makes
NAME.log.1.gz of it. Killed at any moment, that leaves every line in one file, or in a NAME.log.1
and the NAME.log.1.gz made of it, which `open_all` takes for one; the next `pack` goes on there.
"""

import contextlib
import fcntl
import gzip
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LEVEL = 5
"""Of compression: 9 takes twice the time to save another twentieth."""
BLOCK_BYTES = 2**20
"""How much is packed at once, between two looks at whether it is still wanted."""
READ_BYTES = 32 * 1024
"""How much is unpacked at once; so much before a damaged place is lost with it."""
_NAME_FLAG = 8
_HEADER_BYTES = 10
"""Of a gzip file; then, with the flag, a name that ends with NUL (RFC 1952, section 2.3)."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """An open file of a log. It stays readable when it is renamed, packed or deleted."""

    raw: IO[bytes]
    content: IO[bytes]
    """Its lines, unpacked."""
    is_packed: bool

    @property
    def identity(self) -> str:
        """The same for a file that nobody writes to any more and what was packed of it."""
        found = os.fstat(self.raw.fileno())
        if self.is_packed:
            return _noted_identity(self.raw) or f"packed {found.st_ino}"
        return _identity(found)

    def close(self) -> None:
        """Close the file."""
        self.content.close()
        self.raw.close()


def open_all(path: Path) -> Iterator[LogFile]:
    """Open the files of the log `path`, the newest first; each once, even while they move up.

    Whoever asks closes them.
    """
    plain: list[LogFile] = []
    packed: set[str] = set()
    for place in _places(path):
        file = _open(place)
        if file is None:
            continue
        identity = file.identity
        # What was plain a moment ago may have grown before it was packed.
        if identity in packed or identity in {other.identity for other in plain}:
            file.close()
            continue
        if file.is_packed:
            packed.add(identity)
        else:
            plain.append(file)
        yield file


def open_to_append(path: Path) -> int:
    """Open the log for lines, as one of several who may.

    Until the descriptor is closed nobody else can rotate the file away.

    Raises:
        OSError: it cannot be opened.
    """
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            # Waits at most for another process that renames it, and then it is the wrong file.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def is_torn(descriptor: int) -> bool:
    """Whether the file ends in the middle of a line."""
    size_bytes = os.fstat(descriptor).st_size
    return size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"


def rotate(path: Path, descriptor: int) -> bool:
    """Rename the log that is open as `descriptor`, which then must be closed in any case.

    False, and nothing done, while another process writes to it, or NAME.log.1 is not packed yet.

    Raises:
        OSError: it cannot be renamed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if is_unpacked(path) or path.stat().st_ino != os.fstat(descriptor).st_ino:
        return False
    path.rename(_unpacked(path))
    return True


def is_unpacked(path: Path) -> bool:
    """Whether there is a NAME.log.1 for `pack`."""
    return _unpacked(path).exists()


def pack(path: Path, keep: int, is_unwanted: Callable[[], bool]) -> None:
    """Pack NAME.log.1, if there is one, and keep `keep` packed files. Blocks; for a thread.

    Leaves it for the next time when another process is at it, or as soon as `is_unwanted`.

    Raises:
        OSError: it cannot; NAME.log.1 is as it was.
    """
    old = _unpacked(path)
    with contextlib.suppress(FileNotFoundError), old.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        found = os.fstat(file.fileno())
        if old.stat().st_ino != found.st_ino:
            return
        if _is_packed_already(path, _identity(found)) or _is_done(path, file, keep, is_unwanted):
            old.unlink()


def _is_done(path: Path, file: IO[bytes], keep: int, is_unwanted: Callable[[], bool]) -> bool:
    _move_up(path, keep)
    if not keep:
        return True
    target = _packed(path, 1)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        if not _compress(file, temporary, is_unwanted):
            return False
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _move_up(path: Path, keep: int) -> None:
    """Make room for a new first one; only up to a gap, which one that was killed left."""
    numbers = set(_numbers(path))
    for number in numbers:
        if number > keep:
            _packed(path, number).unlink(missing_ok=True)
    gap = next(number for number in itertools.count(1) if number not in numbers)
    for number in range(min(gap, keep) - 1, 0, -1):
        _packed(path, number).replace(_packed(path, number + 1))


def _compress(file: IO[bytes], target: Path, is_unwanted: Callable[[], bool]) -> bool:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    found = os.fstat(file.fileno())
    with os.fdopen(os.open(target, flags, 0o600), "wb") as raw:
        # Its own name in the header says what it was made of.
        with gzip.GzipFile(_identity(found), "wb", LEVEL, raw, found.st_mtime) as packed:
            while block := file.read(BLOCK_BYTES):
                if is_unwanted():
                    return False
                packed.write(block)
        raw.flush()
        os.fsync(raw.fileno())
    return True


def _identity(found: os.stat_result) -> str:
    # Numbers of inodes are given to new files; with the time of the last write they are unique.
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _noted_identity(raw: IO[bytes]) -> str | None:
    head = os.pread(raw.fileno(), 256, 0)
    if len(head) < _HEADER_BYTES or not head[3] & _NAME_FLAG:
        return None
    return head[_HEADER_BYTES:].partition(b"\0")[0].decode(errors="replace")


def _is_packed_already(path: Path, identity: str) -> bool:
    first = _open(_packed(path, 1))
    if first is None:
        return False
    with contextlib.closing(first):
        return first.identity == identity


def _open(path: Path) -> LogFile | None:
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        return None
    if path.suffix != ".gz":
        return LogFile(raw, raw, is_packed=False)
    unpacked = gzip.GzipFile(fileobj=raw, mode="rb")
    return LogFile(raw, io.BufferedReader(unpacked, READ_BYTES), is_packed=True)


def _unpacked(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _packed(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}.gz")


def _places(path: Path) -> Iterator[Path]:
    """Give every place where there may be a file, from new to old.

    That is how files move, and the last ones are looked for at the end only: none slips past,
    however often they move meanwhile.
    """
    yield path
    yield _unpacked(path)
    last = 0
    for number in itertools.count(1):
        if number > last:
            last = max(_numbers(path), default=0)
        if number > last:
            return
        yield _packed(path, number)


def _numbers(path: Path) -> list[int]:
    name = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})\.gz")
    with contextlib.suppress(FileNotFoundError):
        matches = (name.fullmatch(entry) for entry in os.listdir(path.parent))  # noqa: PTH208 - names
        return [int(match[1]) for match in matches if match]
    return []
