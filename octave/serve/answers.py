"""What the routes of the HTTP API answer with: JSON, and errors in the one shape they have."""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from octave.errors import OctaveError

STATUS_OF: Mapping[str, int] = {
    "usage": 400,
    "missing_answer": 400,
    "not_found": 404,
    "server_not_found": 404,
    "package_not_found": 404,
    "version_not_found": 404,
    "tool_not_found": 404,
    "ambiguous": 409,
    "not_running": 409,
    "manifest_invalid": 409,
    "not_trusted": 409,
    "not_approved": 403,
    "locked": 409,
    "registry_unreachable": 502,
    "start_failed": 502,
    "server_died": 502,
    "server_busy": 503,
    "call_timed_out": 504,
}
"""The HTTP status of an `OctaveError` by its code; 500 for the others."""

_log = logging.getLogger(__name__)
_Endpoint = Callable[[Request], Awaitable[Response]]


def route(method: str, path: str, endpoint: _Endpoint) -> Route:
    """Return a route whose `endpoint` may raise: what it raises is the answer."""

    @functools.wraps(endpoint)
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except OctaveError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001 - the edge to HTTP: one request fails, not the runtime
            _log.exception("a bug while serving `%s %s`", method, path)
            return internal_error()

    return Route(path, guarded, methods=[method])


def refusal(error: OctaveError) -> Response:
    """Return the answer that tells `error`, with the status of its code."""
    return error_response(STATUS_OF.get(error.code, 500), error)


def error_response(
    status: int, error: OctaveError, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer that tells `error`."""
    members: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": error.details,
    }
    return json_response({"error": members}, status, headers)


def internal_error() -> Response:
    """Return the answer to a request on which Octave itself failed."""
    return error_response(500, OctaveError("internal error of Octave"))


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `value` as JSON."""
    return raw_response(msgspec.json.encode(value), status, headers)


def raw_response(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return JSON that is written already."""
    return Response(body, status, headers, media_type="application/json")
