"""Which package a command line of `npx`, `uvx` and the like would fetch and run. Pure.

Only what is understood to the last word becomes a package; anything else stays the command it
is, with the reason as a note. An option that names another registry is never understood: the
package of that name in the usual one may be somebody else's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octave.clients.references import Copied
from octave.packages.names import Kind, check_constraint, check_range, split_package

Word = Any
"""A string, or what stands for a value that is not to be read."""


class Kept(Exception):
    """Why a command line stays a command."""


@dataclass(frozen=True, slots=True)
class Package:
    """What a launcher's command line asks for."""

    kind: Kind
    name: str
    version_range: str = "*"
    args: tuple[Word, ...] = ()
    executable: str | None = None
    constraints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """A remote server behind `mcp-remote`, which Octave reaches by itself."""

    url: str
    headers: Mapping[str, Word]


@dataclass(frozen=True, slots=True)
class _Launcher:
    kind: Kind
    package: frozenset[str]
    """Options that name the package; the first word is then its executable."""
    ignored: frozenset[str]
    """Options that mean nothing for what is installed already."""
    valued: Mapping[str, str | None]
    """Options with a value that are dropped, and a note on that."""
    limits: frozenset[str] = frozenset()
    """Options that name further packages, or limit their versions."""
    passes_dashes: bool = True
    """False: it takes one `--` behind the package for itself."""


_QUIET = ("-q", "--quiet", "-s", "--silent", "-v", "--verbose")
_NPX = _Launcher(
    kind="npm",
    package=frozenset(("-p", "--package")),
    ignored=frozenset(
        ("-y", "--yes", "--prefer-offline", "--prefer-online", "--offline", "--bun", *_QUIET)
    ),
    valued={"--loglevel": None, "--cache": None},
)
_UVX = _Launcher(
    kind="pypi",
    package=frozenset(("--from",)),
    ignored=frozenset(
        (
            *("--refresh", "--isolated", "--no-cache", "-n", "--offline", "--native-tls"),
            *("--no-progress", "--no-config", "--no-env-file", "--system-certs", *_QUIET),
        )
    ),
    valued={
        "-p": "Octave chooses the Python that runs it",
        "--python": "Octave chooses the Python that runs it",
        "--color": None,
        "--cache-dir": None,
        "--refresh-package": None,
    },
    limits=frozenset(("--with", "-w")),
)
_PIPX = replace(
    _UVX,
    package=frozenset(("--spec",)),
    ignored=frozenset(("--no-cache", *_QUIET)),
    valued={"--python": "Octave chooses the Python that runs it"},
    limits=frozenset(),
)
_LAUNCHERS: Mapping[tuple[str, ...], _Launcher] = {
    ("npx",): _NPX,
    ("npm", "exec"): replace(_NPX, passes_dashes=False),
    ("npm", "x"): replace(_NPX, passes_dashes=False),
    ("bunx",): _NPX,
    ("bun", "x"): _NPX,
    ("pnpm", "dlx"): _NPX,
    ("pnpx",): _NPX,
    ("yarn", "dlx"): _NPX,
    ("uvx",): _UVX,
    ("uv", "tool", "run"): _UVX,
    ("pipx", "run"): _PIPX,
}
_PROGRAM = re.compile(r"(?:.*[/\\])?([^/\\]+?)(?:\.(?:cmd|exe|ps1|bat))?", re.IGNORECASE)
_PYTHON = re.compile(r"(?:python|py)(?:[0-9][0-9.]*)?", re.IGNORECASE)
_PEP508 = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?) *([=<>!~].*)?")


def recognise(
    words: Sequence[Word], module: Callable[[str], str | None]
) -> Package | Bridge | None:
    """Return what `words` would fetch and run; None for a program of the user's own.

    `module` gives the PyPI package that `python -m MODULE` is known to run, else None.

    Raises:
        Kept: it is a launcher, but not everything it was told can be kept.
    """
    words = _without_shell(words)
    program = program_of(words)
    if _PYTHON.fullmatch(program):
        return _python_module(words[1:], module)
    for names, launcher in _LAUNCHERS.items():
        rest = _after(words, program, names, launcher)
        if rest is not None:
            found = _package(launcher, rest)
            bridge = found.kind == "npm" and found.name == "mcp-remote"
            return _bridge(found) if bridge else found
    return None


def program_of(words: Sequence[Word]) -> str:
    """Return the first word without its folder and extension, empty when it is no string."""
    found = _PROGRAM.fullmatch(words[0]) if words and isinstance(words[0], str) else None
    return found[1] if found else ""


def _without_shell(words: Sequence[Word]) -> Sequence[Word]:
    """Drop `cmd /c`, which only finds the program, as Windows needs it."""
    switch = words[1] if len(words) > 2 and isinstance(words[1], str) else ""
    if program_of(words).lower() == "cmd" and switch.lower() == "/c":
        return words[2:]
    return words


def _after(
    words: Sequence[Word], program: str, names: tuple[str, ...], launcher: _Launcher
) -> list[Word] | None:
    """Return what follows the words that call the launcher; None when they do not."""
    if program != names[0]:
        return None
    rest, before = list(words[1:]), []
    for name in names[1:]:
        while rest and isinstance(rest[0], str) and rest[0] in launcher.ignored:
            before.append(rest.pop(0))
        if not rest or rest.pop(0) != name:
            return None
    return before + rest


def _package(launcher: _Launcher, words: list[Word]) -> Package:
    named: list[str] = []
    limits: list[str] = []
    notes: list[str] = []
    while words and isinstance(words[0], str) and words[0].startswith("-"):
        option, equals, value = words.pop(0).partition("=")
        if option == "--":
            break
        if option in launcher.ignored and not equals:
            continue
        if option not in {*launcher.package, *launcher.limits, *launcher.valued}:
            raise Kept(f"Octave does not know what `{option}` means for it")
        if not equals:
            value = words.pop(0) if words else None
        if not isinstance(value, str):
            raise Kept(f"`{option}` names nothing that is known before it runs")
        if option in launcher.package:
            named.append(value)
        elif option in launcher.limits:
            limits += [_limit(each) for each in value.split(",")]
        elif launcher.valued[option]:
            notes.append(f"`{option} {value}` is left out: {launcher.valued[option]}")
    return replace(_named(launcher, named, words), constraints=tuple(limits), notes=tuple(notes))


def _named(launcher: _Launcher, named: list[str], words: list[Word]) -> Package:
    if len(named) > 1:
        raise Kept("it brings several packages together")
    if not words or not isinstance(words[0], str):
        raise Kept("it names no package that is known before it runs")
    first = words.pop(0)
    if words and words[0] == "--" and not launcher.passes_dashes:
        del words[0]
    read = _npm if launcher.kind == "npm" else _pypi
    name, version_range = read(named[0] if named else first)
    return Package(
        launcher.kind, name, version_range, tuple(words), executable=first if named else None
    )


def _limit(text: str) -> str:
    try:
        return check_constraint(text.strip())
    except ValueError:
        raise Kept("it adds a package that the server itself does not ask for") from None


def _npm(spec: str) -> tuple[str, str]:
    name, at, version_range = spec[:1] + spec[1:].partition("@")[0], *spec[1:].partition("@")[1:]
    return _checked("npm", name, version_range if at else "*")


def _pypi(spec: str) -> tuple[str, str]:
    name, at, version_range = spec.partition("@")
    if at:
        return _checked("pypi", name.strip(), version_range.strip())
    found = _PEP508.fullmatch(spec.strip())
    if found is None:
        raise Kept("it comes from no package registry")
    return _checked("pypi", found[1], (found[2] or "*").replace(" ", ""))


def _checked(kind: Kind, name: str, version_range: str) -> tuple[str, str]:
    version_range = "*" if version_range in {"", "latest"} else version_range
    try:
        split_package(f"{kind}:{name}")
        return name, check_range(kind, version_range)
    except ValueError:
        raise Kept("it comes from no package registry") from None


def _python_module(words: Sequence[Word], module: Callable[[str], str | None]) -> Package | None:
    rest = list(words)
    while rest and rest[0] in ("-u", "-I", "-B", "-s", "-E"):
        del rest[0]
    if len(rest) < 2 or rest[0] != "-m" or not isinstance(rest[1], str):
        return None
    package = module(rest[1])
    if package is None:
        return None
    note = "Octave installs it anew; what else lies in your Python environment is not used"
    return Package("pypi", package, args=tuple(rest[2:]), notes=(note,))


def _bridge(found: Package) -> Bridge:
    words = list(found.args)
    url = words.pop(0) if words else None
    if not isinstance(url, str) or not re.match(r"https?://", url):
        raise Kept("it names no address that is known before it runs")
    headers: dict[str, Word] = {}
    while words:
        option, value = words.pop(0), words.pop(0) if words else None
        if option == "--transport":
            continue
        written = value.text if isinstance(value, Copied) else value
        if option != "--header" or not isinstance(written, str) or ":" not in written:
            raise Kept("Octave does not know all of its options")
        name, _, text = (part.strip() for part in written.partition(":"))
        headers[name] = Copied(text, value.names) if isinstance(value, Copied) else text
    return Bridge(url, headers)
