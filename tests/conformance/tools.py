"""The tools that answer in one round: at once, with messages meanwhile, or by asking their client.

Asking in the middle of a call is for revisions up to 2025-11-25; what asks a client of
2026-07-28 is in `rounds`.
"""

from typing import Any

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    ElicitResult,
    SamplingMessage,
    TextContent,
)

from tests.conformance.content import (
    DEFINITIONS,
    Json,
    audio,
    image,
    resource,
    text,
    tool_result,
)
from tests.conformance.rounds import Context, Tool

PAUSE_S = 0.05
"""Between two messages of one call, as the suite wants it."""

AT_ONCE: dict[str, Json] = {
    "test_simple_text": tool_result(text("This is a simple text response for testing.")),
    "test_image_content": tool_result(image()),
    "test_audio_content": tool_result(audio()),
    "test_embedded_resource": tool_result(
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ),
    "test_multiple_content_types": tool_result(
        text("Multiple content types test:"),
        image(),
        resource("test://mixed-content-resource", "application/json", '{"test":"data"}'),
    ),
    "test_error_handling": {
        **tool_result(text("This tool intentionally returns an error for testing")),
        "isError": True,
    },
    "json_schema_2020_12_tool": tool_result(text("Valid.")),
    "test_header_argument": tool_result(text("The header says the same.")),
}


async def _report_progress(ctx: Context, params: CallToolRequestParams) -> Json:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
        await anyio.sleep(PAUSE_S)
    return tool_result(text("All of it is done."))


async def _log(ctx: Context, params: CallToolRequestParams) -> Json:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await anyio.sleep(PAUSE_S)
    return tool_result(text("Three lines were logged."))


async def _close_stream(ctx: Context, params: CallToolRequestParams) -> Json:
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await anyio.sleep(PAUSE_S)
    return tool_result(text("The call went on without its stream."))


async def _sample(ctx: Context, params: CallToolRequestParams) -> Json:
    prompt = TextContent(text=(params.arguments or {})["prompt"])
    said = await ctx.session.create_message(
        [SamplingMessage(role="user", content=prompt)],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    return tool_result(text(f"LLM response: {said.content}"))


async def _elicit(ctx: Context, message: str, schema: str) -> ElicitResult:
    return await ctx.session.elicit_form(message, DEFINITIONS["questions"][schema], ctx.request_id)


async def _ask_person(ctx: Context, params: CallToolRequestParams) -> Json:
    said = await _elicit(ctx, (params.arguments or {})["message"], "person")
    return tool_result(text(f"User response: {said.action}, {said.content}"))


async def _ask_with_defaults(ctx: Context, params: CallToolRequestParams) -> Json:
    said = await _elicit(ctx, "Please look through the defaults", "defaults")
    return tool_result(text(f"Elicitation completed: action={said.action}, {said.content}"))


async def _ask_to_choose(ctx: Context, params: CallToolRequestParams) -> Json:
    said = await _elicit(ctx, "Please choose", "enums")
    return tool_result(text(f"Elicitation completed: action={said.action}, {said.content}"))


async def _need_sampling(ctx: Context, params: CallToolRequestParams) -> Json:
    can = ctx.session.client_capabilities
    if can is None or can.sampling is None:
        needed: Json = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", needed)
    return tool_result(text("The client has a model."))


IN_TIME: dict[str, Tool] = {
    "test_tool_with_progress": _report_progress,
    "test_tool_with_logging": _log,
    "test_logging_tool": _log,
    "test_reconnection": _close_stream,
    "test_sampling": _sample,
    "test_elicitation": _ask_person,
    "test_elicitation_sep1034_defaults": _ask_with_defaults,
    "test_elicitation_sep1330_enums": _ask_to_choose,
    "test_missing_capability": _need_sampling,
}


class Changing:
    """Lists that a tool changes, and the clients that hear of it in the way of their era."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.tools: list[Json] = list(DEFINITIONS["tools"])
        self.prompts: list[Json] = list(DEFINITIONS["prompts"])

    async def change_tools(self, ctx: Context, params: CallToolRequestParams) -> Json:
        """Add one to the end of the list, or take it away; it answers like every other."""
        _toggle(self.tools, "test_sometimes", inputSchema={"type": "object"})
        await self.bus.publish(ToolsListChanged())
        # Up to 2025-11-25; the SDK keeps it back from a client of 2026-07-28.
        await ctx.session.send_tool_list_changed()
        return tool_result(text(f"There are {len(self.tools)} tools."))

    async def change_prompts(self, ctx: Context, params: CallToolRequestParams) -> Json:
        _toggle(self.prompts, "test_sometimes")
        await self.bus.publish(PromptsListChanged())
        await ctx.session.send_prompt_list_changed()
        return tool_result(text(f"There are {len(self.prompts)} prompts."))


def _toggle(listed: list[Json], name: str, **more: Any) -> None:
    if listed[-1]["name"] == name:
        listed.pop()
    else:
        listed.append({"name": name, "description": "Not always there", **more})
