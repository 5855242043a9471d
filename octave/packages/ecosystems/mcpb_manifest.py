"""What the `manifest.json` of a bundle says: how its server is started, and what it is to be given.

Translated into Octave's words, without a shell: paths in the bundle become `{folder}/bundle/...`,
what the user configures becomes variables. Source: MCPB manifest specification 0.1 to 0.4,
MANIFEST.md of modelcontextprotocol/mcpb, 2025-12-02.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from octave.errors import InstallFailed
from octave.packages import templates
from octave.packages.names import check_variable

PLACE = "bundle"
"""Where in an installed version its files lie."""
MANIFEST = "manifest.json"
MANIFEST_BYTES = 4 * 2**20

_HERE = "{folder}/" + PLACE
_TYPES = ("node", "python", "binary")
_INTERPRETERS = {"node": ("node",), "python": ("python", "python3")}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
"""It becomes the name of a folder."""
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_PLACES = {
    "__dirname": _HERE,
    "HOME": "{env:HOME}",
    "DESKTOP": "{env:HOME}/Desktop",
    "DOCUMENTS": "{env:HOME}/Documents",
    "DOWNLOADS": "{env:HOME}/Downloads",
    "/": "/",
    "pathSeparator": "/",
}
_CONFIG = "user_config."


class _Override(msgspec.Struct, frozen=True):
    command: str | None = None
    args: list[str] | None = None
    env: dict[str, str] = {}


class _Start(msgspec.Struct, frozen=True):
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    platform_overrides: dict[str, _Override] = {}


class _Server(msgspec.Struct, frozen=True):
    type: str
    entry_point: str = ""
    mcp_config: _Start = _Start()


class _Compatibility(msgspec.Struct, frozen=True):
    platforms: list[str] | None = None
    runtimes: dict[str, str] = {}


class _Option(msgspec.Struct, frozen=True):
    type: str = "string"
    title: str = ""
    description: str = ""
    required: bool = False
    sensitive: bool = False
    multiple: bool = False
    default: str | int | float | bool | list[str] | None = None


class _Document(msgspec.Struct, frozen=True):
    name: str
    version: str
    server: _Server
    manifest_version: str = ""
    dxt_version: str = ""
    display_name: str = ""
    description: str = ""
    author: object = None
    compatibility: _Compatibility = _Compatibility()
    user_config: dict[str, _Option] = {}


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing the user may configure, as a variable."""

    name: str
    description: str
    required: bool
    secret: bool
    default: str | None
    """May hold places of `templates`."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, as this platform starts it."""

    name: str
    title: str
    description: str
    author: str
    """By its own account; empty: it names none."""
    version: str
    kind: str
    """`node`, `python` or `binary`."""
    program: str
    """Path of the program in the bundle; empty: an interpreter of Octave's choice."""
    entry: str
    """Path of the file that is started, in the bundle."""
    args: tuple[str, ...]
    """All that follows the program, or the interpreter and the entry; places of `templates`."""
    starts_with_entry: bool
    """Whether the entry stands first behind the interpreter; else it is among `args`, if at all."""
    env: Mapping[str, str]
    settings: tuple[Setting, ...]
    requires: Mapping[str, str]


def read(text: bytes, label: str, platform: str) -> Bundle:
    """Return what the manifest in `text` says to `platform`, as `sys.platform` has it.

    `label` names the bundle in errors.

    Raises:
        InstallFailed: it is none, of a later kind, or for other machines; says which.
    """
    try:
        found = msgspec.json.decode(text, type=_Document)
    except (ValueError, RecursionError) as error:
        raise refused(label, f"its `{MANIFEST}` cannot be read: {error}") from error
    _require_known(found, label, platform)
    return _Reader(found, label, platform).bundle()


def _author(told: object) -> str:
    name = told.get("name") if isinstance(told, dict) else told
    return name if isinstance(name, str) else ""


def refused(label: str, why: str, hint: str | None = None) -> InstallFailed:
    """Return the error that says `why`, a sentence, the bundle `label` is not installed."""
    return InstallFailed(f"the bundle `{label}` cannot be installed: {why}", hint=hint)


def _require_known(found: _Document, label: str, platform: str) -> None:
    version = found.manifest_version or found.dxt_version
    if not re.fullmatch(r"0\.[0-9]+(?:\.[0-9]+)?", version):
        raise refused(
            label,
            f"its manifest is of version `{version or 'none'}`, and this Octave reads 0.x",
            "install a newer Octave: `pip install -U octave-mcp`",
        )
    if not _VERSION.fullmatch(found.version):
        raise refused(label, f"`{found.version}` is no version")
    platforms = found.compatibility.platforms
    if platforms is not None and platform not in platforms:
        raise refused(
            label,
            f"it is for {' and '.join(map(repr, platforms)) or 'no platform'}, not {platform!r}",
        )
    if found.server.type == "uv":
        raise refused(
            label,
            "its dependencies are not in it, so the hash of the bundle says nothing about them",
            "look for the same server on PyPI: `octave install pypi:NAME` locks each of them",
        )
    if found.server.type not in _TYPES:
        raise refused(
            label,
            f"its server is of the unknown type `{found.server.type}`, not {', '.join(_TYPES)}",
        )


class _Reader:
    """One manifest, read for one platform."""

    def __init__(self, found: _Document, label: str, platform: str) -> None:
        self._found = found
        self._label = label
        start = found.server.mcp_config
        override = start.platform_overrides.get(platform, _Override())
        self._command = start.command if override.command is None else override.command
        self._args = start.args if override.args is None else override.args
        self._env = {**start.env, **override.env}
        self._names = self._variables()

    def bundle(self) -> Bundle:
        found = self._found
        entry = self._inside(found.server.entry_point) if found.server.entry_point else ""
        program = self._program()
        args = [self._word(word) for word in self._args]
        if not args and not program:
            args = [f"{_HERE}/{entry}"]
        starts_with_entry = not program and bool(args) and args[0] == f"{_HERE}/{entry}" != _HERE
        if not program and not entry:
            raise refused(self._label, "it names no `entry_point`")
        return Bundle(
            name=found.name,
            title=found.display_name or found.name,
            description=found.description,
            author=_author(found.author),
            version=found.version,
            kind=found.server.type,
            program=program,
            entry=program or entry,
            args=tuple(args[1:] if starts_with_entry else args),
            starts_with_entry=starts_with_entry,
            env=self._environment(),
            settings=tuple(self._settings()),
            requires={
                k: v for k, v in found.compatibility.runtimes.items() if k == found.server.type
            },
        )

    def _program(self) -> str:
        """Return the path of the program in the bundle; empty for an interpreter."""
        kind, command = self._found.server.type, self._command
        if command in _INTERPRETERS.get(kind, ()) or (not command and kind != "binary"):
            return ""
        if not command:
            return self._inside(self._found.server.entry_point)
        if command in {"npx", "uvx", "bunx", "pnpx", "uv", "npm"}:
            raise refused(
                self._label,
                f"it runs `{command}`, which fetches something else at each start",
                "look for the package itself: `octave search`",
            )
        if "/" not in command and kind != "binary":
            raise refused(self._label, f"it wants to be run by `{command}`, which is not in it")
        return self._inside(command)

    def _inside(self, path: str) -> str:
        """Return `path`, relative in the bundle, without anything that leads out of it."""
        plain = path.removeprefix("${__dirname}").removeprefix("/" if "${" in path else "")
        parts = [part for part in plain.split("/") if part not in {"", "."}]
        if ".." in parts or plain.startswith("/") or "\\" in plain or "${" in plain or not parts:
            raise refused(self._label, f"`{path}` is no place in it")
        return "/".join(parts)

    def _variables(self) -> dict[str, str]:
        """Return the variable of each option: the one it is passed on in, else one of its own."""
        passed = {
            found[1].removeprefix(_CONFIG): name
            for name, value in self._env.items()
            if (found := _REFERENCE.fullmatch(value)) and found[1].startswith(_CONFIG)
        }
        made = {}
        for key in self._found.user_config:
            plain = re.sub(r"[^A-Z0-9]+", "_", key.upper()).strip("_")
            made[key] = passed.get(key, f"CONFIG_{plain}")
        for name in (*made.values(), *self._env):
            try:
                check_variable(name)
            except ValueError as error:
                raise refused(self._label, str(error)) from error
        return made

    def _word(self, word: str) -> str:
        made = self._filled(word)
        # The specification's own examples name files of the bundle without saying so.
        is_file = word == self._found.server.entry_point and "/" in word
        return f"{_HERE}/{self._inside(word)}" if is_file else made

    def _filled(self, text: str) -> str:
        """Return `text` with its references as places.

        Raises:
            InstallFailed: nobody knows what one means.
        """

        def place(found: re.Match[str]) -> str:
            name = found[1]
            if name in _PLACES:
                return _PLACES[name]
            key = name.removeprefix(_CONFIG)
            option = self._found.user_config.get(key)
            if option is None or key == name:
                raise refused(self._label, f"nobody knows what `{found[0]}` in it means")
            alone = found[0] == text
            return templates.variable(self._names[key], is_list=option.multiple and alone)

        return _REFERENCE.sub(place, text)

    def _environment(self) -> dict[str, str]:
        """Return its variables but for those that only pass an option on."""
        passed = set(self._names.values())
        return {
            name: self._filled(value) for name, value in self._env.items() if name not in passed
        }

    def _settings(self) -> Iterator[Setting]:
        for key, option in self._found.user_config.items():
            yield Setting(
                self._names[key],
                option.description or option.title,
                option.required,
                option.sensitive,
                self._default(option),
            )

    def _default(self, option: _Option) -> str | None:
        default = option.default
        if default is None or default == "" or default == []:
            return None
        if isinstance(default, bool):
            return "true" if default else "false"
        texts = default if isinstance(default, list) else [str(default)]
        return ":".join(self._filled(text) for text in texts)
