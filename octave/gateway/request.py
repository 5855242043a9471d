"""One request of a client, from its arrival to its answer."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from octave.errors import NotFound, OctaveError, ProtocolViolated, UsageError
from octave.gateway.client import Send
from octave.gateway.eras import Envelope
from octave.runtime import wire
from octave.runtime.handshake import Era


@dataclass(slots=True, eq=False)
class Request:
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


def refusal(identifier: bytes, error: OctaveError) -> bytes:
    """Return the answer that tells a client why Octave could not do its part."""
    if isinstance(error, ProtocolViolated):
        data = error.details.get("rpcData")
        raw = None if data is None else msgspec.json.encode(data)
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
    return wire.error(identifier, code, text, msgspec.json.encode(told))
