"""A web server on loopback that says what a test wants."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_POLL_S = 0.02
"""How long `close` waits for the server to notice."""


@dataclass(frozen=True)
class Answer:
    """What goes over the wire."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Self:
        return cls(json.dumps(value).encode(), status)


class WebHost:
    """Answers as `respond` says; `with` it, or `close` it."""

    def __init__(self) -> None:
        host = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told = host.respond(self.path, dict(self.headers))
                if told is None:
                    return
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

    def respond(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Return what is said to a GET of `path`, which has its query; None: hang up."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering; new connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
