"""What a client asks, and what a server says about it meanwhile: each line of MCP a scene."""

from tests.transparency.scripts import (
    ACKNOWLEDGED,
    LIST_CHANGED,
    PREFIX,
    TOOLS,
    UPDATED,
    Answered,
    Hears,
    Later,
    Line,
    Scene,
    Script,
    answer,
    ask,
    both,
    call,
    cancel,
    error,
    fresh,
    listen,
    notify,
    one,
    tagged,
    text,
    token,
)

ARGUMENTS = (
    '"arguments":{"x":1.10,"big":12345678901234567890123,"e":1E2,"z":-0, "n":null,'
    '"u":"\\u2028\\/ \u2028é\\ud83d\\ude00"},"own":[1e400],'
)
IDS = ("1", '"1"', "0", '""', "-7", "1.50", "12345678901234567890", '"\\u00e9 \\/"')
PROGRESS = tuple(
    notify("notifications/progress", f'"own":1.0, "progressToken":$TOKEN,{value}')
    for value in (
        '"progress":0', '"progress":0.50,"total":2.0', '"progress":1E0,"message":"\\u00e9 \\/"',
    )
)  # fmt: skip
LOGS = tuple(
    notify(
        "notifications/message",
        f'"level":"{level}","data":{{"n":1.10}},"logger":"l","_meta":{{"v/k":1.0}},"own":null',
    )
    for level in ("warning", "error", "emergency")
)
LOG_LEVEL = f'"_meta":{{"{PREFIX}logLevel":"warning",$ENV'
CALLS = both(
    "tools",
    [call("7", "say", ARGUMENTS), call("8", "fails"), call("9", "structured")],
    {
        "tools/call say": [
            answer(
                '"content":[ {"text":"a\\u2028\\/","type":"text","own":1.0,"annotations":'
                '{"priority":0.50,"own":null,"audience":["user"]},"_meta":{"v/k":1.0}} ,'
                '{"uri":"probe://one","type":"resource_link","name":"l","size":1E2,"own":{}},'
                '{"type":"own","of":[1.10]}],"_meta":{"v/k":1E2},"own":1.10'
            )
        ],
        "tools/call fails": [answer('"isError" : true,"content":[],"own":1.10')],
        "tools/call structured": [
            answer('"structuredContent":{"z":1.10,"a":[1e400,-0]},"content":[]')
        ],
    },
)
ERRORS = both(
    "errors",
    [
        call("7", "a"),
        call("8", "b"),
        call("9", "nobody"),
        ask("1", "resources/read", '"uri":"no",'),
    ],
    {
        "tools/call a": [error(-32099)],
        "tools/call b": [error(-32603, '"data":"text"')],
        "tools/call": [error(-32602, '"data":null')],
        "resources/read": [error(-32603)],
    },
)
PROMPTS_AND_RESOURCES = both(
    "prompts, resources and templates",
    [
        ask("1", "prompts/get", '"name":"greet","arguments":{"x":"\\u00e9"},"own":1.0,'),
        ask("2", "resources/read", '"own":1.0,"uri":"probe://one",'),
        ask("3", "resources/read", '"uri":"probe://item/7",'),
    ],
    {
        "prompts/get": [
            answer('"messages":[{"role":"user","content":{"text":"\\/","type":"text"},"own":1.0}]')
        ],
        "resources/read probe://one": [
            fresh('"contents":[{"uri":"probe://one","text":"\\u2028","own":1.0}],"own":1E2')
        ],
        "resources/read": [
            fresh('"_meta":{"v/k":1.0},"contents":[{"blob":"AA==","uri":"probe://item/7"}]')
        ],
    },
)
LISTS = both(
    "lists",
    [
        f'{{"jsonrpc":"2.0","id":"{kind}","method":"{kind}/list","params":{{"_meta":{{$ENV"v":1}}}}}}'
        for kind in ("tools", "prompts", "resources", "resources/templates")
    ],
    {},
)
COMPLETION = both(
    "completion",
    [
        ask(
            identifier,
            "completion/complete",
            f'"argument":{{"value":"\\/","name":"x","own":1.0}},"ref":{{{ref},"own":1.0}},',
        )
        for identifier, ref in (
            ("1", '"type":"ref/prompt","name":"greet"'),
            ("2", '"uri":"probe://item/{id}","type":"ref/resource"'),
        )
    ],
    {
        "completion/complete": [
            answer('"completion":{"hasMore":false,"values":["\\u00e9"],"total":1E0,"own":1.0}')
        ]
    },
)
LOGGING = Scene(
    "logging",
    {
        "legacy": [
            ask("1", "logging/setLevel", '"level":"warning","own":1.0,'),
            call("2", "log"),
        ],
        "modern": [call("2", "log").replace('"_meta":{$ENV', LOG_LEVEL), call("3", "silent")],
    },
    {
        "legacy": {
            "logging/setLevel": ['{"jsonrpc":"2.0","id":$ID,"result":{}}'],
            "tools/call log": [*LOGS, text("logged")],
        },
        "modern": {"tools/call log": [*LOGS, text("logged")], "tools/call": [text("silent")]},
    },
    is_bridged=False,
)
LOG_LINES = Scene(
    "log lines",
    {
        "legacy": [ask("1", "logging/setLevel", '"level":"warning",'), call("2", "log")],
        "modern": [call("2", "log").replace('"_meta":{$ENV', LOG_LEVEL)],
    },
    LOGGING.server,
)
PROGRESS_OF_CALLS = both(
    "progress",
    [token(call(f"{n}", "progress"), value) for n, value in enumerate(("0", '"\\u00e9"', "7"))],
    {"tools/call progress": [*PROGRESS, text("done")]},
)
CANCELLATION = both(
    "cancellation",
    [
        Later(token(call('"c \\/"', "hang"), "1")),
        Hears("notifications/progress", 3),
        cancel('"c \\/"'),
        cancel('"unknown"'),
        call("2", "say"),
    ],
    {"tools/call hang": [*PROGRESS], "tools/call say": [text("next")]},
)
PING = one("legacy", "ping", ['{"jsonrpc":"2.0", "id":1.50,"method":"ping"}'], {})
ANY_IDS = both(
    "ids of any type",
    [call(identifier, "say") for identifier in IDS],
    {"tools/call say": [text("said")]},
)
NUMBERS = both(
    "numbers, surrogates and depth",
    [call("1", "say", f'"arguments":{{"a":{value},"a":{value}}},') for value in (
        "9" * 5000, "[1e400,-0,1.10,1E+2,0.0]", '"\\ud800"', "[" * 150 + "]" * 150,
    )],
    {
        "tools/call": [
            answer(
                f'"content":[],"a":{"9" * 5000},"b":[1e400,-0],"c":"\\ud800 \\udc00\\ud800",'
                f'"d":{"[" * 150}{"]" * 150}'
            )
        ]
    },
)  # fmt: skip
VENDOR_KEYS = both(
    "_meta",
    [
        ask(f"{n}", method, params).replace('"v/k":1.10', '"v/k":{"z":1E2,"a":[]},"":null')
        for n, (method, params) in enumerate(
            (
                ("tools/call", '"name":"say","arguments":{"_meta":{"v/k":1.0}},'),
                ("prompts/get", '"name":"greet",'),
                ("resources/read", '"uri":"probe://one",'),
                ("own/method", ""),
            )
        )
    ],
    {
        method: [answer('"_meta":{"z/z":1.10,"a/a":{"b":1E2},"progressToken":"mine"},"own":{}')]
        for method in ("tools/call", "prompts/get", "resources/read", "own/method")
    },
)
OWN_NOTES = (
    notify("notifications/own", '"n":1.10,"_meta":{"v/k":1.0}'),
    '{"jsonrpc":"2.0", "method":"notifications/bare","own":1.0}',
)
UNKNOWN = both(
    "unknown methods and notifications",
    [
        ask("1", "own/method", '"own":[1.10],'),
        *OWN_NOTES,
        ask("2", "own/refused", ""),
        ask("3", "own/unheard-of", ""),
    ],
    {
        "own/method": [*OWN_NOTES, answer('"own":1.10')],
        "own/refused": [error(-32050)],
    },
)
UNKNOWN_LEGACY = one(
    "legacy",
    "unknown methods with arrays or nothing for params",
    [
        '{"jsonrpc":"2.0","id":1,"params":[1.10, {"a":1E2}],"method":"own/array"}',
        '{"jsonrpc":"2.0","method":"own/bare","id":2}',
    ],
    {
        "own/array": ['{"jsonrpc":"2.0","id":$ID,"result":[1.10]}'],
        "own/bare": ['{"result":1E2,"jsonrpc":"2.0","id":$ID}'],
    },
)
AFTERWARDS = both(
    "notification right after an answer",
    [call("1", "say"), Hears("notifications/own")],
    {"tools/call say": [text("said"), OWN_NOTES[0]]},
)
TASK_METHODS = ("tasks/get", "tasks/result", "tasks/update", "tasks/cancel", "tasks/list")
TASK = '"task":{"status":"working","taskId":"t\\/1","own":1.0,"ttl":1E5}'


def _tasks(created: str) -> Script:
    status = notify("notifications/tasks/status", '"taskId":"t\\/1","status":"working","own":1.0')
    return {
        "tools/call say": [status, created],
        **{f"{method} t/1": [answer(f'{TASK},"n":1.10')] for method in TASK_METHODS},
        "tasks/list": [answer('"tasks":[],"own":1.0')],
    }


TASKS_SAID: list[Line] = [
    call("1", "say", '"task":{"ttl":6E4,"own":1.0},'),
    *(ask("2", method, '"taskId":"t\\/1","own":1.0,') for method in TASK_METHODS),
]
TASKS = Scene(
    "tasks and other extensions",
    {"legacy": TASKS_SAID, "modern": TASKS_SAID},
    {
        "legacy": _tasks(answer(TASK)),
        "modern": _tasks(answer(TASK).replace("$DONE", '"resultType":"task",')),
    },
    is_bridged=False,
)
SUBSCRIPTIONS = Scene(
    "resource subscriptions",
    {
        "legacy": [
            ask("1", "resources/subscribe", '"uri":"probe://one","own":1.0,'),
            call("2", "touch"),
            Hears(UPDATED),
            ask("3", "resources/unsubscribe", '"own":1.0,"uri":"probe://one",'),
        ],
        "modern": [
            listen('"s \\/"', '"resourceSubscriptions":["probe://one"]'),
            Hears(ACKNOWLEDGED),
            call("2", "touch"),
            Hears(UPDATED),
            cancel('"s \\/"'),
        ],
    },
    {
        "legacy": {
            **{
                f"resources/{verb}": ['{"jsonrpc":"2.0","id":$ID,"result":{}}']
                for verb in ("subscribe", "unsubscribe")
            },
            "tools/call touch": [
                notify(UPDATED, '"own":1.0, "uri":"probe://one","_meta":{"v/k":1.0}'),
                text("touched"),
            ],
        },
        "modern": {
            "tools/call touch": [
                tagged(UPDATED, '"own":1.0, "uri":"probe://one",'),
                text("touched"),
            ]
        },
    },
)
_FRESH_TOOLS: Script = {
    "tools/list": [fresh(f'"tools":[{TOOLS},{{"name":"new","inputSchema":{{"type":"object"}}}}]')]
}
_ASKED_ANEW = LISTS.client["legacy"][0]
LISTS_CHANGE = Scene(
    "list_changed",
    {
        "legacy": [_ASKED_ANEW, call("2", "change"), *map(Hears, LIST_CHANGED), _ASKED_ANEW],
        "modern": [
            _ASKED_ANEW,
            listen(
                "11",
                '"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true',
            ),
            Hears(ACKNOWLEDGED),
            call("2", "change"),
            *map(Hears, LIST_CHANGED),
            _ASKED_ANEW,
        ],
    },
    {
        "legacy": {
            "tools/call change": [
                {"become": _FRESH_TOOLS},
                *(f'{{"jsonrpc":"2.0","method":"{method}"}}' for method in LIST_CHANGED),
                text("changed"),
            ]
        },
        "modern": {
            "tools/call change": [
                {"become": _FRESH_TOOLS},
                *(
                    f'{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":'
                    f'{{"{PREFIX}subscriptionId":$LISTEN}}}}}}'
                    for method in LIST_CHANGED
                ),
                text("changed"),
            ]
        },
    },
)
CONCURRENCY = both(
    "several requests at once",
    [
        Later(token(call("7", "first"), "7")),
        Later(token(call('"7"', "second"), '"7"')),
        Hears("notifications/progress", 6),
        token(call("8", "third"), "8"),
        Answered('"7"'),
        Answered("7"),
    ],
    {
        "tools/call first": [*PROGRESS, {"await": "one"}, text("first")],
        "tools/call second": [*PROGRESS, {"await": "two"}, *PROGRESS, text("second")],
        "tools/call third": [{"resume": "two"}, *PROGRESS, text("third"), {"resume": "one"}],
    },
)
MISSING_CAPABILITY = one(
    "modern",
    "missing capability",
    [call("1", "ask").replace('"sampling":{"tools":{}},', "")],
    {"tools/call": [error(-32021, '"data":{"requiredCapabilities":{"sampling":{}},"own":1.0}')]},
)
DISCOVERY = one(
    "modern",
    "server/discover",
    ['{"jsonrpc":"2.0","id":"\\/","method":"server/discover","params":{"_meta":{$ENV"v/k":1.0}}}'],
    {},
)
UNKNOWN_VERSION = one(
    "modern",
    "unknown version",
    [
        '{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{'
        f'"{PREFIX}clientCapabilities":{{}},"{PREFIX}protocolVersion":"v999.0.0"}}}}}}'
    ],
    {},
)
SCENES = (
    CALLS, ERRORS, PROMPTS_AND_RESOURCES, LISTS, COMPLETION, LOGGING, LOG_LINES, PROGRESS_OF_CALLS,
    CANCELLATION, PING, ANY_IDS, NUMBERS, VENDOR_KEYS, UNKNOWN, UNKNOWN_LEGACY, TASKS,
    AFTERWARDS, SUBSCRIPTIONS, LISTS_CHANGE, MISSING_CAPABILITY, DISCOVERY,
)  # fmt: skip
