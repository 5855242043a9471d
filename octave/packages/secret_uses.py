"""Which servers a secret is for: the references to it in every manifest the home knows."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octave.errors import OctaveError
from octave.home import Workspace
from octave.packages import manifest, workspaces
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.tokens import login_key
from octave.settings import Reference, Value

RUNTIME = "[runtime]"
"""Stands for a server where the token of the HTTP API is meant."""


@dataclass(frozen=True, slots=True)
class Use:
    """One server that is given the secret."""

    server: str
    manifest: Path


def uses(workspace: Workspace) -> dict[str, list[Use]]:
    """Return who is given each secret, those of `workspace` first.

    Manifests of other workspaces that cannot be read are passed over.

    Raises:
        ManifestError: the workspace's own cannot be read.
    """
    wanted = [manifest.load(workspace.manifest)]
    for path in workspaces.known_manifests(workspace.home):
        if path != workspace.manifest:
            with contextlib.suppress(OctaveError):
                wanted.append(manifest.load(path))
    found: dict[str, list[Use]] = {}
    for each in wanted:
        for key, server in _references(each):
            use = Use(server, each.path)
            if use not in found.setdefault(key, []):
                found[key].append(use)
    return found


def _references(wanted: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each secret's key and the server that is given it."""
    for name, server in wanted.servers.items():
        for value in _values(server):
            if isinstance(value, Reference) and value.kind == "secret":
                yield value.key, name
        if server.url is not None:
            yield login_key(name, server.url), name
    for name, registry in wanted.registries.items():
        for value in registry.headers.values():
            if isinstance(value, Reference) and value.kind == "secret":
                yield value.key, f"[registries.{name}]"
    token = wanted.settings.token
    if isinstance(token, Reference) and token.kind == "secret":
        yield token.key, RUNTIME


def _values(server: ServerEntry) -> Iterator[Value]:
    yield from (*(server.command or ()), *server.args)
    yield from (*server.env.values(), *server.headers.values())
