"""A real MCP server of the SDK's own behind a URL.

Both eras, JSON or streams, with or without login; `older` is one of HTTP+SSE (MCP 2024-11-05).
"""

import threading
import warnings
from typing import Any

import anyio
import mcp_types as types
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from tests.remote_peer.authority import SCOPE, Authority
from tests.remote_peer.listening import BOUND_S, App, Listening


def _tool(name: str, **properties: Any) -> types.Tool:
    schema = {"type": "object", "properties": properties}
    return types.Tool(name=name, description=f"Does {name}", input_schema=schema)


TOOLS = [
    _tool("echo", text={"type": "string"}),
    _tool("big", bytes={"type": "integer"}),
    _tool("wait"),
    _tool("where", region={"type": "string", "x-mcp-header": "Region"}),
]


class Peer:
    """The tools, and what became of calls."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        """Released by each call of `wait` that has begun."""
        self.go_on = threading.Event()
        """Lets `wait` answer."""
        self.cancelled = threading.Semaphore(0)
        """Released by each call of `wait` that was cut off."""

    def server(self) -> Server[Any]:
        return Server("peer", on_list_tools=self._list, on_call_tool=self._call)

    async def _list(self, _: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def _call(self, context: Any, params: types.CallToolRequestParams) -> Any:
        arguments = params.arguments or {}
        match params.name:
            case "big":
                text = "x" * int(arguments["bytes"])
            case "wait":
                text = await self._wait(context)
            case "where":
                text = f"in {arguments['region']}"
            case _:
                text = str(arguments.get("text"))
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    async def _wait(self, context: Any) -> str:
        await context.session.report_progress(0.5)
        self.waiting.release()
        try:
            with anyio.fail_after(BOUND_S):
                while not self.go_on.is_set():  # noqa: ASYNC110 - set in another thread
                    await anyio.sleep(0.01)
        except anyio.get_cancelled_exc_class():
            self.cancelled.release()
            raise
        return "done"


def listening(
    peer: Peer, *, json: bool = False, authority: Authority | None = None, issuer: str = ""
) -> Listening:
    """Return its HTTP face at `/mcp`, not yet started."""

    def make_app(origin: str) -> App:
        if authority is None:
            return peer.server().streamable_http_app(json_response=json)
        settings = AuthSettings(
            issuer_url=AnyHttpUrl(issuer),
            resource_server_url=AnyHttpUrl(f"{origin}/mcp"),
            required_scopes=[SCOPE],
            validate_token_resource=False,
        )
        return peer.server().streamable_http_app(
            json_response=json, auth=settings, token_verifier=authority
        )

    return Listening(make_app)


def older(peer: Peer) -> Listening:
    """Return its face of 2024: a stream at `/sse`, messages to `/messages/`."""

    def make_app(_: str) -> App:
        transport = SseServerTransport("/messages/")
        server = peer.server()

        async def handle(request: Any) -> Response:
            streams = transport.connect_sse(request.scope, request.receive, request._send)
            async with streams as (read, write):
                await server.run(read, write, server.create_initialization_options())
            return Response()

        routes = [
            Route("/sse", handle, methods=["GET"]),
            Mount("/messages/", app=transport.handle_post_message),
        ]
        return Starlette(routes=routes)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Listening(make_app)
