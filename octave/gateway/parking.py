"""A modern client's call of a legacy server: parked while the client is asked something.

A legacy server asks in the middle of a call and waits. A modern client takes no requests: its call
is answered with the question, and with a token under which its repetition, which brings the answer,
goes on with the very same call. (MCP 2026-07-28, multi-round-trip requests.)
"""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc
import anyio.lowlevel

from octave.errors import OctaveError
from octave.gateway.bridge import members_of
from octave.gateway.client import NEEDS, lack
from octave.gateway.eras import Envelope, violated
from octave.gateway.listing import text_of
from octave.gateway.request import Request
from octave.runtime import wire
from octave.runtime.questions import Caller, Question
from octave.runtime.subject import Speaker
from octave.runtime.wire import Message

GATHER_S = 0.02
"""A server that asks several things at once has them in one answer."""
PARKED_S = 600.0
"""A person fills in a form; whoever takes longer has left."""
PARKED_LIMIT = 64
"""Of one session; the oldest gives way. Each keeps a call, and what it is part of, from ending."""
TOKEN_BYTES = 24

_NUMBER = secrets.token_hex(8)
"""Tells a number from the string of its digits."""

Work = Callable[[Caller], Awaitable[Message]]
"""Makes the call for a caller and gives the answer."""


@dataclass(slots=True, eq=False)
class _Parked:
    digest: bytes
    """Of what was asked for: its repetition must ask for the same."""
    capabilities: bytes
    request: Request | None
    """Its latest round; None between two."""
    holder: Speaker | None
    """The process that has it; once it has asked, other calls may go to another."""
    token: str | None = None
    """Under which it is parked now."""
    patience: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Of whoever waits for its repetition, while it is parked."""
    questions: dict[str, Question] = field(default_factory=dict)
    outcome: Message | Exception | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    news: anyio.Event = field(default_factory=anyio.Event)
    withdraw: Callable[[], object] = lambda: None
    """Takes the call back from the server that has it."""
    asked: int = 0
    is_over: bool = False

    def say(self, line: bytes) -> None:
        # Between two rounds nobody is there to be told anything.
        token = self.request and wire.member(self.request.params, "_meta", "progressToken")
        if self.request is not None and token:
            # The server knows that of the first round only.
            self.request.send(wire.splice(line, {("params", "progressToken"): token}))

    def cancellation(self) -> Message | None:
        return None if self.request is None else self.request.cancellation

    def submitted(self, cancel: Callable[[], object]) -> None:
        self.withdraw = cancel
        if self.request is not None:
            self.request.withdraw = cancel

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def hear(self, question: Question) -> None:
        method = question.message.method or ""
        need = NEEDS.get(method)
        if self.is_over or need is None:
            question.refuse(wire.METHOD_NOT_FOUND, f"Method not found: {method}")
            return
        lacks = lack(self.capabilities, method, question.message.params)
        if lacks is not None:
            question.refuse(wire.METHOD_NOT_FOUND, f"the client has no `{lacks}`")
            return
        self.asked += 1
        key = f"{need}-{self.asked}"
        self.questions[key] = question

        def withdrawn(_: Message | None) -> None:
            self.questions.pop(key, None)

        question.on_withdrawn = withdrawn
        self.tell()


class Lot:
    """The calls of one session that may be parked; `tasks` is the session's."""

    def __init__(self, session: object) -> None:
        self.tasks: anyio.abc.TaskGroup
        self._session = session
        self._parked: dict[str, _Parked] = {}

    async def call(self, request: Request, envelope: Envelope, work: Work) -> Message:
        """Return the answer to a request: the server's, or one that asks the client something.

        A request with a `requestState` goes on with the call that was parked under it.

        Raises:
            ProtocolViolated: nothing is parked under it, or what is given fits not to it.
            OctaveError: what `work` raises.
        """
        message = request.message
        if wire.member(request.params, "requestState") is not None:
            parked = self._resumed(message, text_of(request.params, "requestState"))
            parked.request = request
            request.withdraw, request.holder = parked.withdraw, parked.holder
        else:
            digest = _digest(message)
            parked = _Parked(digest, envelope.capabilities, request, request.holder)
            # Where a session stands for many clients, each call is of somebody else.
            asked = self._session if request.is_of_one_client else parked
            self.tasks.start_soon(self._run, parked, work, asked)
        return await self._outcome(parked, message)

    async def _outcome(self, parked: _Parked, message: Message) -> Message:
        try:
            while parked.outcome is None:
                if not parked.questions:
                    await parked.news.wait()
                    continue
                await anyio.sleep(GATHER_S)
                # Meanwhile it may have been answered, or the server wants to know no more.
                if parked.questions:
                    # Given up at this very moment it must not be parked: nobody is told where.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    break
        except anyio.get_cancelled_exc_class():
            parked.scope.cancel()
            raise
        if isinstance(parked.outcome, Exception):
            raise parked.outcome
        return parked.outcome or self._park(parked, message.id or b"null")

    def _park(self, parked: _Parked, identifier: bytes) -> Message:
        if len(self._parked) >= PARKED_LIMIT:
            # Most likely nobody comes back for it; refused, many such would leave no room for all.
            self._expire(next(iter(self._parked.values())))
        token = parked.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._parked[token] = parked
        parked.request, parked.patience = None, anyio.CancelScope()
        self.tasks.start_soon(self._wait_for_repetition, parked, token)
        requests = (
            b'%b:{"method":%b%b}'
            % (
                wire.text(key),
                wire.text(question.message.method),
                b"" if question.message.params is None else b',"params":' + question.message.params,
            )
            for key, question in parked.questions.items()
        )
        result = b'{"resultType":"input_required","inputRequests":{%b},"requestState":"%b"}'
        return wire.decode(wire.result(identifier, result % (b",".join(requests), token.encode())))

    async def _wait_for_repetition(self, parked: _Parked, token: str) -> None:
        try:
            with parked.patience:
                await anyio.sleep(PARKED_S)
        finally:
            # It came too late, or never will: the session is over.
            if parked.token == token:
                self._expire(parked)

    def _expire(self, parked: _Parked) -> None:
        self._unpark(parked)
        parked.scope.cancel()

    def _unpark(self, parked: _Parked) -> None:
        if parked.token is not None:
            del self._parked[parked.token]
        parked.token = None
        parked.patience.cancel()

    def _resumed(self, message: Message, token: str | None) -> _Parked:
        parked = None if token is None else self._parked.get(token)
        if parked is None or parked.digest != _digest(message):
            # Also of a call that has ended long ago, as after a restart.
            raise violated("`requestState` is unknown, used or expired", wire.INVALID_PARAMS)
        answers = _responses(message)
        self._unpark(parked)
        for key in [key for key in parked.questions if key in answers]:
            parked.questions.pop(key).answer(wire.result(b"null", answers[key]))
        return parked

    async def _run(self, parked: _Parked, work: Work, asked: object) -> None:
        caller = Caller(asked, parked.say, parked.hear, parked.cancellation, parked.submitted)
        try:
            with parked.scope:
                parked.outcome = await work(caller)
        except Exception as error:  # noqa: BLE001 - carried to the edge, where the request is answered
            parked.outcome = error
        finally:
            parked.is_over = True
            for question in list(parked.questions.values()):
                question.refuse(wire.INTERNAL_ERROR, "the client did not answer in time")
            parked.questions.clear()
            if parked.outcome is None:
                # Given up: nobody comes back for it.
                self._unpark(parked)
                parked.outcome = OctaveError("the call was given up")
            parked.tell()


def _responses(message: Message) -> dict[str, bytes]:
    found = members_of(wire.member(message.params or b"{}", "inputResponses") or b"{}")
    if found is None:
        raise violated("`inputResponses` is no object", wire.INVALID_PARAMS)
    wrong = [key for key, value in found.items() if not value.startswith(b"{")]
    if wrong:
        text = f"`inputResponses` holds what is no result: {', '.join(wrong)[:200]}"
        raise violated(text, wire.INVALID_PARAMS)
    return found


def _digest(message: Message) -> bytes:
    params = message.params or b"{}"
    parts = [message.method, text_of(params, "name"), text_of(params, "uri")]
    raw = wire.member(params, "arguments") or b"{}"
    try:
        # Written anew by a client, the same may come in other words.
        arguments = json.loads(raw, parse_int=_NUMBER.__add__, parse_float=_NUMBER.__add__)
        text = json.dumps([*parts, arguments], sort_keys=True).encode()
    except RecursionError:
        text = json.dumps(parts).encode() + raw
    return hashlib.sha256(text).digest()
