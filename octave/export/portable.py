"""Manifest and lockfile for a machine that has nothing of this one: a container.

Every reference is one to the environment, and the API has a fixed token. What only works here is
left out, with a note.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from octave import __version__
from octave.clients import looks
from octave.errors import OctaveError
from octave.export.subject import Item, Subject, Variable
from octave.packages import lockfile, manifest
from octave.packages.lockfile import Lock
from octave.packages.manifest import Reference, Value
from octave.packages.manifest_text import BYTE_ORDER_MARK, read_text

PORT = 3737
TOKEN = "OCTAVE_TOKEN"
OCTAVE = f"octave-mcp=={__version__}"
HOME = "/octave/home"
"""Of Octave in the container; created there, so that it belongs to the user who runs it."""
USER = 1000
SERVE = ["octave", "serve", "--host", "0.0.0.0", "--allow-remote"]
_PYTHONS = ("3.12", "3.13", "3.14", "3.11")
"""Of the images, the one with most wheels first."""
_LEFT = {
    "folder": "a folder of this machine",
    "mcpb": "a bundle, which may hold programs for this machine alone",
    "oci": "a container, which needs docker or podman in the other one",
}
"""What needs more than Octave, and why, by kind."""


@dataclass(frozen=True, slots=True)
class Portable:
    """What a container starts from."""

    manifest: str
    lockfile: str
    python: str
    """Feature release of the interpreter that fits all servers."""
    servers: tuple[str, ...]
    variables: tuple[Variable, ...]
    """Without the token, which is `TOKEN`."""
    notes: tuple[str, ...]


def of(subject: Subject, hosts: Sequence[str]) -> Portable:
    """Return what a container needs that is reached under `hosts`, whole values of Host.

    Raises:
        OctaveError: none of the servers works in a container.
    """
    notes: list[str] = []
    items = [item for item in subject.items if _is_carried(item, notes.append)]
    if not items:
        raise OctaveError(f"none of the servers works in a container: {notes[-1]}")
    text = tomli_w.dumps(_document(subject, items, hosts))
    again = manifest.parse(subject.workspace.manifest, text)
    pins = {item.server.name: item.pin for item in items if item.pin is not None}
    names = tuple(item.server.name for item in items)
    for item in items:
        notes += [f"`{item.server.name}`: {note}" for note in _about(item)]
    return Portable(
        manifest=text,
        lockfile=lockfile.dump(Lock(again.servers_hash, pins)).decode(),
        python=_python(items, notes.append),
        servers=names,
        variables=tuple(each for each in subject.variables if each.server in names),
        notes=tuple(notes),
    )


def _is_carried(item: Item, note: Callable[[str], None]) -> bool:
    server, reason = item.server, ""
    if server.command is not None:
        reason = f"`{server.command[0]}` is a program of this machine"
    elif server.url is not None and looks.why_value(server.url) is not None:
        reason = "its address holds a secret"
    elif item.pin is not None and item.pin.kind in _LEFT:
        reason = f"`{server.package}` is {_LEFT[item.pin.kind]}"
    if reason:
        note(f"`{server.name}` is left out: {reason}")
    return not reason


def _document(subject: Subject, items: Sequence[Item], hosts: Sequence[str]) -> dict[str, Any]:
    """Return the manifest as TOML has it: what stands there, but for what is another's."""
    text = read_text(subject.workspace.manifest) or ""
    raw = tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    own = {"host", "port", "token", "allowed_hosts"}
    runtime = {key: value for key, value in raw.get("runtime", {}).items() if key not in own}
    allowed = dict.fromkeys([*hosts, *subject.wanted.settings.allowed_hosts])
    runtime |= {"port": PORT, "token": {"env": TOKEN}, "allowed_hosts": list(allowed)}
    names = [item.server.name for item in items]
    document: dict[str, Any] = {
        "runtime": runtime,
        "servers": {item.server.name: _table(item, raw["servers"]) for item in items},
    }
    profiles = {
        name: {"servers": kept}
        for name, servers in subject.wanted.profiles.items()
        if (kept := [each for each in servers if each in names])
    }
    return {**document, "profiles": profiles} if profiles else document


def _table(item: Item, servers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    server = item.server
    table = {key: value for key, value in servers[server.name].items() if key != "cwd"}
    table.pop("enabled", None)
    if server.args:
        table["args"] = [_value(word) for word in server.args]
    for key, values in (("env", server.env), ("headers", server.headers)):
        if values:
            table[key] = {name: _value(value) for name, value in values.items()}
    return table


def _value(value: Value) -> Any:
    return {value.kind: value.key} if isinstance(value, Reference) else value


def _about(item: Item) -> Iterator[str]:
    server = item.server
    for word in (*server.args, *server.env.values()):
        path = word.rpartition("=")[2] if isinstance(word, str) else ""
        if path.startswith("~") or (Path(path).is_absolute() and path != "/"):
            yield f"`{path}` is a path of this machine; mount it there"
    if server.cwd is not None:
        yield "it runs in a folder of its own there, not in `cwd`"
    if server.url is not None and not any(h.lower() == "authorization" for h in server.headers):
        yield f"if it wants a login, run `octave auth {server.name}` in the container"


def _python(items: Sequence[Item], note: Callable[[str], None]) -> str:
    limits = [str(item.pin.requires.get("python", "")) for item in items if item.pin is not None]
    for version in _PYTHONS:
        if all(_allows(limit, version) for limit in limits):
            return version
    note(f"no Python fits all of these servers; the image has {_PYTHONS[0]}")
    return _PYTHONS[0]


def _allows(limit: str, version: str) -> bool:
    try:
        return SpecifierSet(limit).contains(f"{version}.99", prereleases=True)
    except InvalidSpecifier:
        return True


def about(made: Portable, verb: str) -> Iterator[str]:
    """Yield the lines that say where it comes from, and what to know."""
    yield f"Written by `octave export {verb}`; write it anew after `octave update`."
    yield f"Servers: {', '.join(made.servers)}"
    for note in made.notes:
        yield f"Note: {note}"


def comment(lines: Sequence[str]) -> str:
    """Return `lines` as a comment of YAML."""
    # What stands in a manifest must not end the comment.
    texts = (re.sub(r"[^\x20-\x7e\xa0-\u1fff]", "?", line) for line in lines)
    return "".join(f"# {text}".rstrip() + "\n" for text in texts)
