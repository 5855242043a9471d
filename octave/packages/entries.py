"""What a registry knows about one server, whichever registry it is.

Made from official server.json files (schema 2025-12-11), and from what that schema lacks. A kind
of package that Octave cannot install is shown, not refused.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from octave.errors import InstallFailed, IntegrityFailed, ServerNotFound
from octave.packages import run_arguments, server_json
from octave.packages.names import pypi_name, split_image, split_package, with_host
from octave.packages.server_json import (
    Extension,
    Figures,
    Input,
    NamedInput,
    Package,
    PackageArgument,
    Server,
)

INSTALLABLE_KINDS = ("npm", "pypi", "mcpb", "oci")
_RANKS = {"npm": 0, "pypi": 0, "mcpb": 1, "oci": 2}
"""Whose dependencies can be locked and looked at comes first."""

_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a server's command line."""

    name: str | None
    """With its dashes; None: positional."""
    value: str | None
    """Fixed by the author; None: the user's to give."""
    placeholder: str
    description: str
    required: bool
    repeated: bool
    secret: bool
    default: str | None
    format: str = "string"
    """`string`, `number`, `boolean` or `filepath`; a named boolean is a bare switch."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, or one header of a remote server."""

    name: str
    description: str
    required: bool
    secret: bool
    default: str | None
    """What the server assumes without it; shown, not set."""


@dataclass(frozen=True, slots=True)
class PackageChoice:
    """One package a server can be installed from."""

    kind: str
    """`npm`, `pypi`, `oci`, or whatever a registry says."""
    identifier: str
    version: str
    """The version the entry speaks of; what is installed is resolved anew."""
    executable: str | None
    arguments: tuple[Argument, ...]
    variables: tuple[Variable, ...]
    env_one_of: tuple[tuple[str, ...], ...]
    """Groups of variables of which one whole group must be set."""
    requires: Mapping[str, str]
    """Version ranges of what runs it: `{"node": ">=22"}`, `{"python": ">=3.12"}`."""
    constraints: tuple[str, ...]
    """Limits on dependencies, `mcp<2`."""
    default_env: Mapping[str, str]
    """Set unless the user sets them; `{data}` is the server's data folder. Never secrets."""
    network: str
    """`none`, `call`: when a tool is called, `start`: before it answers; empty: unknown."""
    needs_at_start: str
    """What must be there on the machine before it answers, in words; empty: nothing known."""
    archived: bool
    notes: tuple[str, ...]
    figures: Figures | None
    """None: never tried."""
    installable: bool
    base_url: str = ""
    """The package registry its entry names. Packages come from where npm and uv are set to."""
    index_host: str = ""
    """The host that must be that place, as a company's own package registry; empty: any."""
    mounts: tuple[str, ...] = ()
    """How the entry writes folders of this machine that the user may give to a container."""
    claim: str = ""
    """The official name that the installed package itself must bear; empty: the bundled registry
    stands for it."""
    file_sha256: str = ""
    """Of the file of `version`, as the entry tells it; that of a bundle is in `identifier`."""

    @property
    def request(self) -> str:
        """The package as one asks for it: `npm:PKG`, `pypi:PKG`, `oci:IMAGE`, `mcpb:URL#...`."""
        return f"{self.kind}:{self.identifier}"

    @property
    def required_env(self) -> tuple[str, ...]:
        """Variables without which it does not start and which have no default here."""
        return tuple(
            variable.name
            for variable in self.variables
            if variable.required and variable.name not in self.default_env
        )

    @property
    def required_arguments(self) -> tuple[Argument, ...]:
        """Arguments the user has to give."""
        return tuple(
            argument
            for argument in self.arguments
            if argument.required and argument.value is None and argument.default is None
        )

    @property
    def asked_env(self) -> frozenset[str]:
        """Names of all variables that it knows."""
        groups = (name for group in self.env_one_of for name in group)
        return frozenset((*(variable.name for variable in self.variables), *groups))

    @property
    def secret_env(self) -> frozenset[str]:
        """Names of the variables whose values are secret."""
        return frozenset(variable.name for variable in self.variables if variable.secret)

    def fixed_args(self) -> tuple[str, ...]:
        """Return the arguments the author fixed, as elements of argv, in order."""
        words: list[str] = []
        for argument in self.arguments:
            if argument.value is not None:
                words += [argument.name] if argument.name else []
                words.append(argument.value)
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Remote:
    """An address at which the server is hosted."""

    transport: str
    url: str
    headers: tuple[Variable, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything the registry knows about one server."""

    short_name: str
    """The name of its file; what one types."""
    name: str
    """The official name, `io.github.OWNER/REPO`."""
    title: str
    description: str
    version: str
    packages: tuple[PackageChoice, ...]
    remotes: tuple[Remote, ...]
    categories: tuple[str, ...]
    license: str
    repository: str
    website: str
    vendor_official: bool
    """Whether the maker of the product it serves maintains it."""
    system_requires: tuple[str, ...]
    notes: tuple[str, ...]
    """Of the server as such; `notes_for` adds those of a package."""
    deprecated: str | None
    """Why it should not be used any more, its replacement included."""
    replaced_by: str | None
    registry: str = ""
    """The configured registry it comes from; empty: the bundled one."""
    deleted: str | None = None
    """Why its registry does not offer it any more; None: it does."""
    keywords: tuple[str, ...] = ()
    """Further words that `search` finds it by."""

    @property
    def request(self) -> str:
        """What one types to get it: the short name, the full one for other registries."""
        return self.name if self.registry else self.short_name

    def preferred(self) -> PackageChoice:
        """Return the first npm or PyPI package that was tried, else the first one.

        A bundle where there is none, a container image where there is no bundle either.

        Raises:
            ServerNotFound: its registry has deleted it.
            IntegrityFailed: it comes as a bundle alone, and without a hash.
            InstallFailed: it comes in no form that Octave can install.
        """
        self.require_offered()
        choices = [choice for choice in self.packages if choice.installable]
        best = min((_RANKS[choice.kind] for choice in choices), default=0)
        choices = [choice for choice in choices if _RANKS[choice.kind] == best]
        tried = [choice for choice in choices if choice.figures is not None]
        if choices:
            return (tried or choices)[0]
        self._require_hash()
        kinds = dict.fromkeys(package.kind for package in self.packages)
        forms = [f"as {kind} package" for kind in kinds]
        forms += [f"at {remote.url}" for remote in self.remotes]
        where = f"it comes only {', '.join(forms)}" if forms else "it comes in no form at all"
        raise InstallFailed(
            f"`{self.request}` has no npm or PyPI package: {where}",
            hint=self.connect_command()
            or f"`octave info {self.request}` shows what is known about it",
        )

    def _require_hash(self) -> None:
        for choice in self.packages:
            if choice.kind == "mcpb" and "#sha256=" not in choice.identifier:
                raise IntegrityFailed(
                    f"`{self.request}` comes as the bundle {choice.identifier} without the hash "
                    "that its registry must tell, so nobody could tell what arrives",
                    hint=self.connect_command()
                    or f"`octave info {self.request}` shows what is known about it",
                )

    def require_offered(self) -> None:
        """Do nothing when its registry still offers it.

        Raises:
            ServerNotFound: it was deleted there.
        """
        if self.deleted is not None:
            raise ServerNotFound(
                f"`{self.request}` was deleted from the registry `{self.registry}`: {self.deleted}",
                hint=f"octave search {self.short_name}",
            )

    def connect_command(self) -> str | None:
        """Return the command that connects it where it is hosted, None when it is not."""
        remote = next(iter(self.remotes), None)
        return f"octave add {self.short_name} {shlex.quote(remote.url)}" if remote else None

    def package(self, kind: str, identifier: str) -> PackageChoice | None:
        """Return the package of that kind and name, None when the entry does not have it."""
        wanted = _canonical(kind, identifier)
        for choice in self.packages:
            if choice.kind == kind and _canonical(kind, choice.identifier) == wanted:
                return choice
        return None

    def notes_for(self, choice: PackageChoice | None) -> tuple[str, ...]:
        """Return what a user who installs `choice` should read, a deprecation first."""
        notes = [*self.notes, *(choice.notes if choice else ())]
        if self.deprecated is not None:
            notes.insert(0, f"`{self.request}` is {self.deprecated}")
        elif choice and choice.archived:
            notes.insert(0, f"`{choice.request}` is archived upstream, no longer maintained")
        return tuple(notes)


def decode_entry(short_name: str, text: bytes) -> Entry:
    """Return the entry that a server.json says; unknown members are ignored.

    Raises:
        ValueError: not JSON, a required member is missing, or one has another type.
    """
    return make_entry(short_name, *server_json.decode(text))


def make_entry(short_name: str, server: Server, extension: Extension) -> Entry:
    """Return the entry that `server` and what Octave knows beyond it add up to."""
    deprecated = extension.deprecated
    if deprecated and extension.replaced_by:
        deprecated = f"{deprecated}; `{extension.replaced_by}` replaces it"
    return Entry(
        short_name=short_name,
        name=server.name,
        title=server.title or short_name,
        description=server.description,
        version=server.version,
        packages=tuple(_choice(package, extension) for package in server.packages),
        remotes=tuple(
            Remote(remote.type, remote.url, tuple(map(_variable, remote.headers)))
            for remote in server.remotes
        ),
        categories=extension.categories,
        keywords=extension.keywords,
        license=extension.license,
        repository=server.repository.url,
        website=server.website_url,
        vendor_official=extension.vendor_official,
        system_requires=extension.system_requires,
        notes=extension.notes,
        deprecated=deprecated,
        replaced_by=extension.replaced_by,
    )


def _choice(package: Package, extension: Extension) -> PackageChoice:
    kind, identifier, version = package.registry_type, package.identifier, package.version
    more = extension.packages.get(f"{kind}:{identifier}", server_json.PackageExtension())
    run = run_arguments.RunArguments()
    if kind == "oci":
        run = run_arguments.read(package.runtime_arguments, identifier)
        identifier, tag = split_image(with_host(identifier, package.registry_base_url))
        version = tag or version
    elif kind == "mcpb" and package.file_sha256:
        identifier = f"{identifier}#sha256={package.file_sha256}"
    variables = [*package.environment_variables, *run.variables]
    is_refused = bool(run.refused or more.oci_registry)
    elsewhere = (
        f"the image lies at `{more.oci_registry}`, so its name alone means another: "
        f"`octave install oci:HOST/{identifier}`"
    )
    return PackageChoice(
        kind=kind,
        identifier=identifier,
        version=version,
        executable=more.executable,
        arguments=tuple(map(_argument, package.package_arguments)),
        variables=tuple(map(_variable, variables)),
        env_one_of=more.env_one_of,
        requires=more.requires,
        constraints=more.constraints,
        default_env=_fixed_environment(variables) | more.default_environment,
        network=more.network,
        needs_at_start=more.needs_at_start,
        archived=more.archived,
        notes=(*more.notes, *run.notes(), *([elsewhere] if more.oci_registry else [])),
        figures=more.figures,
        base_url=package.registry_base_url,
        mounts=run.mounts,
        file_sha256="" if kind in {"oci", "mcpb"} else package.file_sha256,
        installable=package.transport.type == "stdio"
        and not is_refused
        and can_be_named(kind, identifier),
    )


def can_be_named(kind: str, identifier: str) -> bool:
    """Whether a package of that name can be installed."""
    if kind not in INSTALLABLE_KINDS:
        return False
    try:
        split_package(f"{kind}:{identifier}")
    except ValueError:
        return False
    return True


def _fixed_environment(variables: Sequence[server_json.NamedInput]) -> dict[str, str]:
    # A default of an optional variable is the server's own: setting it would only freeze it.
    found: dict[str, str] = {}
    for variable in variables:
        value = _fixed(variable)
        if value is None and variable.is_required:
            value = variable.default
        if value is not None and not variable.is_secret:
            found[variable.name] = value
    return found


def _fixed(given: Input) -> str | None:
    """Return the author's value; None when there is none, or a part of it is the user's."""
    if given.value is None:
        return None
    parts = {name: part.value or part.default for name, part in given.variables.items()}
    if any(parts.get(name, "") is None for name in _BRACES.findall(given.value)):
        return None
    return _BRACES.sub(lambda found: parts.get(found[1]) or found[0], given.value)


def _argument(given: PackageArgument) -> Argument:
    return Argument(
        name=given.name if given.type == "named" else None,
        value=_fixed(given),
        placeholder=given.placeholder or given.value_hint.upper() or given.value or "",
        description=given.description,
        required=given.is_required,
        repeated=given.is_repeated,
        secret=given.is_secret,
        default=given.default,
        format=given.format,
    )


def _variable(given: NamedInput) -> Variable:
    return Variable(
        given.name, given.description, given.is_required, given.is_secret, given.default
    )


def _canonical(kind: str, identifier: str) -> str:
    # Extras do not make another package.
    return pypi_name(identifier) if kind == "pypi" else identifier
