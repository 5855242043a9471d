"""What happens to servers, who hears of it, and where time comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octave.runtime.wire import Message


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from, in seconds."""

    monotonic_s: Callable[[], float]
    wall_s: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a server.

    `kind` is the state it has entered, as FORMATS names them, `died`, which comes before the state
    that follows, or `warning`, which changes none. `details` hold JSON values: pid, message,
    exitCode, signal, stderrTail.
    """

    at: str
    """RFC 3339, UTC."""
    server: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of a server. Called in the event loop; must neither block nor raise."""

    event: Callable[[Event], None]
    notification: Callable[[str, Message], None]
