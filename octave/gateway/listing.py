"""One server's lists, made ready for an aggregated face: qualified names and the way back.

Pure. A definition changes in its `name` alone, every other byte stays as the server wrote it. An
item without a usable name is left out and counted; it takes nothing else with it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from octave.gateway.naming import qualified
from octave.packages.offered import Offered
from octave.runtime import wire

Table = Mapping[str, tuple["Entry", ...]]
"""Entries by qualified name; more than one where names of the server collide."""

_EXPRESSION = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool or prompt at an aggregated face."""

    server: str
    name: str
    """As the server named it."""
    name_json: bytes
    """The JSON text of `name`, as the server wrote it."""
    definition: bytes
    """The raw definition under its qualified name."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What one server offers."""

    server: str
    offered: Offered
    tools: Table
    prompts: Table
    resources: frozenset[str]
    templates: tuple[tuple[str, ...], ...]
    """Of each template the literal parts around its expressions."""
    broken: int
    """Items left out of the tables."""

    def has_template_for(self, uri: str) -> bool:
        """Whether a resource template of the server could have made `uri`."""
        return any(_fits(uri, parts) for parts in self.templates)


def listing(server: str, offered: Offered) -> Listing:
    """Return `offered` as the listing of `server`."""
    tools, broken_tools = _table(server, offered.lists.get("tools", ()))
    prompts, broken_prompts = _table(server, offered.lists.get("prompts", ()))
    uris = [text_of(item, "uri") for item in offered.lists.get("resources", ())]
    templates = [
        text_of(item, "uriTemplate") for item in offered.lists.get("resourceTemplates", ())
    ]
    return Listing(
        server=server,
        offered=offered,
        tools=tools,
        prompts=prompts,
        resources=frozenset(uri for uri in uris if uri is not None),
        templates=tuple(
            tuple(_EXPRESSION.split(template)) for template in templates if template is not None
        ),
        broken=broken_tools + broken_prompts + uris.count(None) + templates.count(None),
    )


def text_of(text: bytes | None, *path: str) -> str | None:
    """Return the string at the member path of a JSON text; None when there is none."""
    if text is None:
        return None
    try:
        raw = wire.member(text, *path)
        # The standard library reads lone surrogates, which a name or URI may hold.
        value = None if raw is None else json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _table(server: str, items: Iterable[bytes]) -> tuple[Table, int]:
    table: dict[str, tuple[Entry, ...]] = {}
    broken = 0
    for item in items:
        name = text_of(item, "name")
        if name is None:
            broken += 1
            continue
        key = qualified(server, name)
        twins = table.get(key, ())
        # A name listed twice is one tool to whoever calls it: the first definition stands.
        if all(twin.name != name for twin in twins):
            table[key] = (*twins, _entry(server, name, key, item))
    return table, broken


def _entry(server: str, name: str, key: str, item: bytes) -> Entry:
    name_json = wire.member(item, "name") or b'""'
    definition = wire.splice(item, {("name",): json.dumps(key).encode()})
    return Entry(server, name, name_json, definition)


def _fits(uri: str, parts: tuple[str, ...]) -> bool:
    # Linear on purpose: a regular expression made of a stranger's template may never end.
    if len(parts) == 1:
        return uri == parts[0]
    position = len(parts[0])
    for part in parts[1:-1]:
        found = uri.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    last = len(uri) - len(parts[-1])
    return uri.startswith(parts[0]) and uri.endswith(parts[-1]) and position <= last
