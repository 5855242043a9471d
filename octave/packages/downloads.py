"""Files that are known by their sha256: downloaded once, kept by that, hashed at each use.

The address comes from a registry or a person, and leads wherever its owner pleases: bytes, time
and redirects are bounded, nothing goes unencrypted, and nothing on the public network leads to a
machine inside. Processes share the cache without locks.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from octave import __version__
from octave.errors import InstallFailed, IntegrityFailed, PackageNotFound, RegistryUnreachable
from octave.home import Home, private_folder, sweep, temporary
from octave.packages import interrupts
from octave.packages.registry_http import is_private_way

if TYPE_CHECKING:
    import httpx

Counted = Callable[[int, int], None]
"""Takes how many bytes have come, and how many there are by the server's account."""

COUNT_S = 0.5
"""How often that is told."""
_CHUNK_BYTES = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a foreign server is borne."""

    file_bytes: int = 1 * 2**30
    """Bundles bring their dependencies along, some a browser; a gigabyte none."""
    total_s: float = 1800.0
    connect_s: float = 10.0
    silence_s: float = 30.0
    """Longest time without a single byte."""
    redirects: int = 5
    attempts: int = 3
    retry_wait_s: float = 0.5
    """Before the second attempt, twice that before the third."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file."""

    label: str
    """What it is called in errors."""
    url: str
    """Empty: it came from this machine, and lies in the cache or nowhere."""
    sha256: str
    """64 hex digits."""


class _Passing(Exception):
    """May be well a moment later; the text ends a sentence."""


def open_file(
    wanted: Wanted,
    folder: Path,
    *,
    offline: bool,
    begins: Callable[[], None] = lambda: None,
    counted: Counted = lambda _done, _total: None,
    limits: Limits = Limits(),
) -> BinaryIO:
    """Return the verified file, open at its start, from the cache `folder` or the network.

    `begins` is called before the network is used, `counted` while it is.

    Raises:
        IntegrityFailed: what arrives is something else.
        PackageNotFound: nothing lies at its address.
        RegistryUnreachable: it cannot be downloaded, or is not in the cache and `offline`.
        InstallFailed: it is too large, or its address leads where it must not.
        OSError: the disk is full or not writable.
    """
    private_folder(folder)
    path = _path(wanted.sha256, folder)
    with contextlib.suppress(FileNotFoundError):
        file = path.open("rb")
        if hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256:
            file.seek(0)
            return file
        file.close()
        path.unlink()
    if not wanted.url:
        raise InstallFailed(
            f"`{wanted.label}` was installed from a file, and is not kept here any more",
            hint="octave install PATH/X.mcpb",
        )
    if offline:
        raise RegistryUnreachable(
            f"`{wanted.label}` is not in the cache", hint="try again without `--offline`"
        )
    begins()
    sweep(folder)
    descriptor, unfinished = temporary(folder / wanted.sha256[:16], 0o600)
    try:
        with os.fdopen(descriptor, "w+b") as made:
            _Download(wanted, limits, counted).into(made)
            made.flush()
            unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return path.open("rb")


def bundles(home: Home) -> Path:
    """Return the cache of bundles in `home`."""
    return home.cache / "bundles"


def keep(source: Path, folder: Path) -> str:
    """Put a file of this machine into the cache `folder` and return its sha256.

    Raises:
        InstallFailed: it cannot be read, or is too large.
        OSError: the cache cannot be written.
    """
    private_folder(folder)
    descriptor, unfinished = temporary(folder / "local", 0o600)
    digest = hashlib.sha256()
    try:
        with os.fdopen(descriptor, "wb") as made, _readable(source) as file:
            left_bytes = Limits().file_bytes
            while chunk := file.read(_CHUNK_BYTES):
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    raise InstallFailed(f"`{source}` is larger than {Limits().file_bytes} bytes")
                digest.update(chunk)
                made.write(chunk)
            made.flush()
            unfinished.replace(_path(digest.hexdigest(), folder))
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _readable(source: Path) -> BinaryIO:
    try:
        if not source.is_file():
            raise InstallFailed(f"`{source}` is not a file")
        return source.open("rb")
    except OSError as error:
        raise InstallFailed(f"cannot read `{source}`: {error.strerror}") from error


def _path(sha256: str, folder: Path) -> Path:
    return folder / sha256


class _Download:
    """One download, with everything that is allowed to it."""

    def __init__(self, wanted: Wanted, limits: Limits, counted: Counted) -> None:
        self._counted = counted
        self._wanted = wanted
        self._limits = limits
        self._deadline = time.monotonic() + limits.total_s
        self._is_inside = False
        """Whether the address itself is one of this machine or its network."""

    def into(self, file: BinaryIO) -> None:
        """Write the file, whose hash holds then."""
        import httpx

        wanted, problem = self._wanted, ""
        for attempt in range(self._limits.attempts):
            if attempt:
                threading.Event().wait(self._limits.retry_wait_s * attempt)
            try:
                digest = self._once(file)
            except _Passing as error:
                problem = str(error)
                continue
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                problem = f"cannot be reached: {str(error) or type(error).__name__}"
                continue
            if digest != wanted.sha256:
                raise IntegrityFailed(
                    f"what lies at `{wanted.url}` is not what was meant: its sha256 is {digest}, "
                    f"and should be {wanted.sha256}",
                    hint="its publisher may have replaced it, or somebody else has: do not "
                    "install it before you know",
                    details={"url": wanted.url, "wanted": wanted.sha256, "got": digest},
                )
            return
        raise RegistryUnreachable(
            f"`{wanted.label}` cannot be downloaded: `{urlsplit(wanted.url).netloc}` {problem}",
            hint="check the network, then try again",
            details={"url": wanted.url},
        )

    def _once(self, file: BinaryIO) -> str:
        """Write what comes into `file` and return its sha256."""
        import httpx

        url = self._wanted.url
        timeout = httpx.Timeout(self._limits.silence_s, connect=self._limits.connect_s)
        headers = {"Accept-Encoding": "identity", "User-Agent": f"octave-mcp/{__version__}"}
        with httpx.Client(headers=headers, timeout=timeout) as client:
            for hop in range(self._limits.redirects + 1):
                self._require_allowed(url, is_first=hop == 0)
                host = urlsplit(url).hostname or ""
                extensions = {
                    "trace": _Watch(host, partial(self._require_place, is_first=hop == 0))
                }
                with client.stream("GET", url, extensions=extensions) as response:
                    if response.next_request is None:
                        return self._body(response, file)
                    url = str(response.next_request.url)
        raise self._trouble("leads in circles")

    def _require_allowed(self, url: str, *, is_first: bool) -> None:
        host = urlsplit(url).hostname or ""
        if not is_private_way(url):
            raise self._trouble(f"leads to `{host}` without https, where anybody could answer")
        self._require_place(host, is_first=is_first)

    def _require_place(self, host: str, *, is_first: bool) -> None:
        """Refuse link-local addresses, and those inside where a public one led there."""
        address = _address(host)
        if address is None:
            inside = host == "localhost"
        elif address.is_link_local or address.is_multicast or address.is_unspecified:
            raise self._trouble(f"leads to `{host}`, where no bundle lies")
        else:
            inside = not address.is_global
        if is_first:
            self._is_inside |= inside
        elif inside and not self._is_inside:
            raise self._trouble(f"leads to `{host}`, an address of this machine or its network")

    def _body(self, response: "httpx.Response", file: BinaryIO) -> str:
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Passing(f"answers {status}")
        if status in {404, 410}:
            raise PackageNotFound(
                f"nothing lies at `{self._wanted.url}`",
                hint="check the address; its publisher may have withdrawn it",
            )
        if status != 200:
            raise self._trouble(f"answers {status}")
        file.seek(0)
        file.truncate()
        digest, left_bytes = hashlib.sha256(), self._limits.file_bytes
        length, tells_s = response.headers.get("content-length", ""), 0.0
        told = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        # As it comes: what drips would never fill a larger piece.
        for chunk in response.iter_raw():
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise self._trouble(f"gives more than {self._limits.file_bytes} bytes")
            interrupts.look()
            if time.monotonic() > self._deadline:
                raise self._trouble(f"took longer than {self._limits.total_s:.0f} s")
            digest.update(chunk)
            file.write(chunk)
            if told and time.monotonic() >= tells_s:
                tells_s = time.monotonic() + COUNT_S
                self._counted(self._limits.file_bytes - left_bytes, told)
        return digest.hexdigest()

    def _trouble(self, what: str) -> InstallFailed:
        return InstallFailed(
            f"`{self._wanted.label}` was not downloaded: `{self._wanted.url}` {what}",
            hint="download it yourself, look at it, and `octave install PATH/X.mcpb`",
            details={"url": self._wanted.url},
        )


class _Watch:
    """Hears of a request whom it has reached, before anything is sent.

    A look-up beforehand would prove nothing: the next one may give another address.
    """

    def __init__(self, host: str, judge: Callable[[str], None]) -> None:
        self._host = host
        self._judge = judge
        self._is_direct = False

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            # What a proxy reaches is the proxy's business.
            self._is_direct = info["host"] == self._host
        elif event == "connection.connect_tcp.complete" and self._is_direct:
            stream = info["return_value"]
            try:
                self._judge(str(stream.get_extra_info("server_addr")[0]))
            except InstallFailed:
                stream.close()
                raise


def _address(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    """Return the address that `host` is; of one that stands for an IPv4 address, that one."""
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(host)
        inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return inner or found
    with contextlib.suppress(OSError, UnicodeEncodeError):
        # `127.1` and `2130706433` are addresses, too, to whoever connects (inet_aton(3)).
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None
