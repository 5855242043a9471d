"""What a server asks its client, and which of those who use it is meant.

A legacy server's request names no call. It goes to the session that the process belongs to, or to
the only one that has a request in flight; where that cannot be told it is refused, never guessed.
(MCP 2025-11-25: sampling, elicitation, roots; `ping` is not among these.)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from octave.runtime import wire
from octave.runtime.wire import Message

ROOTS = "roots/list"
OPEN_LIMIT = 256
"""Questions of one process that wait for an answer; more come of a server gone wrong."""


def _ignore(_: object) -> None:
    """Nobody wants to know."""


@dataclass(slots=True, eq=False)
class Question:
    """One request of a server to its client, open until `answer`."""

    message: Message
    """As the server wrote it, under its own id."""
    answer: Callable[[bytes], None]
    """Takes what the client says, as the line of an answer under whichever id; only once."""
    send: Callable[[bytes], None]
    """Takes a notification about it, as a line for the server."""
    on_withdrawn: Callable[[Message | None], None] = _ignore
    """Called when the server no longer wants to know, with how it said so, or is gone."""

    def refuse(self, code: int, text: str) -> None:
        """Answer with an error of Octave's own."""
        self.answer(wire.error(None, code, text))


class Caller(msgspec.Struct, frozen=True, eq=False):
    """Whoever has sent a request, as far as the server may have something to say to him."""

    session: object | None = None
    """Whose request it is; None: of nobody who could be asked."""
    on_message: Callable[[bytes], None] = _ignore
    """Takes lines about the request: its progress."""
    on_question: Callable[[Question], None] | None = None
    """None: he answers no questions."""
    cancellation: Callable[[], Message | None] = lambda: None
    """Gives the notification with which he took his request back, if he did."""
    on_submitted: Callable[[Callable[[], object]], None] = _ignore
    """Takes what takes the request back, whenever it was handed to a process."""
    loose: "Caller | None" = None
    """The same client outside of any request, if it can be asked there."""


class Questions:
    """What one process asks, from its start to its end.

    Args:
        owner: whom the process belongs to; None when it serves whoever comes.
        send: takes a line for the server.
        on_open: called with the number of open questions, whenever that changes.
        is_starting: whether the process has still to greet.
    """

    def __init__(
        self,
        owner: Caller | None,
        send: Callable[[bytes], None],
        on_open: Callable[[int], None],
        is_starting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._owner = owner
        self._is_starting = is_starting
        self._waiting: dict[Caller, int] = {}
        self._send = send
        self._on_open = on_open
        self._callers: dict[Caller, int] = {}
        self._roots_of: Caller | None = None
        self._open: dict[bytes, Question] = {}

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    @contextmanager
    def calling(self, caller: Caller) -> Iterator[None]:
        """Take `caller` as one who may be meant, for as long as the block runs."""
        self.begin(caller)
        try:
            yield
        finally:
            self.end_of(caller)

    @contextmanager
    def waiting(self, caller: Caller) -> Iterator[None]:
        """Take `caller` as one for whom the process is started, for as long as the block runs.

        He may be meant until it is up, and by no process that was there before.
        """
        self._waiting[caller] = self._waiting.get(caller, 0) + 1
        try:
            yield
        finally:
            _less(self._waiting, caller)

    def begin(self, caller: Caller) -> None:
        """Take `caller` as one who may be meant."""
        self._callers[caller] = self._callers.get(caller, 0) + 1

    def end_of(self, caller: Caller) -> None:
        """Take back one `begin`."""
        _less(self._callers, caller)

    def asked(self, message: Message) -> None:
        """Take a request of the server; it is answered in any case."""
        identifier = message.id or b"null"
        question = Question(message, lambda line: self._answered(question, line), self._send)
        if identifier in self._open or len(self._open) >= OPEN_LIMIT:
            many = f"{OPEN_LIMIT} requests are open"
            text = "a request with this id is still open" if identifier in self._open else many
            self._send(wire.error(identifier, wire.INVALID_REQUEST, text))
            return
        self._open[identifier] = question
        self._on_open(len(self._open))
        meant = self._meant(message.method or "")
        if len(meant) > 1:
            question.refuse(wire.INTERNAL_ERROR, "Octave cannot tell which client is asked")
        elif not meant or meant[0].on_question is None:
            question.refuse(wire.METHOD_NOT_FOUND, f"Method not found: {message.method}")
        else:
            meant[0].on_question(question)

    def cancelled(self, message: Message) -> None:
        """Take a `notifications/cancelled` of the server, about a question of its own."""
        identifier = wire.member(message.params or b"{}", "requestId") or b""
        question = self._open.pop(identifier, None)
        if question is not None:
            self._on_open(len(self._open))
            question.on_withdrawn(message)

    def end(self) -> None:
        """Withdraw what is open: nobody is left to be answered."""
        for identifier in list(self._open):
            self._open.pop(identifier).on_withdrawn(None)

    def forget(self, session: object) -> None:
        """Ask that session no more: it is over."""
        if self.knows_roots_of(session):
            self._roots_of = None

    def knows_roots_of(self, session: object) -> bool:
        """Whether the roots of the session were the last that were asked for."""
        return self._roots_of is not None and self._roots_of.session is session

    def _answered(self, question: Question, line: bytes) -> None:
        identifier = question.message.id or b"null"
        # Ids are used anew: after a withdrawal, and by the next process.
        if self._open.get(identifier) is question:
            del self._open[identifier]
            self._on_open(len(self._open))
            self._send(wire.splice(line, {("id",): identifier}))

    def _meant(self, method: str) -> list[Caller]:
        """Return who may be meant: of each session one."""
        # The newest: over HTTP each has a stream of his own, and older ones may be read no more.
        callers = self._waiting if self._is_starting() else self._callers
        newest = {id(caller.session or caller): caller for caller in callers}
        found = list(newest.values())
        if found or self._owner is not None:
            if method == ROOTS and len(found) == 1:
                self._roots_of = found[0].loose
            return found or [self._owner] if self._owner is not None else found
        return [self._roots_of] if method == ROOTS and self._roots_of is not None else []


def _less(callers: dict[Caller, int], caller: Caller) -> None:
    left = callers.pop(caller) - 1
    if left:
        callers[caller] = left
