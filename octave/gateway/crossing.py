"""How a request of a session gets to a server and its answer back, whichever eras the two speak.

Between two of the same era it passes as it came. Otherwise the bridge translates, and what a server
asks meanwhile is asked in the way that the client understands.
"""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from octave.errors import StartFailed
from octave.gateway import bridge, rounds
from octave.gateway.audience import LEVELS, is_at_least
from octave.gateway.client import Client, Send, announces
from octave.gateway.listing import text_of
from octave.gateway.parking import Lot
from octave.gateway.request import Request
from octave.gateway.router import Route
from octave.runtime import wire
from octave.runtime.exchange import OtherEra
from octave.runtime.handshake import Opening
from octave.runtime.instance import Instance
from octave.runtime.pace import breathe
from octave.runtime.pending import Cancel, Done
from octave.runtime.questions import Caller, Question
from octave.runtime.server import Server, Visitor
from octave.runtime.subject import Speaker
from octave.runtime.wire import Message

Changes = Mapping[wire.Path, bytes]


class Crossing:
    """The way of one session's requests.

    Args:
        client: who asks.
        session: its identity, for servers that are to serve it alone.
        send: takes what is asked of the client outside any request.
        keeps_ids: there is but one server, so what it asks can have its own ids.
    """

    def __init__(
        self, client: Client, session: object, send: Send, *, keeps_ids: bool = False
    ) -> None:
        self.lot = Lot(session)
        self._client = client
        self._keeps_ids = keeps_ids
        self._session = session
        self._send = send
        self._owner = Caller(session, send, self._asking(send))
        self._last_modern: Visitor | None = None
        """Whom a server saw in the last modern request."""
        self._serving: dict[str, Speaker] = {}
        """Who had the last request, by server."""
        self._known: tuple[bytes, Visitor] | None = None
        """Whom a server sees in any legacy request, and the params of `initialize` that say so."""

    def instance(self, request: Request, server: Server) -> Instance:
        """Return the process of `server` that serves the request, up or not."""
        found = server.instance_for(self._visitor(request))
        request.holder = self._serving[server.name] = found
        return found

    def outside(self, server: Server) -> Instance:
        """Return the process of `server` for what the client says outside of any request."""
        # Who has not greeted needs no greeting.
        if self._client.era == "legacy":
            return server.instance_for(self._legacy_visitor())
        unknown = Visitor("modern", self._owner, can_answer=False, opening=Opening("modern"))
        return server.instance_for(self._last_modern or unknown)

    def is_served_by(self, speaker: Speaker) -> bool:
        """Whether that is the process of its server that this session uses, so far as any."""
        serving = self._serving.get(speaker.name, speaker)
        return serving is speaker or serving.is_retired

    def _visitor(self, request: Request) -> Visitor:
        client, said = self._client, request.envelope
        if said is not None:
            can_answer, opening = client.can_answer(said), client.opening(said)
            self._last_modern = Visitor("modern", self._owner, can_answer, opening)
            return self._last_modern
        return self._legacy_visitor()

    def _legacy_visitor(self) -> Visitor:
        client = self._client
        if self._known is None or self._known[0] is not client.params:
            can_answer, opening = client.can_answer(None), client.opening(None)
            self._known = client.params, Visitor("legacy", self._owner, can_answer, opening)
        return self._known[1]

    async def over(self, request: Request, server: Server, changes: Changes) -> bytes:
        """Return the server's answer as a line for the client; `changes` as `wire.splice` has them.

        Raises as `Exchange.forward`, `rounds.play` and `Lot.call` do.
        """
        while True:
            instance = await self._opened(request, server)
            try:
                answer = await self._by(request, instance, changes)
            except OtherEra:
                # Another version took over while it waited, or its server was opened otherwise.
                continue
            await breathe(answer.line)
            return wire.rewrite(answer, {("id",): request.id})

    async def _by(self, request: Request, instance: Instance, changes: Changes) -> Message:
        if request.era == instance.era:
            return await self._as_it_is(request, instance, changes)
        if request.era == "modern":
            return await self._to_legacy(request, instance, changes)
        return await self._to_modern(request, instance, changes)

    async def _opened(self, request: Request, server: Server) -> Instance:
        """Return the process that serves the request, once it is known which era it speaks."""
        instance = self.instance(request, server)
        if instance.is_era_known:
            return instance
        caller = self._caller_of(request)
        try:
            await instance.exchange.reach(request.message, caller)
        except StartFailed:
            other = self.instance(request, server)
            if other is instance:
                raise
            # It has turned out to lack the era that this one was for.
            await other.exchange.reach(request.message, caller)
            return other
        return instance

    def submit(
        self, request: Request, route: Route, done: Done, again: Callable[[], None]
    ) -> Cancel | None:
        """Hand a request to a server of its own era that is up; None where `over` must do it.

        As `Exchange.submit`.
        """
        instance = self.instance(request, route.server)
        if instance.era != request.era:
            return None
        caller = self._caller_of(request)
        return instance.exchange.submit(request.message, route.changes, caller, done, again)

    async def _as_it_is(self, request: Request, instance: Instance, changes: Changes) -> Message:
        caller = self._caller_of(request)
        return await instance.exchange.forward(request.message, changes, caller, request.era)

    async def _to_modern(self, request: Request, instance: Instance, changes: Changes) -> Message:
        message = bridge.to_modern_request(request.message, self._client.as_envelope)
        caller = _unasked(request)

        async def exchange(message: Message) -> Message:
            return await instance.exchange.forward(message, changes, caller, "modern")

        if request.method in bridge.PARKED:
            answer = await rounds.play(message, exchange, self._client, request.send)
        else:
            answer = await exchange(message)
        if answer.result is None:
            return answer
        return _answered(answer, "result", bridge.to_legacy_result(answer.result))

    async def _to_legacy(self, request: Request, instance: Instance, changes: Changes) -> Message:
        envelope = request.envelope
        assert envelope is not None
        if envelope.log_level is not None:
            await _be_verbose(instance, envelope.log_level)
        message = bridge.without_envelope(request.message)

        async def work(caller: Caller) -> Message:
            return await instance.exchange.forward(message, changes, caller, "legacy")

        if request.method in bridge.PARKED:
            answer = await self.lot.call(request, envelope, work)
        else:
            answer = await work(_unasked(request))
        if answer.error is not None:
            return _modern_error(request, answer, answer.error)
        if bridge.is_input_required(answer.result):
            return answer
        result = bridge.to_modern_result(request.method, answer.result or b"{}")
        return _answered(answer, "result", result)

    def _caller_of(self, request: Request) -> Caller:
        if request.era == "modern":
            return _unasked(request)
        send, owner = request.send, self._owner
        asked = owner.on_question if send is self._send else self._asking(send)
        cancellation = request.get_cancellation
        return Caller(self._session, send, asked, cancellation, request.on_submitted, owner)

    def _asking(self, send: Send) -> Callable[[Question], None]:
        return partial(self._client.pass_on, send=send, keeps_id=self._keeps_ids)


def _unasked(request: Request) -> Caller:
    return Caller(None, request.send, None, request.get_cancellation, request.on_submitted)


def _modern_error(request: Request, answer: Message, error: bytes) -> Message:
    elicitations = bridge.url_elicitations(error)
    can = b"{}" if request.envelope is None else request.envelope.capabilities
    is_shown = request.method in bridge.PARKED and announces(can, "elicitation", "url")
    if elicitations and is_shown:
        asked = (
            b'"elicitation-%d":{"method":"elicitation/create","params":%b}' % (number, params)
            for number, params in enumerate(elicitations, 1)
        )
        result = b'{"resultType":"input_required","inputRequests":{%b}}' % b",".join(asked)
        return wire.decode(wire.result(answer.id or b"null", result))
    uri = text_of(request.params, "uri") if request.method == "resources/read" else None
    changed = bridge.to_modern_error(error, uri)
    return answer if changed is error else _answered(answer, "error", changed)


def _answered(answer: Message, member: str, value: bytes) -> Message:
    if value in (answer.result, answer.error):
        return answer
    # Not decoded again: what was nested just deeply enough may be too deep by now.
    line = wire.splice(answer.line, {(member,): value})
    return msgspec.structs.replace(answer, line=line, **{member: value})


async def _be_verbose(instance: Instance, level: str) -> None:
    least = instance.interests.level
    if level in LEVELS and (least is None or not is_at_least(level, least)):
        await instance.interests.set_level(level)
