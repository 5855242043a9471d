"""One-off servers: what `octave run` has fetched, each in a folder of its own in the cache.

    cache/run/KEY/found.json    the last file written: which version answers, and since when
                  servers/      that version, as a home has it
                  in-use        held (flock) by whoever installs, starts or is such a server

KEY is a hash of what was asked for. A second start reads found.json and the version's record, and
nothing else: it resolves nothing and needs no network. `one_off_install` fetches.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from octave.errors import StartFailed
from octave.home import Home, Workspace, atomic_write, private_folder
from octave.packages import manifest, specs, store, variables
from octave.packages.entries import PackageChoice
from octave.packages.manifest import ServerEntry
from octave.packages.variables import Answers

FORMAT = 1
FRESH_S = 24 * 3600.0
"""So long a range means the version that was found for it, as long as nobody asks for a newer."""
KEPT_S = 7 * 24 * 3600.0
"""What was not started for so long is fetched anew when it is wanted again."""
_IN_USE = "in-use"
_FOUND = "found.json"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run."""

    text: str
    """`NAME[@RANGE]`, `npm:PKG[@RANGE]`, `pypi:PKG[@RANGE]`, an image or a bundle; no folder."""
    executable: str | None = None
    """Which of the package's executables; None: the one that is plainly meant."""
    registries: Mapping[str, str] = field(default_factory=dict)
    """Name -> address of those that a name may come from: where they differ, the server may."""


@dataclass(frozen=True, slots=True)
class Found:
    """Which version answers a wish."""

    format: int
    name: str
    """Of the server: its folder of data, and below `servers`."""
    folder: str
    """VERSION-DIGEST8."""
    exact: bool
    """Whether the wish names this very version, so that no other can ever answer it."""
    at: float
    """When that was found out, in seconds of the wall clock."""
    known: PackageChoice | None
    """What the registry said about it then."""

    def is_fresh(self, now: float) -> bool:
        """Whether no newer version has to be looked for at `now`, by the wall clock."""
        return self.exact or 0 <= now - self.at < FRESH_S


@dataclass(frozen=True, slots=True)
class Launch:
    """What the process becomes."""

    argv: tuple[str, ...] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)


def room(home: Home) -> Path:
    """Return the folder that all of them lie in."""
    return home.cache / "run"


def place_of(home: Home, wish: Wish) -> Home:
    """Return where the answer to `wish` lies, or would: a home of its own in the cache of `home`.

    So it shares no version, lock or lockfile with what is installed, and goes as one.
    """
    asked = [wish.text, wish.executable, sorted(wish.registries.items())]
    key = hashlib.sha256(json.dumps(asked).encode(errors="surrogatepass")).hexdigest()
    return Home(room(home) / key[:24])


@contextlib.contextmanager
def held(place: Home) -> Iterator[int]:
    """Hold `place` against `octave clean`, as used now; yield the descriptor that does so.

    A process that inherits it holds on.

    Raises:
        OSError: it cannot be made.
    """
    path = place.root / _IN_USE
    while True:
        descriptor = _opened(path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                break
        # Cleaned away between the two.
        os.close(descriptor)
    try:
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        private_folder(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # A home that may only be read is no reason not to start what lies in it.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def unused(place: Home) -> Iterator[float | None]:
    """Yield when `place` was used last, while nobody can begin to; None: it is in use.

    By the wall clock; 0 for what never got so far.
    """
    try:
        descriptor = os.open(place.root / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield 0.0
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def is_installing(place: Home) -> bool:
    """Whether somebody installs into `place` right now."""
    for path in sorted(place.locks.glob("*.lock")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
    return False


def find(place: Home) -> Found | None:
    """Return which version answers; None when none does, or it cannot be started as it lies here.

    Raises:
        StorageFailed: a newer Octave installed it.
    """
    try:
        found = msgspec.json.decode((place.root / _FOUND).read_bytes(), type=Found)
    except (OSError, ValueError, RecursionError):
        return None
    record = store.find(place, found.name, found.folder) if found.format == FORMAT else None
    if record is None:
        return None
    folder = place.servers / found.name / found.folder
    command = store.absolute(record.command, folder, place)
    return found if all(os.path.exists(word) for word in command) else None  # noqa: PTH110


def keep(place: Home, found: Found) -> None:
    """Say that `found` answers from now on.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write(place.root / _FOUND, msgspec.json.encode(found))


def launch(
    home: Home,
    wish: Wish,
    found: Found,
    args: Sequence[str],
    answers: Answers,
    environ: Mapping[str, str],
) -> Launch:
    """Return what to become: the server in the current folder, with `args` as they are.

    Its own data lies where an installed server of that name has it.

    Raises:
        UsageError: a value of `answers` is a secret on the command line, or no text.
        MissingAnswer: a variable has no value here.
        StartFailed: a variable that it needs was not given.
    """
    place = place_of(home, wish)
    record = store.require(place, found.name, found.folder)
    if any("{data}" in text for text in (*record.args, *record.env.values())):
        data = str(private_folder(Workspace.of_home(home).data(found.name)))
        record = replace(
            record,
            args=tuple(word.replace("{data}", data) for word in record.args),
            env={name: value.replace("{data}", data) for name, value in record.env.items()},
        )
    given = variables.sort(found.name, answers, found.known, environ)
    values = {name: value for name, value in given.values.items() if isinstance(value, str)}
    # Nothing is stored: what was given is for this run.
    values |= {key.partition("/")[2]: value for key, value in given.secrets.items()}
    server = ServerEntry(found.name, args=tuple(args), env=values, cwd=str(Path.cwd()))
    spec = specs.spec_of_record(
        Workspace.of_home(place),
        manifest.parse(place.manifest, ""),
        server,
        record,
        place.servers / found.name / found.folder,
        environ,
    )
    try:
        return Launch(spec.argv, spec.environment())
    except StartFailed as error:
        names = [name.partition(" ")[0] for name in error.details.get("missing", ())]
        words = " ".join(["octave run", *(f"-e {name}" for name in names), shlex.quote(wish.text)])
        raise StartFailed(error.message, hint=words, details=error.details) from None


def now() -> float:
    """Return the wall clock's time, in seconds: found.json outlives the machine's monotonic one."""
    return time.time()
