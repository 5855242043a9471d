"""The shape of an official server.json (schema 2025-12-11), and of what Octave adds to it.

Members that Octave does not use are left out; unknown ones are ignored. Octave's own members
lie under `_meta`, in one object whose key is `EXTENSION`.
"""

import msgspec

EXTENSION = "io.github.octave-mcp/registry"
"""Key under `_meta`, reverse DNS as the schema asks."""


class Input(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A value that an author fixed, or that a user gives."""

    description: str = ""
    is_required: bool = False
    is_secret: bool = False
    format: str = "string"
    value: str | None = None
    default: str | None = None
    placeholder: str = ""
    variables: dict[str, "Input"] = {}


class NamedInput(Input, kw_only=True, frozen=True):
    """An environment variable or a header."""

    name: str


class PackageArgument(Input, kw_only=True, frozen=True):
    """An argument: `named` with its dashes in `name`, or `positional`."""

    type: str
    name: str | None = None
    value_hint: str = ""
    is_repeated: bool = False


class Transport(msgspec.Struct, kw_only=True, frozen=True):
    """How one speaks with the server; `url` and `headers` for remote ones."""

    type: str
    url: str = ""
    headers: list[NamedInput] = []


class Package(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One package a server comes in."""

    registry_type: str
    identifier: str
    transport: Transport
    version: str = ""
    registry_base_url: str = ""
    file_sha256: str = ""
    runtime_arguments: list[PackageArgument] = []
    package_arguments: list[PackageArgument] = []
    environment_variables: list[NamedInput] = []


class Repository(msgspec.Struct, frozen=True):
    """Where the source lies."""

    url: str = ""


class Server(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """The document."""

    name: str
    description: str
    version: str
    title: str = ""
    repository: Repository = Repository()
    website_url: str = ""
    packages: list[Package] = []
    remotes: list[Transport] = []
    meta: dict[str, msgspec.Raw] = msgspec.field(name="_meta", default_factory=dict)


class Figures(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What a start of one version showed; indicative, None where it is not known."""

    version: str
    protocol_version: str
    start_s: float = msgspec.field(name="startSeconds")
    """From its start until its tools were listed, warm."""
    cold_start_s: float = msgspec.field(name="coldStartSeconds")
    memory_bytes: int
    """Proportional set size of the whole process tree, idle."""
    platforms: tuple[str, ...]
    tools: int | None = None
    prompts: int | None = None
    resources: int | None = None


class PackageExtension(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What the schema lacks about one package."""

    executable: str | None = None
    requires: dict[str, str] = {}
    constraints: tuple[str, ...] = ()
    default_environment: dict[str, str] = {}
    env_one_of: tuple[tuple[str, ...], ...] = ()
    oci_registry: str = ""
    """Where an image lies whose name does not say it, in one word."""
    network: str = ""
    needs_at_start: str = ""
    archived: bool = False
    notes: tuple[str, ...] = ()
    figures: Figures | None = None


class Extension(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What the schema lacks about a server."""

    categories: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    """What people look for who do not know its name; found by `search`, never taken for a name."""
    license: str = ""
    vendor_official: bool = False
    system_requires: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    deprecated: str | None = None
    replaced_by: str | None = None
    packages: dict[str, PackageExtension] = {}
    """Keys are `KIND:IDENTIFIER`, as in `npm:@scope/name`."""


def decode(text: bytes) -> tuple[Server, Extension]:
    """Return the document and Octave's part of it, an empty one when there is none.

    Raises:
        ValueError: not JSON, a required member is missing, or one has another type.
    """
    server = msgspec.json.decode(text, type=Server)
    extension = server.meta.get(EXTENSION, msgspec.Raw(b"{}"))
    return server, msgspec.json.decode(extension, type=Extension)
