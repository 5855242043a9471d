"""From what a person asked for to a `Pin`: which package is meant, then exactly which bytes."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    NotFound,
    RegistryUnreachable,
    UsageError,
)
from octave.packages import bundles, containers
from octave.packages.ecosystems import ECOSYSTEMS
from octave.packages.ecosystems.base import Bench, Resolved, Wanted
from octave.packages.graph_rows import buildable, in_order, marked
from octave.packages.imitation import imitated
from octave.packages.lockfile import Pin
from octave.packages.manifest import Manifest, ServerEntry
from octave.packages.names import NoHash, check_range, pypi_name, split_image, split_package
from octave.packages.registry import Entry, Lookup, PackageChoice, Registry, bundled_folder

_WRAPPING = re.compile(r"^(?:mcp-server-|server-|mcp-)|(?:-mcp-server|-server-mcp|-mcp|-server)$")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which package a request means, and what the registry knows about it."""

    request: str
    """As it was typed, without the range."""
    name: str
    """The server's name in the manifest, unless the user chose another; may be unusable."""
    kind: str
    package: str
    version_range: str
    entry: Entry | None = None
    """None for a package the registry does not know."""
    known: PackageChoice | None = None
    is_described: bool = False
    """Whether `known` holds what the package itself tells, see `described`."""
    builds: tuple[str, ...] = ()
    """What the manifest lets be built from source."""

    @property
    def source(self) -> str:
        """The manifest's `package` value."""
        return f"{self.kind}:{self.package}"

    @property
    def names_folder(self) -> bool:
        """Whether a folder was asked for, whose version does not say if it is the locked one."""
        return self.kind == "folder" and self.request == self.source


def folder_of(text: str, here: Path) -> Path | None:
    """Return the folder that `text`, typed in the folder `here`, means; None for other requests.

    Raises:
        UsageError: it can only mean a folder, and there is none.
    """
    if text not in {".", ".."} and not text.startswith(("./", "../", "/")):
        return None
    if bundles.is_file(text):
        return None
    place = Path(os.path.realpath(here / text))
    # Unlike Path.is_dir, what may not be searched is none.
    if not os.path.isdir(place):  # noqa: PTH112
        raise UsageError(f"`{text}` is no folder", hint="name a folder with a package in it")
    return place


def folder_request(place: Path, base: Path) -> str:
    """Return `folder:PATH` for the folder `place`; the path counts from the manifest's, `base`."""
    path = os.path.relpath(place, os.path.realpath(base))
    return f"folder:{path if path.startswith('.') else f'./{path}'}"


def choose(text: str, registry: Lookup) -> Choice:
    """Return what `text` asks for: `NAME[@RANGE]`, `npm:PKG[@RANGE]`, `pypi:PKG[@RANGE]`.

    Or `folder:PATH`, `oci:IMAGE[:TAG]`, `oci:IMAGE@sha256:HEX`, `mcpb:URL#sha256=HEX`.

    Raises:
        UsageError: the text names no package.
        ServerNotFound: the registry has no such name; the hint has near ones.
        InstallFailed: the registry offers nothing that can be installed here.
    """
    if ":" in text:
        kind, package, version_range = _package_and_range(text)
        return _of_package(text, kind, package, version_range, registry)
    name, version_range = _split_range(text)
    entry = registry.get(name)
    known = entry.preferred()
    _check_range(known.kind, name, version_range)
    return Choice(name, entry.short_name, known.kind, known.identifier, version_range, entry, known)


def meant(text: str, wanted: Manifest, pins: Mapping[str, Pin], registry: Lookup) -> Choice:
    """As `choose`; the name of a server that `wanted` has a package for means that package.

    Raises:
        UsageError, NotFound, RegistryUnreachable, InstallFailed.
    """
    name, version_range = (text, "*") if ":" in text else _split_range(text)
    server = wanted.servers.get(name)
    if server is None or server.package is None:
        return choose(text, registry)
    with contextlib.suppress(NotFound, RegistryUnreachable, InstallFailed):
        found = choose(text, registry)
        if found.source == server.package:
            return found
    if version_range != "*":
        _check_range(split_package(server.package)[0], name, version_range)
        server = replace(server, version=version_range)
    try:
        return of_manifest(server, registry)
    except (NotFound, RegistryUnreachable, InstallFailed):
        if not answers(pins.get(name), server):
            raise
        return of_manifest(server, registry, is_locked=True)


def of_manifest(server: ServerEntry, registry: Lookup, *, is_locked: bool = False) -> Choice:
    """Return what the manifest's entry asks for; it must have a `package`.

    With `is_locked` a pin answers it already, and no registry beside the bundled one is asked.

    Raises:
        ServerNotFound, RegistryUnreachable: the registry it came from has it no more, or is not
            there.
        InstallFailed: that registry names other packages now.
    """
    kind, package = split_package(server.package or "")
    found = _of_package(server.name, kind, package, server.version, registry)
    if server.registry_name and found.entry is None and not is_locked:
        found = _of_registry(found, server.registry_name, registry)
    return replace(found, name=server.name, builds=server.allow_build)


def _of_registry(found: Choice, full_name: str, registry: Lookup) -> Choice:
    entry = registry.get(full_name)
    entry.require_offered()
    known = entry.package(found.kind, found.package)
    if known is None or not known.installable:
        raise InstallFailed(
            f"the registry does not offer `{full_name}` as `{found.source}` any more",
            hint=f"octave info {full_name}",
        )
    return replace(found, entry=entry, known=known)


def described(choice: Choice, bench: Bench) -> Choice:
    """Return `choice` with what only the package itself can tell before it is installed.

    Bundles alone tell more than their registry, and are fetched for it; doing it twice is once.

    Raises:
        IntegrityFailed, PackageNotFound, RegistryUnreachable, InstallFailed.
    """
    if choice.kind != "mcpb" or choice.is_described:
        return choice
    known = bundles.known_of(choice.package, choice.known, bench)
    return replace(choice, known=known, is_described=True)


def pin_of(choice: Choice, server: ServerEntry, staging: Path, bench: Bench) -> Pin:
    """Resolve `choice` to the last byte, within what the manifest's `server` allows.

    Raises:
        PackageNotFound, VersionNotFound, Ambiguous, RegistryUnreachable, InstallFailed.
    """
    choice = described(choice, bench)
    known = choice.known
    if choice.kind == "oci":
        require_runnable(choice, bench)
    if known is not None and known.index_host:
        require_index(known, staging, bench)
    constraints = (*(known.constraints if known else ()), *server.constraints)
    executable = server.executable or (known.executable if known else None)
    resolved = ECOSYSTEMS[choice.kind].resolve(
        Wanted(
            package=choice.package,
            version_range=choice.version_range,
            constraints=constraints,
            executable=executable,
            requires=known.requires if known else {},
            told=known.version if known else "",
            scripts=server.allow_scripts,
            builds=server.allow_build,
        ),
        staging,
        bench,
    )
    for note in (*resolved.notes, *_notes_on_file(known, resolved)):
        bench.note(note)
    return Pin(
        name=server.name,
        request=f"{choice.source}@{choice.version_range}",
        kind=choice.kind,
        package=choice.package,
        version=resolved.version,
        integrity=resolved.integrity,
        graph=tuple(in_order(resolved.graph)),
        registry_name=choice.entry.name if choice.entry else "",
        title=choice.entry.title if choice.entry else "",
        entry=resolved.entry,
        executable=server.executable or "",
        args=known.fixed_args() if known else (),
        env=dict(known.default_env) if known else {},
        required_env=known.required_env if known else (),
        env_one_of=known.env_one_of if known else (),
        network="start" if known and known.network == "start" else "",
        constraints=tuple(constraints),
        requires=dict(resolved.requires),
        toolchain=dict(resolved.toolchain),
    )


def _notes_on_file(known: PackageChoice | None, resolved: Resolved) -> Iterator[str]:
    """Refuse a file that is not the one which the entry tells a sha256 of; yield why not looked at.

    Raises:
        IntegrityFailed: the index has others.
    """
    if known is None or not known.file_sha256:
        return
    if resolved.version != known.version:
        why = f"it is that of {known.version or 'no one version'}"
    elif known.kind != "pypi":
        why = "npm's registry tells a sha512, and that is"
    elif f"sha256:{known.file_sha256.lower()}" in resolved.integrity.split():
        return
    else:
        raise IntegrityFailed(
            f"`{known.request}` {known.version} has no file with the sha256 that its registry "
            f"tells, {known.file_sha256}",
            hint="its publisher may have replaced it, or somebody else has; if you trust the "
            f"package itself: `octave install {known.request}`",
        )
    yield f"the sha256 that the registry tells of `{known.request}` is not checked: {why}"


def require_runnable(choice: Choice, bench: Bench) -> None:
    """Refuse a container image that cannot be run here, and say what else there is.

    Raises:
        InstallFailed: it wants what Octave does not do, or neither docker nor podman is here.
    """
    known, entry = choice.known, choice.entry
    if known is not None and not known.installable:
        raise InstallFailed(
            f"`{choice.source}` is not run by Octave, which would not get the right one or not "
            "run it as it wants to be",
            hint=f"`octave info {entry.request if entry else choice.source}` says why",
        )
    if containers.found(bench) or entry is None:
        return
    remote = f"octave install {entry.request} --remote, or " if entry.remotes else ""
    raise InstallFailed(
        f"`{entry.request}` comes as the container image `{choice.package}` alone, which needs "
        "docker or podman, and neither is on PATH",
        hint=f"{remote}install docker or podman{'' if remote else ', then try again'}",
    )


def require_index(known: PackageChoice, staging: Path, bench: Bench) -> None:
    """Refuse to take a company's own package from anywhere else (dependency confusion).

    Raises:
        InstallFailed: it would come from elsewhere.
    """
    host = ECOSYSTEMS[known.kind].index_host(known.identifier, staging, bench)
    if host != known.index_host:
        tool = "npm" if known.kind == "npm" else "uv or pip"
        here = f"at `{host}`" if host else "at the public registry"
        raise InstallFailed(
            f"`{known.request}` lies at `{known.index_host}`, but would be looked for {here}: "
            "there anybody could have taken its name",
            hint=f"set {tool} to {known.base_url}, then try again",
        )


def answers(pin: Pin | None, server: ServerEntry) -> bool:
    """Whether `pin` is the answer to what the manifest's `server` asks for."""
    return not difference(pin, server)


def difference(pin: Pin | None, server: ServerEntry) -> str:
    """Return in what `pin` does not answer the manifest's `server`, a clause; empty: it does."""
    if pin is None:
        return "is not locked"
    request = f"{server.package}@{server.version}"
    if pin.request != request:
        return f"is wanted as `{request}` and locked as `{pin.request}`"
    if server.version != "*" and _is_outside(pin, server.version):
        return f"is wanted as `{request}` and locked as {pin.version}, which is none of those"
    if pin.executable != (server.executable or ""):
        return f"is wanted with {_bin(server.executable)} and locked with {_bin(pin.executable)}"
    if server.registry_name not in {None, pin.registry_name}:
        return f"is wanted as `{server.registry_name}` and locked as `{pin.registry_name}`"
    missing = sorted(set(server.constraints) - set(pin.constraints))
    if missing:
        return f"is locked without the constraint `{missing[0]}`"
    # A version may have given up the script or the dependency that was allowed to its predecessor.
    scripts = marked(pin.graph, "hasInstallScript").intersection(server.allow_scripts)
    builds = buildable(pin.graph).intersection(map(pypi_name, server.allow_build))
    for key, mark, wanted in (
        ("allow_scripts", "runScripts", scripts),
        ("allow_build", "build", builds),
    ):
        if marked(pin.graph, mark) != wanted:
            return f"is locked with another `{key}`"
    return ""


def _is_outside(pin: Pin, version_range: str) -> bool:
    # Loaded late: most ranges are none, and what compares versions takes as long as a short verb.
    from octave.packages.versions import is_outside

    return is_outside(pin.kind, pin.version, version_range)


def _bin(executable: str | None) -> str:
    return f"`bin = {executable}`" if executable else "no `bin`"


def short_name(package: str) -> str:
    """Return a server name made from a package's name: `@x/server-memory` gives `memory`."""
    bare = re.sub(r"\[.*|[#?].*", "", package).rpartition("/")[2].lower()
    bare = re.sub(r"\.(?:mcpb|dxt)$", "", bare)
    bare = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")
    plain = _WRAPPING.sub("", _WRAPPING.sub("", bare)) or bare
    return plain[:40].rstrip("-")


def _of_package(
    request: str, kind: str, package: str, version_range: str, registry: Lookup
) -> Choice:
    entry = registry.find_package(kind, package)
    known = entry.package(kind, package) if entry else None
    name = entry.short_name if entry else short_name(package)
    return Choice(request, name, kind, package, version_range, entry, known)


def _package_and_range(text: str) -> tuple[str, str, str]:
    source, version_range = (text, "*") if text.startswith("folder:") else _split_range(text)
    try:
        kind, package = split_package(source)
    except NoHash as error:
        raise IntegrityFailed(
            f"`{text}` does not say what its bytes must be, so nobody could tell what arrives",
            hint=f"octave install '{text}#sha256=HEX', with the sha256 its publisher tells",
        ) from error
    except ValueError as error:
        known = imitated(*source.partition(":")[::2], Registry(bundled_folder()))
        raise UsageError(
            f"`{text}` names no package: {error}",
            hint=f"did you mean `{known}`?"
            if known
            else "use a registry name, `npm:PACKAGE[@VERSION]` or `pypi:PACKAGE[@VERSION]`",
        ) from error
    _check_range(kind, source, version_range)
    return kind, package, version_range


def _check_range(kind: str, named: str, version_range: str) -> None:
    try:
        check_range(kind, version_range)
    except ValueError as error:
        example = {"npm": f"{named}@^1.2", "pypi": f"'{named}>=1.2,<2'"}.get(kind, named)
        raise UsageError(
            f"no such version can be asked for: {error}", hint=f"octave install {example}"
        ) from error


def _split_range(text: str) -> tuple[str, str]:
    if text.startswith("mcpb:"):
        return text, "*"
    if text.startswith("oci:"):
        image, version = split_image(text.removeprefix("oci:"))
        return f"oci:{image}", version or "*"
    # An npm scope begins with `@` right after the kind; the range follows the last one.
    name, at, version_range = text.rpartition("@")
    if at and name and not name.endswith(":"):
        return name, version_range or "*"
    # PyPI's own way of writing it, `name==1`, is understood too.
    found = re.match(r"([^=<>!~]+?) *([=<>!~].*)", text)
    return (found[1], found[2]) if found else (text, "*")
