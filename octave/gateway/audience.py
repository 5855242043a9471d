"""Who hears what a server says by itself: list changes, log lines, updated resources.

A session joins with its scope and a function that takes lines. Lists are told of only after the
catalogue has them, so that whoever asks at once is given the new ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from octave.gateway.listing import text_of
from octave.runtime import wire

LIST_CHANGES: Mapping[str, frozenset[str]] = {
    "notifications/tools/list_changed": frozenset({"tools"}),
    "notifications/prompts/list_changed": frozenset({"prompts"}),
    "notifications/resources/list_changed": frozenset({"resources", "resourceTemplates"}),
}
"""The notification, and the lists (keys of `LISTS`) it is about (MCP 2025-11-25)."""
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Log levels, least severe first (MCP 2025-11-25, logging)."""

_OF_ONE_REQUEST = frozenset({"notifications/progress", "notifications/cancelled"})


@dataclass(frozen=True, slots=True)
class Scope:
    """Which servers a face shows."""

    servers: tuple[str, ...] | None
    """In the order of their lists; None: all there are."""
    single: bool = False
    """The one server as it is, nothing renamed, nothing added."""

    def includes(self, server: str) -> bool:
        """Whether the face shows the server."""
        return self.servers is None or server in self.servers


@dataclass(slots=True, eq=False)
class Member:
    """One session that listens."""

    scope: Scope
    deliver: Callable[[bytes], None]
    """Takes a line without newline; must neither block nor raise."""
    listening: bool = False
    """Set once the client has opened its conversation; before that it hears nothing."""
    level: str = "debug"
    """At an aggregated face: the least severe log level wanted."""
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    """Server and URI of each resource whose updates the client asked for."""


class Audience:
    """The sessions that are open now."""

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}

    def join(self, member: Member) -> None:
        """Let the session hear what its scope includes, until it leaves."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """Forget the session; nothing happens when it had left."""
        self._members.pop(member, None)

    def has_subscriber(self, server: str, uri: str) -> bool:
        """Whether any session wants to know of updates of the resource."""
        return any((server, uri) in member.subscriptions for member in self._members)

    def lists_changed(self, server: str, lists: Iterable[str]) -> None:
        """Tell the sessions that show the server which of its lists are new."""
        changed = frozenset(lists)
        for method, kinds in LIST_CHANGES.items():
            if kinds & changed:
                self._tell(wire.notification(method), lambda member: member.scope.includes(server))

    def servers_changed(self) -> None:
        """Tell aggregated sessions, after servers came or went, that every list may be new."""
        for method in LIST_CHANGES:
            self._tell(wire.notification(method), lambda member: not member.scope.single)

    def heard(self, server: str, message: wire.Message) -> None:
        """Pass on a notification that is not about the lists, nor about one request."""
        if message.method in _OF_ONE_REQUEST:
            return
        if message.method == "notifications/resources/updated":
            key = (server, text_of(message.params, "uri") or "")
            self._tell(message.line, lambda member: key in member.subscriptions)
        elif message.method == "notifications/message":
            level = text_of(message.params, "level") or ""
            self._tell(message.line, lambda member: _wants_log(member, server, level))
        else:
            self._tell(message.line, lambda member: member.scope == Scope((server,), single=True))

    def _tell(self, line: bytes, wants: Callable[[Member], bool]) -> None:
        # A session that overflows leaves while it is told.
        for member in list(self._members):
            if member.listening and wants(member):
                member.deliver(line)


def level_named(text: bytes | None) -> str | None:
    """Return the log level that the params of `logging/setLevel` name; None for no known one."""
    level = text_of(text, "level")
    return level if level in LEVELS else None


def _wants_log(member: Member, server: str, level: str) -> bool:
    if not member.scope.includes(server):
        return False
    if member.scope.single or level not in LEVELS:
        return True
    return LEVELS.index(level) >= LEVELS.index(member.level)
