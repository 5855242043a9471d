"""The servers that AI tools are set up with: every entry of their files, as it stands there.

What cannot be read is told and hides nothing else. Files of other users are not read: what they
say would be run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from octave.clients import config_file, document
from octave.clients.editors import EDITORS
from octave.clients.jsonc import Node
from octave.clients.references import Question, Surroundings
from octave.clients.table import Client, Place
from octave.errors import OctaveError

MOST_SERVERS = 1000
"""In one file. Nobody has so many, and each is compared with all others."""

Level = Literal["user", "local", "project"]
"""`local`: a project's servers in a file of the user, Claude Code's default."""


@dataclass(frozen=True, slots=True)
class Configured:
    """One server in the file of one AI tool."""

    client: Client
    level: Level
    file: Path
    path: tuple[str, ...]
    """The names that lead to it in the file; the last is its name there."""
    raw: Any = field(repr=False)
    around: Surroundings
    off: str | None = None
    """Why the tool itself does not use it."""

    @property
    def name(self) -> str:
        """What the tool calls it."""
        return self.path[-1]


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be read."""

    client: Client
    file: Path
    error: OctaveError


@dataclass(frozen=True, slots=True)
class Desk:
    """Whose files are meant."""

    home: Path
    folder: Path
    """Where the command runs: the project, if there is one."""
    environ: Mapping[str, str] = field(repr=False)


def read(clients: Sequence[Client], desk: Desk) -> tuple[list[Configured], list[Broken]]:
    """Return every server of `clients`, in their order, and the files that cannot be read."""
    found: list[Configured] = []
    broken: list[Broken] = []
    for client in clients:
        seen: set[Path] = set()
        rejected: frozenset[str] = frozenset()
        for scope, place in client.places.items():
            file = _file(place, desk.home if scope == "user" else desk.folder, desk.environ)
            if file in seen:
                continue
            seen.add(file)
            try:
                document_ = _Document.read(client, file)
                if document_ is None:
                    continue
                if scope == "user":
                    found += _of_user(document_, desk)
                    rejected = _rejected(document_, desk)
                else:
                    around = _around(desk, desk.folder, document_)
                    found += _of_map(document_, client.path[:-1], "project", around, rejected)
            except OctaveError as error:
                broken.append(Broken(client, file, error))
    return found, broken


def _file(place: Place, folder: Path, environ: Mapping[str, str]) -> Path:
    return place.file(folder, environ)


@dataclass(frozen=True, slots=True)
class _Document:
    client: Client
    file: Path
    node: Node

    @classmethod
    def read(cls, client: Client, file: Path) -> "_Document | None":
        config_file.require_own(file)
        text = config_file.read(file)
        found = document.find(EDITORS[client.format], file, text, ())
        return cls(client, file, found) if found is not None else None

    @property
    def root(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.node.value
        return found

    def at(self, path: Sequence[str]) -> Node | None:
        """Return what lies at `path`, found without another look at the text."""
        node = self.node
        for name in path:
            if not isinstance(node.value, Mapping):
                raise OctaveError(f"what leads to `{name}` in `{self.file}` is not an object")
            if name not in node.value:
                return None
            if node.members is None:
                node = Node(0, 0, node.value[name])
                continue
            found = [member.node for member in node.members if member.name == name]
            if len(found) > 1:
                raise OctaveError(f"`{name}` in `{self.file}` is there twice")
            node = found[0]
        return node


def _of_user(found: _Document, desk: Desk) -> Iterator[Configured]:
    off = frozenset(_names(found.root, "mcp", "excluded"))
    off |= frozenset(_names(found.root, "excludeMCPServers"))
    yield from _of_map(found, found.client.path[:-1], "user", _around(desk, None, found), off)
    for folder in _projects(found, desk):
        key = str(folder)
        path = ("projects", key, *found.client.path[:-1])
        off = frozenset(_names(found.root, "projects", key, "disabledMcpServers"))
        yield from _of_map(found, path, "local", _around(desk, folder, found), off)


def _projects(found: _Document, desk: Desk) -> list[Path]:
    """Return the folders here and above that the file keeps settings for."""
    projects = found.root.get("projects")
    if not isinstance(projects, Mapping):
        return []
    folders = (desk.folder, *desk.folder.parents)
    return [folder for folder in folders if isinstance(projects.get(str(folder)), Mapping)]


def _rejected(found: _Document, desk: Desk) -> frozenset[str]:
    """Return the names in a project's file that its user said no to."""
    names = [
        name
        for folder in _projects(found, desk)
        for name in _names(found.root, "projects", str(folder), "disabledMcpjsonServers")
    ]
    return frozenset(names) | frozenset(_names(found.root, "mcp", "excluded"))


def _of_map(
    found: _Document,
    path: tuple[str, ...],
    level: Level,
    around: Surroundings,
    off: frozenset[str],
) -> Iterator[Configured]:
    holder = found.at(path)
    if holder is None:
        return
    if not isinstance(holder.value, Mapping):
        raise OctaveError(f"`{path[-1]}` in `{found.file}` is not an object")
    if len(holder.value) > MOST_SERVERS:
        raise OctaveError(f"`{found.file}` has more than {MOST_SERVERS} servers")
    written = [member.name for member in holder.members or ()]
    for name, raw in holder.value.items():
        reason = "it is switched off there" if name in off or _is_off(raw) else None
        if written.count(name) > 1:
            reason = "its name is there twice"
        yield Configured(found.client, level, found.file, (*path, name), raw, around, reason)


def _is_off(raw: Any) -> bool:
    return isinstance(raw, Mapping) and (raw.get("disabled") is True or raw.get("enabled") is False)


def _around(desk: Desk, folder: Path | None, found: _Document) -> Surroundings:
    return Surroundings(desk.environ, desk.home, folder, dict(_inputs(found.root.get("inputs"))))


def _inputs(found: Any) -> Iterator[tuple[str, Question]]:
    for each in found if isinstance(found, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("id"), str):
            description, default = each.get("description"), each.get("default")
            yield (
                each["id"],
                Question(
                    id=each["id"],
                    description=description if isinstance(description, str) else each["id"],
                    secret=each.get("password") is True,
                    default=default if isinstance(default, str) else None,
                ),
            )


def _names(root: Any, *path: str) -> list[str]:
    for name in path:
        root = root.get(name) if isinstance(root, Mapping) else None
    return [name for name in root if isinstance(name, str)] if isinstance(root, list) else []
