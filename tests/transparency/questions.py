"""What a server asks its client in the middle of a request: of each line of MCP a scene."""

from collections.abc import Sequence

from tests.transparency.scenes import PROGRESS
from tests.transparency.scripts import (
    Era,
    Line,
    Scene,
    Script,
    Step,
    answer,
    ask,
    call,
    cancel,
    notify,
    one,
    text,
    token,
)

Question = tuple[str, str, str]
"""The id that a legacy server gives it, its method, its params (none when empty)."""

SAMPLING: Question = (
    "7",
    "sampling/createMessage",
    '{"maxTokens":1E2,"messages":[{"role":"user","content":{"text":"\\u2028\\/","type":"text",'
    '"own":1.0}}],"own":[1.10,1e400],"_meta":{"v/k":1.0}}',
)
FORM: Question = (
    '"ask \\/"',
    "elicitation/create",
    '{"requestedSchema":{"type":"object","properties":{"n":{"default":1.50,"type":"number",'
    '"x-own":[1E2]},"e":{"enum":["b","a"],"enumNames":["B","A"],"type":"string"}}},'
    '"message":"who \\u00e9?","mode":"form","own":1.0}',
)
URL: Question = (
    "-1",
    "elicitation/create",
    '{"url":"https://example.com/?a=%2F\\u0026b","mode":"url","message":"go","elicitationId":"e"}',
)
ROOTS: Question = ("0", "roots/list", "")
STATE = "op\\u00e1que \\/+=="
"""As a server writes it."""
STATE_TEXT = "op\u00e1que /+=="

REPLIES = {
    "sampling/createMessage": (
        '"result":{"role":"assistant","content":{"text":"\\u00e9","type":"text","own":1.0},'
        '"model":"m","own":1.10,"_meta":{"v/k":1E2}}',
    ),
    '"mode":"url"': ('"result":{"action":"accept","own":1.0}',),
    "elicitation/create": ('"result":{"content":{"n":1.10,"e":"a"},"action":"accept","own":1E2}',),
    "roots/list": (
        '"result":{"roots":[{"uri":"file:///a%20b","name":"\\/","own":1.0}],"_meta":{"v":1.0}}',
    ),
}


def legacy_question(question: Question, rest: str = "") -> str:
    identifier, method, params = question
    tail = f',"params":{params}' if params else ""
    return f'{{"method":"{method}", "id":{identifier},"jsonrpc":"2.0"{tail}{rest}}}'


def input_required(questions: Sequence[Question], state: str = STATE) -> str:
    """The answer of a modern server that wants to know something first."""
    asked = []
    for number, (_, method, params) in enumerate(questions):
        tail = f',"params":{params}' if params else ""
        asked.append(f'"k\\u00e9 {number}" : {{"method":"{method}"{tail}}}')
    members = ['"resultType":"input_required"']
    members += [f'"inputRequests":{{{",".join(asked)}}}'] if asked else []
    members += [f'"requestState":"{state}"'] if state else []
    return f'{{"jsonrpc":"2.0","id":$ID,"result":{{{",".join(members)}}}}}'


def asking(
    label: str, *rounds: Sequence[Question], before: Sequence[Step] = ()
) -> dict[Era, Script]:
    """The scripts of a server that asks these questions, round by round, and then answers."""
    legacy: list[Step] = [*before]
    modern: dict[str, Sequence[Step]] = {}
    place = label
    for number, questions in enumerate(rounds):
        legacy += [legacy_question(question) for question in questions]
        legacy += [{"await": identifier} for identifier, _, _ in questions]
        state = f"{STATE}{number}"
        modern[place] = [*(before if not number else ()), input_required(questions, state)]
        place = f"{label}@{STATE_TEXT}{number}"
    modern[place] = [text("known \\u00e9")]
    return {"legacy": {label: [*legacy, text("known \\u00e9")]}, "modern": modern}


def scene(name: str, request: Line, server: dict[Era, Script]) -> Scene:
    return Scene(name, {"legacy": [request], "modern": [request]}, server, REPLIES)


_CALL = call("7", "ask", '"arguments":{"x":1.10,"big":12345678901234567890123},"own":1.0,')
_LABEL = "tools/call ask"
TOKEN_OF_QUESTION = '"tok \\/"'
_PUSHING: Question = (
    "3",
    "sampling/createMessage",
    f'{{"messages":[],"maxTokens":1,"_meta":{{"progressToken":{TOKEN_OF_QUESTION}}}}}',
)
PUSHED = one(
    "legacy",
    "progress of the client",
    [_CALL],
    {_LABEL: [legacy_question(_PUSHING), {"await": "3"}, text("known")]},
    replies={
        "sampling": (
            notify(
                "notifications/progress",
                '"own":1.0,"progressToken":$TOKEN, "progress":0.50',
            ),
            '"result":{"role":"assistant","content":[],"model":"m"}',
        )
    },
)
SCENES = (
    scene("sampling", _CALL, asking(_LABEL, [SAMPLING])),
    scene("elicitation, form", _CALL, asking(_LABEL, [FORM])),
    scene("elicitation, URL", _CALL, asking(_LABEL, [URL])),
    scene("roots", _CALL, asking(_LABEL, [ROOTS])),
    scene("several questions at once", _CALL, asking(_LABEL, [SAMPLING, FORM, ROOTS])),
    scene("questions one after the other", _CALL, asking(_LABEL, [FORM], [SAMPLING], [URL])),
    scene("progress before a question", token(_CALL, "7"), asking(_LABEL, [FORM], before=PROGRESS)),
    scene(
        "question about a prompt",
        ask("1", "prompts/get", '"name":"greet","arguments":{"x":"\\/"},'),
        asking("prompts/get greet", [FORM]),
    ),
    scene(
        "question about a resource",
        ask("1", "resources/read", '"uri":"probe://one",'),
        asking("resources/read probe://one", [SAMPLING]),
    ),
    Scene(
        "log level and questions",
        {
            "legacy": [
                ask("1", "logging/setLevel", '"level":"error",'),
                _CALL,
                call("8", "log"),
                _CALL,
            ]
        },
        {
            "legacy": {
                "logging/setLevel": ['{"jsonrpc":"2.0","id":$ID,"result":{}}'],
                "tools/call log": [
                    notify("notifications/message", '"level":"error","data":1.0'),
                    text("logged"),
                ],
                **asking(_LABEL, [FORM])["legacy"],
            }
        },
        REPLIES,
        is_bridged=False,
    ),
    one(
        "legacy",
        "elicitation is complete",
        [_CALL],
        {
            _LABEL: [
                legacy_question(URL),
                {"await": URL[0]},
                notify("notifications/elicitation/complete", '"own":1.0, "elicitationId":"e"'),
                text("known"),
            ]
        },
        replies=REPLIES,
    ),
    one(
        "legacy",
        "roots/list_changed",
        [_CALL, notify("notifications/roots/list_changed", '"_meta":{"v/k":1.0}'), _CALL],
        asking(_LABEL, [ROOTS])["legacy"],
        replies=REPLIES,
    ),
    one(
        "legacy",
        "ping of the server",
        [_CALL],
        {_LABEL: ['{"jsonrpc":"2.0","method":"ping", "id":"\\/"}', {"await": '"\\/"'}, text("up")]},
    ),
    one(
        "legacy",
        "refused question",
        [_CALL],
        {_LABEL: [legacy_question(SAMPLING), {"await": "7"}, text("refused")]},
        replies={"sampling": ('"error":{"own":1.0,"data":{"n":1.10},"code":-1,"message":"no"}',)},
    ),
    one(
        "legacy",
        "question nobody knows",
        [_CALL],
        {
            _LABEL: [
                legacy_question(("1.50", "own/question", '[1.10,{"a":1E2}]'), ',"more":1.0'),
                {"await": "1.50"},
                text("told"),
            ]
        },
        replies={
            "own/question": ('{"result":[1.10, {"a":1E2}],"id":$ID,"jsonrpc":"2.0","m":1.0}',)
        },
    ),
    one(
        "legacy",
        "question that the server takes back",
        [_CALL],
        {_LABEL: [legacy_question(SAMPLING), cancel("7"), text("never mind")]},
    ),
    PUSHED,
    one(
        "modern",
        "state without questions",
        [_CALL],
        {
            _LABEL: [input_required([], f"{STATE}0")],
            f"{_LABEL}@{STATE_TEXT}0": [answer('"content":[],"own":1.10')],
        },
    ),
    one(
        "modern",
        "questions without state",
        [_CALL],
        {_LABEL: [input_required([FORM], "")], f"{_LABEL}@again": [text("known")]},
        replies=REPLIES,
    ),
)
