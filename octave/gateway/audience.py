"""Who hears what a server says by itself: list changes, log lines, updated resources.

Sessions of the handshake era hear it as it comes, modern ones only under the subscriptions they
opened. What a process says that belongs to one session is for that one. Lists are told of only
after the catalogue has them, so that whoever asks at once is given the new ones.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import anyio

from octave.gateway import bridge
from octave.gateway.listing import text_of
from octave.runtime import wire
from octave.runtime.subject import Speaker

LIST_CHANGES: Mapping[str, frozenset[str]] = {
    "notifications/tools/list_changed": frozenset({"tools"}),
    "notifications/prompts/list_changed": frozenset({"prompts"}),
    "notifications/resources/list_changed": frozenset({"resources", "resourceTemplates"}),
}
"""The notification, and the lists (keys of `LISTS`) it is about (MCP 2025-11-25)."""
UPDATED = "notifications/resources/updated"
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Log levels, least severe first (MCP 2025-11-25, logging)."""

_UNHEARD = frozenset(
    {
        # Of one request.
        "notifications/progress",
        "notifications/cancelled",
    }
)


@dataclass(slots=True)
class Scope:
    """Which servers a face shows. Equal ones show the same."""

    servers: tuple[str, ...] | None
    """In the order of their lists; None: all there are."""
    single: bool = False
    """The one server as it is, nothing renamed, nothing added."""
    profile: str | None = None
    """Whose servers these are, before `also`: they change with it, see `Audience.reloaded`."""
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, profile: str, servers: Iterable[str], also: Iterable[str] = ()) -> "Scope":
        """Return the scope of a profile that has these servers now."""
        scope = cls((), profile=profile, also=tuple(also))
        scope.become(servers)
        return scope

    def become(self, servers: Iterable[str]) -> None:
        """Show these servers of the profile from now on."""
        self.servers = tuple(dict.fromkeys((*servers, *self.also)))

    def includes(self, server: str) -> bool:
        """Whether the face shows the server."""
        return self.servers is None or server in self.servers


class Ear(Protocol):
    """What a session hears with. Nothing here may block or raise."""

    def changed(self, line: bytes) -> None:
        """Take a line that says which list changed, in the words of the handshake era."""

    def heard(self, speaker: Speaker, message: wire.Message) -> None:
        """Take what a server of the scope said of itself: log lines, and what nobody knows."""

    def updated(self, line: bytes) -> None:
        """Take a line about a resource whose updates the client asked for."""


@dataclass(slots=True, eq=False)
class Member:
    """One session that listens."""

    scope: Scope
    ear: Ear
    session: object
    """Whose processes' words are for it alone."""
    level: str | None = None
    """The least severe log level wanted; None: it never said."""
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    """Server and URI of each resource whose updates the client asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Listen:
    """One subscription of a modern client. `ended` is set when there is nothing more to hear."""

    scope: Scope
    identifier: bytes
    """Of the request that opened it, raw: every event carries it."""
    lists: frozenset[str]
    """The notifications (keys of `LIST_CHANGES`) that were asked for."""
    resources: frozenset[tuple[str, str]]
    """Server and URI."""
    send: Callable[[bytes], None]
    session: object = None
    """Whose it is."""
    ended: anyio.Event = field(default_factory=anyio.Event)


class Audience:
    """The sessions that are open now, and the subscriptions."""

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}
        self._listens: dict[Listen, None] = {}

    def join(self, member: Member) -> None:
        """Let the session hear what its scope includes, until it leaves."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """Forget the session; nothing happens when it had left."""
        self._members.pop(member, None)

    def listen(self, listen: Listen) -> None:
        """Let a subscription hear what it asks for, until `end`."""
        self._listens[listen] = None

    def end(self, listen: Listen) -> None:
        """Forget a subscription."""
        self._listens.pop(listen, None)

    def most_verbose(self, server: str) -> str | None:
        """Return the least severe level that any session wants of the server; None for none."""
        wanted = [
            LEVELS.index(member.level)
            for member in self._members
            if member.level is not None and member.scope.includes(server)
        ]
        return LEVELS[min(wanted)] if wanted else None

    def lists_changed(
        self, server: str, lists: Iterable[str], said: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        """Tell the sessions that show the server which of its lists are new.

        `said` holds lines by method, where the server said so itself.
        """
        changed = frozenset(lists)
        for method, kinds in LIST_CHANGES.items():
            if kinds & changed:
                line = said.get(method) or wire.notification(method)
                self._tell_change(method, line, lambda scope: scope.includes(server))

    def moved(self, server: str, session: object) -> None:
        """Tell the session that every list of the server may be new: another version serves it."""
        for method in LIST_CHANGES:
            line = wire.notification(method)
            self._tell_change(method, line, lambda scope: scope.includes(server), session)

    def reloaded(
        self, touched: Mapping[str, Collection[str]], profiles: Mapping[str, Iterable[str]]
    ) -> None:
        """Tell whom it concerns that every list may be new: servers came, went or were replaced.

        `touched` as `Supervisor.reload` returns it; `profiles` are all there are now. Where that
        leaves nothing to be listened to, the subscriptions end.
        """
        names = frozenset(name for each in touched.values() for name in each)
        scopes = [member.scope for member in self._members]
        scopes += [listen.scope for listen in self._listens]
        concerned: set[int] = set()
        for scope in {id(scope): scope for scope in scopes}.values():
            shown = scope.servers
            if scope.profile is not None:
                scope.become(profiles.get(scope.profile, ()))
            is_hit = bool(names) and (shown is None or not names.isdisjoint(shown))
            if is_hit or scope.servers != shown:
                concerned.add(id(scope))
        for method in LIST_CHANGES:
            line = wire.notification(method)
            self._tell_change(method, line, lambda scope: id(scope) in concerned)
        for listen in self._listens:
            scope = listen.scope
            is_left = scope.profile is not None and scope.profile not in profiles
            if is_left or (scope.single and set(scope.servers or ()) & set(touched["removed"])):
                listen.ended.set()

    def heard(self, speaker: Speaker, message: wire.Message) -> None:
        """Pass on a notification that is not about the lists, nor about one request."""
        if message.method in _UNHEARD:
            return
        if message.method == UPDATED:
            self._tell_update(speaker, message)
            return
        for member in self._of(speaker):
            if member.scope.includes(speaker.name):
                member.ear.heard(speaker, message)
        if speaker.era == "modern" and bridge.is_tagged(message):
            for listen in list(self._listens):
                if listen.scope.single and self._hears(listen, speaker):
                    listen.send(bridge.tagged(message, listen.identifier))

    def _tell_change(
        self,
        method: str,
        line: bytes,
        is_shown: Callable[[Scope], bool],
        session: object | None = None,
    ) -> None:
        """Tell those to whom it is shown; of them but one `session`, where one is given."""
        # A session that overflows leaves while it is told.
        for member in list(self._members):
            if is_shown(member.scope) and session in (None, member.session):
                member.ear.changed(line)
        for listen in list(self._listens):
            is_asked = method in listen.lists and session in (None, listen.session)
            if is_asked and is_shown(listen.scope):
                listen.send(bridge.tagged(wire.decode(line), listen.identifier))

    def _tell_update(self, speaker: Speaker, message: wire.Message) -> None:
        uri = text_of(message.params, "uri") or ""
        plain = bridge.untagged(message) if speaker.era == "modern" else message.line
        for member in self._of(speaker):
            is_shown = member.scope.includes(speaker.name)
            if is_shown and _is_wanted(member.subscriptions, speaker.name, uri):
                member.ear.updated(plain)
        for listen in list(self._listens):
            if self._hears(listen, speaker) and _is_wanted(listen.resources, speaker.name, uri):
                listen.send(bridge.tagged(message, listen.identifier))

    def _hears(self, listen: Listen, speaker: Speaker) -> bool:
        owner = speaker.role.owner
        is_told = owner is None or owner.session is listen.session
        return is_told and listen.scope.includes(speaker.name)

    def _of(self, speaker: Speaker) -> list[Member]:
        owner = speaker.role.owner
        if owner is None:
            return list(self._members)
        return [member for member in self._members if member.session is owner.session]


def _is_wanted(subscriptions: Collection[tuple[str, str]], server: str, uri: str) -> bool:
    """Whether one of them is of that resource, or of one that it is a part of.

    "This might be a sub-resource of the one that the client actually subscribed to" (MCP
    2025-11-25, schema, `ResourceUpdatedNotification`).
    """
    if (server, uri) in subscriptions:
        return True
    return any(name == server and _is_below(uri, whole) for name, whole in subscriptions)


def _is_below(uri: str, whole: str) -> bool:
    return uri.startswith(whole) and (whole.endswith("/") or uri[len(whole)] in "/?#")


def level_named(text: bytes | None) -> str | None:
    """Return the log level that the params of `logging/setLevel` name; None for no known one."""
    level = text_of(text, "level")
    return level if level in LEVELS else None


def is_at_least(level: str, least: str) -> bool:
    """Whether a log line of `level` is severe enough; one of no known level always is."""
    return level not in LEVELS or LEVELS.index(level) >= LEVELS.index(least)
