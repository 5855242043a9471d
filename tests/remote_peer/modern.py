"""A real MCP server of the SDK's own behind a URL that speaks no version but 2026-07-28."""

import threading
from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ServerEvent,
    ToolsListChanged,
)

from octave.runtime.handshake import MODERN_VERSION
from tests.remote_peer.listening import App, Listening
from tests.remote_peer.server import TOOLS, Peer

FORM = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "who?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
VERSION = b"mcp-protocol-version"


class _Bus(InMemorySubscriptionBus):
    def __init__(self, listened: threading.Event) -> None:
        super().__init__()
        self._listened = listened

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self._listened.set()
        return super().subscribe(listener)


class ModernPeer(Peer):
    """Has two tools more: `ask` asks for a name, `grow` lets a third one appear."""

    def __init__(self) -> None:
        super().__init__()
        self.listened = threading.Event()
        """Set by the first that wants to hear of changes."""
        self._bus = _Bus(self.listened)
        self._names = ["ask", "grow"]

    def server(self) -> Server[Any]:
        listen = ListenHandler(self._bus)
        return Server(
            "peer",
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_subscriptions_listen=listen,
        )

    async def _list(self, _: Any, __: Any) -> types.ListToolsResult:
        schema = {"type": "object"}
        more = [types.Tool(name=name, input_schema=schema) for name in self._names]
        return types.ListToolsResult(tools=[*TOOLS, *more])

    async def _call(self, context: Any, params: types.CallToolRequestParams) -> Any:
        given = params.input_responses
        if params.name == "ask" and not given:
            return {
                "resultType": "input_required",
                "inputRequests": {"name": FORM},
                "requestState": "asked",
            }
        if params.name == "ask":
            said = (given or {})["name"].model_dump()["content"]["name"]
            text = f"{params.request_state}: {said}"
        elif params.name == "grow":
            self._names.append("grown")
            await self._bus.publish(ToolsListChanged())
            text = "grown"
        else:
            return await super()._call(context, params)
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def listening(make_server: Callable[[], Server[Any]]) -> Listening:
    """Return its HTTP face at `/mcp`, not yet started."""

    def make_app(_: str) -> App:
        app = make_server().streamable_http_app()

        async def served(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and VERSION not in dict(scope["headers"]):
                # What says nothing of a version is of this one here, and lacks what it needs.
                scope["headers"] = [*scope["headers"], (VERSION, MODERN_VERSION.encode())]
            await app(scope, receive, send)

        return served

    return Listening(make_app)
