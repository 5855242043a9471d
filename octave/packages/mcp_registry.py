"""A registry of MCP servers over HTTP: the official one, or a private one with the same API.

Speaks the three reads of API v0.1 (https://registry.modelcontextprotocol.io/docs). What it says is
kept for an hour and used for longer when it cannot be reached. Nothing it says is believed: an
entry of the wrong shape is left out, members that are Octave's own are ignored.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from octave.errors import Ambiguous, RegistryUnreachable
from octave.packages.entries import Entry
from octave.packages.foreign_entries import foreign_entry, item_name, read_item
from octave.packages.registry_cache import FORMAT, Cache, Kept
from octave.packages.registry_http import Limits, Link

LIFETIME_S = 3600.0
"""The official registry asks its clients not to come more often than about hourly."""
_COMPLETE_S = 7 * 24 * 3600.0
"""After that long a whole list is fetched anew: what merely vanished is told by no change."""
_PAGE_SERVERS = "100"
"""The most the official registry gives at once."""
_CLOCK_S = 24 * 3600.0
"""A registry whose times lie further ahead than this is not asked for changes after them."""
_LIST = "list"


class _Metadata(msgspec.Struct, rename="camel", frozen=True):
    next_cursor: str | None = None


class _Page(msgspec.Struct, frozen=True):
    servers: list[msgspec.Raw]
    metadata: _Metadata | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an update of a registry's list found; names sorted."""

    servers: int
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: int
    """Entries that are of another shape and were left out."""


@dataclass(frozen=True, slots=True)
class Access:
    """How registries are asked."""

    cache: Path
    """The folder for what all of them have said."""
    warn: Callable[[str], None] = lambda _: None
    """Called with a sentence when what was kept has to do."""
    progress: Callable[[str], None] = lambda _: None
    """Called with a short sentence when one is asked, and while a long list is read."""
    offline: bool = False
    """Never open the network."""
    limits: Limits = field(default_factory=Limits)
    now: Callable[[], float] = time.time
    """The wall clock, Unix time."""


class McpRegistry:
    """The registry that the user calls `name`, asked over HTTP or from what is kept of it."""

    def __init__(
        self,
        name: str,
        url: str,
        access: Access,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._access = access
        self._headers = headers
        self._cache = Cache(access.cache, self.url)
        self._told: dict[str, tuple[Entry, ...]] = {}

    def search(self, text: str) -> tuple[Entry, ...]:
        """Return the newest version of each server with `text` in its name or description.

        All servers of the registry when its whole list is kept, see `update`.

        Raises:
            RegistryUnreachable: it cannot be asked, and nothing is kept.
        """
        question = _LIST if self._cache.read(_LIST) else f"search:{text.lower()}"
        if question not in self._told:
            self._told[question] = self._entries(self._kept(question).items)
        return self._told[question]

    def called(self, last: str) -> tuple[Entry, ...]:
        """Return the servers whose full name ends in `/LAST`.

        Raises:
            Ambiguous: more names have it in them than were asked for, so there may be others.
            RegistryUnreachable: as `search`.
        """
        found = tuple(one for one in self.search(last) if one.name.rpartition("/")[2] == last)
        kept = None if self._cache.read(_LIST) else self._cache.read(f"search:{last.lower()}")
        if kept is not None and kept.is_cut:
            raise Ambiguous(
                f"`{last}` is a part of more names than the registry `{self.name}` was asked for",
                hint=f"give the full name, or run `octave registry update {self.name}` once",
                details={"registry": self.name},
            )
        return found

    def get(self, name: str) -> Entry | None:
        """Return the newest version of the server of that full name; None when there is none.

        Raises:
            RegistryUnreachable: it cannot be asked, and nothing is kept.
        """
        question = f"server:{name}"
        if question not in self._told:
            self._told[question] = self._entries(self._kept_one(question, name))
        return next((entry for entry in self._told[question] if entry.name == name), None)

    def update(self) -> Change:
        """Fetch the whole list, or what changed in it, and tell what is different.

        From then on searches need no network until the list is an hour old.

        Raises:
            RegistryUnreachable: it cannot be asked; what is kept stays.
        """
        before = self._cache.read(_LIST)
        old = _by_name(before.items if before else ())
        after = self._fetch(_LIST, before)
        new = _by_name(after.items)
        self._told.clear()
        return Change(
            servers=len(new),
            added=tuple(sorted(new.keys() - old.keys())),
            changed=tuple(
                sorted(name for name in new.keys() & old.keys() if _differs(old[name], new[name]))
            ),
            removed=tuple(sorted(old.keys() - new.keys())),
            unreadable=len(after.items) - len(self._entries(after.items)),
        )

    def check(self) -> None:
        """Do nothing when it answers as a registry does.

        Raises:
            RegistryUnreachable: it does not.
        """
        with self._link() as link:
            self._page(link, {"limit": "1"})

    def kept(self) -> tuple[int | None, float | None]:
        """Return how many servers the kept list has, and its age in seconds; None without one."""
        found = self._cache.read(_LIST)
        return (len(found.items), found.age_s(self._access.now())) if found else (None, None)

    def knows(self, name: str) -> bool:
        """Whether what is kept tells of the server of that full name; asks nobody."""
        last = name.rpartition("/")[2].lower()
        found = map(self._cache.read, (f"server:{name}", f"search:{last}", _LIST))
        return any(item_name(raw) == name for kept in found if kept for raw in kept.items)

    def forget(self) -> None:
        """Remove all that is kept of it."""
        self._cache.remove()

    def _link(self) -> Link:
        return Link(self.name, self.url, self._access.limits, self._headers)

    def _entries(self, items: tuple[msgspec.Raw, ...]) -> tuple[Entry, ...]:
        found = (foreign_entry(item, self.name, self.url) for item in items)
        return tuple(entry for entry in found if entry is not None)

    def _kept(self, question: str) -> Kept:
        """Return what is kept, fetched anew when it is old, or old when it cannot be fetched."""
        kept = self._cache.read(question)
        age_s = kept.age_s(self._access.now()) if kept is not None else 0.0
        if kept is not None and (self._access.offline or age_s < LIFETIME_S):
            if age_s >= LIFETIME_S:
                self._access.warn(f"what the registry `{self.name}` said {_ago(age_s)} is used")
            return kept
        if self._access.offline:
            raise RegistryUnreachable(
                f"nothing is kept of what the registry `{self.name}` says about this",
                hint=f"without --offline: `octave registry update {self.name}`",
                details={"registry": self.name},
            )
        try:
            return self._fetch(question, kept)
        except RegistryUnreachable as error:
            if kept is None:
                raise
            self._access.warn(f"{error.message}; what it said {_ago(age_s)} is used")
            return kept

    def _kept_one(self, question: str, name: str) -> tuple[msgspec.Raw, ...]:
        try:
            return self._kept(question).items
        except RegistryUnreachable as error:
            listed = self._cache.read(_LIST)
            found = [raw for raw in (listed.items if listed else ()) if item_name(raw) == name]
            if not found:
                raise
            if not self._access.offline:
                self._access.warn(f"{error.message}; what its list said is used")
            return tuple(found)

    def _fetch(self, question: str, kept: Kept | None) -> Kept:
        now = self._access.now()
        kind, _, text = question.partition(":")
        goes_on = kept is not None and kept.since and now - kept.complete_at < _COMPLETE_S
        is_cut = False
        if kind == "server":
            items = self._fetch_one(text)
        else:
            items, is_cut = self._fetch_list(text, kept if goes_on else None)
        complete_at = kept.complete_at if kept is not None and goes_on else now
        since = "" if kind == "server" else _latest_update(items.values(), now)
        found = Kept(
            format=FORMAT,
            url=self.url,
            question=question,
            fetched_at=now,
            complete_at=complete_at,
            since=since,
            items=tuple(items[name] for name in sorted(items)),
            is_cut=is_cut or bool(goes_on and kept is not None and kept.is_cut),
        )
        self._cache.write(found)
        return found

    def _fetch_one(self, name: str) -> dict[str, msgspec.Raw]:
        self._access.progress(f"asking `{self.name}`")
        path = f"/v0.1/servers/{quote(name, safe='')}/versions/latest"
        with self._link() as link:
            body = link.get(path, {"include_deleted": "true"})
            if body is None:
                return {}
            item = msgspec.Raw(body)
            told = item_name(item)
            if told != name:
                raise link.trouble(f"was asked for `{name}` and answers something else")
        return {name: item}

    def _fetch_list(self, text: str, kept: Kept | None) -> tuple[dict[str, msgspec.Raw], bool]:
        """Return the newest item of each name, and whether there are more of them.

        With `kept`, only what changed is asked for.
        """
        params = {"version": "latest", "limit": _PAGE_SERVERS}
        params |= {"search": text} if text else {}
        params |= {"updated_since": kept.since} if kept else {}
        found = _by_name(kept.items) if kept else {}
        fresh: dict[str, msgspec.Raw] = {}
        is_cut = False
        with self._link() as link:
            for raw in self._items(link, params, is_whole=not text):
                if raw is None:
                    is_cut = True
                    continue
                item = read_item(raw)
                if item is None:
                    # Kept to be counted; it has no name of its own to stand under.
                    fresh[f"?{len(fresh)}"] = raw
                elif item.name not in fresh or item.is_latest:
                    fresh[item.name] = raw
        found |= fresh
        return {name: raw for name, raw in found.items() if not _is_deleted(raw)}, is_cut

    def _items(
        self, link: Link, params: Mapping[str, str], *, is_whole: bool
    ) -> Iterator[msgspec.Raw | None]:
        """Yield the items of all pages; None at the end of a search that goes on."""
        most = self._access.limits.pages if is_whole else self._access.limits.search_pages
        self._access.progress(f"asking `{self.name}`")
        cursor, seen = None, set[str]()
        left_bytes, count = self._access.limits.listing_bytes, 0
        for _ in range(most):
            page = self._page(link, {**params, "cursor": cursor} if cursor else params)
            left_bytes -= sum(len(bytes(raw)) for raw in page.servers)
            if left_bytes < 0:
                raise link.trouble("has a list that is too large")
            yield from page.servers
            count += len(page.servers)
            cursor = page.metadata.next_cursor if page.metadata else None
            if not cursor:
                return
            if cursor in seen:
                raise link.trouble("has a list without an end")
            seen.add(cursor)
            self._access.progress(f"reading `{self.name}`: {count} servers")
        if is_whole:
            raise link.trouble(f"has a list of more than {most} pages")
        yield None

    def _page(self, link: Link, params: Mapping[str, str]) -> _Page:
        body = link.get("/v0.1/servers", params)
        if body is None:
            raise link.trouble("has no `/v0.1/servers`: it is no registry of MCP servers")
        try:
            return msgspec.json.decode(body, type=_Page)
        except (ValueError, RecursionError) as error:
            raise link.trouble("does not answer with a list of servers") from error


def _by_name(items: tuple[msgspec.Raw, ...]) -> dict[str, msgspec.Raw]:
    return {item_name(raw) or f"?{number}": raw for number, raw in enumerate(items)}


def _is_deleted(raw: msgspec.Raw) -> bool:
    item = read_item(raw)
    return item is not None and item.status == "deleted"


def _latest_update(items: Iterable[msgspec.Raw], now: float) -> str:
    """Return the latest `updatedAt` as the registry wrote it; empty when there is none."""
    latest, text = 0.0, ""
    for raw in items:
        item = read_item(raw)
        try:
            moment = datetime.fromisoformat(item.updated_at if item else "")
        except ValueError:
            continue
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        # One entry from the far future would hide all changes until then.
        if latest < at < now + _CLOCK_S and item:
            latest, text = at, item.updated_at
    return text


def _differs(one: msgspec.Raw, other: msgspec.Raw) -> bool:
    return bytes(one) != bytes(other) and msgspec.json.decode(one) != msgspec.json.decode(other)


def _ago(age_s: float) -> str:
    if age_s == float("inf"):
        return "at a time that is still to come"
    hours = age_s / 3600
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} days ago"
