"""Installed versions on disk: staged, verified, renamed into place, found again by their record.

An installed version is a folder `servers/NAME/VERSION-DIGEST8/` with a `record.json` in it. The
record is the last file written before the rename, so whatever a crash leaves behind is litter in
`staging/`, never half an installation.
"""

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from octave.errors import DISK_FULL, Locked, StartFailed
from octave.home import Home, atomic_write, private_folder
from octave.packages import interrupts, lock_holder, state_file

FORMAT = 1
RECORD = "record.json"
_SUSPECT = "suspect"
LOCK_WAIT_S = 1200.0
"""Longer than the slowest install seen (a compiling one took 371 s), shorter than for ever."""
LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """What lies in an installed version's folder, and all that starting it takes.

    Paths inside the version's folder begin with `{folder}`, those inside the home with `{home}`:
    a home that was moved still works.
    """

    name: str
    kind: str
    package: str
    version: str
    integrity: str
    digest: str
    """`Pin.graph_digest`."""
    command: tuple[str, ...]
    """Interpreter and entry file."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    required_env: tuple[str, ...] = ()
    env_one_of: tuple[tuple[str, ...], ...] = ()
    title: str = ""
    tools: int | None = None
    """How many it listed at its start test; None when there was none."""
    checked: bool = False
    """Whether it was started once, answered the handshake and listed its tools."""
    unchecked_reason: str = ""


@contextlib.contextmanager
def locked(
    home: Home,
    name: str,
    waiting: Callable[[str], None] = lambda _: None,
    *,
    busy: str = "",
    wait_s: float = LOCK_WAIT_S,
) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Hold the lock of server `name`; wait for another process that installs it.

    `busy` says what else a holder is about, where the lock is of something else than a server.
    Yields what gives it up for a while: whatever it guards may be another's by the end of that.

    Raises:
        Locked: it was not free within `wait_s`.
    """
    private_folder(home.locks)
    lock = FileLock(home.locks / f"{name}.lock", mode=0o600)
    take = partial(_take, lock, waiting, busy or f"installing `{name}`", wait_s)

    @contextlib.contextmanager
    def given_up() -> Iterator[None]:
        lock.release()
        try:
            yield
        finally:
            take()

    take()
    try:
        yield given_up
    finally:
        lock.release()


def _take(lock: FileLock, waiting: Callable[[str], None], busy: str, wait_s: float) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting(f"waiting for another process{_by(lock)}, which is {busy}")
        try:
            lock.acquire(timeout=wait_s, poll_interval=LOCK_POLL_S, cancel_check=interrupts.is_over)
        except Timeout as error:
            interrupts.look()
            raise Locked(
                f"another process{_by(lock)} has been {busy} for {wait_s / 60:.0f} minutes",
                hint="end that process, then try again",
            ) from error


def _by(lock: FileLock) -> str:
    pid = lock_holder.holder(Path(lock.lock_file))
    return f" ({pid})" if pid else ""


def prepare(home: Home) -> None:
    """Create the home, and sweep from it what installations that died have staged.

    The caller holds no lock of a server: what is staged under one that is held belongs to its
    holder.

    Raises:
        OSError: it cannot be written, or belongs to another user.
    """
    home.prepare()
    for room in home.staging.iterdir():
        lock = FileLock(home.locks / f"{room.name}.lock", timeout=0, mode=0o600)
        with contextlib.suppress(Timeout, OSError), lock:
            shutil.rmtree(room)


def stage(home: Home, name: str) -> Path:
    """Return a fresh empty folder to build `name` in; litter of its dead predecessors goes.

    The caller holds the lock of `name`: whatever is staged for it belongs to nobody alive.
    """
    room = private_folder(home.staging / name)
    for litter in room.iterdir():
        shutil.rmtree(litter, ignore_errors=True)
    return private_folder(room / secrets.token_hex(4))


def discard(staging: Path) -> None:
    """Remove a staging folder; what cannot be removed is swept by the next `stage`."""
    shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError):
        staging.parent.rmdir()


def portable(words: tuple[str, ...], folder: Path, home: Home) -> tuple[str, ...]:
    """Return `words` with the paths of `folder` and `home` replaced by their placeholders."""
    names = {f"{folder}/": "{folder}/", f"{home.root}/": "{home}/"}

    def shorten(word: str) -> str:
        for prefix, name in names.items():
            if word.startswith(prefix):
                return name + word.removeprefix(prefix)
        return word

    return tuple(map(shorten, words))


def absolute(words: tuple[str, ...], folder: Path, home: Home) -> tuple[str, ...]:
    """Undo `portable` for the place where the version lies now."""
    names = {"{folder}/": f"{folder}/", "{home}/": f"{home.root}/"}

    def lengthen(word: str) -> str:
        for name, prefix in names.items():
            if word.startswith(name):
                return prefix + word.removeprefix(name)
        return word

    return tuple(map(lengthen, words))


def publish(home: Home, staging: Path, record: Record, folder: str) -> Path:
    """Write the record into `staging` and rename it into place; return where it lies now."""
    _write(staging, record)
    final = home.servers / record.name / folder
    if final.exists():
        # It is broken, else nobody would build it anew.
        remove(home, record.name, folder)
    private_folder(final.parent)
    staging.rename(final)
    discard(staging)
    return final


def rewrite(home: Home, record: Record, folder: str) -> None:
    """Replace the record of an installed version."""
    _write(home.servers / record.name / folder, record)


def _write(folder: Path, record: Record) -> None:
    content = {"format": FORMAT, **asdict(record)}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    atomic_write(folder / RECORD, text.encode())


def find(home: Home, name: str, folder: str) -> Record | None:
    """Return the record of an installed version; None when it is not, or not wholly, there.

    Raises:
        StorageFailed: a newer Octave installed it.
    """
    path = record_path(home, name, folder)
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Format).format
        if found > FORMAT:
            raise state_file.too_new(path, found, FORMAT)
        return msgspec.json.decode(content, type=Record) if found == FORMAT else None
    except (OSError, ValueError, RecursionError):
        return None


class _Format(msgspec.Struct):
    format: int


def record_path(home: Home, name: str, folder: str) -> Path:
    """Return where the record of a version lies, or would."""
    return home.servers / name / folder / RECORD


def require(home: Home, name: str, folder: str) -> Record:
    """Return the record of an installed version.

    Raises:
        StartFailed: it is not there, or damaged.
        StorageFailed: as `find`.
    """
    record = find(home, name, folder)
    if record is None:
        path = record_path(home, name, folder)
        reason = "is damaged" if path.exists() else "is missing"
        raise StartFailed(
            f"`{name}` is not installed: its record `{path}` {reason}", hint="octave install"
        )
    return record


def folders(home: Home, name: str) -> tuple[str, ...]:
    """Return the version folders of `name`, sorted; also those whose record is broken."""
    try:
        return tuple(sorted(path.name for path in (home.servers / name).iterdir()))
    except OSError:
        return ()


def suspect(folder: Path, *, is_so: bool) -> None:
    """Note whether files of an installed version are not what they should be.

    One that is suspect is built anew by the next install. A home that cannot be written notes
    nothing.
    """
    mark = folder / _SUSPECT
    with contextlib.suppress(OSError):
        if is_so:
            atomic_write(mark, b"")
        else:
            mark.unlink(missing_ok=True)


def is_suspect(folder: Path) -> bool:
    """Tell what `suspect` noted."""
    return (folder / _SUSPECT).exists()


def compile_cache(home: Home, name: str, folder: str) -> Path:
    """Return where a version's interpreter may keep what it compiled; goes with the version."""
    return home.cache / "compiled" / name / folder


def remove(home: Home, name: str, folder: str) -> None:
    """Remove an installed version: it is gone at once, its bytes a moment later."""
    shutil.rmtree(compile_cache(home, name, folder), ignore_errors=True)
    source = home.servers / name / folder
    try:
        grave = private_folder(home.staging / name) / f"gone-{secrets.token_hex(4)}"
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        # No room for a folder: without its record it is gone as well.
        (source / RECORD).unlink(missing_ok=True)
        grave = source
    with contextlib.suppress(FileNotFoundError):
        source.rename(grave)
    discard(grave)
    with contextlib.suppress(OSError):
        source.parent.rmdir()
