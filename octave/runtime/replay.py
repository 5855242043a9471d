"""Which calls may be sent again after a crash cut them off.

A call that may have been executed is repeated only when its tool says that this does no harm and
the manifest takes its word for it: annotations are a server's claims (MCP 2025-11-25,
ToolAnnotations). The error of any other says that its outcome is unknown.
"""

import json
from collections.abc import Mapping

from octave.errors import NotRunning, OctaveError, ServerDied
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


def cut_off(error: ServerDied, message: Message, stopped: str | None = None) -> OctaveError:
    """Return what the caller of `message` is told of a process that ended before it answered.

    That the outcome of a call is unknown, unless it never left; `stopped` names the server whose
    end was an order.
    """
    told: OctaveError = error
    if stopped is not None:
        told = NotRunning(
            f"`{stopped}` was stopped before it answered `{message.method}`",
            hint=f"octave start {stopped}",
            details={"sent": error.details["sent"]},
        )
    if message.method != CALL or told.details.get("sent") is False:
        return told
    details = told.details | {"outcome": "unknown"}
    return type(told)(f"{told.message}, outcome unknown", told.hint, details)


def _is_named(tool: bytes, name: bytes | None) -> bool:
    found = wire.member(tool, "name")
    if found is None or name is None:
        return False
    # The same name may be written with other escapes.
    return found == name or bool(json.loads(found) == json.loads(name))


def _is_marked(tool: bytes) -> bool:
    return any(wire.member(tool, "annotations", hint) == b"true" for hint in HARMLESS)
