"""A server as its processes share it, and the part that each of them plays.

Values: who acts on them is `instance` and `server`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.runtime.events import Clock, Event
from octave.runtime.handshake import Era, Opening
from octave.runtime.logs import ServerLog, stamp
from octave.runtime.metrics import CallFigures
from octave.runtime.questions import Caller
from octave.runtime.wire import Message


@dataclass(frozen=True, slots=True)
class Role:
    """Which process of a server this is, and whom it serves."""

    era: Era | None = None
    """None: the one that every server has, of whichever era it opens in."""
    owner: Caller | None = None
    """The one session it serves; None: all."""
    opening: Opening | None = None
    """As whom it is opened for its owner, in the handshake era."""

    @property
    def is_first(self) -> bool:
        """Whether it stands for the server as a whole."""
        return self.era is None and self.owner is None

    @property
    def title(self) -> str | None:
        """What tells it from the first one in events and logs; None for that one."""
        if self.owner is not None:
            return "session"
        return self.era


class Speaker(Protocol):
    """A process that says something by itself, as far as its hearers look at it."""

    @property
    def name(self) -> str:
        """Of its server."""

    @property
    def role(self) -> Role:
        """Whom it serves."""

    @property
    def era(self) -> Era:
        """What it speaks."""

    @property
    def is_retired(self) -> bool:
        """Whether another process has taken over from it."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of a server. Called in the event loop; must neither block nor raise."""

    event: Callable[[Event], None]
    notification: Callable[["Speaker", Message], None]
    learned: Callable[[str], None]
    """Takes the name of a server of which a process has learned something: see `learned`."""
    moved: Callable[[str, object], None] = lambda _, __: None
    """Takes the name of a server and the session that another version of it serves from now on."""


@dataclass(slots=True, eq=False)
class Subject:
    """What all processes of a server have in common."""

    spec: LaunchSpec
    """May be replaced at any time and counts from the next start on."""
    log: ServerLog
    listeners: Listeners
    clock: Clock
    figures: CallFigures = field(default_factory=CallFigures)
    offered: Offered | None = None
    """What the gateway last learned of it."""
    asks: bool = False
    """It was seen to ask its client something."""
    opened: set[Era] = field(default_factory=set)
    """The eras in which a process was opened since it was last ordered anew."""
    open: list[Era] = field(default_factory=list)
    """The eras of the conversations that are open now."""

    title: Literal["next", "previous"] | None = None
    """What tells its processes from those of the version that serves, in events and logs."""

    def tell(self, kind: str, details: Mapping[str, Any], title: str | None) -> None:
        """Write what happened to the process of that title into the log, and tell who listens."""
        title = title or self.title
        message, shown = details.get("message"), f"{kind} ({title})" if title else kind
        self.log.event(f"{shown}: {message}" if message else shown)
        marked = {**details, "instance": title} if title else details
        self.listeners.event(Event(stamp(self.clock.wall_s()), self.spec.name, kind, marked))

    def learned(self, **found: Any) -> None:
        """Take what a process found out, as fields of `Offered`, and tell who keeps it."""
        if self.offered is not None:
            self.offered = replace(self.offered, **found)
        self.listeners.learned(self.spec.name)
