"""A registry of MCP servers on loopback: API v0.1 with entries in the official shape, or lies.

It pages, searches by substring, knows versions, status and `updated_since`, and writes down what
it was asked. `answer` is replaced for what no honest registry would say.
"""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.packages.web_host import Answer, WebHost

OFFICIAL = "io.modelcontextprotocol.registry/official"
PATH = "/v0.1/servers"


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case."""

    @property
    def told(self) -> str:
        """The path, and what matters of the question."""
        keys = ("search", "updated_since", "cursor", "include_deleted")
        more = [f"{key}={self.params[key]}" for key in keys if key in self.params]
        return "?".join([self.path.removeprefix(PATH), *(["&".join(more)] if more else [])])


def server(name: str, **changes: Any) -> dict[str, Any]:
    """A server.json with the least in it, and `changes`."""
    least = {"name": name, "description": f"What {name} does.", "version": "1.0.0"}
    return least | changes


def package(kind: str, identifier: str, **changes: Any) -> dict[str, Any]:
    least = {"registryType": kind, "identifier": identifier, "version": "1.0"}
    return least | {"transport": {"type": "stdio"}} | changes


def item(content: Mapping[str, Any], **official: Any) -> dict[str, Any]:
    """What a registry says about one version of a server."""
    said = {
        "status": "active",
        "publishedAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z",
        "isLatest": True,
    }
    return {"server": dict(content), "_meta": {OFFICIAL: said | official}}


class RegistryServer(WebHost):
    """Serves `items`."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.asked: list[Asked] = []
        self.most_per_page = 100
        self.answer: Callable[[Asked], Answer | None] = self.honest
        super().__init__()

    def respond(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        parts = urlsplit(path)
        lowered = {name.lower(): value for name, value in headers.items()}
        asked = Asked(parts.path, dict(parse_qsl(parts.query)), lowered)
        self.asked.append(asked)
        return self.answer(asked)

    def add(self, name: str, *packages: dict[str, Any], **official: Any) -> dict[str, Any]:
        """Publish a version of a server."""
        made = item(server(name, packages=list(packages)), **official)
        self.items.append(made)
        return made

    def told(self) -> list[str]:
        """Return what was asked since the last time."""
        found = [asked.told for asked in self.asked]
        self.asked.clear()
        return found

    def honest(self, asked: Asked) -> Answer:
        """Answer as the official registry does."""
        parts = asked.path.removeprefix(PATH).strip("/").split("/")
        if not asked.path.startswith(PATH) or len(parts) not in {1, 3}:
            return Answer.of({"title": "Not Found", "status": 404}, 404)
        if len(parts) == 3:
            return self._one(unquote(parts[0]), parts[2], asked)
        found = [one for one in self.items if self._fits(one, asked.params)]
        start = int(asked.params.get("cursor", "0"))
        size = min(int(asked.params.get("limit", "30")), self.most_per_page)
        page = found[start : start + size]
        metadata: dict[str, Any] = {"count": len(page)}
        if start + size < len(found):
            metadata["nextCursor"] = str(start + size)
        return Answer.of({"servers": page, "metadata": metadata})

    def _one(self, name: str, version: str, asked: Asked) -> Answer:
        for one in self.items:
            official = one["_meta"][OFFICIAL]
            gone = official["status"] == "deleted" and "include_deleted" not in asked.params
            wanted = (
                official["isLatest"]
                if version == "latest"
                else (one["server"]["version"] == version)
            )
            if one["server"]["name"] == name and wanted and not gone:
                return Answer.of(one)
        return Answer.of({"error": "Server not found"}, 404)

    def _fits(self, one: Mapping[str, Any], params: Mapping[str, str]) -> bool:
        official = one["_meta"][OFFICIAL]
        since = params.get("updated_since")
        return (
            params.get("search", "").lower() in one["server"]["name"].lower()
            and (params.get("version") != "latest" or official["isLatest"])
            and (since is not None or official["status"] != "deleted")
            and (since is None or official["updatedAt"] >= since)
        )


def gzipped(body: bytes) -> Answer:
    return Answer(gzip.compress(body), headers={"Content-Encoding": "gzip"})


def configure(home: Path, **registries: str) -> None:
    """Write a manifest into `home` that names these registries, name -> address, and no server."""
    text = "".join(f'[registries.{name}]\nurl = "{url}"\n' for name, url in registries.items())
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "octave.toml").write_text(text, encoding="utf-8")
