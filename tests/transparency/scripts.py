"""What a client says and a server writes, for each line of what MCP has to offer, in either era.

One text serves both eras: in client lines `$ENV` stands for the modern envelope, in the lines of
servers `$DONE` and `$FRESH` for what modern results carry. Nothing is written as a library would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Era = Literal["legacy", "modern"]
Step = str | dict[str, Any]
Script = Mapping[str, Sequence[Step]]

PREFIX = "io.modelcontextprotocol/"
MODERN_VERSION = "2026-07-28"
CAPABILITIES = (
    '{"sampling":{"tools":{}},"elicitation":{"url":{},"form":{}},"roots":{"listChanged":true},'
    '"own/x":1.0}'
)
CLIENT_INFO = '{"version":"1.0", "name":"raw","own":1.10}'
PLACES: Mapping[Era, Mapping[str, str]] = {
    "legacy": {"$ENV": "", "$DONE": "", "$FRESH": ""},
    "modern": {
        "$ENV": f'"{PREFIX}clientCapabilities":{CAPABILITIES},'
        f' "{PREFIX}protocolVersion":"{MODERN_VERSION}","{PREFIX}clientInfo":{CLIENT_INFO},',
        "$DONE": '"resultType":"complete",',
        "$FRESH": '"resultType":"complete","ttlMs":0,"cacheScope":"private",',
    },
}
INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'


def initialize(version: str = "2025-11-25") -> str:
    return (
        f'{{"jsonrpc":"2.0","id":"open","method":"initialize","params":{{"protocolVersion":'
        f'"{version}","capabilities":{CAPABILITIES},"clientInfo":{CLIENT_INFO}}}}}'
    )


@dataclass(frozen=True, slots=True)
class Later:
    """A request whose answer is not waited for."""

    line: str


@dataclass(frozen=True, slots=True)
class Hears:
    """Waits for notifications of a method, counted from the beginning."""

    method: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """Waits for the answer to the request of that raw id."""

    identifier: str


Line = str | Later | Hears | Answered


@dataclass(frozen=True, slots=True)
class Scene:
    """One conversation: what the client says, and what the server writes when it hears that."""

    name: str
    client: Mapping[Era, Sequence[Line]]
    server: Mapping[Era, Script]
    replies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the client says when asked, by a text of the question, the first that fits: the members
    that follow the id, or a whole line, in which `$ID` and `$TOKEN` stand for the question's."""
    is_bridged: bool = True
    """Clients and servers of different eras see of it what they would see in their own."""

    @property
    def eras(self) -> list[Era]:
        return list(self.client)


def both(
    name: str, client: Sequence[Line], server: Script, *, is_bridged: bool = True, **replies: Any
) -> Scene:
    """A scene whose texts serve both eras."""
    eras: tuple[Era, Era] = ("legacy", "modern")
    return Scene(
        name,
        dict.fromkeys(eras, client),
        dict.fromkeys(eras, server),
        is_bridged=is_bridged,
        **replies,
    )


def one(era: Era, name: str, client: Sequence[Line], server: Script, **replies: Any) -> Scene:
    """A scene of one era alone."""
    return Scene(name, {era: client}, {era: server}, is_bridged=False, **replies)


def ask(identifier: str, method: str, params: str) -> str:
    """A request; `params` are members, each followed by a comma, `_meta` comes last."""
    return (
        f'{{"method":"{method}", "jsonrpc":"2.0","id":{identifier},"params":{{{params}'
        '"_meta":{$ENV"v/k":1.10,"traceparent":"00-ab-cd-01"}},"more":[1E2]}'
    )


def call(identifier: str, name: str, params: str = "") -> str:
    return ask(identifier, "tools/call", f'"name":"{name}", {params}')


def answer(members: str) -> str:
    return f'{{"result": {{$DONE{members}}}, "jsonrpc":"2.0","id":$ID ,"more":1.0}}'


def fresh(members: str) -> str:
    return f'{{"jsonrpc":"2.0","id":$ID,"result":{{$FRESH{members}}}}}'


def notify(method: str, members: str) -> str:
    return f'{{"params":{{{members}}},"jsonrpc":"2.0", "method":"{method}"}}'


def text(words: str) -> str:
    return answer(f'"content":[{{"text":"{words}","type":"text","own":1.0}}]')


def error(code: int, rest: str = '"data":{"n":1.10,"retry":[1E2]}') -> str:
    return (
        f'{{"jsonrpc":"2.0","error":{{"own":[1E2],{rest},"message":"no","code":{code}}},"id":$ID}}'
    )


def token(line: str, value: str) -> str:
    """The request with a progress token."""
    return line.replace('"_meta":{', f'"_meta":{{"progressToken":{value},')


def cancel(identifier: str) -> str:
    return notify(
        "notifications/cancelled",
        f'"reason":"\\u00e9 no","requestId":{identifier},"_meta":{{"v/k":1.0}},"own":1.0',
    )


def listen(identifier: str, kinds: str) -> Later:
    return Later(ask(identifier, "subscriptions/listen", f'"notifications":{{{kinds}}},'))


def tagged(method: str, members: str = "") -> str:
    """A notification of a modern server, on the stream of its listener."""
    tag = f'"_meta":{{"v/k":1.0,"{PREFIX}subscriptionId":$LISTEN}}'
    return notify(method, f"{members}{tag}")


TOOLS = ",".join(
    (
        '{"inputSchema": {"type":"object", "$defs":{"z":{},"a":{}},"x-n":[1.10,1E2,1e400,-0]},'
        '"annotations":{"readOnlyHint":true,"own":1.0},"zeta":null,"name":"say","description":'
        '"says \\u00e9 \\/","_meta":{"v/k":1}, "icons":[{"src":"data:,","own":1.50}]}',
        *(
            f'{{"name":"{name}" , "inputSchema":{{"type":"object"}},"execution":{{"own":1.0}}}}'
            for name in (
                "ask",
                "touch",
                "change",
                "log",
                "silent",
                "progress",
                "hang",
                "fails",
                "structured",
                "first",
                "second",
                "third",
                "fence",
            )
        ),
    )
)
PROMPTS = '{"arguments":[{"name":"x","own":1.0, "required":false}],"name":"greet","extra":2.50}'
RESOURCES = '{"uri":"probe://one","size":1E2,"name":"one","annotations":{"priority":0.50,"o":1}}'
TEMPLATES = '{"uriTemplate":"probe://item/{id}","name":"item","own":1.10}'
SERVER_CAPABILITIES = (
    '{"tools":{"listChanged":true,"own":1.0},"prompts":{"listChanged":true}, "resources":'
    '{"subscribe":true,"listChanged":true},"completions":{},"logging":{},"tasks":{"list":{},'
    '"cancel":{}},"experimental":{"own/x":{"y":1.0}}, "own/y":[1E2]}'
)
SERVER_INFO = '{"version":"1.0", "name":"probe","own":1.10}'
LIST_CHANGED = tuple(
    f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
)
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"

LISTS: Script = {
    "tools/list": [fresh(f'"tools":[{TOOLS}]')],
    "prompts/list": [fresh(f'"prompts":[{PROMPTS}]')],
    "resources/list": [fresh(f'"resources":[{RESOURCES}]')],
    "resources/templates/list": [fresh(f'"resourceTemplates":[{TEMPLATES}]')],
    "tools/call fence": [text("fence")],
}
COMMON: Mapping[Era, Script] = {
    "legacy": {
        "initialize": [
            f'{{"jsonrpc":"2.0","id":$ID,"result":{{"serverInfo":{SERVER_INFO},"capabilities": '
            f'{SERVER_CAPABILITIES},"own":[1E2], "instructions":"use \\u00e9",'
            '"protocolVersion":$VERSION,"_meta":{"v/k":1.10}}}'
        ],
        "ping": ['{"jsonrpc":"2.0","id":$ID,"result":{}}'],
        **LISTS,
    },
    "modern": {
        "server/discover": [
            fresh(
                f'"capabilities": {SERVER_CAPABILITIES},"supportedVersions":["{MODERN_VERSION}"],'
                f'"own":[1E2], "instructions":"use \\u00e9",'
                f'"_meta":{{"v/k":1.10, "{PREFIX}serverInfo":{SERVER_INFO}}}'
            )
        ],
        "subscriptions/listen": [
            f'{{"jsonrpc":"2.0","method":"{ACKNOWLEDGED}","params":{{"_meta":'
            f'{{"{PREFIX}subscriptionId":$ID}},"notifications":$FILTER}}}}'
        ],
        **LISTS,
    },
}


def fence(era: Era) -> str:
    """The last request of every conversation: what was said before it has been heard."""
    return filled(era, call('"fence"', "fence"))


def script(scene: Scene, era: Era) -> dict[str, Any]:
    """The whole script of the server in one era, as the probe server reads it."""
    parts = {**COMMON[era], **scene.server.get(era, {})}
    return {label: [filled_step(era, step) for step in steps] for label, steps in parts.items()}


def filled_step(era: Era, step: Step) -> Step:
    if isinstance(step, str):
        return filled(era, step)
    become = step.get("become")
    if become is None:
        return step
    return {
        "become": {
            label: [filled_step(era, inner) for inner in steps] for label, steps in become.items()
        }
    }


def filled(era: Era, line: str) -> str:
    for place, value in PLACES[era].items():
        line = line.replace(place, value)
    return line
