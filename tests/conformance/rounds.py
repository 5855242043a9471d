"""Calls that need several rounds: `input_required`, and the state that comes back with the answer.

Only 2026-07-28 knows them; a client of an older revision is told so.
"""

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, GetPromptRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance.content import Json, text, tool_result, user_message

Context = ServerRequestContext[Any, Any]
Params = CallToolRequestParams | GetPromptRequestParams
Tool = Callable[[Context, CallToolRequestParams], Awaitable[Json]]

_KEY = secrets.token_bytes(32)


def seal(state: str) -> str:
    """Return `state` so that a change to it is noticed when it comes back."""
    return f"{state}.{hmac.new(_KEY, state.encode(), 'sha256').hexdigest()}"


def unseal(sealed: str | None) -> str | None:
    """Return the state that was sealed, None for none.

    Raises:
        MCPError: somebody has changed it.
    """
    if sealed is None:
        return None
    state = sealed.rpartition(".")[0]
    if not hmac.compare_digest(seal(state), sealed):
        raise MCPError(INVALID_PARAMS, "requestState was not given out by this server")
    return state


def elicitation(message: str, kind: str = "string", *, field: str = "name") -> Json:
    """Return the question for one `field` of that JSON type."""
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def sampling(prompt: str, max_tokens: int) -> Json:
    params = {"messages": [user_message(text(prompt))], "maxTokens": max_tokens}
    return {"method": "sampling/createMessage", "params": params}


def roots() -> Json:
    return {"method": "roots/list", "params": {}}


def ask(ctx: Context, questions: Json, state: str | None = None) -> Json:
    """Return the result that asks `questions`, by key.

    Raises:
        MCPError: the client's revision has no such result.
    """
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(INVALID_PARAMS, "this needs a client of 2026-07-28")
    result: Json = {"resultType": "input_required", "inputRequests": questions}
    return result if state is None else {**result, "requestState": seal(state)}


def answers(params: Params, questions: Json) -> Json | None:
    """Return the answers to all `questions`, by key; None while one is missing."""
    found = params.input_responses or {}
    if not questions.keys() <= found.keys():
        return None
    return {
        key: found[key].model_dump(mode="json", by_alias=True, exclude_none=True)
        for key in questions
    }


def _one_round(questions: Json, *, state: str | None = None) -> Tool:
    async def call(ctx: Context, params: CallToolRequestParams) -> Json:
        known = unseal(params.request_state) == state
        answered = answers(params, questions) if known else None
        if answered is None:
            return ask(ctx, questions, state)
        return tool_result(text(f"state-ok {json.dumps(answered)}"))

    return call


async def _two_rounds(ctx: Context, params: CallToolRequestParams) -> Json:
    name = {"step1": elicitation("Step 1: What is your name?")}
    colour = {"step2": elicitation("Step 2: What is your favorite color?", field="color")}
    state = unseal(params.request_state)
    if state == "round-2" and answers(params, colour) is not None:
        return tool_result(text(json.dumps(answers(params, colour))))
    if state == "round-2" or (state == "round-1" and answers(params, name) is not None):
        return ask(ctx, colour, "round-2")
    return ask(ctx, name, "round-1")


async def _what_the_client_can(ctx: Context, params: CallToolRequestParams) -> Json:
    can = ctx.session.client_capabilities
    questions = {}
    if can is not None and can.sampling is not None:
        questions["capital_question"] = sampling("What is the capital of France?", 100)
    if can is not None and can.elicitation is not None:
        questions["user_name"] = elicitation("What is your name?")
    answered = answers(params, questions)
    return ask(ctx, questions) if answered is None else tool_result(text(json.dumps(answered)))


async def _with_progress(ctx: Context, params: CallToolRequestParams) -> Json:
    await ctx.session.report_progress(1, 2)
    return await _NAME(ctx, params)


async def prompt(ctx: Context, params: GetPromptRequestParams) -> Json:
    questions = {"user_context": elicitation("What is it about?", field="context")}
    answered = answers(params, questions)
    if answered is None:
        return ask(ctx, questions)
    return {"messages": [user_message(text(json.dumps(answered)))]}


_NAME = _one_round({"user_name": elicitation("What is your name?")})
_CONFIRM = {"confirm": elicitation("Please confirm", "boolean", field="ok")}
_THREE = {
    "user_name": elicitation("What is your name?"),
    "greeting": sampling("Generate a greeting", 50),
    "client_roots": roots(),
}

TOOLS: dict[str, Tool] = {
    "test_input_required_result_elicitation": _NAME,
    "test_input_required_result_sampling": _one_round(
        {"capital_question": sampling("What is the capital of France?", 100)}
    ),
    "test_input_required_result_list_roots": _one_round({"client_roots": roots()}),
    "test_input_required_result_request_state": _one_round(_CONFIRM, state="asked"),
    "test_input_required_result_multiple_inputs": _one_round(_THREE, state="asked"),
    "test_input_required_result_multi_round": _two_rounds,
    "test_input_required_result_tampered_state": _one_round(_CONFIRM, state="asked"),
    "test_input_required_result_capabilities": _what_the_client_can,
    "test_streaming_elicitation": _with_progress,
}
