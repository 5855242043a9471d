"""Bundles made on the fly, and a server on loopback that hands them out, or lies."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from tests.packages.story import SERVERS
from tests.packages.web_host import Answer, WebHost

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


class BundleHost(WebHost):
    """Serves `files` by path."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.asked: list[str] = []
        super().__init__()

    def respond(self, path: str, headers: Mapping[str, str]) -> Answer:
        self.asked.append(path)
        return self.files.get(path, Answer(status=404))

    def offer(self, path: str, content: bytes) -> str:
        """Hand `content` out at `path`; return how one asks for it."""
        self.files[path] = Answer(content)
        return f"mcpb:{self.url}{path}#sha256={hashlib.sha256(content).hexdigest()}"
