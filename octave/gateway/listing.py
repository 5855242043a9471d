"""One server's lists, made ready for an aggregated face: qualified names and the way back.

Pure. A definition changes in its `name` alone, every other byte stays as the server wrote it. An
item that nobody could use, or call by its name, is not shown; it takes nothing else with it, and
whoever wants to know is told why.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from octave.errors import NotApproved, ToolNotFound
from octave.gateway import schemas
from octave.gateway.naming import SEPARATOR, qualified
from octave.packages.definitions import Finding, findings
from octave.packages.launch import Approvals, ToolFilter
from octave.packages.offered import Offered
from octave.runtime import wire

NAME_CHARS = 80
"""So much of a name is shown in a warning: a server may give it any length."""
URI_CHARS = 4096
"""A longer one holds its own content."""
SCANNED_BYTES = 16 * 1024
"""A search through a megabyte takes half a millisecond, and what names resources is short."""
EXAMPLES = 3
"""So many names stand for all that were changed for the same reason."""

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
    """The raw definition under its qualified name; as it came where there is a problem."""
    problem: str | None = None
    """Why it is not shown. It can be called all the same."""
    held: Finding | None = None
    """Why it is neither shown nor to be called: nobody has approved it as it is."""


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
    template_texts: frozenset[str]
    problems: Mapping[int, str]
    """Why a tool is not shown, by its position in the server's list; words that follow its name."""
    warnings: tuple[str, ...]
    """Sentences about what is not shown, or shown under another name."""
    filter: ToolFilter
    denied: frozenset[int]
    """The positions of the tools that are not there for anybody."""
    approvals: Approvals
    unapproved: Mapping[int, Finding]
    """How tools differ from what was approved, by their position."""
    news: tuple[str, ...]
    """The same in sentences."""

    def definition_of(self, name: str) -> bytes | None:
        """Return the definition of the tool that the server calls `name`, as it wrote it."""
        tools = self.offered.tools
        return next((tool for tool in tools if text_of(tool, "name") == name), None)

    def has_template_for(self, uri: str) -> bool:
        """Whether a resource template of the server could have made `uri`."""
        return any(_fits(uri, parts) for parts in self.templates)

    @property
    def held(self) -> Mapping[int, Finding]:
        """The tools that nobody sees or calls until they are approved, by their position."""
        return self.unapproved if self.approvals.blocks else {}

    def is_cut(self, kind: str) -> bool:
        """Whether the list (key of `LISTS`) is not shown as the server has it, or may not be."""
        return kind == "tools" and (bool(self.denied) or self.approvals.blocks)

    def shown(self, kind: str) -> Iterator[bytes]:
        """Yield the raw items of a list, under their own names, without what is denied or held."""
        held = self.held
        for position, item in enumerate(self.offered.lists.get(kind, ())):
            if kind != "tools" or not (position in self.denied or position in held):
                yield item

    def entry_of(self, name: str) -> Entry | None:
        """Return the tool that the server calls `name`; None when it lists none."""
        twins = self.tools.get(qualified(self.server, name), ())
        return next((twin for twin in twins if twin.name == name), None)

    def definitions(self, kind: str) -> Iterator[bytes]:
        """Yield the raw items of a list (key of `LISTS`) as an aggregated face shows them."""
        if kind not in {"tools", "prompts"}:
            yield from self.offered.lists.get(kind, ())
            return
        table = self.tools if kind == "tools" else self.prompts
        for twins in table.values():
            shown = (twin for twin in twins if twin.problem is None and twin.held is None)
            yield from [twin.definition for twin in shown][:1]


def listing(
    server: str,
    offered: Offered,
    tools_shown: ToolFilter = ToolFilter(),  # noqa: B008 - frozen
    approvals: Approvals = Approvals("allow"),  # noqa: B008 - frozen
) -> Listing:
    """Return `offered` as the listing of `server`."""
    tools = _Names(server, "tool")
    unapproved = _unapproved(offered.tools, approvals)
    held = unapproved if approvals.blocks else {}
    denied = set()
    for position, item in enumerate(offered.tools):
        if tools_shown.permits(text_of(item, "name") or ""):
            tools.add(position, item, schemas.problem(item), held.get(position))
        else:
            denied.add(position)
    prompts = _Names(server, "prompt")
    for position, item in enumerate(offered.lists.get("prompts", ())):
        prompts.add(position, item, None)
    uris = [text_of(item, "uri") for item in offered.lists.get("resources", ())]
    templates = [
        text_of(item, "uriTemplate") for item in offered.lists.get("resourceTemplates", ())
    ]
    nameless = uris.count(None) + templates.count(None)
    return Listing(
        server=server,
        offered=offered,
        tools=tools.table,
        prompts=prompts.table,
        resources=frozenset(uri for uri in uris if uri is not None),
        templates=tuple(
            tuple(_EXPRESSION.split(template)) for template in templates if template is not None
        ),
        template_texts=frozenset(each for each in templates if each is not None),
        problems=tools.problems,
        warnings=(
            *tools.warnings(),
            *prompts.warnings(),
            *([f"resources and templates without a URI: {nameless}"] if nameless else []),
        ),
        filter=tools_shown,
        denied=frozenset(denied),
        approvals=approvals,
        unapproved=unapproved,
        news=tuple(_news(server, offered.tools, unapproved, approvals)),
    )


def _unapproved(tools: Sequence[bytes], approvals: Approvals) -> Mapping[int, Finding]:
    if approvals.mode == "allow" or (approvals.tools is None and not approvals.blocks):
        return {}
    return findings(tools, approvals.tools or {})


_SAID: Mapping[Finding, str] = {
    "changed": "not as they were approved",
    "annotations": "annotated otherwise than approved",
    "new": "not approved yet",
    "unreadable": "not to be read without doubt",
}


def said_of(finding: Finding) -> str:
    """Return in words how a tool differs from what was approved: `it is ...`."""
    return _SAID[finding].replace("they were", "it was")


def _news(
    server: str, tools: Sequence[bytes], unapproved: Mapping[int, Finding], approvals: Approvals
) -> Iterator[str]:
    """Yield a sentence for each way in which tools differ from what was approved."""
    for finding, words in _SAID.items():
        found = (tools[position] for position, each in unapproved.items() if each == finding)
        # What has no name nobody can call; that is told apart.
        names = [shown(name) for tool in found if (name := text_of(tool, "name"))]
        if names:
            hidden = ", and hidden until they are" if approvals.blocks else ""
            yield (
                f"tools {', '.join(names[:EXAMPLES])}{_and_more(names)} are {words}{hidden}: "
                f"`octave approve {server}` shows how they differ"
            )


def refuse_denied(server: str, tools: ToolFilter, params: bytes) -> None:
    """Do nothing unless the params of a call name a tool that nobody is to see.

    Raises:
        ToolNotFound: they do.
    """
    name = None if tools.is_open else text_of(params, "name")
    if name is not None and not tools.permits(name):
        raise ToolNotFound(
            f"tool {shown(name)} of `{server}` is denied",
            hint=f"see `tools` in [servers.{server}] of octave.toml",
        )


def require_approved(entry: Entry) -> None:
    """Do nothing unless the tool is held: not as it was approved, and that blocks it.

    Says nothing of what its definition is now: whoever calls may be a model.

    Raises:
        NotApproved: it is held.
    """
    if entry.held is not None:
        raise NotApproved(
            f"tool {shown(entry.name)} of `{entry.server}` is {said_of(entry.held)}",
            hint=f"octave approve {entry.server}",
            details={"server": entry.server, "tool": entry.name, "finding": entry.held},
        )


def shown(name: str) -> str:
    """Return a name as a warning quotes it: look-alikes and control characters as escapes."""
    text = json.dumps(name)[1:-1]
    return f"`{text}`" if len(text) <= NAME_CHARS else f"`{text[:NAME_CHARS]}...`"


def text_of(text: bytes | None, *path: str) -> str | None:
    """Return the string at the member path of a JSON text; None when there is none."""
    if text is None:
        return None
    try:
        raw = wire.member(text, *path)
        return None if raw is None else wire.string(raw)
    except ValueError:
        return None


def uris_in(answer: bytes) -> Iterator[str]:
    """Yield the URIs that an answer names: of links, and of what it holds.

    In the content of a tool's answer, of a prompt's messages, or of resources.
    """
    if answer.find(b'"uri"', 0, SCANNED_BYTES) < 0:
        return
    result = wire.member(answer, "result") or b"{}"
    blocks = wire.elements(wire.member(result, "content") or b"[]")
    blocks += wire.elements(wire.member(result, "contents") or b"[]")
    for message in wire.elements(wire.member(result, "messages") or b"[]"):
        content = wire.member(message, "content") or b"[]"
        blocks += [content] if content.startswith(b"{") else wire.elements(content)
    for block in blocks:
        uri = text_of(block, "uri") or text_of(block, "resource", "uri")
        if uri is not None and len(uri) <= URI_CHARS:
            yield uri


@dataclass(slots=True)
class _Names:
    """The table of one list while it is built, and what there is to be said about it."""

    server: str
    kind: str
    table: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    _nameless: int = 0
    _told: list[str] = field(default_factory=list)
    _repeated: dict[str, int] = field(default_factory=dict)
    _changed: list[str] = field(default_factory=list)

    def add(
        self, position: int, item: bytes, problem: str | None, held: Finding | None = None
    ) -> None:
        name = text_of(item, "name")
        if not name:
            self._nameless += 1
            self.problems[position] = problem or "it has no usable name"
            return
        key = qualified(self.server, name)
        twins = self.table.get(key, ())
        # A name listed twice is one tool to whoever calls it: the first definition stands.
        if any(twin.name == name for twin in twins):
            self._repeated[name] = self._repeated.get(name, 1) + 1
            self.problems[position] = f"an earlier {self.kind} has its name"
            return
        if twins:
            both = " and ".join(shown(each) for each in (twins[0].name, name))
            self._told.append(f"{self.kind}s {both} get the same name `{key}`: no call of it works")
        elif key != f"{self.server}{SEPARATOR}{name}":
            self._changed.append(f"{shown(name)} as `{key}`")
        if problem is not None:
            self.problems[position] = problem
            self._told.append(f"{self.kind} {shown(name)} is not shown to AI tools: {problem}")
        entry = _entry(self.server, name, key, item, problem)
        self.table[key] = (*twins, entry if held is None else replace(entry, held=held))

    def warnings(self) -> Iterable[str]:
        yield from self._told
        if self._nameless:
            yield f"{self.kind}s without a name, not shown to AI tools: {self._nameless}"
        for name, times in self._repeated.items():
            yield f"{self.kind} {shown(name)} is listed {times} times: the first definition counts"
        if self._changed:
            yield _changes(self.kind, self._changed)


def _changes(kind: str, changed: Sequence[str]) -> str:
    examples = ", ".join(changed[:EXAMPLES])
    return f"AI tools know {kind} {examples}{_and_more(changed)}: they do not take every name"


def _and_more(named: Sequence[str]) -> str:
    return f", and {len(named) - EXAMPLES} more" if len(named) > EXAMPLES else ""


def _entry(server: str, name: str, key: str, item: bytes, problem: str | None) -> Entry:
    name_json = wire.member(item, "name") or b'""'
    if problem is not None:
        return Entry(server, name, name_json, item, problem)
    return Entry(server, name, name_json, wire.splice(item, {("name",): json.dumps(key).encode()}))


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
