"""What happens to servers, and where time comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


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
    exitCode, signal, stderrTail; and `instance` ("session", "modern"), where it is not about the
    process that stands for the server.
    """

    at: str
    """RFC 3339, UTC."""
    server: str
    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
