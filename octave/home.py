"""Every path Octave uses, and the one way to replace a file. Standard library and errors only.

A `Home` holds what is installed, shared by all workspaces. A `Workspace` is a manifest, its
lockfile and its state: the home itself, or a project with its state in `.octave/` beside
`octave.toml`. Nothing here decides anything and nothing is created before `prepare`.

`atomic_write` is how every file comes about whose half would be worth less than nothing:

    octave.toml octave.lock    a person's own, 0644: meant to be committed
    secrets.toml               a person's own, 0600; each key on its own is Octave's
    keyring.json               which secrets the system's keyring has; their names only
    workspaces.json clients.json stopped.json      what Octave remembers
    catalogue/NAME.json        what a server offers; also without its file, after asking again
    servers/*/*/record.json    makes a version installed; its folder is renamed into place
    servers/*/*/pin.lock offered.json              what a return to that version takes
    servers/*/*/suspect                            an audit found other files than were installed
    run/token run/runtime.json run/ID.run          of one runtime, and gone with it
    README .gitignore, and the configuration files of AI tools

Logs, downloads and the folders in staging/ have owners of their own and may end anywhere.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octave.errors import UsageError

MANIFEST = "octave.toml"
SOCKET_PATH_BYTES = 100
"""sun_path holds 104 bytes on macOS and 108 on Linux, the terminating NUL included (unix(7))."""

_README = """This folder belongs to Octave, the package manager and runtime for MCP servers.
`octave.toml` is yours to edit. Everything else is managed by the `octave` command.
"""


def atomic_write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `content`, or leave it as it was: temporary file, fsync, rename.

    A reader sees the old bytes or the new ones, also after `kill -9`. A symbolic link is
    followed, so that a manifest kept in a dotfiles folder stays a link. What killed writers of
    the same file left behind goes.

    Raises:
        OSError: the folder is missing, full or not writable; its `filename` is the target.
    """
    target = Path(os.path.realpath(path))
    sweep(target.parent, target.name)
    try:
        _replace(target, content, mode)
    except OSError as error:
        # A failed write knows a number only, a failed rename the temporary file.
        error.filename, error.filename2 = os.fspath(target), None
        raise


def _replace(target: Path, content: bytes, mode: int) -> None:
    descriptor, partial = temporary(target, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of killed writers from `folder`; with `name`, of that file alone.

    What a living writer is about is left alone, and so is what cannot be looked at.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found and name in (None, found[1]):
                with contextlib.suppress(OSError):
                    _sweep_away(entry.path)


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp", re.DOTALL)


def _sweep_away(path: str) -> None:
    # A pipe of that name would wait for a reader.
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)  # noqa: PTH108 - as scandir gave it
    finally:
        os.close(descriptor)


def temporary(target: Path, mode: int) -> tuple[int, Path]:
    """Return a new file beside `target`, open for both, and locked: whoever holds it is alive.

    `sweep` removes it once nobody does.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        path = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
        descriptor = os.open(path, flags, mode)
        # Where locks do not work, nobody sweeps either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, path
        # Swept in the moment before it was locked.
        os.close(descriptor)


class NotPrivate(PermissionError):
    """A folder is another user's, or others can change what is in it."""


def private_folder(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700, whatever the umask, and return it.

    Raises:
        NotPrivate: it exists and belongs to another user, or others can write to it.
        NotADirectoryError: it is a file, or a link to nothing such as an unmounted disk.
    """
    problem = None
    for _ in range(_FOLDER_ATTEMPTS):
        try:
            status = _made(path)
            break
        except FileNotFoundError as error:
            problem = error
    else:
        place = problem.filename if problem else str(path)
        raise NotADirectoryError(errno.ENOTDIR, "cannot be a folder", place) from problem
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(path))
    if status.st_uid != os.getuid():
        raise NotPrivate(errno.EACCES, "belongs to another user", str(path))
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPrivate(errno.EACCES, "can be written by other users", str(path))
    return path


_FOLDER_ATTEMPTS = 3
"""Whoever takes back what he did may remove an empty folder between a look at it and its use."""


def _made(path: Path) -> os.stat_result:
    missing = [path, *path.parents]
    for folder in reversed(missing[: missing.index(next(p for p in missing if p.exists()))]):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
    return path.stat()


def _expanded(path: str) -> str:
    # Path.expanduser raises where a user has no home folder; here an unknown `~user` stays.
    return os.path.expanduser(path)  # noqa: PTH111


@dataclass(frozen=True, slots=True)
class Home:
    """`~/.octave`, or where OCTAVE_HOME points."""

    root: Path

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> "Home":
        """Return the home that `environ` names; nothing is created.

        Raises:
            UsageError: it lies in the home folder of a user who has none.
        """
        named = environ.get("OCTAVE_HOME") or "~/.octave"
        path = _expanded(named)
        if path.startswith("~"):
            raise UsageError(
                f"`{named}` is in no home folder that is known here",
                hint="set HOME, or set OCTAVE_HOME to an absolute path",
            )
        return cls(Path(path).absolute())

    @property
    def manifest(self) -> Path:
        """The user's own octave.toml."""
        return self.root / MANIFEST

    @property
    def servers(self) -> Path:
        """Installed versions: NAME/VERSION-DIGEST8/."""
        return self.root / "servers"

    @property
    def runtimes(self) -> Path:
        """Private toolchains."""
        return self.root / "runtimes"

    @property
    def staging(self) -> Path:
        """Where an installation is built before it is renamed into place."""
        return self.root / "staging"

    @property
    def cache(self) -> Path:
        """Downloads; may be deleted at any time."""
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.root / "locks"

    @property
    def workspaces(self) -> Path:
        """workspaces.json: known lockfiles and trusted manifests."""
        return self.root / "workspaces.json"

    @property
    def clients(self) -> Path:
        """clients.json: what Octave wrote into the files of AI tools."""
        return self.root / "clients.json"

    @property
    def secrets(self) -> Path:
        """secrets.toml, where no keyring works."""
        return self.root / "secrets.toml"

    @property
    def keyring(self) -> Path:
        """keyring.json: names of the secrets that lie in the system's keyring."""
        return self.root / "keyring.json"

    def prepare(self) -> None:
        """Create the home and its README, and sweep it; idempotent.

        Raises:
            OSError: it cannot be written, or belongs to another user.
        """
        private_folder(self.root)
        sweep(self.root)
        for folder in (self.servers, self.runtimes, self.staging, self.cache, self.locks):
            private_folder(folder)
        readme = self.root / "README"
        if not readme.exists():
            atomic_write(readme, _README.encode())


@dataclass(frozen=True, slots=True)
class Workspace:
    """A manifest, its lockfile and its state."""

    home: Home
    manifest: Path

    @classmethod
    def of_home(cls, home: Home) -> "Workspace":
        """Return the user's own workspace."""
        return cls(home, home.manifest)

    @property
    def is_home(self) -> bool:
        """Whether the state lies in the home itself."""
        return self.manifest == self.home.manifest

    @property
    def lockfile(self) -> Path:
        """octave.lock beside octave.toml."""
        return self.manifest.with_suffix(".lock")

    @property
    def state(self) -> Path:
        """The folder for data, logs, catalogue and run: the home, or `.octave` of a project."""
        return self.home.root if self.is_home else self.manifest.parent / ".octave"

    @property
    def logs(self) -> Path:
        """NAME.log for each server."""
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Socket, token and runtime.json of the running runtime."""
        return self.state / "run"

    @property
    def token(self) -> Path:
        """The bearer token of the HTTP API, 0600."""
        return self.run / "token"

    @property
    def runtime_file(self) -> Path:
        """runtime.json: pid, url and socket of the running runtime."""
        return self.run / "runtime.json"

    @property
    def runtime_lock(self) -> Path:
        """Held (flock) by the running runtime as long as it lives."""
        return self.run / "runtime.lock"

    @property
    def choices(self) -> Path:
        """stopped.json: the servers a person stopped, kept across restarts of the runtime."""
        return self.state / "stopped.json"

    def data(self, server: str) -> Path:
        """Return the server's own data folder, kept across versions."""
        return self.state / "data" / server

    def log(self, server: str) -> Path:
        """Return the server's log file."""
        return self.logs / f"{server}.log"

    def catalogue(self, server: str) -> Path:
        """Return the file with the server's last known lists."""
        return self.state / "catalogue" / f"{server}.json"

    def prepare(self) -> None:
        """Create the home and the state folders, and sweep them; idempotent.

        Raises:
            OSError: they cannot be written, or belong to another user.
        """
        self.home.prepare()
        private_folder(self.state)
        if not self.is_home and not (self.state / ".gitignore").exists():
            atomic_write(self.state / ".gitignore", b"*\n", 0o644)
        for folder in ("data", "logs", "catalogue", "run"):
            private_folder(self.state / folder)
        for place in (self.state, self.run, self.state / "catalogue"):
            sweep(place)

    def new_socket(self, environ: Mapping[str, str]) -> Path:
        """Return where a runtime should bind its socket; a long path moves to a short folder.

        Raises:
            OSError: the short folder cannot be made safely.
        """
        path = self.run / "octave.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        name = f"octave-{os.getuid()}-{secrets.token_hex(8)}"
        base = Path(environ.get("XDG_RUNTIME_DIR") or "/tmp")
        too_long = len(os.fsencode(base / name / "octave.sock")) > SOCKET_PATH_BYTES
        if too_long or not base.is_dir():
            base = Path("/tmp")
        folder = private_folder(base / name)
        if stat.S_IMODE(folder.lstat().st_mode) != 0o700:
            raise PermissionError(13, "must be private (0700)", str(folder))
        return folder / "octave.sock"

    def socket(self) -> Path:
        """Return the socket of the running runtime; where it would be when none runs."""
        named = self.runtime().get("socket")
        return Path(named) if isinstance(named, str) else self.run / "octave.sock"

    def runtime(self) -> dict[str, object]:
        """Return what runtime.json says, `{}` when it is missing or cannot be read.

        The file of a runtime that was killed stays behind: only the socket tells who lives.
        """
        try:
            found = json.loads(self.runtime_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def find_workspace(
    home: Home, cwd: Path, named: str | None = None, *, home_only: bool = False
) -> Workspace:
    """Return the workspace of `named`, else of the nearest octave.toml above `cwd`, else the home.

    `named` is --manifest or OCTAVE_MANIFEST; `home_only` is -g. The home's own manifest found
    on the way up is the home's workspace. Nothing needs to exist.
    """
    if named:
        path = cwd / _expanded(named)
        return _workspace(home, path / MANIFEST if path.is_dir() else path)
    if not home_only:
        for folder in (cwd, *cwd.parents):
            # Unlike Path.is_file, a folder that may not be searched is passed by.
            if os.path.isfile(folder / MANIFEST):  # noqa: PTH113
                return _workspace(home, folder / MANIFEST)
    return Workspace.of_home(home)


def _workspace(home: Home, manifest: Path) -> Workspace:
    # The home's manifest may be a link into a dotfiles folder and is still the home's.
    path = Path(os.path.realpath(manifest))
    is_home = path == Path(os.path.realpath(home.manifest))
    return Workspace.of_home(home) if is_home else Workspace(home, path)
