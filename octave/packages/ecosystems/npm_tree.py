"""Fill a folder with the packages of locked rows, without npm, and check a tree made either way.

Every tarball is kept in a cache under its sha512 and hashed again each time it is used. Only
files and folders are ever written; nothing of a package runs.
"""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    RegistryUnreachable,
    from_os_error,
)
from octave.home import private_folder
from octave.packages.ecosystems import npm_tar
from octave.packages.ecosystems.npm_command import NeedsNpm, RegistryAccess, wrong_hash
from octave.packages.ecosystems.npm_graph import row_name
from octave.packages.lockfile import GraphRow

if TYPE_CHECKING:
    import httpx

_THREADS = 8
"""Downloads wait for the network, unpacking for zlib and disk; more than this gains nothing. Each
holds some hundred KB: tarballs are streamed to the cache and from there, never held whole."""
_ATTEMPTS = 3
_RETRY_WAIT_S = 0.5
"""Before the second attempt, twice that before the third."""
_CONNECT_TIMEOUT_S = 10.0
_SILENCE_TIMEOUT_S = 30.0
"""Longest time without a single byte of a download."""
_TARBALL_BYTES = 2 * 2**30
"""Far above any package; keeps a broken mirror from filling the disk."""
_EXECUTABLE = 0o111


@dataclass(slots=True)
class _Work:
    """What the threads share."""

    tarballs: Path
    target: Path
    access: Callable[[], RegistryAccess] | None
    stopped: threading.Event = field(default_factory=threading.Event)
    fold_case: bool = False
    opening: threading.Lock = field(default_factory=threading.Lock)
    client: "httpx.Client | None" = None
    url: str = ""


def fill(
    rows: Sequence[GraphRow],
    target: Path,
    tarballs: Path,
    access: Callable[[], RegistryAccess] | None,
) -> None:
    """Unpack the tarball of every row into its place below the empty folder `target`.

    `tarballs` is the cache. `access` is asked at most once, when the first tarball is missing;
    None means offline.

    Raises:
        NeedsNpm: the registry, an archive or the file system asks for npm; `target` is unusable.
        IntegrityFailed: a tarball is not the locked one.
        RegistryUnreachable: one cannot be downloaded.
        InstallFailed: an archive is refused.
        StorageFailed: the disk is full or not writable.
    """
    if any(row.get("hasShrinkwrap") for row in rows):
        raise NeedsNpm("a package brings a lock of its own")
    own = [row for row in rows if not row.get("inBundle")]
    try:
        work = _Work(private_folder(tarballs), target, access, fold_case=_folds_case(target))
        _make_folders(target, own)
    except OSError as error:
        raise _failed("the packages", error) from error
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="npm-tree")
    try:
        tasks = [pool.submit(_place, work, row) for row in own]
        wait(tasks, return_when=FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        # Also on Ctrl-C: nobody writes into `target` any more once this function is left.
        work.stopped.set()
        pool.shutdown(cancel_futures=True)
        if work.client is not None:
            work.client.close()


def _make_folders(target: Path, rows: Iterable[GraphRow]) -> None:
    # Beforehand and in one thread: a package's folder may lie inside another package's.
    for row in rows:
        folder = target
        for part in str(row["path"]).split("/"):
            folder /= part
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(npm_tar.FOLDER_MODE)


def _folds_case(folder: Path) -> bool:
    twin = folder.with_name(folder.name.swapcase())
    return twin.name != folder.name and twin.exists()


def _place(work: _Work, row: GraphRow) -> None:
    if work.stopped.is_set():
        return
    what = f"`{row_name(row)}` {row['version']}"
    try:
        with _tarball(work, row, what) as file:
            npm_tar.unpack(file, work.target / str(row["path"]), fold_case=work.fold_case)
    except npm_tar.CaseCollision as error:
        raise NeedsNpm(f"{what} {error}") from error
    except npm_tar.BadArchive as error:
        raise InstallFailed(
            f"the tarball of {what} is refused: it {error}", hint="do not use this package"
        ) from error
    except OSError as error:
        raise _failed(what, error) from error


def _failed(what: str, error: OSError) -> OctaveError:
    return from_os_error(error) or InstallFailed(f"cannot unpack {what}: {error}")


def _tarball(work: _Work, row: GraphRow, what: str) -> BinaryIO:
    """Return the verified tarball, open at its start."""
    expected = str(row["integrity"])
    path = _cached(work.tarballs, expected)
    got = ""
    with contextlib.suppress(FileNotFoundError):
        file = path.open("rb")
        got = _sha512(file)
        if got == expected:
            return file
        file.close()
        path.unlink()
    if work.access is None:
        if got:
            raise wrong_hash(what, expected, got)
        raise NeedsNpm("the network may not be used, and npm has a cache of its own")
    return _download(work, row, what, path)


def _cached(tarballs: Path, integrity: str) -> Path:
    digest = base64.b64decode(integrity.removeprefix("sha512-")).hex()
    return tarballs / digest[:2] / f"{digest[2:]}.tgz"


def _sha512(file: BufferedReader | BufferedRandom) -> str:
    digest = hashlib.file_digest(file, "sha512").digest()
    file.seek(0)
    return f"sha512-{base64.b64encode(digest).decode()}"


def _download(work: _Work, row: GraphRow, what: str, path: Path) -> BinaryIO:
    name = row_name(row)
    client = _client(work)
    url = f"{work.url}{name}/-/{name.rpartition('/')[2]}-{row['version']}.tgz"
    expected = str(row["integrity"])
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    file = os.fdopen(descriptor, "w+b")
    try:
        _fetch(work, client, url, file, what)
        file.seek(0)
        got = _sha512(file)
        if got != expected:
            raise wrong_hash(what, expected, got)
        Path(temporary).replace(path)
    except BaseException:
        file.close()
        Path(temporary).unlink(missing_ok=True)
        raise
    return file


def _client(work: _Work) -> "httpx.Client":
    with work.opening:
        if work.client is None:
            assert work.access is not None
            access = work.access()
            work.url = access.url
            work.client = _open_client(access)
        return work.client


def _open_client(access: RegistryAccess) -> "httpx.Client":
    # httpx and not urllib: one pool of kept-open connections for all threads, where urllib makes
    # a new TLS connection for each of some hundred tarballs; redirects to a CDN included.
    import httpx

    try:
        context = httpx.create_ssl_context(trust_env=False)
        for ca_file in access.ca_files:
            context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise NeedsNpm("a file of certificates cannot be read") from error
    return httpx.Client(
        verify=context,
        trust_env=False,
        follow_redirects=True,
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=_THREADS),
    )


def _fetch(work: _Work, client: "httpx.Client", url: str, file: BinaryIO, what: str) -> None:
    import httpx

    problem = ""
    for attempt in range(_ATTEMPTS):
        if work.stopped.wait(attempt * _RETRY_WAIT_S):
            raise InstallFailed(f"{what} was not downloaded: stopped")
        try:
            problem = _fetch_once(work, client, url, file)
        except httpx.TransportError as error:
            if "CERTIFICATE" in str(error):
                raise NeedsNpm("the registry's certificate is not known here") from error
            problem = str(error) or type(error).__name__
        if not problem:
            return
    raise RegistryUnreachable(
        f"{what} cannot be downloaded: {problem}",
        hint="check the network and `npm config get registry`, then try again",
    )


def _fetch_once(work: _Work, client: "httpx.Client", url: str, file: BinaryIO) -> str:
    """Write the tarball into `file`; return what may pass if tried again."""
    file.seek(0)
    file.truncate()
    with client.stream("GET", url) as response:
        if response.status_code == 429 or response.status_code >= 500:
            return f"the registry answered {response.status_code}"
        if response.status_code != 200:
            raise NeedsNpm(f"the registry answered {response.status_code}")
        left_bytes = _TARBALL_BYTES
        for chunk in response.iter_raw():
            left_bytes -= len(chunk)
            if left_bytes < 0 or work.stopped.is_set():
                raise InstallFailed("a download is too large, or was stopped")
            file.write(chunk)
    return ""


def verify(rows: Iterable[GraphRow], target: Path, package: str, entry: str) -> None:
    """Check that the tree below `target` is the one that `rows` describe, and make it usable.

    The executables that packages name become executable, as npm does.

    Raises:
        IntegrityFailed: a package is missing or another one.
        InstallFailed: the entry file is missing or lies outside its package.
    """
    for row in rows:
        folder = target / str(row["path"])
        manifest = _manifest(folder)
        if manifest is None and (row.get("optional") or row.get("peer")):
            continue
        found = manifest or {}
        if (found.get("name"), _plain_version(found)) != (row_name(row), row["version"]):
            raise IntegrityFailed(
                f"`{row['path']}` is not `{row_name(row)}` {row['version']} after the installation",
                hint="delete the folder `cache` in the home of Octave, then try again",
            )
        _make_executable(folder, found)
    root = (target / "node_modules" / package).resolve()
    file = (target / entry).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        raise InstallFailed(
            f"`{package}` names the executable `{entry}`, which it does not contain",
            hint="choose another version",
        )


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / "package.json").read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain_version(manifest: dict[str, Any]) -> str:
    # Registries drop a leading `v` or `=` that a published package.json may have.
    return str(manifest.get("version", "")).strip().lstrip("v= ")


def _make_executable(folder: Path, manifest: dict[str, Any]) -> None:
    named = manifest.get("bin")
    paths = list(named.values()) if isinstance(named, dict) else [named]
    for text in paths:
        if not isinstance(text, str) or "\0" in text:
            continue
        file = folder / text
        if file.resolve().is_relative_to(folder.resolve()) and file.is_file():
            file.chmod(file.stat().st_mode & 0o777 | _EXECUTABLE)


def empty(target: Path) -> None:
    """Remove everything in `target`.

    Raises:
        StorageFailed: something cannot be removed.
    """
    try:
        for path in target.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError as error:
        raise from_os_error(error) or OctaveError(f"cannot empty `{target}`: {error}") from error
