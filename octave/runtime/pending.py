"""The requests of one link that wait for an answer: their ids, deadlines and progress.

Each ends once, with the server's answer or an error, in the very moment that it is read: whoever
asked hears it before whatever the server says next. What answers none of them is counted.
"""

import asyncio
import json
from collections.abc import Callable

import msgspec

from octave.errors import OctaveError
from octave.runtime import wire
from octave.runtime.questions import Caller
from octave.runtime.wire import Message

NOBODY = Caller()
LISTEN = "subscriptions/listen"
TASKS_LIMIT = 256
"""Of tasks whose progress is passed on; the oldest go (MCP 2025-11-25, tasks)."""
FAR_S = 3600.0
"""Further ahead nothing is planned; it is looked again then."""

Outcome = Message | OctaveError
Done = Callable[[Outcome], None]
"""Takes what became of a call, once; must neither block nor raise."""
Cancel = Callable[[], object]
"""Takes a call back; nothing happens when it has ended."""


class Call(msgspec.Struct, eq=False):
    """One request. Times are of the event loop's clock."""

    method: str
    timeout_s: float
    """Without progress."""
    timeout_max_s: float
    done: Done
    """Not called when it is taken back."""
    caller: Caller = NOBODY
    token: bytes | None = None
    """The client's progress token, raw; towards the server the link id stands in for it."""
    ticket: int = 0
    """Of its line, as `Process.write` gives it; 0: it was not taken."""
    is_awaited: bool = False
    """Who hears of the answer is a task, which runs a little later."""
    deadline_s: float = 0.0
    ends_at_s: float = 0.0
    """The latest the deadline can move to."""


class Pending:
    """The open requests of one link.

    Args:
        overdue: called with the id of each that ran out of time; it must take it back.
    """

    def __init__(self, overdue: Callable[[bytes], None]) -> None:
        self.strays = 0
        """Answers and progress nobody asked for."""
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, Call] = {}
        self._tasks: dict[bytes, tuple[bytes, Callable[[bytes], None]]] = {}
        """Of calls that were answered by a task: the client's token, good for as long as that is,
        and who hears of it."""
        self._last_id = 0
        self._is_patient = False
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def next_id(self) -> bytes:
        """Return a request id that this link has not used yet, as JSON text."""
        self._last_id += 1
        return b"%d" % self._last_id

    def add(self, link_id: bytes, call: Call) -> None:
        """Expect an answer to `call` until its time is up."""
        now_s = self._loop.time()
        call.ends_at_s = now_s + max(call.timeout_s, call.timeout_max_s)
        call.deadline_s = call.ends_at_s if self._is_patient else now_s + call.timeout_s
        self._calls[link_id] = call
        # One timer for all: most calls end long before it.
        if self._look is None or call.deadline_s < self._look.when():
            self._look_at(call.deadline_s)

    def take_back(self, link_id: bytes) -> Call | None:
        """Expect no answer to that call any more; None when it has ended."""
        return self._calls.pop(link_id, None)

    def answered(self, message: Message) -> Call | None:
        """Take an answer of the server; return what it was for, if anybody waited for it."""
        identifier = message.id or b""
        call = self._calls.pop(identifier, None) or self._calls.pop(plain(identifier), None)
        if call is not None:
            if call.token is not None and _is_task(message.result):
                self._keep(plain(identifier), call.token, call.caller.on_message)
            call.done(message)
        elif not self._was_ours(message.id):
            self.strays += 1
        return call

    def progressed(self, message: Message) -> None:
        """Take a progress notification of the server: the time of its call starts anew."""
        token = plain(wire.member(message.params or b"{}", "progressToken") or b"")
        call, heard = self._calls.get(token), self._tasks.get(token)
        if call is not None and call.token is not None:
            self._start_anew(call)
            heard = call.token, call.caller.on_message
        if heard is not None:
            own, on_message = heard
            on_message(wire.splice(message.line, {("params", "progressToken"): own}))
        elif not self._was_ours(token):
            self.strays += 1

    def cancelled(self, message: Message) -> bool:
        """Take a `notifications/cancelled` of the server; False when it is about no request here.

        So it ends a subscription, which is then as good as answered (MCP 2026-07-28,
        subscriptions).
        """
        identifier = plain(wire.member(message.params or b"{}", "requestId") or b"")
        call = self._calls.get(identifier)
        if call is None or call.method != LISTEN:
            return False
        self.answered(wire.decode(wire.result(identifier, b"{}")))
        return True

    def be_patient(self, *, is_so: bool) -> None:
        """Let no call run out of time without progress while the server waits for its client.

        Afterwards the time of each starts anew.
        """
        self._is_patient = is_so
        for call in self._calls.values():
            self._start_anew(call)
        if self._calls:
            self._look_at(min(call.deadline_s for call in self._calls.values()))

    def fail(self, link_id: bytes, error: OctaveError) -> None:
        """End the call of that id, if it is open."""
        call = self._calls.pop(link_id, None)
        if call is not None:
            call.done(error)

    def fail_all(self, error_of: Callable[[Call], OctaveError]) -> None:
        """End every call with the error made for it, and look at no time any more."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.done(error_of(call))
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _keep(self, link_id: bytes, token: bytes, on_message: Callable[[bytes], None]) -> None:
        self._tasks[link_id] = token, on_message
        if len(self._tasks) > TASKS_LIMIT:
            del self._tasks[next(iter(self._tasks))]

    def _start_anew(self, call: Call) -> None:
        restarted_s = self._loop.time() + call.timeout_s
        call.deadline_s = call.ends_at_s if self._is_patient else min(restarted_s, call.ends_at_s)

    def _look_at(self, when_s: float) -> None:
        if self._look is not None:
            self._look.cancel()
        # An infinite time is none that the loop could wait for.
        self._look = self._loop.call_at(min(when_s, self._loop.time() + FAR_S), self._check)

    def _check(self) -> None:
        self._look = None
        now_s = self._loop.time()
        for link_id in [key for key, call in self._calls.items() if call.deadline_s <= now_s]:
            self._overdue(link_id)
        if self._calls:
            self._look_at(min(call.deadline_s for call in self._calls.values()))

    def _was_ours(self, answer_id: bytes | None) -> bool:
        """The answer to a request that was cancelled: late, and no fault of the server's."""
        longest = len(str(self._last_id))
        is_number = answer_id is not None and answer_id.isdigit() and len(answer_id) <= longest
        return is_number and 0 < int(answer_id or b"0") <= self._last_id


def _is_task(result: bytes | None) -> bool:
    # A search costs far less than decoding, and nearly every result is none.
    return result is not None and b'"task' in result and wire.member(result, "task") is not None


def plain(identifier: bytes) -> bytes:
    """Return a raw id or token in one spelling: `"\\u0071"` is `"q"`, and `1.0` is `1`.

    Whoever sends it back writes it anew, in the words of his own library.
    """
    if identifier.isdigit():
        return identifier
    try:
        value = json.loads(identifier)
    except (ValueError, RecursionError):
        return identifier
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value).encode()


async def outcome_of(submit: Callable[[Done], Cancel]) -> Message:
    """Return the answer that a call gets; leaving early takes it back.

    Raises:
        OctaveError: what it ended with.
    """
    found: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not found.done():
            found.set_result(outcome)

    cancel = submit(done)
    try:
        outcome = await found
    except asyncio.CancelledError:
        cancel()
        raise
    if isinstance(outcome, OctaveError):
        raise outcome
    return outcome
