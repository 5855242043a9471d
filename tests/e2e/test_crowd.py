"""Many clients at once on many servers of both eras: nobody sees what is another's.

Every client counts its ids from 1, as numbers and as texts, and uses them as progress tokens too,
so that whatever is confused on the way arrives at somebody who can tell. Every call asks for a text
of its own. Clients cancel, leave in the middle and come back with the same ids; servers crash.
"""

import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp import Client, MCPError, StdioServerParameters

from octave.runtime.guardian import find
from tests.e2e.conftest import OCTAVE, Octave
from tests.e2e.fleet import SERVERS, events, served, wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="counts processes by /proc"),
]

MODERN = "2026-07-28"
AT_ONCE = 8
"""So many calls each client has open."""
BOUND_S = 120.0
"""For the whole crowd, which takes a tenth of that."""
UP_S = 30.0
STEPS = 3
STEPS_SERVER = """
from _base import Server, send, text, tool

class S(Server):
    name = "steps"

    def tools(self):
        return [*super().tools(), tool("steps", "Reports progress under the text, then echoes it")]

    def call(self, name, args, msg):
        if name != "steps":
            return super().call(name, args, msg)
        token = msg["params"]["_meta"]["progressToken"]
        for step in range(1, args["steps"] + 1):
            params = {"progressToken": token, "progress": step, "message": args["text"]}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        return text(args["text"])

S().run()
"""
KINDS = {
    "good": ("good.py",),
    "steps": ("steps.py",),
    "hang": ("hang_on_call.py",),
    "crash": ("crash_on_call.py",),
    "child": ("fork_grandchild.py", "session"),
}
ERAS = ("dual", "legacy", "modern")
"""Three eras and five kinds: fifteen servers until one is like another."""


@dataclass(frozen=True)
class Plan:
    """Who calls whom, and how often each."""

    clients: tuple[tuple[str, str], ...]
    """What each is made with, and the version it speaks; the SDK's: the mode."""
    servers: int
    calls: int

    @property
    def names(self) -> list[str]:
        kinds = list(KINDS)
        return [f"{kinds[number % len(kinds)]}{number}" for number in range(self.servers)]


SMALL = Plan((("raw", "2025-06-18"), ("raw", MODERN), ("sdk", "auto")), servers=5, calls=150)
LARGE = Plan(
    (
        *(("raw", version) for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")),
        *[("raw", MODERN)] * 3,
        *(("sdk", mode) for mode in ("auto", "legacy", "auto")),
    ),
    servers=20,
    calls=400,
)


def write_manifest(octave: Octave, plan: Plan) -> None:
    octave.home.mkdir(mode=0o700)
    steps = octave.cwd / "steps.py"
    steps.write_text(STEPS_SERVER, encoding="utf-8")
    lines = ["[runtime]\nport = 0\n"]
    for number, name in enumerate(plan.names):
        script, *words = KINDS[kind_of(name)]
        path = steps if script == steps.name else SERVERS / script
        environ = {
            "HOSTILE_STATE": str(octave.cwd / name),
            "HOSTILE_ERA": ERAS[number % len(ERAS)],
            "PYTHONPATH": str(SERVERS),
        }
        env = ", ".join(f"{key} = {json.dumps(value)}" for key, value in environ.items())
        command = json.dumps([sys.executable, str(path), *words])
        lines.append(f"[servers.{name}]\ncommand = {command}\nenv = {{ {env} }}\nauto_start = true")
    (octave.home / "octave.toml").write_text("\n".join(lines), encoding="utf-8")


def kind_of(server: str) -> str:
    return server.rstrip("0123456789")


@dataclass
class Call:
    """A call, and what came of it."""

    server: str
    tool: str
    text: str
    steps: list[int] = field(default_factory=list)
    answer: Any = None
    done: anyio.Event = field(default_factory=anyio.Event)

    @property
    def name(self) -> str:
        return f"{self.server}__{self.tool}"

    @property
    def arguments(self) -> Mapping[str, Any]:
        return {"text": self.text, **({"steps": STEPS} if self.tool == "steps" else {})}


@dataclass
class Caller:
    """One client: what it wants, and what it saw that it should not have seen."""

    name: str
    plan: Plan
    faults: list[str] = field(default_factory=list)
    answered: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """By server, how many calls it did not wait for."""

    def calls(self) -> Iterator[Call]:
        """The calls of this client, the same in each run."""
        chance = random.Random(self.name)
        servers: dict[str, list[str]] = {}
        for server in self.plan.names:
            servers.setdefault(kind_of(server), []).append(server)
        for number in range(self.plan.calls):
            text = f"{self.name} {number}"
            if number == self.plan.calls // 2:
                yield Call(chance.choice(servers["crash"]), "crash", text)
            elif chance.random() < 0.2:
                yield Call(chance.choice(servers["steps"]), "steps", text)
            elif chance.random() < 0.05:
                yield Call(chance.choice(servers["hang"]), "hang", text)
            else:
                yield Call(chance.choice(self.plan.names), "echo", text)

    def judge(self, call: Call, texts: list[str] | None) -> None:
        """Note what is wrong with the texts of an answer; None is an error."""
        self.answered += 1
        if texts is None and kind_of(call.server) == "crash":
            return
        if texts != [call.text] or call.tool == "crash":
            self.faults.append(f"{call.text}: {call.name} gave {texts}: {call.answer}")


async def at_once(calls: Iterator[Call], make: Callable[[Call], Awaitable[None]]) -> None:
    """Make the calls, `AT_ONCE` at a time."""

    async def some() -> None:
        for call in calls:
            await make(call)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(some)


class Raw:
    """Lines to and from `octave proxy`; ids and progress tokens are 1, "1", 2, "2" and so on."""

    def __init__(self, caller: Caller, process: anyio.abc.Process, version: str) -> None:
        self.caller, self.process = caller, process
        self._version, self._is_modern = version, version == MODERN
        self._count = 0
        self._open: dict[str, Call] = {}
        """By the JSON text of the id."""

    async def shake_hands(self) -> None:
        if self._is_modern:
            result = await self._ask("server/discover", {})
            assert MODERN in result["supportedVersions"]
        else:
            about = {"capabilities": {}, "clientInfo": {"name": "crowd", "version": "0"}}
            result = await self._ask("initialize", {"protocolVersion": self._version, **about})
            assert result["protocolVersion"] == self._version
            await self._send({"method": "notifications/initialized"})
        found = {tool["name"] for tool in (await self._ask("tools/list", {}))["tools"]}
        assert found.issuperset(f"{server}__echo" for server in self.caller.plan.names), found

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        call = Call("", "", method)
        await self._request(call, method, params)
        await call.done.wait()
        assert "result" in call.answer, call.answer
        return call.answer["result"]

    async def make(self, call: Call) -> None:
        """Call, and judge what came back; what hangs is cancelled once something else came."""
        key = await self.begin(call)
        if call.tool == "hang":
            other = Call(call.server, "echo", call.text)
            await self.make(other)
            if self._open.pop(key, None) is None:
                self.caller.faults.append(f"{call.text}: {call.name} gave {call.answer}")
            params = {"requestId": json.loads(key)}
            await self._send({"method": "notifications/cancelled", "params": params})
            return
        await call.done.wait()
        result = call.answer.get("result")
        self.caller.judge(call, result and [block["text"] for block in result["content"]])
        if result and self._is_modern and result.get("resultType") != "complete":
            self.caller.faults.append(f"{call.text}: no result of this era: {call.answer}")
        if call.tool == "steps" and call.steps != list(range(1, STEPS + 1)):
            self.caller.faults.append(f"{call.text}: progress was {call.steps}")

    async def begin(self, call: Call) -> str:
        """Send a call and return the JSON text of its id."""
        params = {"name": call.name, "arguments": call.arguments}
        return await self._request(call, "tools/call", params)

    async def read(self) -> None:
        """Take what comes until the proxy ends."""
        assert self.process.stdout is not None
        rest = b""
        async for piece in self.process.stdout:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        for call in self._open.values():
            call.answer = {"error": "the proxy ended"}
            call.done.set()

    def _take(self, message: Any) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method is None:
            call = self._open.pop(json.dumps(message["id"]), None)
            if call is None:
                self.caller.faults.append(f"nobody asked for {message}")
            else:
                call.answer = message
                call.done.set()
        elif method == "notifications/progress":
            call = self._open.get(json.dumps(params["progressToken"]))
            if call is None or call.text != params["message"]:
                self.caller.faults.append(f"somebody else's {message}")
            else:
                call.steps.append(params["progress"])
        elif not method.endswith("/list_changed"):
            self.caller.faults.append(f"nobody wants {message}")

    async def _request(self, call: Call, method: str, params: Mapping[str, Any]) -> str:
        number, is_text = divmod(self._count, 2)
        self._count += 1
        identifier: int | str = str(number + 1) if is_text else number + 1
        meta: dict[str, Any] = {"progressToken": identifier}
        if self._is_modern:
            meta["io.modelcontextprotocol/protocolVersion"] = MODERN
            meta["io.modelcontextprotocol/clientCapabilities"] = {}
        key = json.dumps(identifier)
        self._open[key] = call
        await self._send({"id": identifier, "method": method, "params": {**params, "_meta": meta}})
        return key

    async def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


@contextlib.asynccontextmanager
async def raw(octave: Octave, caller: Caller, version: str) -> AsyncIterator[Raw]:
    """A conversation of raw lines; its proxy is gone in the end, in order unless it was killed."""
    words = [str(OCTAVE), "proxy"]
    process = await anyio.open_process(words, env=octave.environ, stderr=subprocess.DEVNULL)
    async with process, anyio.create_task_group() as tasks:
        client = Raw(caller, process, version)
        tasks.start_soon(client.read)
        await client.shake_hands()
        yield client
        if process.returncode is None:
            assert process.stdin is not None
            await process.stdin.aclose()
            assert await process.wait() == 0


async def leave(octave: Octave, caller: Caller, version: str) -> None:
    """Begin calls and be killed before they are answered."""
    async with raw(octave, caller, version) as client:
        for call in caller.calls():
            if call.tool != "crash":
                await client.begin(call)
                caller.left[call.server] += 1
        client.process.kill()
        await client.process.wait()


async def converse_raw(octave: Octave, caller: Caller, version: str) -> None:
    before = Caller(f"{caller.name} before", replace(caller.plan, calls=AT_ONCE))
    await leave(octave, before, version)
    caller.left = before.left
    async with raw(octave, caller, version) as client:
        await at_once(caller.calls(), client.make)


async def converse_sdk(octave: Octave, caller: Caller, mode: str) -> None:
    words = StdioServerParameters(command=str(OCTAVE), args=["proxy"], env=dict(octave.environ))
    async with Client(words, mode=mode) as client:
        assert client.protocol_version == (MODERN if mode == "auto" else "2025-11-25")

        async def make(call: Call) -> None:
            if call.tool == "hang":
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.call_tool, call.name, dict(call.arguments))
                    await make(Call(call.server, "echo", call.text))
                    tasks.cancel_scope.cancel()
                return

            async def report(progress: float, total: float | None, message: str | None) -> None:
                call.steps.append(int(progress))
                if message != call.text:
                    caller.faults.append(f"{call.text}: progress of {message}")

            try:
                result = await client.call_tool(
                    call.name, dict(call.arguments), progress_callback=report
                )
            except MCPError as error:
                call.answer = error
                caller.judge(call, None)
            else:
                call.answer = result
                caller.judge(call, [getattr(block, "text", "") for block in result.content])

        await at_once(caller.calls(), make)


MANNERS = {"raw": converse_raw, "sdk": converse_sdk}


def status(octave: Octave) -> dict[str, Any]:
    found = octave("status", "--json").document["servers"]
    return {server["name"]: server for server in found}


def disagreements(octave: Octave, left: Counter[str]) -> list[str]:
    """Return where the runtime did not count what the servers did."""
    heard = {name: Counter(events(octave, name)) for name in status(octave)}
    return [
        f"{server}, but {heard[name]}"
        for name, server in status(octave).items()
        if not agree(server, heard[name], left[name])
    ]


def agree(server: Mapping[str, Any], heard: Counter[str], left: int) -> bool:
    """Whether the runtime counted calls, errors and deaths as the server's processes did.

    And whether what nobody waits for any more was cancelled. Those who left may have done so
    before their calls were written.
    """
    calls = sum(heard[event] for event in heard if event.startswith("call:"))
    cancelled = sum(heard[event] for event in heard if event.startswith("cancelled:"))
    if kind_of(server["name"]) == "crash":
        # What was on the pipe of one that died was called, and never heard.
        return bool(server["calls"] >= calls and server["restarts"] == heard["call:crash"])
    if heard["call:hang"] > cancelled:
        return False
    return calls <= server["calls"] <= calls + left and not (server["errors"] or server["restarts"])


async def gather(octave: Octave, plan: Plan) -> None:
    """Let the crowd of the plan loose, and judge what it saw."""
    write_manifest(octave, plan)
    with served(octave) as (_, mark):
        wait_until(lambda: all(each["tools"] for each in status(octave).values()), UP_S)
        callers = [Caller(f"{kind} {n}", plan) for n, (kind, _) in enumerate(plan.clients)]
        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                for caller, (kind, version) in zip(callers, plan.clients, strict=True):
                    tasks.start_soon(MANNERS[kind], octave, caller, version)
        assert [fault for caller in callers for fault in caller.faults] == []
        assert {caller.answered for caller in callers} == {plan.calls}
        left = sum((caller.left for caller in callers), Counter[str]())
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not disagreements(octave, left))
        assert disagreements(octave, left) == []
        octave("shutdown")
        wait_until(lambda: not find([mark, f"OCTAVE_HOME={octave.home}".encode()]))


async def test_a_few_clients_on_a_few_servers_get_what_is_theirs(octave: Octave) -> None:
    await gather(octave, SMALL)


@pytest.mark.campaign
async def test_ten_clients_on_twenty_servers_get_what_is_theirs(octave: Octave) -> None:
    await gather(octave, LARGE)
