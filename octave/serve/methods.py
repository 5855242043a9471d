"""A control connection: the operations of `Control` as JSON-RPC methods `octave/...`.

Errors carry `OctaveError.as_json` under `data.octave`. `octave/call` reports progress as
notifications `octave/progress` `{"id", "params"}`. A client that leaves cancels what it asked for.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.abc
import msgspec

from octave.errors import OctaveError, ServerBusy, UsageError
from octave.gateway.session import SessionOverflow
from octave.runtime import wire
from octave.serve.control import Call, Control, OnProgress

REQUESTS_LIMIT = 64
"""Of one connection at once; a command has one or two."""

_log = logging.getLogger(__name__)
_Params = TypeVar("_Params")


class _Names(msgspec.Struct):
    names: list[str] = []
    all: bool = False


class _Name(msgspec.Struct):
    name: str


class _Server(msgspec.Struct):
    server: str | None = None
    fresh: bool = False


class _Call(msgspec.Struct, kw_only=True, rename="camel"):
    tool: str
    server: str | None = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    timeout_seconds: float | None = None


def read_params(raw: bytes, kind: type[_Params]) -> _Params:
    """Return JSON as a struct of `kind`.

    Raises:
        UsageError: a member is missing or of another type; the text says which.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"wrong parameters: {error}") from error


def read_arguments(raw: msgspec.Raw) -> bytes:
    """Return the arguments of a call as they came.

    Raises:
        UsageError: they are no object.
    """
    text = bytes(raw)
    if not text.lstrip().startswith(b"{"):
        raise UsageError("`arguments` must be an object")
    return text


async def _status(control: Control, params: bytes, _: OnProgress) -> bytes:
    return _json(await control.status(read_params(params, _Names).names))


async def _start(control: Control, params: bytes, _: OnProgress) -> bytes:
    wanted = read_params(params, _Names)
    return _json(await control.start(wanted.names, every=wanted.all))


async def _stop(control: Control, params: bytes, _: OnProgress) -> bytes:
    wanted = read_params(params, _Names)
    return _json(await control.stop(wanted.names, every=wanted.all))


async def _restart(control: Control, params: bytes, _: OnProgress) -> bytes:
    wanted = read_params(params, _Names)
    return _json(await control.restart(wanted.names, every=wanted.all))


async def _reload(control: Control, _params: bytes, _: OnProgress) -> bytes:
    return _json(await control.reload())


async def _swap(control: Control, params: bytes, _: OnProgress) -> bytes:
    return _json(await control.swap(read_params(params, _Name).name))


async def _tools(control: Control, params: bytes, _: OnProgress) -> bytes:
    wanted = read_params(params, _Server)
    return await control.tools(wanted.server, fresh=wanted.fresh)


async def _call(control: Control, params: bytes, on_progress: OnProgress) -> bytes:
    wanted = read_params(params, _Call)
    arguments = read_arguments(wanted.arguments)
    call = Call(wanted.tool, arguments, wanted.server, wanted.timeout_seconds)
    return await control.call(call, on_progress)


async def _shutdown(control: Control, _params: bytes, _: OnProgress) -> bytes:
    return _json(await control.shutdown())


METHODS: Mapping[str, Callable[[Control, bytes, OnProgress], Awaitable[bytes]]] = {
    "octave/status": _status,
    "octave/start": _start,
    "octave/stop": _stop,
    "octave/restart": _restart,
    "octave/reload": _reload,
    "octave/swap": _swap,
    "octave/tools": _tools,
    "octave/call": _call,
    "octave/shutdown": _shutdown,
}
"""Each takes raw params and gives a raw result."""


class ControlConversation:
    """What one control connection asks, answered in the order of completion.

    Args:
        send: takes a line without newline; may raise `SessionOverflow`, which ends all.
    """

    def __init__(self, control: Control, send: Callable[[bytes], None]) -> None:
        self._control = control
        self._send = send
        self._open = 0
        self._ended = anyio.Event()
        self._tasks: anyio.abc.TaskGroup

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the requests until closed; started once lines may be received."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await self._ended.wait()
            self._tasks.cancel_scope.cancel()

    def receive(self, line: bytes | wire.Oversize) -> None:
        """Take one line; never raises, never blocks."""
        if isinstance(line, wire.Oversize):
            self._write(wire.error(None, wire.INVALID_REQUEST, "message too large"))
            return
        try:
            message = wire.decode(line)
        except wire.Malformed as error:
            self._write(wire.error(None, error.code, str(error)))
            return
        if not message.is_request or message.id is None:
            return
        if self._open >= REQUESTS_LIMIT:
            self._write(error_line(message.id, ServerBusy("too many requests at once")))
            return
        self._open += 1
        self._tasks.start_soon(self._serve, message.id, message)

    def finish(self) -> None:
        """The client is gone: nobody waits for what is still open."""
        self.close()

    def close(self) -> None:
        """Cancel what is open; idempotent."""
        self._ended.set()

    def _write(self, line: bytes) -> None:
        try:
            self._send(line)
        except SessionOverflow:
            self.close()

    async def _serve(self, identifier: bytes, message: wire.Message) -> None:
        try:
            self._write(await self._answer(identifier, message))
        finally:
            self._open -= 1

    async def _answer(self, identifier: bytes, message: wire.Message) -> bytes:
        method = METHODS.get(message.method or "")
        if method is None:
            text = f"Method not found: {message.method}"
            return wire.error(identifier, wire.METHOD_NOT_FOUND, text)

        def on_progress(params: bytes) -> None:
            told = b'{"id":%b,"params":%b}' % (identifier, params)
            self._write(wire.notification("octave/progress", told))

        try:
            result = await method(self._control, message.params or b"{}", on_progress)
        except OctaveError as error:
            return error_line(identifier, error)
        except Exception:  # noqa: BLE001 - the edge to the CLI: one request fails, not the runtime
            _log.exception("a bug while serving `%s`", message.method)
            return wire.error(identifier, wire.INTERNAL_ERROR, "internal error of Octave")
        return wire.result(identifier, result)


def error_line(identifier: bytes, error: OctaveError) -> bytes:
    """Return the answer from which `errors.from_json` rebuilds `error` at the other end."""
    data = msgspec.json.encode({"octave": error.as_json()})
    return wire.error(identifier, wire.INTERNAL_ERROR, error.message, data)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
