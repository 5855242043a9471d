"""What `octave info` says of a registry entry, in the form of `--json`. Pure."""

import shlex
from typing import Any

import msgspec

from octave.packages.registry import Argument, Entry, PackageChoice, Remote, Variable


def describe(entry: Entry) -> dict[str, Any]:
    """Return everything the registry knows about `entry`: camelCase members, seconds, bytes.

    `install` is the command that installs it, None when no form of it can be installed.
    """
    installable = any(choice.installable for choice in entry.packages)
    preferred = entry.preferred() if installable else None
    return {
        "name": entry.short_name,
        "registryName": entry.name,
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
        "systemRequires": list(entry.system_requires),
        "notes": list(entry.notes if preferred is None else entry.notes_for(preferred)),
        "install": None if preferred is None else install_command(entry.short_name, preferred),
        "packages": [_package(choice, choice is preferred) for choice in entry.packages],
        "remotes": [_remote(remote) for remote in entry.remotes],
    }


def install_command(request: str, choice: PackageChoice) -> str:
    """Return the command that installs `choice`, asked for as `request`, with what it needs."""
    words = ["octave", "install", request]
    for name in choice.required_env or next(iter(choice.env_one_of), ()):
        words += ["-e", name]
    for argument in choice.required_arguments:
        words += [f"--arg={argument.name}"] if argument.name else []
        words += ["--arg", _placeholder(argument)]
    return " ".join(words)


def server_command(choice: PackageChoice) -> str:
    """Return the server's own command line: executable, fixed and required arguments."""
    words = [shlex.quote(choice.executable or choice.identifier.rpartition("/")[2])]
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
        "command": server_command(choice) if choice.installable else None,
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
