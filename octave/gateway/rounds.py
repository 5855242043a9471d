"""A legacy client's call of a modern server: what the server asks in its answers, asked by us.

A modern server answers `input_required` and forgets; whoever called repeats the request with what
was asked for. A legacy client cannot, but it can be asked each thing by a request of its own.
(MCP 2026-07-28, multi-round-trip requests.)
"""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from octave.errors import OctaveError
from octave.gateway import bridge
from octave.gateway.client import NEEDS, Client, Gone, Send, lack
from octave.gateway.listing import text_of
from octave.runtime import wire
from octave.runtime.questions import OPEN_LIMIT
from octave.runtime.wire import Message

ROUNDS = 10
"""As many as the official clients go through."""
ANSWERS_S = 600.0
"""A person fills in a form; whoever takes longer has left."""
FIRST_WAIT_S, LAST_WAIT_S = 0.05, 0.25
"""Between two rounds in which the server asks nothing, doubled each time: it is not ready yet."""

Exchange = Callable[[Message], Awaitable[Message]]
"""Sends a request and gives the answer."""


async def play(message: Message, exchange: Exchange, client: Client, send: Send) -> Message:
    """Return the answer that ends a call, after as many rounds as it takes.

    An error of the client ends it too: then that is the answer.

    Raises:
        OctaveError: the client has left, or the server asks again and again.
    """
    current, wait_s = message, FIRST_WAIT_S
    for number in range(ROUNDS + 1):
        answer = await exchange(current)
        if not bridge.is_input_required(answer.result):
            return answer
        if number == ROUNDS:
            break
        asked = _requests(answer.result or b"{}", client)
        if not asked:
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, LAST_WAIT_S)
        answers = await _gather(asked, client, send)
        failed = next((each for each in answers.values() if each.error is not None), None)
        if failed is not None:
            return failed
        current = bridge.with_params(message, _more(answers, answer.result or b"{}"))
    raise OctaveError(f"the server asked its client more than {ROUNDS} times in one call")


def _requests(result: bytes, client: Client) -> dict[str, bytes]:
    """Return what is asked, by its key.

    Raises:
        OctaveError: the client cannot be asked that or so much, or it is no question.
    """
    given = wire.member(result, "inputRequests")
    asked = {} if given in (None, b"null") else bridge.members_of(given)
    if asked is None:
        raise OctaveError("the server's `inputRequests` is no object")
    if len(asked) > OPEN_LIMIT:
        raise OctaveError(f"the server asks {len(asked)} things at once, more than {OPEN_LIMIT}")
    for request in asked.values():
        method = text_of(request, "method")
        if method not in NEEDS:
            shown = "what is no request" if method is None else f"`{method}`"
            raise OctaveError(f"the server asks its client {shown}, which no client knows")
        lacks = lack(client.capabilities, method, wire.member(request, "params"))
        if lacks is not None:
            raise OctaveError(f"the server asks for `{lacks}`, which the client does not have")
    return asked


async def _gather(asked: dict[str, bytes], client: Client, send: Send) -> dict[str, Message]:
    answers: dict[str, Message] = {}
    is_gone = False

    async def one(key: str, request: bytes) -> None:
        nonlocal is_gone
        # Given up at this very moment, nothing must be asked for it.
        await anyio.lowlevel.checkpoint_if_cancelled()
        try:
            method = text_of(request, "method") or ""
            answers[key] = await client.ask(method, wire.member(request, "params"), send)
        except Gone:
            is_gone = True
        else:
            if answers[key].error is not None:
                tasks.cancel_scope.cancel()

    with anyio.move_on_after(ANSWERS_S) as patience:
        async with anyio.create_task_group() as tasks:
            for key, request in asked.items():
                tasks.start_soon(one, key, request)
    if patience.cancelled_caught:
        raise OctaveError("the client did not answer what the server asked")
    if is_gone:
        raise OctaveError("the client has left before it answered what the server asked")
    return answers


def _more(answers: dict[str, Message], result: bytes) -> bytes:
    """Return the members that the next round has beside those of the first."""
    members = []
    if answers:
        given = (
            b"%b:%b" % (wire.text(key), answer.result or b"null") for key, answer in answers.items()
        )
        members.append(b'"inputResponses":{%b}' % b",".join(given))
    state = wire.member(result, "requestState")
    if state not in (None, b"null"):
        members.append(b'"requestState":%b' % state)
    return b",".join(members) or b'"inputResponses":{}'
