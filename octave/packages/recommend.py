"""Servers worth having here: from what is installed, and from the project at hand.

Looks at a handful of files of one folder, never into subfolders, and reads no more than their
beginning. Of variables only the name is ever told: their values hold passwords.
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octave.packages.entries import Entry
from octave.packages.registry import Registry

_READ_BYTES = 256 * 2**10
_MOST_KIN = 3
"""Servers of the same subject as an installed one; more would only repeat `search`."""
_NO_SUBJECTS = frozenset({"reference", "utility"})
"""Categories that make no two servers akin."""
_FIRST = ("filesystem", "fetch", "memory")
"""For somebody who has nothing yet: they need no account."""

_SCHEMES: Mapping[str, str] = {
    "postgres": "dbhub",
    "postgresql": "dbhub",
    "mysql": "dbhub",
    "mariadb": "dbhub",
    "sqlserver": "dbhub",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "redis": "redis",
    "rediss": "redis",
    "neo4j": "neo4j",
    "neo4j+s": "neo4j",
    "bolt": "neo4j",
    "clickhouse": "clickhouse",
}
"""Scheme of a database's address -> server."""

_PACKAGES: Mapping[str, str] = {
    "@azure": "azure",
    "@chroma-core": "chroma",
    "@clickhouse/client": "clickhouse",
    "@elastic/elasticsearch": "elasticsearch",
    "@notionhq/client": "notion",
    "@playwright/test": "playwright",
    "@qdrant/js-client-rest": "qdrant",
    "@sentry": "sentry",
    "@slack": "slack",
    "@supabase": "supabase",
    "asyncpg": "dbhub",
    "boto3": "aws-api",
    "aws-sdk": "aws-api",
    "@aws-sdk": "aws-api",
    "chromadb": "chroma",
    "clickhouse-connect": "clickhouse",
    "duckdb": "duckdb",
    "elasticsearch": "elasticsearch",
    "eslint": "eslint",
    "ioredis": "redis",
    "kubernetes": "kubernetes",
    "mongodb": "mongodb",
    "mongoose": "mongodb",
    "mysql2": "dbhub",
    "neo4j": "neo4j",
    "neo4j-driver": "neo4j",
    "next": "chrome-devtools",
    "notion-client": "notion",
    "pg": "dbhub",
    "playwright": "playwright",
    "psycopg": "dbhub",
    "psycopg2": "dbhub",
    "psycopg2-binary": "dbhub",
    "puppeteer": "puppeteer",
    "pymongo": "mongodb",
    "pymysql": "dbhub",
    "qdrant-client": "qdrant",
    "react": "chrome-devtools",
    "redis": "redis",
    "sentry-sdk": "sentry",
    "slack-sdk": "slack",
    "stripe": "stripe",
    "supabase": "supabase",
    "vue": "chrome-devtools",
}
"""Package the project depends on, or the scope of several -> server."""

_IMAGES: Mapping[str, str] = {
    "chroma": "chroma",
    "clickhouse-server": "clickhouse",
    "elasticsearch": "elasticsearch",
    "gitlab-ce": "gitlab",
    "grafana": "grafana",
    "mariadb": "dbhub",
    "mongo": "mongodb",
    "mysql": "dbhub",
    "neo4j": "neo4j",
    "postgres": "dbhub",
    "qdrant": "qdrant",
    "redis": "redis",
    "valkey": "redis",
}
"""Last part of the name of a container image -> server."""

_COMPOSE = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_ENV_FILES = (".env", ".env.local", ".env.development")
_FILES: Mapping[str, str] = {
    "*.duckdb": "duckdb",
    "*.sqlite": "dbhub",
    "*.sqlite3": "dbhub",
    ".obsidian": "obsidian",
    "Chart.yaml": "kubernetes",
    "kustomization.yaml": "kubernetes",
}
"""Name in the folder -> server."""
_HOSTS: Mapping[str, str] = {"github.com": "github", "gitlab.com": "gitlab"}
_IMAGE = re.compile(r"""^\s*image:\s*["']?([\w./-]+)""", re.MULTILINE)
_ASSIGNMENT = re.compile(r"""^\s*(?:export\s+)?(\w+)\s*=\s*["']?(\S+)""", re.MULTILINE)
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A server that may be of use here, and why."""

    entry: Entry
    reasons: tuple[str, ...]
    """A clause each: ``the project depends on `pg` ``."""


def recommend(
    registry: Registry, installed: Collection[str], folder: Path, environ: Mapping[str, str]
) -> list[Recommendation]:
    """Return servers for the project in `folder` and beside `installed` names, best first.

    None that is installed already; of one that is archived, its replacement.
    """
    entries = {entry.short_name: entry for entry in registry.entries()}
    reasons: dict[str, list[str]] = {}
    for name, reason in _all(entries, installed, folder, environ):
        entry = entries.get(name)
        if entry is not None and entry.replaced_by in entries:
            name = str(entry.replaced_by)
        if name in entries and name not in installed:
            known = reasons.setdefault(name, [])
            if reason not in known:
                known.append(reason)
    return [Recommendation(entries[name], tuple(found)) for name, found in reasons.items()]


def _all(
    entries: Mapping[str, Entry],
    installed: Collection[str],
    folder: Path,
    environ: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    yield from _replacements(entries, installed)
    project = list(_project(folder, environ))
    yield from project
    yield from _kin(entries, installed)
    if not installed and not project:
        yield from ((name, "a first server that needs no account") for name in _FIRST)


def _replacements(
    entries: Mapping[str, Entry], installed: Collection[str]
) -> Iterator[tuple[str, str]]:
    for name in installed:
        entry = entries.get(name)
        if entry is not None and entry.replaced_by:
            yield entry.replaced_by, f"it replaces `{name}`, which is installed and archived"


def _kin(entries: Mapping[str, Entry], installed: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield servers of the subjects of installed ones, those that share most first."""
    have = {
        category: name
        for name in installed
        if name in entries
        for category in entries[name].categories
        if category not in _NO_SUBJECTS
    }
    shared = {
        entry.short_name: [category for category in entry.categories if category in have]
        for entry in entries.values()
        if entry.short_name not in installed and entry.deprecated is None and _tried(entry)
    }
    ordered = sorted(shared.items(), key=lambda item: (-len(item[1]), item[0]))
    for name, categories in ordered[:_MOST_KIN]:
        if categories:
            yield name, f"it goes with `{have[categories[0]]}`: {', '.join(categories)}"


def _tried(entry: Entry) -> bool:
    return any(choice.figures is not None for choice in entry.packages)


def _project(folder: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from _checkout(folder)
    for package in _dependencies(folder):
        name = _PACKAGES.get(package) or _PACKAGES.get(package.partition("/")[0])
        if name:
            yield name, f"the project depends on `{package}`"
    yield from _databases(environ, "the environment")
    for file in _ENV_FILES:
        found = dict(_ASSIGNMENT.findall(_text(folder / file)))
        yield from _databases(found, f"`{file}`")
    for file in _COMPOSE:
        text = _text(folder / file)
        for image in dict.fromkeys(_IMAGE.findall(text)):
            if name := _IMAGES.get(image.rpartition("/")[2]):
                yield name, f"`{file}` runs `{image}`"
        if text:
            yield "docker", f"`{file}` is here"
    for pattern, name in _FILES.items():
        if found_file := next(iter(sorted(_glob(folder, pattern))), None):
            yield name, f"`{found_file}` is here"


def _checkout(folder: Path) -> Iterator[tuple[str, str]]:
    root = next((each for each in (folder, *folder.parents) if _exists(each / ".git")), None)
    if root is None:
        return
    yield "git", "this is a git checkout"
    for host in re.findall(
        r"url\s*=\s*(?:\w+://)?(?:[^/@\s]*@)?([\w.-]+)", _text(root / ".git/config")
    ):
        if host in _HOSTS:
            yield _HOSTS[host], f"this checkout has a remote on {host}"


def _databases(variables: Mapping[str, str], where: str) -> Iterator[tuple[str, str]]:
    for name, value in variables.items():
        scheme, mark, _ = value.partition("://")
        # `postgresql+asyncpg` is the way of some libraries to name their driver.
        server = _SCHEMES.get(scheme.lower()) or _SCHEMES.get(scheme.lower().partition("+")[0])
        if mark and server:
            yield (
                server,
                f"`{name}` in {where} is the address of a {scheme.partition('+')[0]} database",
            )


def _dependencies(folder: Path) -> Iterator[str]:
    package = _parsed(json.loads, _text(folder / "package.json"))
    for key in ("dependencies", "devDependencies", "optionalDependencies"):
        yield from _keys(package.get(key))
    project = _parsed(tomllib.loads, _text(folder / "pyproject.toml")).get("project")
    listed = project.get("dependencies") if isinstance(project, dict) else None
    lines = [*_texts(listed), *_text(folder / "requirements.txt").splitlines()]
    for line in lines:
        if found := _REQUIREMENT.match(line.strip()):
            yield re.sub(r"[-_.]+", "-", found[0]).lower()


def _keys(value: object) -> list[str]:
    return [str(key) for key in value] if isinstance(value, dict) else []


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _parsed(parse: Any, text: str) -> dict[str, Any]:
    try:
        found = parse(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    """Return the beginning of a file; empty when it is none, or nobody may read it."""
    try:
        # Opening a pipe would wait for a writer.
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _glob(folder: Path, pattern: str) -> list[str]:
    try:
        return [path.name for path in folder.glob(pattern)]
    except OSError:
        return []
