"""What `octave info` says of a registry entry, in the form of `--json`. Pure."""

import shlex
from typing import Any

import msgspec

from octave.packages import secret_arguments
from octave.packages.entries import Argument, Entry, PackageChoice, Remote, Variable
from octave.packages.names import joined_image

BUNDLED = "bundled"
"""What the registry that came with Octave is called where several are named."""


def describe(entry: Entry) -> dict[str, Any]:
    """Return everything the registry knows about `entry`: camelCase members, seconds, bytes.

    `install` is the command that installs it, or connects the remote server where nothing can be
    installed; None when there is neither.
    """
    preferred = _preferred(entry)
    return {
        "name": entry.short_name,
        "registryName": entry.name,
        "registry": entry.registry or BUNDLED,
        "title": entry.title,
        "description": entry.description,
        "version": entry.version,
        "categories": list(entry.categories),
        "license": entry.license,
        "vendorOfficial": entry.vendor_official,
        "repository": entry.repository or None,
        "website": entry.website or None,
        "deprecated": entry.deprecated,
        "replacedBy": entry.replaced_by,
        "deleted": entry.deleted,
        "systemRequires": list(entry.system_requires),
        "notes": list(entry.notes_for(preferred)),
        "install": _how_to_get(entry, preferred),
        "packages": [_package(choice, choice is preferred) for choice in entry.packages],
        "remotes": [_remote(remote) for remote in entry.remotes],
    }


def summary(entry: Entry) -> dict[str, Any]:
    """Return what one line of a search tells: what it is, its kind, what a start of it showed."""
    preferred = _preferred(entry)
    figures = preferred.figures if preferred else None
    kinds = [choice.kind for choice in entry.packages] + ["remote" for _ in entry.remotes[:1]]
    return {
        "name": entry.request,
        "registryName": entry.name,
        "registry": entry.registry or BUNDLED,
        "title": entry.title,
        "description": entry.description,
        "kind": preferred.kind if preferred else next(iter(kinds), None),
        "package": preferred.request if preferred else None,
        "version": (preferred.version if preferred else entry.version) or None,
        "categories": list(entry.categories),
        "tools": figures.tools if figures else None,
        "startSeconds": figures.start_s if figures else None,
        "memoryBytes": figures.memory_bytes if figures else None,
        "vendorOfficial": entry.vendor_official,
        "archived": preferred.archived if preferred else False,
        "deprecated": entry.deprecated,
        "replacedBy": entry.replaced_by,
        "install": _how_to_get(entry, preferred),
    }


def _preferred(entry: Entry) -> PackageChoice | None:
    if entry.deleted is not None or not any(choice.installable for choice in entry.packages):
        return None
    return entry.preferred()


def _how_to_get(entry: Entry, preferred: PackageChoice | None) -> str | None:
    if entry.deleted is not None:
        return None
    return install_command(entry.request, preferred) if preferred else entry.connect_command()


def install_command(request: str, choice: PackageChoice) -> str:
    """Return the command that installs `choice`, asked for as `request`, with what it needs."""
    words = ["octave", "install", request]
    for name in choice.required_env or next(iter(choice.env_one_of), ()):
        words += ["-e", name]
    for argument in choice.required_arguments:
        words += [f"--arg={argument.name}"] if argument.name else []
        words += ["--arg", _given(request.rpartition("/")[2], argument)]
    return " ".join(words)


def _given(server: str, argument: Argument) -> str:
    """Return how the value of `argument` is typed; a secret is not."""
    shown = _placeholder(argument)
    if not argument.secret:
        return shown
    key = f"{server}/{secret_arguments.label(argument.name or shown)}"
    return shlex.quote(f'{{ secret = "{key}" }}')


def server_command(choice: PackageChoice) -> str:
    """Return the server's own command line: executable, fixed and required arguments."""
    words = [shlex.quote(choice.executable or choice.identifier.rpartition("/")[2])]
    if choice.kind == "oci":
        image = joined_image(choice.identifier, choice.version or "latest")
        words = ["docker", "run", "-i", "--rm", image]
    words += [shlex.quote(word) for word in choice.fixed_args()]
    return " ".join([*words, *map(usage, choice.required_arguments)])


def usage(argument: Argument) -> str:
    """Return how `argument` is written: `--db-path DB_FILE`, `--read-only`, `ALLOWED_DIR...`."""
    shown = _placeholder(argument)
    if argument.name is not None:
        bare = argument.format == "boolean" and argument.value is None
        shown = argument.name if bare else f"{argument.name} {shown}"
    return f"{shown}..." if argument.repeated else shown


def _placeholder(argument: Argument) -> str:
    return argument.value or argument.placeholder or "VALUE"


def _package(choice: PackageChoice, preferred: bool) -> dict[str, Any]:  # noqa: FBT001 - a fact
    return {
        "kind": choice.kind,
        "package": choice.identifier,
        "version": choice.version or None,
        "preferred": preferred,
        "installable": choice.installable,
        "archived": choice.archived,
        "executable": choice.executable,
        # How a bundle is started stands in the bundle.
        "command": server_command(choice) if choice.installable and choice.kind != "mcpb" else None,
        "arguments": [_argument(argument) for argument in choice.arguments],
        "environment": [_variable(variable) for variable in choice.variables],
        "environmentOneOf": [list(group) for group in choice.env_one_of],
        "defaultEnvironment": dict(choice.default_env),
        "requires": dict(choice.requires),
        "constraints": list(choice.constraints),
        "network": choice.network or None,
        "needsAtStart": choice.needs_at_start or None,
        "notes": list(choice.notes),
        "figures": msgspec.json.decode(msgspec.json.encode(choice.figures)),
    }


def _argument(argument: Argument) -> dict[str, Any]:
    return {
        "usage": usage(argument),
        "name": argument.name,
        "value": argument.value,
        "placeholder": argument.placeholder or None,
        "description": argument.description,
        "required": argument.required,
        "repeated": argument.repeated,
        "secret": argument.secret,
        "default": argument.default,
        "format": argument.format,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "description": variable.description,
        "required": variable.required,
        "secret": variable.secret,
        "default": variable.default,
    }


def _remote(remote: Remote) -> dict[str, Any]:
    return {
        "transport": remote.transport,
        "url": remote.url,
        "headers": [_variable(header) for header in remote.headers],
    }
