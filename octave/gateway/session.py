"""One client's conversation, whatever carries it: raw lines in, raw lines out.

Each request is a task of its own and is answered under the very id text it came with. No message
depends on a handshake before it: what a request needs is in the request. A malformed line costs
that line. Only Octave's own errors are made here; a server's answers pass as they came.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import anyio
import anyio.abc
import msgspec

from octave import __version__
from octave.errors import NotFound, OctaveError, ServerBusy, UsageError
from octave.gateway.audience import Member, Scope, level_named
from octave.gateway.listing import Listing, text_of
from octave.gateway.router import Router
from octave.packages.offered import LISTS
from octave.runtime import wire
from octave.runtime.pace import breathe
from octave.runtime.server import Server

LATEST_VERSION = "2025-11-25"
VERSIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", LATEST_VERSION})
"""The versions that begin with `initialize`; of these the one asked for is the one spoken."""
REQUESTS_LIMIT = 1024
"""A client that opens more at once does not wait for answers; it would only fill the memory."""

_KINDS: Mapping[str, str] = {method: kind for kind, method in LISTS.items()}
_log = logging.getLogger(__name__)


class SessionOverflow(Exception):
    """Raised by `send`: the client does not read, and no more can be kept for it."""


_OWN_NOTIFICATIONS = frozenset({"notifications/initialized", "notifications/roots/list_changed"})
"""Of the handshake between client and Octave; towards servers Octave announces no roots."""


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
        self._member = Member(scope, self._write)
        self._open: dict[bytes, anyio.CancelScope] = {}
        self._ended = anyio.Event()
        self._finishing = False
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the session's requests until it is closed; started once lines may be received."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._router.audience.join(self._member)
                task_status.started()
                await self._ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            self.close()

    def receive(self, line: bytes | wire.Oversize) -> None:
        """Take one line of the client, without newline; never raises, never blocks."""
        if self._tasks is None or self._ended.is_set():
            return
        if isinstance(line, wire.Oversize):
            text = f"message too large: {line.size_bytes} bytes"
            self._write(wire.error(None, wire.INVALID_REQUEST, text))
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

    def take(self, message: wire.Message) -> None:
        """Take what wants no answer: a notification, or an answer to what a server asked."""
        if message.is_notification:
            self._note(message)

    async def serve(self, message: wire.Message, send: Callable[[bytes], None]) -> bytes:
        """Return the answer to a request, as a line.

        What is said about it meanwhile goes through `send`, in front of the answer. Cancelled, it
        is cancelled at the server too.
        """
        return await self._answer(message.id or b"null", message, send)

    def finish(self) -> None:
        """The client sends no more: close as soon as every open request is answered."""
        self._finishing = True
        if not self._open:
            self.close()

    def close(self) -> None:
        """Cancel what is open and forget the session; idempotent."""
        self._ended.set()
        self._router.audience.leave(self._member)
        self._member.subscriptions.clear()

    def _write(self, line: bytes) -> None:
        if self._ended.is_set():
            return
        try:
            self._send(line)
        except SessionOverflow:
            self.close()

    def _begin(self, message: wire.Message, tasks: anyio.abc.TaskGroup) -> None:
        identifier = message.id or b"null"
        if message.method == "ping":
            # Here and now: it never waits behind a call, and wakes nobody.
            self._write(wire.result(identifier, b"{}"))
        elif identifier in self._open:
            text = "a request with this id is still open"
            self._write(wire.error(identifier, wire.INVALID_REQUEST, text))
        elif len(self._open) >= REQUESTS_LIMIT:
            error = ServerBusy(f"more than {REQUESTS_LIMIT} requests are open")
            self._write(refusal(identifier, error))
        else:
            self._open[identifier] = anyio.CancelScope()
            tasks.start_soon(self._serve, identifier, message)

    def _note(self, message: wire.Message) -> None:
        if message.method == "notifications/cancelled":
            identifier = wire.member(message.params or b"{}", "requestId")
            scope = self._open.get(identifier or b"")
            if scope is not None:
                scope.cancel()
        elif self._scope.single and message.method not in _OWN_NOTIFICATIONS:
            for name in self._router.names(self._scope):
                self._router.server(name).notify(message.line)

    async def _serve(self, identifier: bytes, message: wire.Message) -> None:
        try:
            with self._open[identifier]:
                self._write(await self._answer(identifier, message, self._write))
        finally:
            del self._open[identifier]
        if self._finishing and not self._open:
            self.close()

    async def _answer(
        self, identifier: bytes, message: wire.Message, send: Callable[[bytes], None]
    ) -> bytes:
        try:
            await breathe(message.line)
            return await self._result(identifier, message)
        except OctaveError as error:
            return refusal(identifier, error)
        except Exception:  # noqa: BLE001 - the edge to the client: one request fails, not the session
            _log.exception("a bug while serving `%s`", message.method)
            return wire.error(identifier, wire.INTERNAL_ERROR, "internal error of Octave")

    async def _result(self, identifier: bytes, message: wire.Message) -> bytes:
        if message.method == "initialize":
            asked = text_of(message.params, "protocolVersion")
            version = asked if asked in VERSIONS else LATEST_VERSION
            result = await self._initialize(msgspec.json.encode(version))
            self._member.listening = True
            return wire.result(identifier, result)
        if message.method == "server/discover":
            # Answered at once: clients of the other era then fall back to `initialize`.
            return _unknown_method(identifier, message)
        if self._scope.single:
            return await self._as_the_server(identifier, message)
        return await self._as_one_of_many(identifier, message)

    async def _as_the_server(self, identifier: bytes, message: wire.Message) -> bytes:
        server = self._single_server()
        kind = _KINDS.get(message.method or "")
        if kind is not None and wire.member(message.params or b"{}", "cursor") is None:
            known = await self._router.listings(self._scope)
            if known and kind in known[0].offered.lists:
                items = known[0].offered.lists[kind]
                return wire.result(identifier, _list_result(kind, items))
        return await self._forward(identifier, message, server, {})

    async def _as_one_of_many(self, identifier: bytes, message: wire.Message) -> bytes:
        method = message.method or ""
        kind = _KINDS.get(method)
        if kind is not None:
            if wire.member(message.params or b"{}", "cursor") is not None:
                raise UsageError("`params.cursor` is unknown: every list is one page")
            known = await self._router.listings(self._scope)
            return wire.result(identifier, _list_result(kind, _merged(known, kind)))
        if method == "logging/setLevel":
            level = level_named(message.params)
            if level is None:
                raise UsageError("`params.level` is no log level")
            self._member.level = level
            return wire.result(identifier, b"{}")
        route = await self._router.route(self._scope, method, message.params)
        if route is None:
            return _unknown_method(identifier, message)
        return await self._forward(identifier, message, route.server, route.changes)

    async def _forward(
        self,
        identifier: bytes,
        message: wire.Message,
        server: Server,
        changes: Mapping[wire.Path, bytes],
    ) -> bytes:
        is_about_one = (message.method or "").startswith("resources/")
        uri = (text_of(message.params, "uri") if is_about_one else None) or ""
        key = (server.name, uri)
        if message.method == "resources/unsubscribe":
            self._member.subscriptions.discard(key)
            if self._router.audience.has_subscriber(*key):
                return wire.result(identifier, b"{}")
        elif message.method == "resources/subscribe":
            # Before the answer: the first update may follow it on the heels.
            self._member.subscriptions.add(key)
        answer = await server.forward(message, changes, self._write)
        if message.method == "resources/subscribe" and answer.error is not None:
            self._member.subscriptions.discard(key)
        await breathe(answer.line)
        return wire.splice(answer.line, {("id",): identifier})

    async def _initialize(self, version: bytes) -> bytes:
        if not self._scope.single:
            known = [self._router.catalogue.listing(name) for name in self._names()]
            return _merged_initialize([each for each in known if each is not None], version)
        name = self._single_server().name
        catalogue = self._router.catalogue
        offered = catalogue.get(name) or await catalogue.refresh(name)
        return wire.splice(offered.initialize, {("protocolVersion",): version})

    def _single_server(self) -> Server:
        (name,) = self._scope.servers or ()
        return self._router.server(name)

    def _names(self) -> list[str]:
        return self._router.names(self._scope)


def refusal(identifier: bytes, error: OctaveError) -> bytes:
    """Return the answer that tells a client why Octave could not do its part."""
    invalid = isinstance(error, (NotFound, UsageError))
    code = wire.INVALID_PARAMS if invalid else wire.INTERNAL_ERROR
    text = error.message if error.hint is None else f"{error.message}; {error.hint}"
    tail = error.details.get("stderrTail")
    if tail:
        # Of an error most clients, and every model, are shown this text alone.
        text = "\n".join((text, "its last lines on stderr:", *tail))
    data: dict[str, object] = {"octave": error.as_json()}
    if "uri" in error.details:
        data["uri"] = error.details["uri"]
    return wire.error(identifier, code, text, msgspec.json.encode(data))


def _unknown_method(identifier: bytes, message: wire.Message) -> bytes:
    return wire.error(identifier, wire.METHOD_NOT_FOUND, f"Method not found: {message.method}")


def _list_result(kind: str, items: Iterable[bytes]) -> bytes:
    return b'{"%b":[%b]}' % (kind.encode(), b",".join(items))


def _merged(known: Iterable[Listing], kind: str) -> Iterable[bytes]:
    for each in known:
        yield from each.definitions(kind)


def _merged_initialize(known: Iterable[Listing], version: bytes) -> bytes:
    # Servers come and go while the client keeps what it was told here: the lists are always there.
    capabilities: dict[str, dict[str, bool]] = {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True},
    }
    instructions: list[str] = []
    for each in known:
        initialize = each.offered.initialize
        if wire.member(initialize, "capabilities", "resources", "subscribe") == b"true":
            capabilities["resources"]["subscribe"] = True
        for optional in ("completions", "logging"):
            if wire.member(initialize, "capabilities", optional) is not None:
                capabilities[optional] = {}
        text = text_of(initialize, "instructions")
        if text:
            instructions.append(f"## {each.server}\n{text}")
    result: dict[str, object] = {
        "protocolVersion": msgspec.Raw(version),
        "capabilities": capabilities,
        "serverInfo": {"name": "octave", "title": "Octave", "version": __version__},
    }
    if instructions:
        result["instructions"] = "\n\n".join(instructions)
    return msgspec.json.encode(result)
