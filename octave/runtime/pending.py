"""The requests of one link that wait for an answer: their ids, deadlines and progress.

Each ends once, with the server's answer or an error. What answers none of them is counted.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from octave.errors import OctaveError
from octave.runtime import wire
from octave.runtime.wire import Message


@dataclass(slots=True)
class Call:
    """One request. Times are of the event loop's clock."""

    method: str
    timeout_s: float
    """Without progress."""
    timeout_max_s: float
    on_progress: Callable[[bytes], None] | None = None
    token: bytes | None = None
    """The client's progress token, raw; towards the server the link id stands in for it."""
    ticket: int = 0
    """Of its line, as `Process.write` gives it; 0: it was not taken."""
    answer: asyncio.Future[Message] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    scope: anyio.CancelScope | None = None
    ends_at_s: float = 0.0
    """The latest the deadline can move to."""


class Pending:
    """The open requests of one link."""

    def __init__(self) -> None:
        self.strays = 0
        """Answers and progress nobody asked for."""
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, Call] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._calls)

    def next_id(self) -> bytes:
        """Return a request id that this link has not used yet, as JSON text."""
        self._last_id += 1
        return b"%d" % self._last_id

    @contextmanager
    def waiting(self, link_id: bytes, call: Call) -> Iterator[None]:
        """Expect an answer to `call` until its time is up; the block is then left early."""
        call.ends_at_s = self._loop.time() + max(call.timeout_s, call.timeout_max_s)
        self._calls[link_id] = call
        try:
            with anyio.move_on_after(call.timeout_s) as call.scope:
                yield
        finally:
            del self._calls[link_id]

    def answered(self, message: Message) -> None:
        """Take an answer of the server."""
        call = self._calls.get(message.id or b"")
        if call is not None and not call.answer.done():
            call.answer.set_result(message)
        elif not self._was_ours(message.id):
            self.strays += 1

    def progressed(self, message: Message) -> None:
        """Take a progress notification of the server: the time of its call starts anew."""
        token = wire.member(message.params or b"{}", "progressToken")
        call = self._calls.get(token or b"")
        if call is None or call.token is None or call.answer.done():
            if not self._was_ours(token):
                self.strays += 1
            return
        if call.scope is not None:
            call.scope.deadline = min(self._loop.time() + call.timeout_s, call.ends_at_s)
        if call.on_progress is not None:
            call.on_progress(wire.splice(message.line, {("params", "progressToken"): call.token}))

    def fail(self, link_id: bytes, error: OctaveError) -> None:
        """End the call of that id, if it is open."""
        call = self._calls.get(link_id)
        if call is not None and not call.answer.done():
            call.answer.set_exception(error)

    def fail_all(self, error_of: Callable[[Call], OctaveError]) -> None:
        """End every call with the error made for it."""
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(error_of(call))

    def _was_ours(self, answer_id: bytes | None) -> bool:
        """The answer to a request that was cancelled: late, and no fault of the server's."""
        longest = len(str(self._last_id))
        is_number = answer_id is not None and answer_id.isdigit() and len(answer_id) <= longest
        return is_number and 0 < int(answer_id or b"0") <= self._last_id
