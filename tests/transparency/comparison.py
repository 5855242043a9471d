"""Says where two runs of a scene differ.

All that an end received must be the same bytes, in the same order, but for what is declared here:

- towards the server the ids of requests and the progress tokens are Octave's own, one to one;
- the ids and tokens of the server's questions may be, towards the client, but not in its answers;
- of Octave's own, and not compared, are the opening, the lists, subscriptions and pings that a
  server receives, the log level that a further process of it is told, and its pings that no client
  need see;
- a cancellation of what is not open goes no further, any other may come after later requests;
- what Octave says in its own words (`OWN_WORDS`) has the same members, and its own time.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from octave.runtime import wire
from tests.transparency.scripts import ACKNOWLEDGED, LIST_CHANGED, PREFIX, UPDATED

OWN_METHODS = frozenset(
    {
        "initialize", "notifications/initialized", "server/discover", "subscriptions/listen",
        "ping", "tools/list", "prompts/list", "resources/list", "resources/templates/list",
    }
)  # fmt: skip
"""What Octave itself asks and tells servers, and answers for them."""
OWN_WORDS = frozenset({ACKNOWLEDGED, *LIST_CHANGED})
OWN_TIME = OWN_WORDS | {UPDATED}
"""Notifications that follow no request: their place among the answers is not compared."""
BRIDGED = frozenset({"params", "result", "error", "_meta", "inputRequests", "inputResponses"})
"""Objects in which the bridge adds and removes members: of these each member is compared."""

BRIDGE_SAYS = frozenset({"resources/subscribe", "resources/unsubscribe", "logging/setLevel"})
"""What the bridge tells a legacy server in its own words."""
BRIDGE_CHOOSES = frozenset(
    {
        "result.requestState",
        "result.ttlMs",
        "result.cacheScope",
        f"result._meta.{PREFIX}serverInfo",
    }
)
"""What a modern client gets of the bridge itself."""
SHOWN_BEFORE_CHARS = 200
SHOWN_CHARS = 600
"""Of lines that differ."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run: what each end received, in order."""

    client: list[bytes]
    server: list[bytes]


def assert_same(direct: Record, proxied: Record) -> None:
    """Both ends of both runs received the same bytes."""
    _assert_none(
        [
            *_unlike("client", as_client(direct.client), as_client(proxied.client)),
            *_unlike("client, by itself", own_time(direct.client), own_time(proxied.client)),
            *_unlike("server", as_server(direct.server), as_server(proxied.server)),
        ]
    )


def _assert_none(found: list[str]) -> None:
    if found:
        raise AssertionError("\n".join(("the conversations differ", *found)))


def _unlike(end: str, expected: Sequence[object], received: Sequence[object]) -> list[str]:
    longer = max(len(expected), len(received))
    pairs = zip(_padded(expected, longer), _padded(received, longer), strict=True)
    found = []
    for number, (one, other) in enumerate(pairs):
        if one != other:
            wanted, got = _text(one), _text(other)
            same = next((n for n, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), 0)
            shown = slice(max(0, same - SHOWN_BEFORE_CHARS), same + SHOWN_CHARS)
            found.append(
                f"{end}, line {number}, from character {shown.start}\n"
                f"  expected {wanted[shown]}\n  received {got[shown]}"
            )
    return found


def _text(line: object) -> str:
    return line.decode(errors="replace") if isinstance(line, bytes) else str(line)


def _padded(lines: Sequence[object], length: int) -> list[object]:
    return [*lines, *[None] * (length - len(lines))]


def as_client(lines: Iterable[bytes]) -> list[bytes]:
    """What the client heard in its order, ids and tokens of the server's questions by number."""
    found: list[bytes] = []
    questions: dict[bytes, bytes] = {}
    for line in lines:
        message = wire.decode(line)
        if message.method == "ping" or message.method in OWN_TIME:
            continue
        if message.is_request:
            number = questions[message.id or b""] = b'"question %d"' % len(questions)
            changes: dict[wire.Path, bytes] = {("id",): number}
            if wire.member(line, "params", "_meta", "progressToken") is not None:
                changes["params", "_meta", "progressToken"] = number
            line = wire.splice(line, changes)
        elif message.method == "notifications/cancelled":
            asked = member(line, "params", "requestId")
            line = wire.splice(line, {("params", "requestId"): questions.get(asked, asked)})
        found.append(line)
    return found


def own_time(lines: Iterable[bytes]) -> list[object]:
    """What the client heard of changes, sorted."""
    found: dict[str, object] = {}
    for line in lines:
        method = wire.decode(line).method
        if method in OWN_TIME:
            shown = sorted(parts(line).items()) if method in OWN_WORDS else line
            found[repr(shown)] = shown
    return [found[key] for key in sorted(found)]


def as_server(lines: Iterable[bytes], own: Collection[str] = OWN_METHODS) -> list[bytes]:
    """What the server received in its order, with the ids and tokens of requests by number."""
    found: list[tuple[float, bytes]] = []
    places: dict[bytes, int] = {}
    next_place = 0
    for line in lines:
        message = wire.decode(line)
        if message.method in own or _tells_a_level(line, message):
            # An id may be used anew, by the next process.
            places.pop(message.id or b"", None)
            continue
        changes: dict[wire.Path, bytes] = {}
        if message.method == "notifications/cancelled":
            cancelled = places.get(member(line, "params", "requestId"))
            if cancelled is not None:
                changes["params", "requestId"] = _numbered(cancelled)
                found.append((cancelled + 0.5, wire.splice(line, changes)))
            continue
        if message.is_request:
            places[message.id or b""] = next_place
            changes["id",] = _numbered(next_place)
            if wire.member(line, "params", "_meta", "progressToken") is not None:
                changes["params", "_meta", "progressToken"] = _numbered(next_place)
        found.append((next_place, wire.splice(line, changes)))
        next_place += 1
    return [line for _, line in sorted(found, key=lambda each: each[0])]


def _tells_a_level(line: bytes, message: wire.Message) -> bool:
    """Whether it is Octave who sets a log level: no client writes it as barely."""
    level = b'{"level":%b}' % member(line, "params", "level")
    return line == wire.request(message.id or b"", "logging/setLevel", level)


def _numbered(place: int) -> bytes:
    return b'"request %d"' % place


# Across eras.


def assert_bridged(own: Record, other: Record, bridged: Record) -> None:
    """Each end sees, member by member, what it would see of a partner of its own era.

    `own` is a direct run in the client's era, `other` one in the server's.
    """
    said = OWN_METHODS | BRIDGE_SAYS
    hears, heard = unopened(own.client), unopened(bridged.client)
    expected, received = (
        # The last request may carry what the client said of later ones.
        [line for line in as_server(each.server, said) if b'"fence"' not in line]
        for each in (other, bridged)
    )
    _assert_none(
        [
            *_unlike("client", _bridged(as_client(hears)), _bridged(as_client(heard))),
            *_unlike("client, by itself", _changes(own.client), _changes(bridged.client)),
            *_unlike("server", _bridged(expected), _bridged(received)),
        ]
    )


def unopened(lines: Iterable[bytes]) -> list[bytes]:
    """Without the answer to `initialize`, which a face gives that is not one server of the era."""
    return [line for line in lines if wire.decode(line).id != b'"open"']


def _changes(lines: Iterable[bytes]) -> list[str]:
    changes = [line for line in lines if wire.decode(line).method in OWN_TIME]
    return sorted({str(shown) for shown in _bridged(changes)})


def _bridged(lines: Iterable[bytes]) -> list[object]:
    return [
        sorted((path, value) for path, value in parts(line).items() if path not in BRIDGE_CHOOSES)
        for line in lines
    ]


def parts(line: bytes) -> dict[str, bytes]:
    """The raw members of a message, those of `BRIDGED` objects each by itself, by path.

    The keys of input requests are the asker's choice: they are numbered.
    """
    found: dict[str, bytes] = {}
    waiting = [("", line)]
    while waiting:
        place, value = waiting.pop()
        is_numbered = place.endswith(("inputRequests.", "inputResponses."))
        for number, (key, inner) in enumerate(members(value).items()):
            path = f"{place}#{number}" if is_numbered else f"{place}{key}"
            if (key in BRIDGED and path.count(".") < 2) or place.endswith("inputRequests."):
                waiting.append((f"{path}.", inner))
            else:
                found[path] = inner
    return found


def member(text: bytes, *path: str) -> bytes:
    """The raw JSON at the path, empty where there is none."""
    return wire.member(text, *path) or b""


def members(text: bytes) -> dict[str, bytes]:
    """The raw members of an object; none of what is something else."""
    if not text.startswith(b"{"):
        return {}
    return {key: member(text, key) for key in json.loads(text, parse_int=str)}
