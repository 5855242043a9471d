"""Servers that ask their clients things, and clients of either era that are asked."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc

from octave.gateway.audience import Scope
from octave.gateway.router import Router
from octave.packages.launch import LaunchSpec, Policy
from octave.runtime import wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY, Era
from octave.runtime.server import Server
from tests.gateway.conversation import BOUND_S, Client, spec

ASKER = Path(__file__).with_name("asker.py")
ALL = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}}}
FORM = "elicitation/create"
SAMPLE = "sampling/createMessage"
ROOTS = "roots/list"
ACCEPTED = {"action": "accept", "content": {}}

Step = Mapping[str, Any]
Result = dict[str, Any]


def ask(identifier: object = 1, method: str = FORM, **more: object) -> Step:
    return {"ask": method, "id": identifier, "params": {"message": "who?"}, **more}


def need(*keys: str, method: str = FORM, **more: object) -> Step:
    return {"need": {key: {"method": method, "params": {"k": key}} for key in keys}, **more}


class Asker:
    """A server of asker.py with its journal."""

    def __init__(
        self, folder: Path, era: str, *habits: str, name: str = "asker", **policy: Any
    ) -> None:
        self.journal = folder / f"{name}.journal"
        self.journal.touch()
        plain = spec(name, ASKER, era, str(self.journal), *habits)
        self.spec: LaunchSpec = replace(plain, policy=Policy(**policy))

    @property
    def received(self) -> list[wire.Message]:
        """What its processes were told, oldest first."""
        lines = self.journal.read_bytes().splitlines()
        return [wire.decode(line.partition(b" ")[2]) for line in lines]

    @property
    def pids(self) -> list[int]:
        """Of its processes that were told anything, in that order."""
        lines = self.journal.read_bytes().splitlines()
        return list(dict.fromkeys(int(line.partition(b" ")[0]) for line in lines))

    def methods(self) -> list[str | None]:
        return [message.method for message in self.received]

    def answers(self) -> list[wire.Message]:
        return [message for message in self.received if message.is_answer]

    async def told(self, method: str | None, times: int = 1) -> list[wire.Message]:
        """Wait until it was told that, or (None) was answered, so often."""
        await until(lambda: self.methods().count(method) >= times)
        return [each for each in self.received if each.method == method]


class Place(Protocol):
    """Where clients come and go: a desk, or a stage."""

    router: Router
    tasks: anyio.abc.TaskGroup


class Peer(Client):
    """A client of one era, which announces what it can be asked."""

    def __init__(self, desk: Place, era: Era, can: Mapping[str, Any], *servers: str) -> None:
        super().__init__(desk.router, Scope(servers or None, single=len(servers) == 1))
        self.era = era
        self.can = can

    async def begin(self) -> None:
        if self.era == "legacy":
            info = {"name": "peer", "version": "1"}
            said = {"protocolVersion": "2025-06-18", "capabilities": self.can, "clientInfo": info}
            await self.ask(b'"open"', "initialize", json.dumps(said).encode())
            self.say(wire.notification("notifications/initialized"))

    def do(self, identifier: object, *steps: Step, tool: str = "do", **params: Any) -> None:
        """Call the tool that does these steps."""
        meta = dict(params.pop("_meta", {}))
        if self.era == "modern":
            meta |= {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: self.can}
        full = {"name": tool, "arguments": {"steps": steps}, "_meta": meta, **params}
        self.say(wire.request(_raw(identifier), "tools/call", json.dumps(full).encode()))

    async def result(self, identifier: object) -> Result:
        """The result or error that answers a request, parsed."""
        answer = json.loads(await self.answer(_raw(identifier)))
        found: Result = answer.get("result") or answer["error"]
        return found

    async def done(self, identifier: object) -> Result:
        """What the server says at the end of a call."""
        said = await self.result(identifier)
        assert "content" in said, said
        found: Result = json.loads(said["content"][0]["text"])
        return found

    async def did(self, identifier: object, *steps: Step) -> Result:
        self.do(identifier, *steps)
        return await self.done(identifier)

    def cancel(self, identifier: object) -> None:
        params = json.dumps({"requestId": identifier}).encode()
        self.say(wire.notification("notifications/cancelled", params))

    def reply(self, question: bytes, result: object = ACCEPTED) -> None:
        self.say(wire.result(wire.decode(question).id or b"", json.dumps(result).encode()))

    async def asked(self, number: int = 1) -> list[bytes]:
        """The questions that came, as soon as there are so many."""
        found: list[bytes] = []

        def is_last(message: wire.Message) -> bool:
            if message.is_request and message.line not in found:
                found.append(message.line)
            return len(found) >= number

        await self.line(is_last)
        return found

    def questions(self) -> list[bytes]:
        return [line for line in self.lines if wire.decode(line).is_request]


async def peer(
    desk: Place, *servers: str, era: Era = "legacy", can: Mapping[str, Any] = ALL
) -> Peer:
    """A client that has opened its session: at the face of one server, or of all."""
    found = Peer(desk, era, can, *servers)
    await desk.tasks.start(found.session.run)
    await found.begin()
    return found


async def instances(server: Server, number: int) -> None:
    """Wait until so many processes of the server are up."""
    await until(lambda: server.snapshot["instances"] == number)


async def until(is_so: Callable[[], object]) -> None:
    """Wait, bounded, for what another process does, or something that tells nobody."""
    with anyio.fail_after(BOUND_S):
        while not is_so():  # noqa: ASYNC110 - no event tells of it
            await anyio.sleep(0.002)


def _raw(identifier: object) -> bytes:
    return json.dumps(identifier).encode()
