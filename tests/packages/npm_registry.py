"""An npm registry on loopback, with packages made on the fly: what npm and Octave need of one."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from octave.packages.ecosystems.npm_command import RegistryAccess

_POLL_S = 0.01
"""How long `close` waits for the server to notice."""
_TYPES = ("application/json", "application/octet-stream")


class NpmRegistry:
    """Serves `answers[path] = (status, body)` and remembers what was asked for.

    What lies in `held` is answered with half of its body, and the rest when the event is set;
    what lies in `cut` with half of it and no more, once.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.held: dict[str, threading.Event] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        self.accesses = 0
        self.seen = threading.Event()
        """Set when something that is held was asked for and half of it is out."""
        self._times: dict[str, dict[str, str]] = {}
        self._versions: dict[str, dict[str, dict[str, Any]]] = {}
        registry = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                # Whoever asked may have been killed.
                with contextlib.suppress(ConnectionError):
                    registry._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/base/"

    def access(self) -> RegistryAccess:
        self.accesses += 1
        return RegistryAccess(self.url)

    def close(self) -> None:
        for event in self.held.values():
            event.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def publish(self, name: str, content: bytes, version: str = "1.0.0") -> bytes:
        """Offer a tarball, without telling about it; return it."""
        self.answers[tarball_path(name, version)] = (200, content)
        return content

    def offer(
        self,
        name: str,
        version: str = "1.0.0",
        *,
        tarball: bytes | None = None,
        integrity: str | None = None,
        published: str = "",
        **manifest: Any,
    ) -> bytes:
        """Offer a version as npm publishes it, at a time in RFC 3339; return its tarball."""
        described = {"name": name, "version": version, "bin": "index.js", **manifest}
        content = tarball or package_tarball(name, version, **manifest)
        self.publish(name, content, version)
        address = self.url.removesuffix("/base/") + tarball_path(name, version)
        described["dist"] = {"tarball": address, "integrity": integrity or sha512(content)}
        if manifest.get("scripts"):
            described["hasInstallScript"] = True
        versions = self._versions.setdefault(name, {})
        versions[version] = described
        stable = [text for text in versions if "-" not in text]
        latest = {"latest": (stable or list(versions))[-1]}
        page: dict[str, Any] = {"name": name, "dist-tags": latest, "versions": versions}
        times = self._times.setdefault(name, {})
        times |= {version: published} if published else {}
        page |= {"time": times} if times else {}
        self.answers[f"/base/{name}"] = (200, json.dumps(page).encode())
        return content

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path)
        self.asked.append(path)
        status, body = self.answers.get(path, (404, b"{}"))
        request.send_response(status)
        if status == 302:
            request.send_header("Location", body.decode())
            body = b""
        request.send_header("Content-Type", _TYPES[path.endswith(".tgz")])
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = len(body) // 2 if path in {*self.held, *self.cut} else 0
        request.wfile.write(body[:half])
        if path in self.cut:
            self.cut.remove(path)
            request.close_connection = True
            return
        if path in self.held:
            request.wfile.flush()
            self.seen.set()
            self.held[path].wait()
        request.wfile.write(body[half:])


def tarball_path(name: str, version: str = "1.0.0") -> str:
    return f"/base/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"


def package_tarball(
    name: str, version: str = "1.0.0", files: Mapping[str, str] | None = None, **manifest: Any
) -> bytes:
    """Return a package whose executable is `index.js`; `manifest` adds to its package.json."""
    described = {"name": name, "version": version, "bin": "index.js", **manifest}
    contents = {"package.json": json.dumps(described), "index.js": f"// {name}", **(files or {})}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in contents.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


def sha512(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def row(path: str, content: bytes, **more: object) -> dict[str, object]:
    """Return the locked row of a tarball at `node_modules/PATH`."""
    return {
        "path": f"node_modules/{path}",
        "version": "1.0.0",
        "integrity": sha512(content),
        **more,
    }


def running() -> Iterator[NpmRegistry]:
    """Yield a registry and end it: the body of a fixture."""
    registry = NpmRegistry()
    yield registry
    registry.close()


def asked_by(environ: dict[str, str]) -> Iterator[NpmRegistry]:
    """Yield a registry that the npm of `environ` asks, and end it: the body of a fixture."""
    for registry in running():
        environ |= {"npm_config_registry": registry.url, "npm_config_fetch_retries": "0"}
        yield registry
