"""Reading and replacing the files of other programs, as carefully as their owners would.

Nothing is written in place: a file is the old one or the new one. Links, mode and owner stay. A
file made read-only is left alone, although a rename could get past that.
"""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from octave.errors import Locked, OctaveError, StorageFailed, storage_hint
from octave.home import atomic_write

LARGEST_BYTES = 32 * 2**20
"""Far more than any tool keeps in its configuration."""
NEW_MODE = 0o600
"""These files hold tokens more often than not."""
BACKUP_SUFFIX = ".octave-backup"
LOCK_STALE_S = 10.0
"""A lock folder not touched for that long was left behind (npm's proper-lockfile, `stale`)."""
LOCK_WAIT_S = 15.0
LOCK_POLL_S = 0.02


def read(file: Path) -> str | None:
    """Return the text of `file`, None when there is none.

    Raises:
        OctaveError: it is no file, no UTF-8 text, far too large, or may not be read.
    """
    try:
        if file.exists() and not file.is_file():
            raise OctaveError(f"`{file}` is not a file")
        if file.exists() and file.stat().st_size > LARGEST_BYTES:
            raise OctaveError(f"`{file}` is larger than {LARGEST_BYTES // 2**20} MiB")
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise OctaveError(f"`{file}` is not UTF-8 text at byte {error.start}") from error
    except OSError as error:
        raise StorageFailed(
            f"cannot read `{file}`: {error.strerror}", hint=storage_hint(error)
        ) from error


def require_writable(file: Path) -> None:
    """Do nothing when `file` may be replaced, or does not exist.

    Raises:
        StorageFailed: its owner wants it to stay as it is, or is somebody else.
    """
    try:
        status = file.stat()
    except OSError:
        return
    if not status.st_mode & stat.S_IWUSR:
        raise StorageFailed(f"`{file}` is read-only", hint=f"chmod u+w {file}")
    require_own(file)


def require_own(file: Path) -> None:
    """Do nothing when `file` is this user's, or does not exist.

    Raises:
        StorageFailed: somebody else wrote it.
    """
    try:
        owner = file.stat().st_uid
    except OSError:
        return
    if owner != os.getuid():
        raise StorageFailed(f"`{file}` belongs to another user", hint="run this as its owner")


def write(file: Path, text: str) -> None:
    """Replace `file`, or create it with its folder, readable for its owner alone.

    Raises:
        StorageFailed: that is not possible.
    """
    try:
        target = file.resolve()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else NEW_MODE
        atomic_write(target, text.encode(), mode)
    except OSError as error:
        raise StorageFailed(
            f"cannot write `{file}`: {error.strerror}", hint=storage_hint(error)
        ) from error


def back_up(file: Path, text: str) -> Path:
    """Write `text` beside `file`, beside the link where it is one, and return where.

    Raises:
        StorageFailed: that is not possible.
    """
    backup = _backup_of(file)
    # An older backup may be readable for others, or a link.
    backup.unlink(missing_ok=True)
    write(backup, text)
    return backup


def put_back(file: Path, text: str | None, kept: str | None = None) -> None:
    """Make `file` say `text` again, and drop the backup if that says nothing else.

    `kept` is how a backup of `text` reads where that is not the same. None deletes the file; a
    link to it stays.

    Raises:
        StorageFailed: that is not possible.
    """
    if text is None:
        _delete(file)
    else:
        write(file, text)
    backup = _backup_of(file)
    with contextlib.suppress(OctaveError, OSError):
        if read(backup) in {text, kept} - {None}:
            backup.unlink(missing_ok=True)


@contextlib.contextmanager
def held(file: Path, lock_suffix: str | None) -> Iterator[None]:
    """Hold the lock that the owner of `file` takes for its own writes: a folder beside it.

    Raises:
        Locked: the owner holds it for longer than any write takes.
        StorageFailed: the folder cannot be made.
    """
    if lock_suffix is None or not file.parent.exists():
        yield
        return
    lock = file.with_name(file.name + lock_suffix)
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _take(lock):
        if time.monotonic() > deadline:
            raise Locked(f"another program holds `{lock}`", hint="end it, then try again")
        time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.rmdir()


def _delete(file: Path) -> None:
    try:
        file.resolve().unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"cannot delete `{file}`: {error.strerror}", hint=storage_hint(error)
        ) from error


def _backup_of(file: Path) -> Path:
    return file.with_name(file.name + BACKUP_SUFFIX)


def _take(lock: Path) -> bool:
    try:
        lock.mkdir()
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > LOCK_STALE_S:
                lock.rmdir()
        return False
    except OSError as error:
        raise StorageFailed(
            f"cannot make `{lock}`: {error.strerror}", hint=storage_hint(error)
        ) from error
    return True
