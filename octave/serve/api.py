"""The routes: the operations of `Control`, and MCP. All of them stand behind `guard.Guard`.

Definitions and results are sent as the bytes that the server wrote. No route takes a command.
"""

import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octave import __version__
from octave.errors import OctaveError, from_json
from octave.serve.answers import (
    error_response,
    internal_error,
    json_response,
    raw_response,
    refusal,
    route,
)
from octave.serve.control import Call, Control
from octave.serve.methods import read_arguments, read_params

CLIENT_GONE = 499
"""Nobody reads it; nginx made it known."""

_log = logging.getLogger(__name__)


class _Call(msgspec.Struct, kw_only=True):
    tool: str = msgspec.field(name="toolName")
    server: str | None = msgspec.field(name="serverId", default=None)
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


def build(
    control: Control, mcp: ASGIApp | None = None, packages: Iterable[Route] = ()
) -> Starlette:
    """Return the application with every route; `mcp` serves those of MCP over HTTP."""
    api = _Api(control)
    routes = [
        route("GET", "/health", api.health),
        route("GET", "/mcp/tools", api.tools),
        route("POST", "/mcp/call", api.call),
        route("GET", "/mcp/status", api.stats),
        route("GET", "/api/servers", api.servers),
        route("POST", "/api/servers/{name}/start", api.start),
        route("POST", "/api/servers/{name}/stop", api.stop),
        route("POST", "/api/servers/{name}/restart", api.restart),
        route("POST", "/api/shutdown", api.shutdown),
        *packages,
    ]
    if mcp is not None:
        paths = ("/mcp", "/mcp/servers/{name}", "/mcp/profiles/{profile}")
        routes += [Route(path, _Guarded(mcp)) for path in paths]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})


class _Api:
    """One method for each route."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def health(self, _: Request) -> Response:
        return json_response({"status": "ok", "version": __version__})

    async def tools(self, _: Request) -> Response:
        return raw_response(await self._control.api_tools())

    async def call(self, request: Request) -> Response:
        wanted = read_params(await request.body(), _Call)
        arguments = read_arguments(wanted.arguments)
        call = Call(wanted.tool, arguments, wanted.server)
        return await _unless_gone(request, self._control.call(call))

    async def stats(self, _: Request) -> Response:
        status = await self._control.status()
        return json_response({server["name"]: _stats(server) for server in status["servers"]})

    async def servers(self, _: Request) -> Response:
        return json_response(await self._control.status())

    async def start(self, request: Request) -> Response:
        return _one(await self._control.start([request.path_params["name"]]))

    async def stop(self, request: Request) -> Response:
        return _one(await self._control.stop([request.path_params["name"]]))

    async def restart(self, request: Request) -> Response:
        return _one(await self._control.restart([request.path_params["name"]]))

    async def shutdown(self, _: Request) -> Response:
        return json_response(await self._control.shutdown())


class _Guarded:
    """Another application: what it raises before it has begun to answer is the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except OctaveError as error:
            await refusal(error)(scope, receive, send)
        except Exception:  # noqa: BLE001 - the edge to HTTP: one request fails, not the runtime
            _log.exception("a bug while serving `%s %s`", scope["method"], scope["path"])
            if not has_begun:
                await internal_error()(scope, receive, send)


async def _unless_gone(request: Request, work: Awaitable[bytes]) -> Response:
    """Return what `work` gives, and cancel it when the client leaves. Its body must be read."""
    failure: OctaveError | None = None
    response = Response(status_code=CLIENT_GONE)
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            response = raw_response(await work)
        except OctaveError as error:
            # Raised in here it would come out wrapped into a group.
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return response


async def _no_route(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    error = OctaveError(f"no route `{request.method} {request.url.path}`", hint="see `/health`")
    return error_response(exception.status_code, error, exception.headers)


def _stats(server: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": server["state"],
        "uptime": server["uptimeSeconds"],
        "stats": {
            "callCount": server["calls"],
            "errorCount": server["errors"],
            "lastCallDuration": server["lastMs"],
            "avgCallDuration": server["averageMs"],
            "p50": server["p50Ms"],
            "p95": server["p95Ms"],
            "p99": server["p99Ms"],
        },
        "pid": server["pid"],
        "memoryBytes": server["memoryBytes"],
        "restarts": server["restarts"],
        "availability": server["availability"],
        "downSeconds": server["downSeconds"],
        "lastError": server["lastError"],
    }


def _one(answer: Mapping[str, Any]) -> Response:
    (result,) = answer["results"]
    if "error" not in result:
        return json_response(result)
    error = from_json(result["error"])
    return refusal(error)
