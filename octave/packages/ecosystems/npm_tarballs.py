"""The tarballs of npm packages: downloaded once, kept by their sha512, hashed at each use.

Processes share the cache without locks: a file comes in under a name of its own and is renamed
into place when its hash holds, so whatever ends a download early leaves nothing that counts.
"""

import base64
import contextlib
import hashlib
import importlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from octave.errors import InstallFailed, RegistryUnreachable
from octave.home import atomic_write, private_folder, sweep, temporary
from octave.packages.ecosystems.npm_command import NeedsNpm, RegistryAccess, wrong_hash

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 8
_ATTEMPTS = 3
_RETRY_WAIT_S = 0.5
"""Before the second attempt, twice that before the third."""
_CONNECT_TIMEOUT_S = 10.0
_SILENCE_TIMEOUT_S = 30.0
"""Longest time without a single byte of a download."""
_DOWNLOAD_TIMEOUT_S = 600.0
"""Longest time for one tarball: a mirror that lets bytes drip must not hold the work for hours."""
_TARBALL_BYTES = 2 * 2**30
"""Far above any package; keeps a broken mirror from filling the disk."""


@dataclass(frozen=True, slots=True)
class Tarball:
    """Which tarball is meant, and what it must be."""

    name: str
    version: str
    integrity: str
    """`sha512-` and base64, checked to have that form."""

    def __str__(self) -> str:
        return f"`{self.name}` {self.version}"

    @property
    def _address(self) -> str:
        """Its place in a registry, as npm knows it where no lock says otherwise."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"

    @property
    def _digest(self) -> bytes:
        return base64.b64decode(self.integrity.removeprefix("sha512-"))


class Tarballs:
    """One cache and one registry, for many threads at once."""

    def __init__(self, folder: Path, access: Callable[[], RegistryAccess] | None) -> None:
        """Use the cache `folder`; `access` is asked once, when something is missing from it.

        None for `access`: the network may not be used.

        Raises:
            OSError: the cache cannot be made.
        """
        self._folder = private_folder(folder)
        self._access = access
        self._opening = threading.Lock()
        self._client: httpx.Client | None = None
        self._url = ""
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let downloads end soon, with an error, and begin no new ones."""
        self._stopped.set()

    def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            self._client.close()

    def open(self, tarball: Tarball) -> BinaryIO:
        """Return the verified tarball, open at its start.

        What lies damaged in the cache is dropped and fetched again.

        Raises:
            NeedsNpm: the registry asks for npm, or the network may not be used.
            IntegrityFailed: what the registry has, or offline the cache, is something else.
            RegistryUnreachable: it cannot be downloaded.
            InstallFailed: it is too large, or the work was stopped.
            OSError: the disk is full or not writable.
        """
        path = _place(self._folder, tarball._digest)
        got = ""
        with contextlib.suppress(FileNotFoundError):
            file = path.open("rb")
            got = _sha512(file)
            if got == tarball.integrity:
                return file
            file.close()
            path.unlink()
        if self._access is None:
            if got:
                raise wrong_hash(str(tarball), tarball.integrity, got)
            raise NeedsNpm("the network may not be used, and npm has a cache of its own")
        return self._download(tarball, path)

    def _download(self, tarball: Tarball, path: Path) -> BinaryIO:
        client = self._opened()
        descriptor, partial = temporary(self._folder / tarball._digest.hex()[:16], 0o600)
        file = os.fdopen(descriptor, "w+b")
        try:
            self._fetch(client, tarball, file)
            file.flush()
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(mode=0o700)
            partial.replace(path)
            file.seek(0)
        except BaseException:
            file.close()
            partial.unlink(missing_ok=True)
            raise
        return file

    def _opened(self) -> "httpx.Client":
        with self._opening:
            if self._client is None:
                assert self._access is not None
                # What downloads that were killed left behind.
                sweep(self._folder)
                # Loading it takes as long as npm takes to tell its configuration.
                loading = threading.Thread(target=importlib.import_module, args=("httpx",))
                loading.start()
                try:
                    access = self._access()
                finally:
                    loading.join()
                self._url = access.url
                self._client = _open_client(access)
            return self._client

    def _fetch(self, client: "httpx.Client", tarball: Tarball, file: BinaryIO) -> None:
        import httpx

        problem = ""
        for attempt in range(_ATTEMPTS):
            if self._stopped.wait(attempt * _RETRY_WAIT_S):
                raise InstallFailed(f"{tarball} was not downloaded: stopped")
            try:
                problem = self._fetch_once(client, tarball, file)
            except httpx.TransportError as error:
                if "CERTIFICATE" in str(error):
                    raise NeedsNpm("the registry's certificate is not known here") from error
                problem = str(error) or type(error).__name__
            if not problem:
                return
        raise RegistryUnreachable(
            f"{tarball} cannot be downloaded: {problem}",
            hint="check the network and `npm config get registry`, then try again",
        )

    def _fetch_once(self, client: "httpx.Client", tarball: Tarball, file: BinaryIO) -> str:
        """Write the tarball into `file`; return what may pass if tried again."""
        file.seek(0)
        file.truncate()
        digest = hashlib.sha512()
        until = time.monotonic() + _DOWNLOAD_TIMEOUT_S
        with client.stream("GET", self._url + tarball._address) as response:
            if response.status_code == 429 or response.status_code >= 500:
                return f"the registry answered {response.status_code}"
            if response.status_code != 200:
                raise NeedsNpm(f"the registry answered {response.status_code}")
            left_bytes = _TARBALL_BYTES
            # As it comes: what drips would never fill a larger piece.
            for chunk in response.iter_raw():
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    raise InstallFailed(f"{tarball} is larger than {_TARBALL_BYTES} bytes")
                if self._stopped.is_set():
                    raise InstallFailed(f"{tarball} was not downloaded: stopped")
                if time.monotonic() > until:
                    return f"it took more than {_DOWNLOAD_TIMEOUT_S:.0f} s"
                digest.update(chunk)
                file.write(chunk)
        got = _integrity(digest.digest())
        if got != tarball.integrity:
            raise wrong_hash(str(tarball), tarball.integrity, got)
        return ""


def _sha512(file: BufferedReader | BufferedRandom) -> str:
    digest = hashlib.file_digest(file, "sha512").digest()
    file.seek(0)
    return _integrity(digest)


def _integrity(digest: bytes) -> str:
    return f"sha512-{base64.b64encode(digest).decode()}"


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
        limits=httpx.Limits(max_connections=_CONNECTIONS),
    )


def keep(folder: Path, content: bytes) -> None:
    """Put a tarball that was made here into the cache `folder`.

    Raises:
        OSError: it cannot be written.
    """
    path = _place(private_folder(folder), hashlib.sha512(content).digest())
    private_folder(path.parent)
    atomic_write(path, content, 0o600)


def is_kept(folder: Path, integrity: str) -> bool:
    """Whether the cache `folder` has what that hash holds for; what is damaged is dropped."""
    path = _place(folder, base64.b64decode(integrity.removeprefix("sha512-")))
    try:
        with path.open("rb") as file:
            is_whole = _sha512(file) == integrity
    except FileNotFoundError:
        return False
    if not is_whole:
        path.unlink(missing_ok=True)
    return is_whole


def _place(folder: Path, digest: bytes) -> Path:
    return folder / digest.hex()[:2] / f"{digest.hex()[2:]}.tgz"
