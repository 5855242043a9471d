"""GET documents from a registry of MCP servers, which may be slow, huge, broken or hostile.

Everything it can cost is bounded: bytes after unpacking, time, redirects, attempts. A redirect
to another host is refused: which registry answers is the user's choice alone.
"""

import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from octave import __version__
from octave.errors import RegistryUnreachable
from octave.packages.names import is_address

if TYPE_CHECKING:
    import httpx

_REDIRECTS = 5
_PASSING = (429, 500, 502, 503, 504)
"""What a registry answers that may be well a moment later."""
_LATER_S = 1e6
"""Stands for a date: not now."""
_LAST_WORD_S = 0.1
"""Past the deadline, for what notices it by itself."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a registry is borne."""

    document_bytes: int = 8 * 2**20
    """Of one answer, unpacked: a hundred servers with everything they say fit into one."""
    listing_bytes: int = 256 * 2**20
    """Of all pages of one list."""
    pages: int = 1000
    """Of the whole list: 100,000 servers."""
    search_pages: int = 10
    """Of the answer to a search; nobody reads on."""
    total_s: float = 180.0
    """For one list; the whole one of the official registry takes tens of seconds."""
    connect_s: float = 5.0
    silence_s: float = 15.0
    """Longest time without a single byte."""
    attempts: int = 3
    retry_wait_s: float = 0.5
    """Before the second attempt, twice that before the third."""
    patience_s: float = 10.0
    """Longer than that is not waited when a registry asks for it (RFC 9110, Retry-After)."""


class Link:
    """A conversation with the registry `name` at `url`; opens the network at its first `get`."""

    def __init__(
        self,
        name: str,
        url: str,
        limits: Limits,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._name = name
        self._headers = headers
        self._url = url.rstrip("/")
        self._limits = limits
        self._client: httpx.Client | None = None
        self._deadline = time.monotonic() + limits.total_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()

    def get(self, path: str, params: Mapping[str, str]) -> bytes | None:
        """Return the body of `path` below the registry's address; None when it has none (404).

        Raises:
            RegistryUnreachable: it cannot be had, within the limits.
        """
        import httpx

        wait_s = 0.0
        for attempt in range(self._limits.attempts):
            last = attempt == self._limits.attempts - 1
            if attempt:
                threading.Event().wait(max(wait_s, self._limits.retry_wait_s * attempt))
            try:
                status, body, wait_s = self._bounded(f"{self._url}{path}", params)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise self.trouble(f"cannot be reached: {_reason(error)}") from error
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                passes = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
                if last or not passes:
                    raise self.trouble(f"does not answer: {_reason(error)}") from error
                continue
            if status == 200:
                return body
            if status == 404:
                return None
            if last or status not in _PASSING or wait_s > self._limits.patience_s:
                break
        if status in {401, 403}:
            raise self._refused(status)
        when = f"in {wait_s:.0f} s" if wait_s < _LATER_S else "later"
        wish = f": it wants to be asked again {when}" if wait_s > 0 else ""
        raise self.trouble(f"answers {status}{wish}")

    def trouble(self, what: str) -> RegistryUnreachable:
        """Return the error that says `what` the registry does."""
        return RegistryUnreachable(
            f"the registry `{self._name}` {what}",
            hint="`octave registry list` shows where it is; servers that Octave brought along "
            "need no registry",
            details={"registry": self._name, "url": self._url},
        )

    def _refused(self, status: int) -> RegistryUnreachable:
        names = " and ".join(f"`{name}`" for name in self._headers())
        if names:
            return RegistryUnreachable(
                f"the registry `{self._name}` answers {status}: it does not accept what was sent "
                f"as {names}",
                hint="check its value: `octave secret list`, or the variable it refers to",
                details={"registry": self._name, "url": self._url},
            )
        return RegistryUnreachable(
            f"the registry `{self._name}` answers {status}: it wants authorization",
            hint=f"add it with `octave registry add {self._name} {self._url} "
            "--header-env 'Authorization: VARIABLE'`",
            details={"registry": self._name, "url": self._url},
        )

    def _bounded(self, url: str, params: Mapping[str, str]) -> tuple[int, bytes, float]:
        """Return what `_get_once` does, within the time that is left for all of it.

        In a thread, which is left behind when the time is over: whoever sends a byte now and then
        is never silent for long.
        """
        done: list[tuple[int, bytes, float] | Exception] = []

        def ask() -> None:
            try:
                done.append(self._get_once(url, params))
            except Exception as error:  # noqa: BLE001 - it is raised again below
                done.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(max(0.0, self._deadline - time.monotonic()) + _LAST_WORD_S)
        if not done:
            raise self._too_slow()
        if isinstance(done[0], Exception):
            raise done[0]
        return done[0]

    def _too_slow(self) -> RegistryUnreachable:
        return self.trouble(f"took longer than {self._limits.total_s:g} s")

    def _get_once(self, url: str, params: Mapping[str, str]) -> tuple[int, bytes, float]:
        client = self._open()
        request = client.build_request("GET", url, params=dict(params))
        for _ in range(_REDIRECTS):
            response = client.send(request, stream=True)
            try:
                following = response.next_request
                if following is None:
                    found = self._body(response) if response.status_code == 200 else b""
                    return response.status_code, found, _retry_after_s(response)
            finally:
                response.close()
            if not self._is_ours(str(following.url)):
                raise self.trouble(f"leads to another host, `{following.url.host}`")
            request = following
        raise self.trouble("leads in circles")

    def _is_ours(self, url: str) -> bool:
        """Whether `url` is on the host that was named, and not without TLS where that has it."""
        ours, theirs = urlsplit(self._url), urlsplit(url)
        # On this machine another port may be another user's, who must not learn who asks.
        if theirs.scheme == "https" and ours.scheme == "http" and not self._headers():
            return theirs.hostname == ours.hostname
        return (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)

    def _open(self) -> "httpx.Client":
        if self._client is None:
            # Imported late: most verbs never ask a registry, and it takes 0.15 s.
            import httpx

            if not is_private_way(self._url):
                raise self.trouble("is not reached by https, so anybody between could answer")
            own = self._headers()
            try:
                self._client = httpx.Client(
                    headers={
                        **own,
                        "Accept": "application/json",
                        "Accept-Encoding": "gzip",
                        "User-Agent": f"octave-mcp/{__version__}",
                    },
                    timeout=httpx.Timeout(self._limits.silence_s, connect=self._limits.connect_s),
                )
            except (ImportError, OSError, ValueError) as error:
                # Proxies and certificates of the environment are read here.
                raise self.trouble(f"cannot be asked: {_reason(error)}") from error
        return self._client

    def _body(self, response: "httpx.Response") -> bytes:
        """Return the body, unpacked piece by piece: a small one may unpack to gigabytes."""
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "gzip"}:
            raise self.trouble(f"answers in an encoding nobody asked for, `{encoding[:40]}`")
        unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        most, found = self._limits.document_bytes, bytearray()
        for piece in response.iter_raw():
            if time.monotonic() > self._deadline:
                raise self._too_slow()
            try:
                found += unpack.decompress(piece, most + 1 - len(found)) if unpack else piece
            except zlib.error as error:
                raise self.trouble("answers with something that cannot be unpacked") from error
            if len(found) > most:
                raise self.trouble(f"answers with more than {most / 2**20:g} MiB at once")
        return bytes(found)


def is_private_way(url: str) -> bool:
    """Whether nobody between can read along or answer instead: https, or this machine itself."""
    if not is_address(url):
        return False
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or parts.hostname in _LOOPBACK)


def is_here(url: str) -> bool:
    """Whether `url`, which `is_private_way`, leads to this machine itself."""
    return urlsplit(url).hostname in _LOOPBACK


def _retry_after_s(response: "httpx.Response") -> float:
    """Return how long the registry wants to be left alone; 0: it does not say."""
    said = response.headers.get("retry-after", "")
    if said.isascii() and said.isdigit():
        return float(said[:9])
    # The other form is a date, which only says something to a clock that goes right.
    return _LATER_S if said[:3].isalpha() else 0.0


def _reason(error: Exception) -> str:
    # httpx quotes the number of the system's error, which is nobody's affair.
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
