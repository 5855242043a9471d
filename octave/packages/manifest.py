"""octave.toml: what the user wants.

Read once into frozen values; whatever is wrong is one `ManifestError` with file, line, column and
the nearest valid name. `manifest_edit.py` writes it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from octave.packages.manifest_text import BYTE_ORDER_MARK, decode, problem, read_text
from octave.packages.names import (
    check_address,
    check_constraint,
    check_header,
    check_mount,
    check_range,
    check_server_name,
    check_variable,
    is_server_name,
    split_package,
)
from octave.packages.toml_text import locate
from octave.settings import (
    Convert,
    Reference,
    Settings,
    Value,
    WrongValue,
    array,
    boolean,
    choice,
    duration,
    read_settings,
    read_table,
    size,
    table,
    value,
    word,
)

__all__ = [
    "Manifest",
    "Reference",
    "RegistryEntry",
    "ServerEntry",
    "Value",
    "is_server_name",
    "load",
    "parse",
]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML lets one write without quotes."""


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """One [servers.NAME] table: exactly one of package, command and url is set."""

    name: str
    package: str | None = None
    """`npm:NAME`, `pypi:NAME[EXTRA,...]`, `oci:IMAGE` or `mcpb:URL#sha256=HEX`."""
    version: str = "*"
    constraints: tuple[str, ...] = ()
    args: tuple[Value, ...] = ()
    env: Mapping[str, Value] = field(default_factory=dict)
    pass_env: tuple[str, ...] = ()
    auto_start: bool = False
    auto_restart: bool = True
    idle_timeout_s: float | Literal["runtime"] | None = "runtime"
    """`runtime`: as the settings say; None: keep it running, the default with `auto_start`."""
    instance: Literal["auto", "shared", "session"] = "auto"
    memory_limit_bytes: int | None = None
    replay: bool = False
    """Repeat what a crash cut off, where the tool says it is read-only or idempotent."""
    tools_allow: tuple[str, ...] = ()
    tools_deny: tuple[str, ...] = ()
    enabled: bool = True
    command: tuple[Value, ...] | None = None
    cwd: str | None = None
    """As written; relative paths count from the manifest's folder."""
    url: str | None = None
    headers: Mapping[str, Value] = field(default_factory=dict)
    executable: str | None = None
    """Which of the package's executables; the key `bin`."""
    mounts: tuple[str, ...] = ()
    """What its container sees of this machine, as written: `SOURCE:TARGET[:ro]`."""
    node_flags: tuple[str, ...] | None = None
    """What its node is started with in place of Octave's choice; None: that choice."""
    registry_name: str | None = None
    """The full name in the configured registry that knows how it is started and who it must be."""
    pinned: bool = False
    """`update` leaves the locked version alone."""
    allow_scripts: tuple[str, ...] = ()
    """npm packages of its graph whose install scripts run."""
    allow_build: tuple[str, ...] = ()
    """PyPI packages of its graph that are built from their source."""


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One [registries.NAME] table."""

    url: str
    headers: Mapping[str, Value] = field(default_factory=dict)
    """Sent to that address and no other: who asks."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one octave.toml says."""

    path: Path
    settings: Settings
    servers: Mapping[str, ServerEntry]
    profiles: Mapping[str, tuple[str, ...]]
    """Name -> names of servers."""
    registries: Mapping[str, RegistryEntry]
    """By name, in order."""
    servers_hash: str
    """Of what determines the pins: `sha256:` and 64 hex digits, the lockfile's manifest-hash."""
    trust_hash: str
    """Of all that starts something, leads to a secret or says who names packages: what
    `octave trust` consents to."""


def _url(value: object) -> str:
    return check_address(word(value))


def _command(value: object) -> tuple[Value, ...]:
    words: tuple[Value, ...] = array(_VALUE)(value)
    if not words or words[0] == "":
        raise WrongValue("{} must name a program")
    return words


def _header_value(item: object) -> Value:
    text = _VALUE(item)
    if isinstance(text, str) and not (text.isprintable() and text.isascii()):
        raise WrongValue("{} must be printable ASCII")
    return text


def _package(value: object) -> str:
    text = word(value)
    split_package(text)
    return text


def _registry_name(value: object) -> str:
    text = word(value)
    if not re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", text):
        raise ValueError(f'"{text}" is not a full name such as "io.github.someone/server"')
    return text


def _flag(value: object) -> str:
    text = word(value)
    # Any other word would be taken for the file to run.
    if not re.fullmatch(r"--?[A-Za-z]\S*", text):
        raise ValueError(f'"{text}" is not a flag such as "--max-old-space-size=4096"')
    return text


def _package_name(kind: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if kind == "pypi" and "[" in text:
            raise ValueError(f'"{text}" names more than a package')
        return split_package(f"{kind}:{text}")[1]

    return check


def _tools(value: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fields = read_table(value, {"allow": ("allow", array(word)), "deny": ("deny", array(word))})
    return fields.get("allow", ()), fields.get("deny", ())


def _words(check: Callable[[str], str]) -> Convert:
    return array(lambda item: check(word(item)))


_VALUE = value
SERVER_KEYS: Mapping[str, tuple[str, Convert]] = {
    "package": ("package", _package),
    "version": ("version", word),
    "constraints": ("constraints", _words(check_constraint)),
    "bin": ("executable", word),
    "node_flags": ("node_flags", array(_flag)),
    "mounts": ("mounts", _words(check_mount)),
    "args": ("args", array(value)),
    "env": ("env", table(check_variable, value)),
    "pass_env": ("pass_env", _words(check_variable)),
    "auto_start": ("auto_start", boolean),
    "auto_restart": ("auto_restart", boolean),
    "idle_timeout": ("idle_timeout_s", duration),
    "instance": ("instance", choice("auto", "shared", "session")),
    "memory_limit": ("memory_limit_bytes", size),
    "replay": ("replay", boolean),
    "tools": ("tools", _tools),
    "enabled": ("enabled", boolean),
    "command": ("command", _command),
    "cwd": ("cwd", word),
    "url": ("url", _url),
    "headers": ("headers", table(check_header, _header_value)),
    "registry_name": ("registry_name", _registry_name),
    "pinned": ("pinned", boolean),
    "allow_scripts": ("allow_scripts", _words(_package_name("npm"))),
    "allow_build": ("allow_build", _words(_package_name("pypi"))),
}
"""What [servers.NAME] may hold: key -> field of `ServerEntry` (`tools` makes two), converter."""
_SOURCES = ("package", "command", "url")
_BELONGS: Mapping[str, str] = {
    "version": "package",
    "constraints": "package",
    "bin": "package",
    "node_flags": "package",
    "mounts": "package",
    "headers": "url",
    "registry_name": "package",
    "pinned": "package",
    "allow_scripts": "package",
    "allow_build": "package",
}
"""Keys that mean something beside one source only."""
_KINDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "node_flags": (("npm", "mcpb"), "npm packages and bundles"),
    "allow_scripts": (("npm", "folder"), "npm packages and folders"),
    "allow_build": (("pypi", "folder"), "PyPI packages and folders"),
    "mounts": (("oci",), "container images"),
}
"""Keys that mean something to some kinds of packages only, and those for a person."""


def _entry(name: str, raw: object) -> ServerEntry:
    fields = read_table(raw, SERVER_KEYS)
    assert isinstance(raw, dict)
    sources = [source for source in _SOURCES if source in raw]
    if len(sources) != 1:
        found = f"has {' and '.join(sources)}" if sources else "has none of them"
        raise WrongValue(f"{{}} needs exactly one of {', '.join(_SOURCES)}; it {found}")
    for key, source in _BELONGS.items():
        if key in raw and source not in raw:
            raise WrongValue(f"{{}} goes with {source}, not with {sources[0]}", (key,))
    if "version" in fields and "package" in fields:
        try:
            check_range(split_package(fields["package"])[0], fields["version"])
        except ValueError as error:
            raise WrongValue(f"{{}}: {error}", ("version",)) from None
    for key, (kinds, called) in _KINDS.items():
        if key in raw and split_package(fields["package"])[0] not in kinds:
            raise WrongValue(f"{{}} goes with {called} alone", (key,))
    fields["tools_allow"], fields["tools_deny"] = fields.pop("tools", ((), ()))
    if fields.get("auto_start"):
        fields.setdefault("idle_timeout_s", None)
    return ServerEntry(name, **fields)


def _servers(raw: object) -> dict[str, ServerEntry]:
    keys = {name: (name, _entry_reader(name)) for name in raw} if isinstance(raw, dict) else {}
    return read_table(raw, keys)


def _entry_reader(name: str) -> Convert:
    def convert(raw: object) -> ServerEntry:
        return _entry(check_server_name(name), raw)

    return convert


def _profile(raw: object) -> tuple[str, ...]:
    servers = read_table(raw, {"servers": ("servers", _words(check_server_name))})
    if not servers:
        raise WrongValue("{} needs the key `servers`")
    return tuple(servers["servers"])


def _registry(raw: object) -> RegistryEntry:
    headers = table(check_header, _header_value)
    fields = read_table(raw, {"url": ("url", _url), "headers": ("headers", headers)})
    if "url" not in fields:
        raise WrongValue("{} needs the key `url`")
    return RegistryEntry(**fields)


_TOP_KEYS: Mapping[str, tuple[str, Convert]] = {
    "runtime": ("settings", read_settings),
    "servers": ("servers", _servers),
    "profiles": ("profiles", table(check_server_name, _profile)),
    "registries": ("registries", table(check_server_name, _registry)),
}


def load(path: Path) -> Manifest:
    """Return what the manifest at `path` says; a missing file says nothing.

    Raises:
        ManifestError: it cannot be read, or holds something it cannot hold.
    """
    return parse(path, read_text(path) or "")


def parse(path: Path, text: str) -> Manifest:
    """Return what `text` says; `path` is where it comes from, for errors.

    Raises:
        ManifestError: it holds something it cannot hold.
    """
    raw = decode(path, text.removeprefix(BYTE_ORDER_MARK))
    try:
        fields = read_table(raw, _TOP_KEYS)
    except WrongValue as error:
        try:
            line, column = locate(text.removeprefix(BYTE_ORDER_MARK), error.path)
        except RecursionError:
            line, column = 1, 1
        message = error.text.replace("{}", _subject(error.path), 1)
        raise problem(path, line, column, message) from None
    servers = fields.get("servers", {})
    return Manifest(
        path=path,
        settings=fields.get("settings", Settings()),
        servers=servers,
        profiles=fields.get("profiles", {}),
        registries=fields.get("registries", {}),
        servers_hash=_hash({name: _pinning(raw["servers"][name]) for name in servers}),
        trust_hash=_hash(
            [raw.get("servers", {}), raw.get("runtime", {}).get("token")]
            # Absent, it leaves the consents given before registries were part of them.
            + ([raw["registries"]] if raw.get("registries") else [])
        ),
    )


def _pinning(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: raw[key] for key in _PINNING if key in raw and raw[key] != _PINNING[key]}


_PINNING: Mapping[str, object] = {
    "package": None,
    "version": "*",
    "constraints": [],
    "bin": None,
    "registry_name": None,
    "command": None,
    "url": None,
    "allow_scripts": [],
    "allow_build": [],
}
"""The keys that decide what is locked, and what each says where it is absent."""


def _hash(found: object) -> str:
    canonical = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _subject(path: tuple[str | int, ...]) -> str:
    depth = 1 if path[:1] == ("runtime",) else 2 if path[:1] and path[0] in _TOP_KEYS else 0
    shown = [f"{key}" if _BARE.fullmatch(f"{key}") else f'"{key}"' for key in path]
    head = f"[{'.'.join(shown[:depth])}]"
    if len(path) <= depth:
        return head if depth else "the file"
    rest = ".".join(shown[depth:])
    return f"`{rest}` in {head}" if depth else f"`{rest}`"
