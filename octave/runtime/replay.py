"""Which calls may be sent again after a crash cut them off.

A call that may have been executed is repeated only when its tool says that this does no harm and
the manifest takes its word for it: annotations are a server's claims (MCP 2025-11-25,
ToolAnnotations). The error of any other says that its outcome is unknown.
"""

import json
from collections.abc import Mapping

from octave.errors import ServerDied
from octave.packages.offered import Offered
from octave.runtime import wire
from octave.runtime.wire import Message, Path

CALL = "tools/call"
HARMLESS = ("readOnlyHint", "idempotentHint")
"""Either is enough: it changes nothing, or nothing more when it is repeated."""


def is_harmless(message: Message, changes: Mapping[Path, bytes], offered: Offered | None) -> bool:
    """Whether `message`, with `changes` as it went to the server, calls a tool marked `HARMLESS`.

    `offered` is what the server last said; of tools of the same name all must be marked.
    """
    if message.method != CALL or offered is None:
        return False
    name = changes.get(("params", "name")) or wire.member(message.params or b"{}", "name")
    marks = [_is_marked(tool) for tool in offered.tools if _is_named(tool, name)]
    return bool(marks) and all(marks)


def with_outcome(error: ServerDied, message: Message) -> ServerDied:
    """Return the error of a call that may have been executed, or `error` when it is no call."""
    if message.method != CALL or error.details.get("sent") is False:
        return error
    details = error.details | {"outcome": "unknown"}
    return ServerDied(f"{error.message}, outcome unknown", error.hint, details)


def _is_named(tool: bytes, name: bytes | None) -> bool:
    found = wire.member(tool, "name")
    if found is None or name is None:
        return False
    # The same name may be written with other escapes.
    return found == name or bool(json.loads(found) == json.loads(name))


def _is_marked(tool: bytes) -> bool:
    return any(wire.member(tool, "annotations", hint) == b"true" for hint in HARMLESS)
