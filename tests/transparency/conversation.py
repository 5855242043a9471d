"""Plays a scene, directly and through Octave, and keeps what each end received: raw lines."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc

from octave.gateway.audience import Scope
from octave.gateway.session import Session
from octave.packages.launch import LaunchSpec
from octave.runtime import wire
from tests.gateway.conversation import BOUND_S, Desk, desk, spec
from tests.transparency.comparison import Record, member, members
from tests.transparency.scripts import (
    INITIALIZED,
    Answered,
    Era,
    Hears,
    Later,
    Scene,
    fence,
    filled,
    initialize,
    script,
)

LATEST = "2025-11-25"
TOGETHER = frozenset({"one", "two"})
"""Names of servers that share a face: their resources have URIs of their own."""
PROBE = Path(__file__).with_name("probe_server.py")


class Talk:
    """A client's end: keeps what it hears, and answers what it is asked."""

    def __init__(
        self, era: Era, replies: Mapping[str, Sequence[str]], version: str = LATEST
    ) -> None:
        self.heard: list[bytes] = []
        self.send: Callable[[bytes], None] = self.heard.append
        self._era = era
        self._version = version
        self._replies = replies
        self._asked = Counter[bytes]()
        self._news = anyio.Event()

    def say(self, line: bytes) -> None:
        message = wire.decode(line)
        if message.is_request:
            self._asked[message.id or b""] += 1
        self.send(line)

    def take(self, line: bytes) -> None:
        self.heard.append(line)
        message = wire.decode(line)
        if message.is_request:
            for reply in self._reply(line, message.method or ""):
                full = reply if reply.startswith("{") else f'{{"jsonrpc":"2.0","id":$ID,{reply}}}'
                token = member(line, "params", "_meta", "progressToken")
                told = full.encode().replace(b"$ID", message.id or b"").replace(b"$TOKEN", token)
                self.say(told)
        self._news.set()
        self._news = anyio.Event()

    def _reply(self, line: bytes, method: str) -> Sequence[str]:
        if method == "ping":
            return ['"result":{}']
        fitting = (reply for key, reply in self._replies.items() if key.encode() in line)
        return next(fitting, ())

    async def play(self, scene: Scene, last: str = "") -> None:
        """Say the client's lines, each request once the one before it was answered.

        `last` stands in for the request that ends every conversation.
        """
        await self.open()
        for line in scene.client[self._era]:
            match line:
                case str():
                    await self.ask(filled(self._era, line).encode())
                case Later():
                    self.say(filled(self._era, line.line).encode())
                case Hears():
                    await self.hears(line.method, line.times)
                case Answered():
                    await self.answer(line.identifier.encode())
        await self.ask((last or fence(self._era)).encode())

    async def ask(self, line: bytes) -> bytes:
        """Say a line, and return the last answer to it: what is missing is given."""
        request = wire.decode(line)
        if not request.is_request:
            self.say(line)
            return b""
        found, rounds = await self.once(line), 0
        while member(found, "result", "resultType") == b'"input_required"':
            rounds += 1
            identifier = b'"again %d, %b"' % (rounds, (request.id or b"").strip(b'"'))
            found = await self.once(self._again(line, found, identifier))
        return found

    async def once(self, line: bytes) -> bytes:
        """Say a request and return its answer, whichever it is."""
        self.say(line)
        return await self.answer(wire.decode(line).id or b"")

    def _again(self, line: bytes, found: bytes, identifier: bytes) -> bytes:
        """The same request with what the server wants to know (MCP 2026-07-28, MRTR)."""
        params = member(line, "params")
        asked = members(member(found, "result", "inputRequests"))
        answers = []
        for key, question in asked.items():
            reply = self._reply(question, "")[-1]
            result = member(
                reply.encode() if reply.startswith("{") else b"{%b}" % reply.encode(), "result"
            )
            answers.append(b"%b:%b" % (json.dumps(key).encode(), result))
        first, rest = b"{", params.removeprefix(b"{")
        if asked:
            first += b'"inputResponses":{%b},' % b",".join(answers)
        state = wire.member(member(found, "result"), "requestState")
        if state is not None:
            first += b'"requestState":%b,' % state
        return wire.splice(line, {("id",): identifier, ("params",): first + rest})

    async def answer(self, identifier: bytes) -> bytes:
        def wanted(message: wire.Message) -> bool:
            return message.is_answer and message.id == identifier

        # The last answer to an id is asked for, which a client may use anew.
        return (await self._found(wanted, self._asked[identifier]))[-1]

    async def hears(self, method: str, times: int = 1) -> list[bytes]:
        return await self._found(lambda message: message.method == method, times)

    async def _found(self, wanted: Callable[[wire.Message], bool], times: int) -> list[bytes]:
        with anyio.fail_after(BOUND_S):
            while True:
                found = [line for line in self.heard if wanted(wire.decode(line))]
                if len(found) >= times:
                    return found
                await self._news.wait()

    async def open(self) -> None:
        if self._era == "legacy":
            await self.once(initialize(self._version).encode())
            self.say(INITIALIZED.encode())


# Runs.


class Probe:
    """A probe server with the scripts of one scene, and what it received."""

    def __init__(self, folder: Path, scene: Scene, era: str, name: str = "probe") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.era = name, era
        self.script, self.journal = folder / f"{name}.script", folder / f"{name}.journal"
        text = json.dumps({era: script(scene, era) for era in scene.server})
        self.script.write_text(text.replace("probe://", f"{name}://") if name in TOGETHER else text)
        self.journal.write_bytes(b"")

    @property
    def words(self) -> tuple[str, str, str]:
        return self.era, str(self.script), str(self.journal)

    @property
    def spec(self) -> LaunchSpec:
        return spec(self.name, PROBE, *self.words)

    @property
    def received(self) -> list[bytes]:
        return [line.partition(b" ")[2] for line in self.journal.read_bytes().splitlines()]


async def directly(
    folder: Path,
    scene: Scene,
    era: Era,
    server: str = "",
    version: str = LATEST,
    name: str = "probe",
) -> Record:
    """Play the scene with nothing between client and server; `server` is its era, if another."""
    probe = Probe(folder, scene, server or era, name)
    talk = Talk(era, scene.replies, version)
    return await piped([sys.executable, "-S", str(PROBE), *probe.words], talk, scene, probe)


async def piped(
    argv: Sequence[str],
    talk: Talk,
    scene: Scene,
    probe: Probe,
    environ: Mapping[str, str] | None = None,
) -> Record:
    """Play the scene over the pipes of a child."""
    async with (
        await anyio.open_process(argv, env=environ, stderr=subprocess.DEVNULL) as child,
        anyio.create_task_group() as tasks,
    ):
        assert child.stdin is not None and child.stdout is not None
        out, said = anyio.create_memory_object_stream[bytes](100)
        talk.send = out.send_nowait
        tasks.start_soon(_write, said, child.stdin)
        tasks.start_soon(_read, child.stdout, talk)
        await talk.play(scene)
        out.close()
    return Record(talk.heard, probe.received)


async def _write(
    said: anyio.abc.ObjectReceiveStream[bytes], pipe: anyio.abc.ByteSendStream
) -> None:
    async with said, pipe:
        async for line in said:
            await pipe.send(line + b"\n")


async def _read(pipe: AsyncIterator[bytes], talk: Talk) -> None:
    framer = wire.Framer(2**24)
    async for data in pipe:
        for line in framer.feed(data):
            assert isinstance(line, bytes)
            talk.take(line)


async def through(
    folder: Path, scene: Scene, era: Era, server: str = "", version: str = LATEST
) -> Record:
    """Play the scene at a one-server face; `server` is the server's era, if it is another."""
    async with talking(folder, scene, era, server or era, version) as (talk, probe):
        await talk.play(scene)
        return Record(talk.heard, probe.received)


@asynccontextmanager
async def talking(
    folder: Path, scene: Scene, era: Era, server: str, version: str = LATEST
) -> AsyncIterator[tuple[Talk, Probe]]:
    """A client at a one-server face that has said nothing yet, and its server."""
    probe = Probe(folder, scene, server)
    talk = Talk(era, scene.replies, version)
    async with desk(folder, probe.spec) as found:
        await sit_down(found, talk, probe.name)
        yield talk, probe


async def sit_down(found: Desk, talk: Talk, *servers: str) -> None:
    """Begin the session of a client: of the one server given, or an aggregated one."""
    session = Session(found.router, Scope(servers or None, single=bool(servers)), talk.take)
    talk.send = session.receive
    await found.tasks.start(session.run)
