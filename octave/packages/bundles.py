"""What a bundle says of itself, put beside what a registry says of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from octave.errors import OctaveError
from octave.home import Workspace
from octave.packages import manifest, manifest_edit, workspaces
from octave.packages.ecosystems.base import Bench
from octave.packages.entries import Argument, Entry, PackageChoice, Variable
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.names import split_package
from octave.packages.registry import Lookup

if TYPE_CHECKING:  # most of what is installed is no bundle
    from octave.packages.ecosystems.mcpb_manifest import Bundle, Setting


def known_of(package: str, known: PackageChoice | None, bench: Bench) -> PackageChoice:
    """Return `known` with the arguments and variables of the bundle `package`; it is fetched.

    Raises:
        IntegrityFailed, PackageNotFound, RegistryUnreachable, InstallFailed: as `mcpb.read`.
    """
    # Imported late: it brings what only npm packages and bundles need.
    from octave.packages.ecosystems import mcpb

    bundle = mcpb.read(package, bench)
    base = known or _blank(package, bundle)
    told = {variable.name: variable for variable in base.variables}
    own = [_variable(setting, told.pop(setting.name, None)) for setting in bundle.settings]
    defaults = {
        setting.name: setting.default
        for setting in bundle.settings
        if setting.default is not None and not setting.secret
    }
    return replace(
        base,
        arguments=(*map(_argument, bundle.args), *base.arguments),
        variables=(*own, *told.values()),
        default_env={**bundle.env, **defaults, **base.default_env},
    )


def opened(entry: Entry, bench: Bench) -> Entry:
    """Return `entry` with the variables that its bundle asks for; it is fetched.

    One that is installed from something else stays as it is.

    Raises:
        IntegrityFailed, PackageNotFound, RegistryUnreachable, InstallFailed: as `known_of`.
    """
    try:
        preferred = entry.preferred()
    except OctaveError:
        return entry
    if preferred.kind != "mcpb":
        return entry
    asked = known_of(preferred.identifier, preferred, bench).variables
    packages = (
        replace(each, variables=asked) if each is preferred else each for each in entry.packages
    )
    return replace(entry, packages=tuple(packages))


def is_file(text: str) -> bool:
    """Whether `text` can only be the path of a bundle, there or not."""
    return ":" not in text and "/" in text and Path(text).suffix in {".mcpb", ".dxt"}


def from_file(text: str, bench: Bench) -> str:
    """Return `text`; where it is the path of a bundle, how one asks for it once it is kept.

    Raises:
        InstallFailed: there is no such file, or it is too large.
    """
    if not is_file(text):
        return text
    # Imported late, as in `known_of`.
    from octave.packages import downloads

    path = Path(text)
    sha256 = downloads.keep(path, downloads.bundles(bench.home))
    name = re.sub(r"[^A-Za-z0-9._ -]|^[^A-Za-z0-9]", "_", path.name)
    return f"mcpb:{name}#sha256={sha256}"


def followed(server: ServerEntry, registry: Lookup) -> ServerEntry:
    """Return `server` with the bundle that its registry names now: each version has an address.

    Raises:
        NotFound, RegistryUnreachable: the registry has it no more, or cannot be asked.
    """
    if not server.registry_name or not (server.package or "").startswith("mcpb:"):
        return server
    current = bundle_of(registry.get(server.registry_name))
    return server if current is None else replace(server, package=current.request)


def is_of(server: ServerEntry, pin: Pin) -> bool:
    """Whether `pin` is a version of what `server` names: that package, or a bundle of it."""
    if f"{pin.kind}:{pin.package}" == server.package:
        return True
    is_bundle = pin.kind == "mcpb" and (server.package or "").startswith("mcpb:")
    return is_bundle and bool(pin.registry_name) and server.registry_name == pin.registry_name


def named(server: ServerEntry, pin: Pin) -> ServerEntry:
    """Return `server` as it names the bundle of `pin`; of all other kinds itself."""
    return replace(server, package=f"mcpb:{pin.package}") if pin.kind == "mcpb" else server


def write_name(workspace: Workspace, pin: Pin) -> None:
    """Let the manifest name the bundle of `pin`, which it trusts as it was trusted before.

    The caller holds `ledger.changing`.
    """
    wanted = manifest.load(workspace.manifest)
    server = wanted.servers.get(pin.name)
    if server is None or named(server, pin) == server:
        return
    was_trusted = workspaces.trusted(workspace, wanted)
    values: dict[tuple[str, ...], object] = {("package",): f"mcpb:{pin.package}"}
    manifest_edit.change_server(workspace.manifest, pin.name, values)
    if was_trusted:
        workspaces.trust(workspace, manifest.load(workspace.manifest))


def bundle_of(entry: Entry) -> PackageChoice | None:
    """Return the bundle of `entry`; None when it has none that can be installed."""
    offered = (each for each in entry.packages if each.kind == "mcpb" and each.installable)
    return next(offered, None)


def _variable(setting: "Setting", told: Variable | None) -> Variable:
    is_secret = setting.secret or (told is not None and told.secret)
    return Variable(
        name=setting.name,
        description=(told.description if told else "") or setting.description,
        required=setting.required or (told is not None and told.required),
        secret=is_secret,
        default=None if is_secret else setting.default,
    )


def _argument(word: str) -> Argument:
    return Argument(
        name=None,
        value=word,
        placeholder="",
        description="",
        required=False,
        repeated=False,
        secret=False,
        default=None,
    )


def _blank(package: str, bundle: "Bundle") -> PackageChoice:
    kind, identifier = split_package(f"mcpb:{package}")
    return PackageChoice(
        kind=kind,
        identifier=identifier,
        version=bundle.version,
        executable=None,
        arguments=(),
        variables=(),
        env_one_of=(),
        requires={},
        constraints=(),
        default_env={},
        network="",
        needs_at_start="",
        archived=False,
        notes=(),
        figures=None,
        installable=True,
    )
