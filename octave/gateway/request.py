"""One request of a client, from its arrival to its answer."""

from collections.abc import Callable

import anyio
import msgspec

from octave.errors import NotFound, OctaveError, ProtocolViolated, UsageError
from octave.gateway.client import Send
from octave.gateway.eras import Envelope
from octave.runtime import wire
from octave.runtime.handshake import Era
from octave.runtime.subject import Speaker


class Request(msgspec.Struct, eq=False):
    """What a client asked, and where what is said about it goes."""

    message: wire.Message
    send: Send
    """For what comes before the answer."""
    envelope: Envelope | None = None
    """None: it is of the handshake era."""
    cancellation: wire.Message | None = None
    """The notification with which the client took it back, if it did."""
    withdraw: Callable[[], object] = lambda: None
    """Takes it back from the server that has it."""
    holder: Speaker | None = None
    """The process that serves it."""
    is_of_one_client: bool = True
    """Everything in its session is of the same client."""

    def get_cancellation(self) -> wire.Message | None:
        """Return the notification with which the client took it back, if it did."""
        return self.cancellation

    def on_submitted(self, cancel: Callable[[], object]) -> None:
        """Take what takes it back from the server that has it now."""
        self.withdraw = cancel

    @property
    def id(self) -> bytes:
        """Its id, raw."""
        return self.message.id or b"null"

    @property
    def method(self) -> str:
        """Its method."""
        return self.message.method or ""

    @property
    def params(self) -> bytes:
        """Its raw params; an empty object when there are none."""
        return self.message.params or b"{}"

    @property
    def era(self) -> Era:
        """Of which era it is."""
        return "legacy" if self.envelope is None else "modern"

    def result(self, value: bytes) -> bytes:
        """Return the line that answers it with a raw result."""
        return wire.result(self.id, value)

    def unknown_method(self) -> bytes:
        """Return the line that says that there is no such method."""
        return wire.error(self.id, wire.METHOD_NOT_FOUND, f"Method not found: {self.method}")


class Open(msgspec.Struct, eq=False):
    """A request of a session that is not answered yet."""

    request: Request
    take_back: Callable[[], None] | None = None
    """Takes it back from its server and ends it; None: a task answers it."""
    _scope: anyio.CancelScope | None = None

    @property
    def scope(self) -> anyio.CancelScope:
        """Of the task that answers it; most need none."""
        if self._scope is None:
            self._scope = anyio.CancelScope()
        return self._scope

    def cancel(self) -> None:
        """End it without an answer."""
        if self.take_back is not None:
            self.take_back()
            return
        # Here and now, and whoever waits for the answer.
        self.request.withdraw()
        self.scope.cancel()


def refusal(identifier: bytes, error: OctaveError) -> bytes:
    """Return the answer that tells a client why Octave could not do its part."""
    if isinstance(error, ProtocolViolated):
        data = error.details.get("rpcData")
        raw = None if data is None else wire.text(data)
        return wire.error(identifier, error.details["rpcCode"], error.message, raw)
    invalid = isinstance(error, (NotFound, UsageError))
    code = wire.INVALID_PARAMS if invalid else wire.INTERNAL_ERROR
    text = error.message if error.hint is None else f"{error.message}; {error.hint}"
    tail = error.details.get("stderrTail")
    if tail:
        # Of an error most clients, and every model, are shown this text alone.
        text = "\n".join((text, "its last lines on stderr:", *tail))
    told: dict[str, object] = {"octave": error.as_json()}
    if "uri" in error.details:
        told["uri"] = error.details["uri"]
    return wire.error(identifier, code, text, wire.text(told))
