# mypy: ignore-errors
"""An MCP server whose JSON no library would write: odd spacing, key order, numbers, own members.

Everything it answers is hand-written text, so that a test can tell whether each byte arrived.
`python odd_server.py NAME [bare|tells]`; `bare` offers tools only and never says that they changed,
`tells` promises to say so of every list.
"""

import json
import re
import sys

NAME = sys.argv[1]
KIND = sys.argv[2] if len(sys.argv) > 2 else ""
BARE = KIND == "bare"

TOOLS = [
    '{"inputSchema": {"type":"object", "$defs":{"z":{},"a":{}},"x-n":[1.10,1E2,1e400,-0]},'
    ' "zeta":null,"name":"echo","description":"gives the line back","_meta":{"v/k":1}}',
    '{ "name" : "odd.name" , "inputSchema":{"type":"object"} }',
    '{"name":"caf\\u00e9","inputSchema":{"type":"object"},"title":"\\ud83d\\ude00 \\u2028"}',
    *(
        f'{{"name":"{name}","inputSchema":{{"type":"object"}}}}'
        for name in ("fail", "progress", "hang", "seen", "change", "touch", "log", "point")
    ),
]
PROMPTS = ['{"arguments":[{"name":"x"}],"name":"greet","extra":2.50}']
RESOURCES = [f'{{"uri":"{NAME}://one","name":"one"}}', '{"uri":"shared://both","name":"both"}']
TEMPLATES = [f'{{"uriTemplate":"{NAME}://item/{{id}}/data","name":"item"}}']
CAPABILITIES = {
    "bare": '{"tools":{}}',
    "tells": '{"tools":{"listChanged":true},"prompts":{"listChanged": true},'
    '"resources":{"listChanged":true}}',
    "": '{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true},'
    '"completions":{},"logging":{},"experimental":{"x":{"y":1.0}}}',
}[KIND]

seen = []
looks = []


def write(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def answer(message, result):
    write(f'{{"result": {result}, "jsonrpc":"2.0","id":{json.dumps(message["id"])} ,"more":1.0}}')


def notify(method, params=None):
    write(f'{{"jsonrpc":"2.0", "method":"{method}"' + (f',"params":{params}}}' if params else "}"))


def text(value):
    return (
        f'{{"content":[{{"text":{json.dumps(value)},"type":"text","own":1.0}}],"isError": false}}'
    )


def call(message, line):  # noqa: C901 - one branch per tool
    name = message["params"]["name"]
    if name == "fail":
        write(
            f'{{"jsonrpc":"2.0","error":{{"extra":[1E2],"message":"no","code":-32099,'
            f'"data":{{"n":1.10}}}},"id":{json.dumps(message["id"])}}}'
        )
    elif name == "hang":
        notify("notifications/message", '{"level":"error","data":"hanging"}')
    elif name == "seen":
        answer(message, text("\n".join(seen)))
    elif name == "progress":
        token = json.dumps(message["params"]["_meta"]["progressToken"])
        for step in ("0", "1.50"):
            notify("notifications/progress", f'{{"progress":{step},"progressToken":{token},"o":1}}')
        answer(message, text("done"))
    elif name == "change":
        TOOLS.append('{"name":"fresh","inputSchema":{"type":"object"}}')
        for _ in range(3):
            notify("notifications/tools/list_changed")
        answer(message, text("changed"))
    elif name == "touch":
        notify("notifications/resources/updated", f'{{"uri":"{NAME}://one"}}')
        answer(message, text("touched"))
    elif name == "point":
        link = f'{{"type":"resource_link","uri":"{NAME}-seen://1","name":"x"}}'
        held = f'{{"type":"resource","resource":{{"uri":"{NAME}-seen://2","text":""}}}}'
        answer(message, f'{{"content":[{link}, {held}]}}')
    elif name == "log":
        notify("notifications/message", '{"level":"info","data":{"n":1.10}}')
        notify("notifications/own", '{"n":1.10}')
        answer(message, text("logged"))
    elif name in {"echo", "odd.name", "caf\u00e9"}:
        answer(message, text(line))
    else:
        write(
            f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])},'
            f'"error":{{"code":-32602,"message":"Unknown tool: {name}"}}}}'
        )


def lists(method):
    shown = {"tools/list": ("tools", TOOLS)}
    if not BARE:
        shown["prompts/list"] = ("prompts", PROMPTS)
        shown["resources/list"] = ("resources", RESOURCES)
        shown["resources/templates/list"] = ("resourceTemplates", TEMPLATES)
    if method in shown:
        member, items = shown[method]
        return f'{{"{member}":[{",".join(items)}]}}'
    return None


def handle(message, line):
    method = message.get("method", "")
    if "id" not in message:
        seen.append(line)
        return
    looks.append(method)
    listed = lists(method)
    if listed is not None:
        answer(message, listed)
    elif method == "initialize":
        answer(
            message,
            f'{{"serverInfo":{{"version":"1.0","name":"{NAME}","own":1.10}}, '
            f'"capabilities": {CAPABILITIES},"own":[1E2], "instructions":"use {NAME}",'
            f'"protocolVersion":"2025-11-25"}}',
        )
    elif method == "own/looks":
        answer(message, str(looks.count("tools/list")))
    elif method == "tools/call":
        call(message, line)
    elif method in {"ping", "resources/subscribe", "resources/unsubscribe", "logging/setLevel"}:
        seen.append(line)
        answer(message, "{}")
    elif method in {"prompts/get", "resources/read", "completion/complete", "own/method"}:
        answer(message, f'{{"line":{json.dumps(line)},"n":1.10}}')
    else:
        write(
            f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])},'
            f'"error":{{"message":"never heard of it","code":-32601,"own":1.0}}}}'
        )


for raw in sys.stdin.buffer:
    # What it tells of a line is told with id 0, the number that a link chose aside.
    handle(json.loads(raw), re.sub(r'"id":\d+', '"id":0', raw.decode().rstrip("\n"), count=1))
