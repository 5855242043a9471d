"""The MCP server that the conformance suite wants to meet, both eras, on the official SDK.

`python -m tests.conformance.reference_server` serves it on stdio; `build` returns it for any
transport. Results are written as they go over the wire and validated by the SDK.
"""

import json
import re
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp.server import NotificationOptions
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CompleteRequestParams,
    GetPromptRequestParams,
    ReadResourceRequestParams,
    RequestParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from mcp_types.methods import CACHEABLE_METHODS
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance import rounds, tools
from tests.conformance.content import DEFINITIONS, PNG, Json, image, resource, text, user_message
from tests.conformance.rounds import Context

LEGACY_NOT_FOUND = -32002
"""A resource that is not there, up to 2025-11-25."""

Handler = Callable[[Context, Any], Awaitable[Json]]

_FRESH: Json = {"ttlMs": 1000, "cacheScope": "public"}
_TEMPLATE = re.compile(r"test://template/([^/]+)/data")
_WORDS = ("paris", "park", "party", "test")


async def read_resource(ctx: Context, params: ReadResourceRequestParams) -> Json:
    uri = params.uri
    template = _TEMPLATE.fullmatch(uri)
    if template is not None:
        data = json.dumps({"id": template[1], "templateTest": True, "data": f"For {template[1]}"})
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": data}]}
    if uri == "test://static-binary":
        return {"contents": [{"uri": uri, "mimeType": "image/png", "blob": PNG}]}
    if uri in {"test://static-text", "test://watched-resource"}:
        words = "This is the content of the static text resource."
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": words}]}
    is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    code = INVALID_PARAMS if is_modern else LEGACY_NOT_FOUND
    raise MCPError(code, "Resource not found", {"uri": uri})


async def get_prompt(ctx: Context, params: GetPromptRequestParams) -> Json:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt" | "test_sometimes":
            blocks = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            words = f"arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            blocks = [text(f"Prompt with arguments: {words}")]
        case "test_prompt_with_embedded_resource":
            words = "Embedded resource content for testing."
            blocks = [
                resource(given.get("resourceUri", ""), "text/plain", words),
                text("Please process the embedded resource above."),
            ]
        case "test_prompt_with_image":
            blocks = [image(), text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            return await rounds.prompt(ctx, params)
        case _:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return {"messages": [user_message(block) for block in blocks]}


async def complete(ctx: Context, params: CompleteRequestParams) -> Json:
    values = [word for word in _WORDS if word.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def _nothing(ctx: Context, params: RequestParams) -> Json:
    return {}


def _listing(key: str, entries: list[Json]) -> Handler:
    async def answer(ctx: Context, params: RequestParams) -> Json:
        return {key: entries}

    return answer


def _in_its_era(handler: Handler) -> Handler:
    async def answer(ctx: Context, params: Any) -> Json:
        result = await handler(ctx, params)
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return result
        hints = _FRESH if ctx.method in CACHEABLE_METHODS else {}
        return {"resultType": "complete", **hints, **result}

    return answer


def build() -> Server[dict[str, Any]]:
    """Return the server, with lists of its own to change."""
    changing = tools.Changing()
    in_time: dict[str, rounds.Tool] = {
        **tools.IN_TIME,
        **rounds.TOOLS,
        "test_trigger_tool_change": changing.change_tools,
        "test_trigger_prompt_change": changing.change_prompts,
    }
    at_once = {**tools.AT_ONCE, "test_sometimes": tools.AT_ONCE["test_simple_text"]}

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> Json:
        if params.name in at_once:
            return at_once[params.name]
        if params.name in in_time:
            return await in_time[params.name](ctx, params)
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")

    server: Server[dict[str, Any]] = Server(
        "conformance-reference",
        version="1.0.0",
        on_subscriptions_listen=ListenHandler(changing.bus),
    )

    def add(method: str, params_type: type[RequestParams], handler: Handler) -> None:
        server.add_request_handler(method, params_type, _in_its_era(handler))

    add("tools/list", RequestParams, _listing("tools", changing.tools))
    add("tools/call", CallToolRequestParams, call_tool)
    add("prompts/list", RequestParams, _listing("prompts", changing.prompts))
    add("prompts/get", GetPromptRequestParams, get_prompt)
    for method, key in (
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ):
        add(method, RequestParams, _listing(key, DEFINITIONS[key]))
    add("resources/read", ReadResourceRequestParams, read_resource)
    add("resources/subscribe", SubscribeRequestParams, _nothing)
    add("resources/unsubscribe", UnsubscribeRequestParams, _nothing)
    add("completion/complete", CompleteRequestParams, complete)
    add("logging/setLevel", SetLevelRequestParams, _nothing)
    return server


async def main() -> None:
    """Serve on stdio until its end, in the era of the first request."""
    server = build()
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options(changes))


if __name__ == "__main__":
    # The suite asks for what the newest revision deprecates.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    anyio.run(main)
