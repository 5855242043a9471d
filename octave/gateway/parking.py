"""A modern client's call of a legacy server: parked while the client is asked something.

A legacy server asks in the middle of a call and waits. A modern client takes no requests: its call
is answered with the question, and with a token under which its repetition, which brings the answer,
goes on with the very same call. (MCP 2026-07-28, multi-round-trip requests.)
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc
import msgspec

from octave.errors import OctaveError, ServerBusy
from octave.gateway.client import NEEDS
from octave.gateway.eras import Envelope, violated
from octave.gateway.listing import text_of
from octave.gateway.request import Request
from octave.runtime import wire
from octave.runtime.questions import Caller, Question
from octave.runtime.wire import Message

GATHER_S = 0.02
"""A server that asks several things at once has them in one answer."""
PARKED_S = 600.0
"""A person fills in a form; whoever takes longer has left."""
PARKED_LIMIT = 64
"""Of one session. Each keeps a call, and what it is part of, from ending."""
TOKEN_BYTES = 24

_RESPONSES = msgspec.json.Decoder(dict[str, msgspec.Raw])

Work = Callable[[Caller], Awaitable[Message]]
"""Makes the call for a caller and gives the answer."""


@dataclass(slots=True, eq=False)
class _Parked:
    digest: bytes
    """Of what was asked for: its repetition must ask for the same."""
    capabilities: bytes
    request: Request | None
    """Its latest round; None between two."""
    questions: dict[str, Question] = field(default_factory=dict)
    outcome: Message | OctaveError | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    news: anyio.Event = field(default_factory=anyio.Event)
    asked: int = 0

    def say(self, line: bytes) -> None:
        # Between two rounds nobody is there to be told anything.
        if self.request is not None:
            self.request.send(line)

    def cancellation(self) -> Message | None:
        return None if self.request is None else self.request.cancellation

    def submitted(self, cancel: Callable[[], object]) -> None:
        if self.request is not None:
            self.request.withdraw = cancel

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def hear(self, question: Question) -> None:
        need = NEEDS.get(question.message.method or "")
        if need is None or wire.member(self.capabilities, need) is None:
            question.refuse(wire.METHOD_NOT_FOUND, f"the client has no `{need or 'such method'}`")
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

    def __init__(self) -> None:
        self.tasks: anyio.abc.TaskGroup
        self._parked: dict[str, _Parked] = {}

    async def call(self, request: Request, envelope: Envelope, work: Work) -> Message:
        """Return the answer to a request: the server's, or one that asks the client something.

        A request with a `requestState` goes on with the call that was parked under it.

        Raises:
            ProtocolViolated: nothing is parked under it, or what is given fits not to it.
            ServerBusy: too much is parked.
            OctaveError: what `work` raises.
        """
        message = request.message
        state = wire.member(request.params, "requestState")
        if state is not None:
            parked = self._resumed(message, json.loads(state))
            parked.request = request
        else:
            if len(self._parked) >= PARKED_LIMIT:
                raise ServerBusy(f"{PARKED_LIMIT} calls wait for answers of their client already")
            parked = _Parked(_digest(message), envelope.capabilities, request)
            self.tasks.start_soon(_run, parked, work)
        return await self._outcome(parked, message)

    async def _outcome(self, parked: _Parked, message: Message) -> Message:
        try:
            while parked.outcome is None and not parked.questions:
                await parked.news.wait()
            if parked.outcome is None:
                await anyio.sleep(GATHER_S)
        except anyio.get_cancelled_exc_class():
            parked.scope.cancel()
            raise
        if isinstance(parked.outcome, OctaveError):
            raise parked.outcome
        return parked.outcome or self._park(parked, message.id or b"null")

    def _park(self, parked: _Parked, identifier: bytes) -> Message:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._parked[token] = parked
        parked.request = None
        asyncio.get_running_loop().call_later(PARKED_S, self._expire, token)
        requests = (
            b'%b:{"method":%b%b}'
            % (
                msgspec.json.encode(key),
                msgspec.json.encode(question.message.method),
                b"" if question.message.params is None else b',"params":' + question.message.params,
            )
            for key, question in parked.questions.items()
        )
        result = b'{"resultType":"input_required","inputRequests":{%b},"requestState":"%b"}'
        return wire.decode(wire.result(identifier, result % (b",".join(requests), token.encode())))

    def _expire(self, token: str) -> None:
        parked = self._parked.pop(token, None)
        if parked is not None:
            parked.scope.cancel()

    def _resumed(self, message: Message, token: object) -> _Parked:
        parked = self._parked.get(token) if isinstance(token, str) else None
        if parked is None or parked.digest != _digest(message):
            # Also of a call that has ended long ago, as after a restart.
            raise violated("`requestState` is unknown, used or expired", wire.INVALID_PARAMS)
        answers = _responses(message)
        assert isinstance(token, str)
        del self._parked[token]
        for key in [key for key in parked.questions if key in answers]:
            parked.questions.pop(key).answer(wire.result(b"null", answers[key]))
        return parked


async def _run(parked: _Parked, work: Work) -> None:
    caller = Caller(parked, parked.say, parked.hear, parked.cancellation, parked.submitted)
    with parked.scope:
        try:
            parked.outcome = await work(caller)
        except OctaveError as error:
            parked.outcome = error
        finally:
            for question in list(parked.questions.values()):
                question.refuse(wire.INTERNAL_ERROR, "the client did not answer in time")
            parked.questions.clear()
    if parked.outcome is None:
        parked.outcome = OctaveError("the call was given up")
    parked.tell()


def _responses(message: Message) -> dict[str, bytes]:
    raw = wire.member(message.params or b"{}", "inputResponses") or b"{}"
    try:
        found = {key: bytes(value) for key, value in _RESPONSES.decode(raw).items()}
    except msgspec.DecodeError:
        raise violated("`inputResponses` is no object", wire.INVALID_PARAMS) from None
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
        arguments = json.loads(raw, parse_int=str, parse_float=str)
        text = json.dumps([*parts, arguments], sort_keys=True).encode()
    except RecursionError:
        text = json.dumps(parts).encode() + raw
    return hashlib.sha256(text).digest()
