"""Clients of either era who call, take back, answer and leave, and note whatever is wrong.

What is right they know of the world they are in: what was wanted of which server, and what was
asked by which process.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from octave.gateway.audience import Scope
from octave.gateway.session import Session
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY
from tests.gateway.asking import ACCEPTED
from tests.gateway.puppets import Puppet, rest

if TYPE_CHECKING:
    from tests.gateway.test_interleavings import World

TOKENS = (b"1", b'"1"', b"0", b'""', b"2.50", b"12345678901234567890123", b'"\\u00e9\\"}{"')


class Call:
    """One request of a client."""

    def __init__(self, client: "Client", identifier: bytes, work: "Work", token: bytes) -> None:
        self.client = client
        self.id = identifier
        self.work = work
        self.token = token
        self.is_open = True
        self.is_going = False
        """Its cancellation may not have reached everybody yet."""
        self.scope = anyio.CancelScope()
        """Of an HTTP request."""


class Work:
    """What a client wants done: one request, and those that repeat it with what was asked for."""

    def __init__(self, number: int, server: str, method: str) -> None:
        self.number = number
        self.server = server
        self.method = method
        self.asks: set[str] = set()
        """The questions that were asked in its answers."""
        self.arrivals = 0
        """Times that it began at a server."""


class Question:
    """What a server asks."""

    def __init__(self, key: str, puppet: Puppet, identifier: bytes | None) -> None:
        self.key = key
        self.puppet = puppet
        self.id = identifier
        """None: it is asked in an answer."""
        self.there: set[Work] = set()
        """What the process has to do while it asks."""
        self.is_open = True
        self.is_withdrawn = False
        self.replied: Any = None
        """What a client said to it."""


class Client:
    """One session's other end, which notes whatever is wrong."""

    def __init__(self, world: "World", kind: tuple[Any, ...]) -> None:
        era, server, self.can, self.is_http = kind
        self.world = world
        self.is_modern = era == "modern"
        self.single = server
        self.calls: list[Call] = []
        self.asked: dict[bytes, Question] = {}
        """Questions it has not answered, by id."""
        self.parked: list[tuple[Call, dict[str, Any]]] = []
        """Answers that ask something, not tried again yet."""
        self.given_up: set[bytes] = set()
        """Ids of what it cancelled: they may not be used again (MCP, base protocol)."""
        self.is_to_be_refused = False
        """It is sending what must not be taken."""
        self.is_here = True
        scope = Scope((server,), single=True) if server else Scope(None)
        self.session = Session(world.stage.router, scope, self.take)

    async def come(self) -> None:
        await self.world.tasks.start(self.session.run)
        if not self.is_modern:
            params = {"protocolVersion": "2025-06-18", "capabilities": self.can}
            self.session.receive(wire.request(b'"open"', "initialize", json.dumps(params).encode()))
            await rest()
            self.session.receive(wire.notification("notifications/initialized"))

    def leave(self) -> None:
        self.is_here = False
        self.session.close()
        self.asked.clear()
        for call in self.calls:
            call.is_open = False
            call.scope.cancel()

    # What it says.

    def call(self, server: str, identifier: bytes, choice: int) -> None:
        if identifier in self.given_up:
            return
        work = Work(next(self.world.numbers), self.single or server, "tools/call")
        if self.single and choice % 3 == 0:
            work.method = "own/method"
        self._ask(Call(self, identifier, work, TOKENS[choice % len(TOKENS)] if choice % 2 else b""))

    def retry(self, parked: int, identifier: bytes, choice: int) -> None:
        if identifier in self.given_up:
            return
        call, result = self.parked.pop(parked)
        requests = result.get("inputRequests", {})
        given = {}
        for number, (name, request) in enumerate(requests.items()):
            if choice % 3 or number:
                question = self.world.questions[request["params"]["message"]]
                question.replied = {**ACCEPTED, "key": question.key}
                given[name] = question.replied
        more = {"inputResponses": given}
        if "requestState" in result:
            more["requestState"] = result["requestState"]
        is_open = any(each.id == identifier and each.is_open for each in self.calls)
        if is_open and not self.is_http:
            self.parked.append((call, result))
        self._ask(Call(self, identifier, call.work, call.token), more)

    def _ask(self, call: Call, more: dict[str, Any] | None = None) -> None:
        name = "do" if self.single else f"{call.work.server}__do"
        params: dict[str, Any] = {"name": name, "arguments": {"work": call.work.number}}
        meta: dict[str, Any] = {}
        if self.is_modern:
            meta |= {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: self.can}
        text = json.dumps({**params, **(more or {}), "_meta": meta}).encode()
        if call.token:
            text = text.replace(b'"_meta": {', b'"_meta": {"progressToken": %b' % call.token + (
                b"," if meta else b""))  # fmt: skip
        line = wire.request(call.id, call.work.method, text)
        if self.is_http:
            self.calls.append(call)
            self.world.tasks.start_soon(self._served, call, line)
        elif any(each.id == call.id and each.is_open for each in self.calls):
            self.is_to_be_refused = True
            self.session.receive(line)
            self.world.must(not self.is_to_be_refused, "an id that is open was taken", line)
        else:
            self.calls.append(call)
            self.session.receive(line)

    async def _served(self, call: Call, line: bytes) -> None:
        with call.scope:
            answer = await self.session.serve(wire.decode(line), partial(self.take, during=call))
            # Whoever gave it up reads no more.
            if call.is_open:
                self._answered(call, wire.decode(answer))

    def cancel(self, call: Call) -> None:
        call.is_open, call.is_going = False, True
        if self.is_http:
            call.scope.cancel()
        else:
            self.given_up.add(call.id)
            params = b'{"requestId":%b}' % call.id
            self.session.receive(wire.notification("notifications/cancelled", params))

    def reply(self, identifier: bytes, *, is_error: bool) -> None:
        question = self.asked.pop(identifier)
        if is_error:
            question.replied = {"code": -1, "message": question.key}
            line = wire.error(identifier, -1, question.key)
        else:
            question.replied = {**ACCEPTED, "key": question.key}
            line = wire.result(identifier, json.dumps(question.replied).encode())
        self.session.receive(line)

    # What it hears.

    def take(self, line: bytes, during: Call | None = None) -> None:
        message, must = wire.decode(line), self.world.must
        if during is not None and not during.is_open:
            # The stream of what was given up: nobody reads it.
            return
        must(self.is_here, "a line for a client that has left", line)
        params = json.loads(message.params or b"{}")
        if message.is_request:
            self._is_asked(message, params)
        elif message.method == "notifications/progress":
            self._progressed(line, during)
        elif message.method == "notifications/cancelled":
            key = wire.member(message.params or b"{}", "requestId") or b""
            question = self.asked.pop(key, None)
            must(question is not None, "a question taken back that is not open", line)
        elif message.is_answer and message.id == b'"open"':
            must(message.result is not None, "not opened", line)
        elif self.is_to_be_refused and message.error is not None:
            self.is_to_be_refused = False
            must(b"still open" in message.error, "refused otherwise", line)
        elif message.is_answer:
            calls = [each for each in self.calls if each.is_open and each.id == message.id]
            must(len(calls) == 1, "an answer to what was not asked, or was answered", line)
            if calls:
                self._answered(calls[0], message)
        else:
            must(False, "nobody said this", line)

    def _is_asked(self, message: wire.Message, params: dict[str, Any]) -> None:
        question, must = self.world.questions[params["message"]], self.world.must
        must(not self.is_modern, "a modern client was sent a request", message.line)
        must(message.id not in self.asked, "two questions under one id", message.line)
        must(self._is_at_work_at(question.puppet), "no call there", message.line)
        must(question.id is None or not self._others(question), "a guess", message.line)
        self.asked[message.id or b""] = question

    def _at_work(self) -> list[Call]:
        return [call for call in self.calls if call.is_open or call.is_going]

    def _is_at_work_at(self, puppet: Puppet) -> bool:
        there = self.world.works[puppet]
        # The only one who ever called there may be the one it belongs to.
        is_own = there <= {call.work for call in self.calls}
        return is_own or _are_at({call.work for call in self._at_work()}, puppet, there)

    def _others(self, question: Question, own: Call | None = None) -> list[Call]:
        """The calls of others for which it may be asked just as well."""
        return [
            call
            for client in self.world.clients
            for call in client.calls
            if call.is_open and call.work in question.there and call is not own
            if client is not self or self.is_http
        ]

    def _progressed(self, line: bytes, during: Call | None) -> None:
        params, must = json.loads(line)["params"], self.world.must
        calls = [call for call in self._at_work() if call.work.number == params["work"]]
        must(len(calls) == 1, "progress of somebody else's call, or of none", line)
        must(during in (None, *calls), "progress in somebody else's stream", line)
        token = wire.member(line, "params", "progressToken")
        must(token in [call.token for call in calls], "progress under another token", line)
        self.world.unheard.pop(params["progress"], None)

    def _answered(self, call: Call, message: wire.Message) -> None:
        must, work, line = self.world.must, call.work, message.line
        must(message.id == call.id, "answered under another id", line)
        call.is_open = call.is_going = False
        answer = json.loads(message.result or message.error or b"null")
        if message.error is not None:
            told = answer.get("data") or {}
            by_server = told.get("work") == work.number
            by_client = answer["message"] in work.asks
            octaves = self.world.has_had_trouble(work)
            must(by_server or by_client or octaves, "failed for no reason", line)
        elif answer.get("resultType") == "input_required":
            must(self.is_modern, "a legacy client was asked in an answer", line)
            for request in answer.get("inputRequests", {}).values():
                question = self.world.questions[request["params"]["message"]]
                others = () if self.is_http else self._at_work()
                works = {work, *(each.work for each in others)}
                is_there = _are_at(works, question.puppet, self.world.works[question.puppet])
                must(is_there, "asked of somebody without a call there", line)
                must(question.id is None or not self._others(question, call), "a guess", line)
            self.parked.append((call, answer))
        else:
            must(answer["work"] == work.number, "the answer to another call", line)
            must(self.is_modern == (answer.get("resultType") == "complete"), "of that era", line)


def _are_at(works: set[Work], puppet: Puppet, there: set[Work]) -> bool:
    # On its way there, or waiting for the next process, a call is in flight already.
    return any(
        each in there or (each.server == puppet.server and not each.arrivals) for each in works
    )
