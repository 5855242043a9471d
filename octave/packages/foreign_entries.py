"""Entries as registries over HTTP serve them, from anybody: judged before they count.

An entry has the shape of an official server.json and a name of the official form, or it is no
entry. What it says is text to show; what would decide how a program runs is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import msgspec

from octave.packages.entries import (
    INSTALLABLE_KINDS,
    Entry,
    PackageChoice,
    Remote,
    can_be_named,
    make_entry,
)
from octave.packages.names import check_range, check_variable, decides_what_runs
from octave.packages.registry_http import is_here, is_private_way
from octave.packages.server_json import Extension, Server

NAME = re.compile(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+")
"""Full names, schema 2025-12-11."""
_NAME_CHARACTERS = 200
_ENTRY_BYTES = 256 * 2**10
_DESCRIPTION_CHARACTERS = 300
"""The schema says 100; more than this nobody wants to read in a list."""
_TITLE_CHARACTERS = 100
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!_-]*")
"""One version: the schema refuses ranges."""
_OFFICIAL = "io.modelcontextprotocol.registry/official"


class _Official(msgspec.Struct, rename="camel", frozen=True):
    status: str = "active"
    status_message: str | None = None
    updated_at: str = ""
    is_latest: bool = False


class _Item(msgspec.Struct, frozen=True):
    server: msgspec.Raw
    meta: dict[str, msgspec.Raw] = msgspec.field(name="_meta", default_factory=dict)


class _Named(msgspec.Struct, frozen=True):
    name: str


class Item(msgspec.Struct, frozen=True):
    """What a registry says about an entry."""

    name: str
    status: str
    """`active`, `deprecated`, `deleted`, or whatever it says."""
    message: str
    updated_at: str
    is_latest: bool
    server: msgspec.Raw


def read_item(raw: msgspec.Raw) -> Item | None:
    """Return what is around the server.json in `raw`; None when it is of another shape."""
    if len(bytes(raw)) > _ENTRY_BYTES:
        return None
    try:
        item = msgspec.json.decode(raw, type=_Item)
        name = msgspec.json.decode(item.server, type=_Named).name
        said = msgspec.json.decode(item.meta.get(_OFFICIAL, b"{}"), type=_Official)
    except (ValueError, RecursionError):
        return None
    if not NAME.fullmatch(name) or len(name) > _NAME_CHARACTERS:
        return None
    message = " ".join((said.status_message or "").split())[:_DESCRIPTION_CHARACTERS]
    return Item(name, said.status, message, said.updated_at, said.is_latest, item.server)


def item_name(raw: msgspec.Raw) -> str | None:
    """Return the full name of the entry in `raw`; None when it is no entry."""
    item = read_item(raw)
    return item.name if item else None


def foreign_entry(raw: msgspec.Raw, registry: str, address: str) -> Entry | None:
    """Return the entry in `raw`, as the `registry` at `address` has it; None when it is none."""
    item = read_item(raw)
    if item is None:
        return None
    try:
        server = msgspec.json.decode(item.server, type=Server)
    except (ValueError, RecursionError):
        return None
    segment = item.name.rpartition("/")[2]
    # What Octave knows beyond the schema is its own word, not that of whoever publishes there.
    entry = make_entry(segment, server, Extension())
    deprecated = deleted = None
    if item.status == "deprecated":
        deprecated = f"deprecated by its publisher: {item.message}".rstrip(": ")
    if item.status == "deleted":
        deleted = item.message or "it does not say why"
    return replace(
        entry,
        title=(server.title or segment)[:_TITLE_CHARACTERS],
        description=" ".join(entry.description.split())[:_DESCRIPTION_CHARACTERS],
        packages=tuple(_judged(choice, item.name, address) for choice in entry.packages),
        remotes=tuple(remote for remote in entry.remotes if _is_usable(remote)),
        repository=_web(entry.repository),
        website=_web(entry.website),
        registry=registry,
        deprecated=deprecated,
        deleted=deleted,
    )


def _judged(choice: PackageChoice, claim: str, address: str) -> PackageChoice:
    # The host of an image is part of its name, and a bundle has an address.
    has_index = choice.kind not in {"oci", "mcpb"}
    own = choice.base_url if has_index and _are_of_one_house(choice.base_url, address) else ""
    # An image at no version would be whatever is newest.
    is_kept = choice.kind == "oci" or _VERSION.fullmatch(choice.version)
    version = choice.version if is_kept else ""
    choice = replace(choice, version=version, claim=claim, index_host=_host(own))
    wrong = next(_objections(choice, address), None)
    if wrong is None:
        return choice
    return replace(choice, installable=False, notes=(*choice.notes, wrong))


def _are_of_one_house(one: str, other: str) -> bool:
    """Whether both hosts have the same last two labels, `npm.example.com` and `mcp.example.com`.

    Then the package is a private one, and whoever takes the name at a public registry must not be
    asked for it.
    """
    return _host(one) != "" and _host(one).split(".")[-2:] == _host(other).split(".")[-2:]


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _objections(choice: PackageChoice, address: str) -> Iterator[str]:
    """Yield why Octave does not install it."""
    if choice.kind == "oci" and choice.version:
        try:
            check_range("oci", choice.version)
        except ValueError as error:
            yield f"not installed by Octave: {error}"
    if choice.kind == "mcpb" and choice.installable:
        yield from _objections_to_place(choice.identifier, address)
    if choice.kind in INSTALLABLE_KINDS and not can_be_named(choice.kind, choice.identifier):
        yield "not installed by Octave: its name is none that a package can have"
    for name in [*choice.default_env, *(variable.name for variable in choice.variables)]:
        try:
            check_variable(name)
        except ValueError as error:
            yield f"not installed by Octave: {error}"
    for name in filter(decides_what_runs, choice.default_env):
        yield f"not installed by Octave: it sets `{name}`, which decides what runs"
    if any("\0" in word for word in (*choice.fixed_args(), *choice.default_env.values())):
        yield "not installed by Octave: an argument has a character no program can be given"


def _objections_to_place(bundle: str, address: str) -> Iterator[str]:
    if "://" not in bundle:
        yield "not installed by Octave: it is no address, and a registry has no files of yours"
    elif not is_private_way(bundle):
        yield "not installed by Octave: it is not reached by https, so anybody could answer"
    elif is_here(bundle) and not is_here(address):
        yield "not installed by Octave: it lies on this machine, which its registry does not know"


def _is_usable(remote: Remote) -> bool:
    is_spoken = remote.transport in {"streamable-http", "sse"}
    # Before an `@` stands whatever looks like another host.
    return is_spoken and is_private_way(remote.url) and "@" not in urlsplit(remote.url).netloc


def _web(address: str) -> str:
    try:
        return address if urlsplit(address).scheme in {"http", "https"} else ""
    except ValueError:
        return ""
