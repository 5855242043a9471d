"""What a registry entry wants `docker run` to be told, and how far Octave goes along.

Variables are taken over. What Octave says itself is passed over. Folders of this machine are the
user's to give. Whatever else would change what the container may do, so the image is not run.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from octave.packages.server_json import Input, NamedInput, PackageArgument

_OURS = frozenset(("-i", "--interactive", "--rm", "--init", "-t", "--tty", "--name", "--pull"))
"""Said by Octave itself, or without meaning for a server that speaks over pipes."""
_VARIABLES = frozenset(("-e", "--env"))
_MOUNTS = frozenset(("-v", "--volume", "--mount"))
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments of one entry, judged."""

    variables: tuple[NamedInput, ...] = ()
    mounts: tuple[str, ...] = ()
    """How the entry writes the folders that the user may give."""
    refused: tuple[str, ...] = ()
    """How it writes what Octave does not do."""

    def notes(self) -> Iterator[str]:
        """Yield what a user should read about them."""
        for words in self.refused:
            yield f"not installed by Octave: it wants its container to be run with `{words}`"
        for words in self.mounts:
            yield (
                f"may use a folder of yours (`{words}`): "
                "`octave set NAME mounts=FOLDER:PLACE-IN-CONTAINER[:ro]`"
            )


def read(arguments: Sequence[PackageArgument], identifier: str) -> RunArguments:
    """Return what the `runtimeArguments` of the image `identifier` come to."""
    variables: list[NamedInput] = []
    mounts: list[str] = []
    refused: list[str] = []
    for name, value, given in _pairs(arguments):
        if name in _VARIABLES:
            made = _variable(value, given)
            if made is None:
                refused.append(f"{name} {value}")
            else:
                variables.append(made)
        elif name in _MOUNTS:
            mounts.append(f"{name} {value}")
        elif not name and (value == "run" or _is_image(value, identifier)):
            continue
        elif name not in _OURS:
            refused.append(f"{name} {value}".strip())
    return RunArguments(tuple(variables), tuple(mounts), tuple(refused))


def _pairs(arguments: Sequence[PackageArgument]) -> Iterator[tuple[str, str, PackageArgument]]:
    """Yield option, value and the argument they come from; entries write them in several ways."""
    waiting = ""
    for given in arguments:
        name = given.name or "" if given.type == "named" else ""
        value = given.value if given.value is not None else given.default or ""
        if name.startswith("--") and "=" in name:
            name, _, value = name.partition("=")
        if not name and not waiting and value.startswith("-"):
            name, equals, value = value.partition("=")
            if not equals and name in _VARIABLES | _MOUNTS:
                waiting = name
                continue
        yield name or waiting, value, given
        waiting = ""


def _variable(text: str, given: PackageArgument) -> NamedInput | None:
    """Return the variable that `NAME`, `NAME=value` or `NAME={part}` means; None when none."""
    name, equals, value = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return None
    parts = [given.variables[part] for part in _BRACES.findall(value) if part in given.variables]
    if equals and not _BRACES.search(value):
        return NamedInput(name=name, description=given.description, value=value)
    whole = value == f"{{{''.join(_BRACES.findall(value))}}}"
    one = parts[0] if len(parts) == 1 and whole else Input(is_required=given.is_required)
    return NamedInput(
        name=name,
        description=one.description or given.description,
        is_required=one.is_required or given.is_required,
        is_secret=given.is_secret or any(part.is_secret for part in parts),
        default=one.default,
        value=one.value,
    )


def _is_image(value: str, identifier: str) -> bool:
    bare = re.sub(r"(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?$", "", identifier)
    return value == "" or value == identifier or re.sub(r":[\w.-]+$", "", value) == bare
