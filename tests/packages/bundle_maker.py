"""Bundles made on the fly, and a server on loopback that hands them out, or lies."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.packages.story import SERVERS

_POLL_S = 0.02
HERE = "${__dirname}/server/main.py"


def manifest(**changes: Any) -> dict[str, Any]:
    """A manifest of a Python server with the least in it, and `changes`."""
    least: dict[str, Any] = {
        "manifest_version": "0.3",
        "name": "little-bundle",
        "version": "1.2.0",
        "description": "What it does.",
        "author": {"name": "Somebody"},
        "server": {
            "type": "python",
            "entry_point": "server/main.py",
            "mcp_config": {"command": "python", "args": [HERE]},
        },
    }
    return least | changes


def bundle(
    content: Mapping[str, Any] | None = None,
    server: str = "env_echo",
    more: Mapping[str, str | bytes] | None = None,
) -> bytes:
    """Return the archive with a manifest and a server of tests/servers in `server/main.py`."""
    files: dict[str, str | bytes] = {
        "manifest.json": json.dumps(manifest() if content is None else content),
        "server/main.py": (SERVERS / f"{server}.py").read_text(encoding="utf-8"),
        "server/_base.py": (SERVERS / "_base.py").read_text(encoding="utf-8"),
    }
    return archive(files | dict(more or {}))


def archive(files: Mapping[str, str | bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return made.getvalue()


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class BundleHost:
    """Serves `files` by path; `with` it."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.asked: list[str] = []
        host = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.asked.append(self.path)
                told = host.files.get(self.path, Answer(status=404))
                self.send_response(told.status)
                for name, value in {"Content-Length": str(len(told.body)), **told.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told.body)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients hang up on what they do not want."""

        self._server = Quiet(("127.0.0.1", 0), Pages)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def offer(self, path: str, content: bytes) -> str:
        """Hand `content` out at `path`; return how one asks for it."""
        self.files[path] = Answer(content)
        return f"mcpb:{self.url}{path}#sha256={hashlib.sha256(content).hexdigest()}"
