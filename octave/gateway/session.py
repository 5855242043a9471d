"""One client's conversation, whatever carries it: raw lines in, raw lines out.

Each request is a task of its own and is answered under the very id text it came with; its era is
its own too. No message depends on a handshake before it: what a request needs is in the request.
A malformed line costs that line. Only Octave's own errors are made here; a server's answers pass as
they came.
"""

import contextlib
import logging
from collections.abc import Callable

import anyio
import anyio.abc
import msgspec

from octave.errors import OctaveError, ServerBusy, ServerNotFound
from octave.gateway import bridge
from octave.gateway.audience import Member, Scope
from octave.gateway.client import Client
from octave.gateway.crossing import Crossing
from octave.gateway.eras import (
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    envelope,
    is_modern,
)
from octave.gateway.face import KINDS, face
from octave.gateway.hearing import Hearing, listen_result
from octave.gateway.listing import text_of
from octave.gateway.request import Open, Request, refusal
from octave.gateway.router import Router
from octave.runtime import wire
from octave.runtime.interests import LISTEN
from octave.runtime.pace import LONG_BYTES, breathe
from octave.runtime.pending import Outcome
from octave.runtime.subject import Speaker

PASSED = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
"""What is asked often, and needs nothing but the server to be answered."""
REQUESTS_LIMIT = 1024
"""A client that opens more at once does not wait for answers; it would only fill the memory."""

_log = logging.getLogger(__name__)


class SessionOverflow(Exception):
    """Raised by `send`: the client does not read, and no more can be kept for it."""


class Session:
    """One conversation.

    Args:
        scope: the servers it shows; `single` shows one as if nothing stood between.
        send: takes a line without newline, at once; may raise `SessionOverflow`, which ends the
            session.
    """

    def __init__(self, router: Router, scope: Scope, send: Callable[[bytes], None]) -> None:
        self._router = router
        self._scope = scope
        self._send = send
        self._client = Client()
        self._unasked = self._write
        """What belongs to no channel of its own; always the same object."""
        self._crossing = Crossing(self._client, self, self._unasked, keeps_ids=scope.single)
        self._face = face(router, scope, self._crossing)
        self._member = Member(scope, self, self)
        self._hearing = Hearing(
            router, self._face, self._crossing, self._client, self._member, self._say
        )
        self._open: dict[object, Open] = {}
        self._ended = anyio.Event()
        self._is_over = self._is_closing = False
        self._finishing = False
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the session's requests until it is closed; started once lines may be received."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = self._crossing.lot.tasks = tasks
                self._router.audience.join(self._member)
                task_status.started()
                await self._ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.close()

    def receive(self, line: bytes | wire.Oversize) -> None:
        """Take one line of the client, without newline; never raises, never blocks."""
        if self._tasks is None or self._is_over:
            return
        if isinstance(line, wire.Oversize):
            self._refuse(line)
            return
        try:
            message = wire.decode(line)
        except wire.Malformed as error:
            self._write(wire.error(None, error.code, str(error)))
            return
        if message.is_request:
            self._begin(message, self._tasks)
        else:
            self.take(message)

    def _refuse(self, line: wire.Oversize) -> None:
        text = f"message too large: {line.size_bytes} bytes"
        answered = wire.scan_id(line.head)
        if answered is not None:
            # A server waits for that.
            self._client.answered(wire.decode(wire.error(answered, wire.INTERNAL_ERROR, text)))
            return
        identifier = wire.scan_id(line.head, of_request=True)
        self._write(wire.error(identifier, wire.INVALID_REQUEST, text))

    def take(self, message: wire.Message) -> None:
        """Take what wants no answer: a notification, or an answer to what a server asked."""
        if message.is_notification:
            self._note(message)
        else:
            self._client.answered(message)

    async def serve(self, message: wire.Message, send: Callable[[bytes], None]) -> bytes:
        """Return the answer to a request, as a line.

        What is said about it meanwhile goes through `send`, in front of the answer. Cancelled, it
        is cancelled at the server too. Modern requests may share ids: who they are of is not known.
        """
        is_of_one = not is_modern(message)
        key: object = (message.id or b"null") if is_of_one else object()
        if key in self._open:
            return _refused(message, "a request with this id is still open")
        if len(self._open) >= REQUESTS_LIMIT:
            return self._too_many(message)
        entry = self._open[key] = Open(Request(message, send, is_of_one_client=is_of_one))
        try:
            with entry.scope:
                return await self._answer(key, entry)
        finally:
            del self._open[key]
        return _refused(message, "the request was cancelled")

    def finish(self) -> None:
        """The client sends no more: close as soon as every open request is answered."""
        self._finishing = True
        for entry in self._open.values():
            if entry.request.method == LISTEN:
                entry.cancel()
        if not self._open:
            self.close()

    def close(self) -> None:
        """Cancel what is open and forget the session; idempotent."""
        if not self._is_closing:
            # Whatever it is told now may be too much for it.
            self._is_closing = True
            for entry in self._open.values():
                if entry.request.method == LISTEN:
                    self._say(entry.request.send, listen_result(entry.request))
            for entry in list(self._open.values()):
                entry.cancel()
        self._is_over = True
        self._ended.set()
        self._router.audience.leave(self._member)
        self._hearing.close()
        self._client.leave()
        for server in self._router.all_servers():
            server.dismiss(self)

    # What servers say by themselves; the session is the ear of its member.

    def changed(self, line: bytes) -> None:
        """Take a line that says which list changed."""
        if self._client.is_listening:
            self._write(line)

    def updated(self, line: bytes) -> None:
        """Take a line about a resource whose updates the client asked for."""
        if self._client.is_listening:
            self._write(line)

    def heard(self, speaker: Speaker, message: wire.Message) -> None:
        """Take what a server of the scope said of itself."""
        here = [entry.request for entry in self._open.values() if entry.request.holder is speaker]
        places = self._hearing.places(here, speaker, message)
        line = bridge.untagged(message) if speaker.era == "modern" else message.line
        for send in dict.fromkeys(place or self._unasked for place in places):
            self._say(send, line)

    # Lines.

    def _write(self, line: bytes) -> None:
        self._say(self._send, line)

    def _say(self, send: Callable[[bytes], None], line: bytes) -> None:
        if self._is_over:
            return
        try:
            send(line)
        except SessionOverflow:
            self.close()

    def _begin(self, message: wire.Message, tasks: anyio.abc.TaskGroup) -> None:
        identifier = message.id or b"null"
        if message.method == "ping" and not is_modern(message):
            # Here and now: it never waits behind a call, and wakes nobody.
            self._write(wire.result(identifier, b"{}"))
        elif identifier in self._open:
            self._write(_refused(message, "a request with this id is still open"))
        elif len(self._open) >= REQUESTS_LIMIT:
            self._write(self._too_many(message))
        else:
            entry = self._open[identifier] = Open(Request(message, self._unasked))
            if not self._is_passed_on(identifier, entry, tasks):
                tasks.start_soon(self._serve, identifier, entry)

    def _is_passed_on(self, identifier: bytes, entry: Open, tasks: anyio.abc.TaskGroup) -> bool:
        """Hand a request to its server here and now; False where something has to be awaited.

        The answer then comes without a task, and before anything the server says after it.
        """
        request = entry.request
        message = request.message
        if message.method not in PASSED or len(message.line) >= LONG_BYTES:
            return False
        try:
            self._read_envelope(request)
            route = self._face.route_now(request)
        except OctaveError:
            return False
        if route is None:
            return False

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, OctaveError):
                self._end(identifier, refusal(identifier, outcome))
                return
            if len(outcome.line) >= LONG_BYTES:
                tasks.start_soon(self._end_slowly, identifier, outcome)
            else:
                self._end(identifier, wire.rewrite(outcome, {("id",): identifier}))
            self._face.saw(route.server.name, outcome.line)

        def again() -> None:
            entry.take_back = None
            tasks.start_soon(self._serve, identifier, entry)

        cancel = self._crossing.submit(request, route, done, again)
        if cancel is None:
            return False

        def cancelled() -> None:
            cancel()
            self._end(identifier, None)

        entry.take_back = cancelled
        return True

    async def _end_slowly(self, identifier: bytes, answer: wire.Message) -> None:
        await breathe(answer.line)
        self._end(identifier, wire.rewrite(answer, {("id",): identifier}))

    def _end(self, identifier: bytes, line: bytes | None) -> None:
        if self._open.pop(identifier, None) is None:
            return
        if line is not None:
            self._write(line)
        if self._finishing and not self._open:
            self.close()

    def _read_envelope(self, request: Request) -> None:
        if is_modern(request.message):
            request.envelope = envelope(request.message)
            self._client.is_modern = True

    def _too_many(self, message: wire.Message) -> bytes:
        return refusal(
            message.id or b"null", ServerBusy(f"more than {REQUESTS_LIMIT} requests are open")
        )

    def _note(self, message: wire.Message) -> None:
        with contextlib.suppress(ServerNotFound):
            self._pass_note(message)

    def _pass_note(self, message: wire.Message) -> None:
        if message.method == "notifications/cancelled":
            identifier = wire.member(message.params or b"{}", "requestId")
            entry = self._open.get(identifier or b"")
            if entry is not None:
                entry.request.cancellation = message
                entry.cancel()
        elif message.method == "notifications/progress":
            self._client.progressed(message)
        elif message.method == "notifications/roots/list_changed":
            for server in self._face.servers():
                server.roots_changed(message.line, self)
        elif self._scope.single and message.method != "notifications/initialized":
            for server in self._face.servers():
                self._crossing.outside(server).notify(message.line, wakes=True)

    async def _serve(self, identifier: bytes, entry: Open) -> None:
        try:
            with entry.scope:
                line = await self._answer(identifier, entry)
                # Taken back in this very moment, it is not answered any more.
                await anyio.lowlevel.checkpoint_if_cancelled()
                self._write(line)
        finally:
            del self._open[identifier]
        if self._finishing and not self._open:
            self.close()

    # Answers.

    async def _answer(self, key: object, entry: Open) -> bytes:
        message = entry.request.message
        identifier = entry.request.id
        try:
            await breathe(message.line)
            if self._is_over:
                # Nothing may be begun for it that its end would have ended.
                return _refused(message, "the session is over")
            self._read_envelope(entry.request)
            if entry.request.envelope is not None:
                return await self._modern(entry)
            return await self._legacy(entry)
        except OctaveError as error:
            return refusal(identifier, error)
        except Exception:  # noqa: BLE001 - the edge to the client: one request fails, not the session
            _log.exception("a bug while serving `%s`", message.method)
            return wire.error(identifier, wire.INTERNAL_ERROR, "internal error of Octave")

    async def _legacy(self, entry: Open) -> bytes:
        request = entry.request
        match request.method:
            case "initialize":
                asked = text_of(request.params, "protocolVersion")
                version = asked if asked in LEGACY_VERSIONS else LATEST_LEGACY
                result = await self._face.initialize(msgspec.json.encode(version))
                self._client.greeted(request.message.params)
                return request.result(result)
            case "ping":
                return request.result(b"{}")
            case "logging/setLevel":
                return await self._hearing.set_level(request)
            case "resources/subscribe" | "resources/unsubscribe":
                return await self._hearing.subscribe(request)
            case "server/discover" | "subscriptions/listen":
                return request.unknown_method()
        return await self._pass(entry)

    async def _modern(self, entry: Open) -> bytes:
        request = entry.request
        if request.method == "server/discover":
            return request.result(await self._face.discover(request))
        if request.method == LISTEN:
            return await self._hearing.listen(request)
        if request.method in bridge.NOT_MODERN:
            return request.unknown_method()
        return await self._pass(entry)

    async def _pass(self, entry: Open) -> bytes:
        """Answer a list, or let the server answer that the request is for."""
        request = entry.request
        kind = KINDS.get(request.method)
        if kind is not None:
            line = await self._face.listed(request, kind)
            if line is not None:
                return line
        route = await self._face.route(request)
        if route is None:
            return request.unknown_method()
        await self._router.reach(route.server, request.era)
        line = await self._crossing.over(request, route.server, route.changes)
        self._face.saw(route.server.name, line)
        return line


def _refused(message: wire.Message, text: str) -> bytes:
    return wire.error(message.id or b"null", wire.INVALID_REQUEST, text)
