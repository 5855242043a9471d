"""Whatever comes when: each answer, each word of progress and each question finds its own.

Clients of both eras, servers of both, and what they do is drawn at random, step by step, with few
turns of the event loop between two steps, none, or as many as something happens in. What must never
happen is looked for in every line that arrives; at the end nothing may be left open. The last is
looked up in private attributes: what is kept by mistake is seen nowhere else.
"""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octave.packages.launch import Policy
from octave.runtime import wire
from octave.runtime.instance import Instance
from tests.gateway.asking import ALL, FORM, SAMPLE
from tests.gateway.players import Call, Client, Question, Work
from tests.gateway.puppets import Given, Loop, Puppet, Stage, rest

ERAS = {"old": "legacy", "new": "modern", "dual": "both", "own": "legacy"}
POLICIES = {"own": Policy(instance="session")}
IDS = (
    b'1', b'"1"', b'0', b'""', b'-1', b'2.50', b'1e2', b'12345678901234567890123',
    b'"\\u00e9\\"}{"', b'"octave-1"', b'"octave-2"', b'2',
)  # fmt: skip
KINDS: tuple[tuple[Any, ...], ...] = (
    # era, server of its single face, what it can be asked, is it HTTP
    ("legacy", "old", ALL, False),
    ("legacy", None, ALL, False),
    ("legacy", None, {}, False),
    ("legacy", "new", ALL, False),
    ("legacy", "own", {"elicitation": {}}, False),
    ("modern", "old", ALL, False),
    ("modern", None, ALL, False),
    ("modern", None, ALL, True),
    ("modern", "dual", {"elicitation": {}}, True),
)


class World:
    """Everybody, and what happened so far."""

    def __init__(self, stage: Stage, tasks: anyio.abc.TaskGroup) -> None:
        self.stage = stage
        self.tasks = tasks
        self.numbers = itertools.count(1)
        self.wrong: list[str] = []
        self.clients: list[Client] = []
        self.all_clients: list[Client] = []
        self.questions: dict[str, Question] = {}
        self.works: dict[Puppet, set[Work]] = {}
        self.troubled: set[str] = set()
        """Servers whose processes have died, or were stopped."""
        self.unheard: dict[int, Call] = {}
        """Progress that a client has yet to hear of, by its number."""
        self._done: list[tuple[Puppet, bytes, Given]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, found: self.must(False, f"a bug: {found.get('exception')!r}")
        )
        stage.on_call = self._arrived
        stage.on_answer = self._told

    def must(self, is_so: bool, wrong: str, line: bytes = b"") -> None:
        if not is_so:
            self.wrong.append(f"{wrong}: {line.decode(errors='replace')}")

    def has_had_trouble(self, work: Work) -> bool:
        # What a client has not, or is asked too often, Octave cannot ask for a modern server.
        is_asked = any(self.questions[key].id is None for key in work.asks)
        return work.server in self.troubled or is_asked

    @property
    def puppets(self) -> list[Puppet]:
        return [puppet for puppet in self.stage.puppets if puppet.is_alive]

    @property
    def waiting(self) -> list[tuple[Puppet, Given]]:
        return [(puppet, each) for puppet in self.puppets for each in puppet.calls.values()]

    def work_of(self, given: Given) -> Work:
        number = given.params["arguments"]["work"]
        return next(
            call.work
            for client in self.all_clients
            for call in client.calls
            if call.work.number == number
        )

    # What servers hear.

    def _arrived(self, puppet: Puppet, given: Given) -> None:
        work = self.work_of(given)
        self.works.setdefault(puppet, set()).add(work)
        self.must(work.server == puppet.server, "a call for another server")
        self.must(given.params["name"] == "do", "a name that is not the server's")
        answers = given.params.get("inputResponses")
        if answers is None and "requestState" not in given.params:
            work.arrivals += 1
            self.must(work.arrivals == 1, "a call was made twice")
            return
        self.must(puppet.is_modern, "a legacy server was given answers")
        self.must(given.params["requestState"] == f"state-{work.number}", "another state")
        for key, answer in (answers or {}).items():
            self.must(answer == self.questions[key].replied, "another answer in a retry")

    def _told(self, puppet: Puppet, message: wire.Message) -> None:
        open_ones = [
            each
            for each in self.questions.values()
            if each.puppet is puppet and each.id == message.id and each.is_open
        ]
        self.must(len(open_ones) == 1, "an answer to no question", message.line)
        (question,) = open_ones or (None,)
        if question is None:
            return
        question.is_open = False
        said = json.loads(message.result or message.error or b"null")
        if message.result is not None or said.get("code") == -1:
            self.must(said == question.replied, "an answer to another question", message.line)

    # What servers say.

    def answer(self, puppet: Puppet, given: Given, choice: int) -> None:
        del puppet.calls[given.id]
        self._done.append((puppet, given.id, given))
        puppet.say(self._answer(puppet, given.id, self.work_of(given).number, choice))

    def _answer(self, puppet: Puppet, identifier: bytes, number: int, choice: int) -> bytes:
        if choice % 4 == 0:
            return wire.error(identifier, -7, "no", b'{"work":%d}' % number)
        kind = b'"resultType":"complete",' if puppet.is_modern else b""
        return wire.result(identifier, b'{%b"content":[],"work":%d}' % (kind, number))

    def stray(self, choice: int) -> None:
        """Say what answers nothing, or the same once more."""
        if self._done and choice % 2:
            puppet, identifier, given = self._done[choice % len(self._done)]
            puppet.say(self._answer(puppet, identifier, self.work_of(given).number, choice))
        elif self.puppets:
            puppet = self.puppets[choice % len(self.puppets)]
            puppet.say(self._answer(puppet, (b"999999", b'"1"', b"null")[choice % 3], 0, choice))

    def progress(self, puppet: Puppet, given: Given) -> None:
        """Tell how a call goes on, whether or not anybody has asked for that."""
        token = given.params["_meta"].get("progressToken", "nobody")
        work, number = self.work_of(given), next(self.numbers)
        params = {"progressToken": token, "progress": number, "work": work.number}
        for client in self.clients:
            for call in client.calls:
                if call.work is work and call.token and call.is_open:
                    self.unheard[number] = call
        puppet.say(wire.notification("notifications/progress", json.dumps(params).encode()))

    def ask(self, puppet: Puppet, identifier: bytes, choice: int) -> None:
        """Let a legacy server ask its client something."""
        taken = {each.id for each in self.questions.values() if each.puppet is puppet}
        if identifier in taken:
            return
        question = self._question(puppet, identifier)
        for work in self.works[puppet]:
            work.asks.add(question.key)
        method = FORM if choice % 2 else SAMPLE
        params = json.dumps({"message": question.key}).encode()
        puppet.say(wire.request(identifier, method, params))

    def need(self, puppet: Puppet, given: Given, choice: int) -> None:
        """Let a modern server ask in its answer."""
        if given.method != "tools/call":
            return
        del puppet.calls[given.id]
        work = self.work_of(given)
        asked = {}
        for number in range(1 + choice % 2):
            question = self._question(puppet, None)
            work.asks.add(question.key)
            method = FORM if (choice + number) % 3 else SAMPLE
            asked[question.key] = {"method": method, "params": {"message": question.key}}
        result = {"resultType": "input_required", "inputRequests": asked}
        result["requestState"] = f"state-{work.number}"
        puppet.say(wire.result(given.id, json.dumps(result).encode()))

    def _question(self, puppet: Puppet, identifier: bytes | None) -> Question:
        question = Question(f"q{next(self.numbers)}", puppet, identifier)
        question.there = {self.work_of(each) for each in puppet.calls.values()}
        self.questions[question.key] = question
        return question

    def withdraw(self, choice: int) -> None:
        found = [
            each
            for each in self.questions.values()
            if each.is_open and each.id is not None and each.puppet.is_alive
        ]
        if found:
            question = found[choice % len(found)]
            question.is_withdrawn = True
            params = b'{"requestId":%b}' % (question.id or b"")
            question.puppet.say(wire.notification("notifications/cancelled", params))

    def die(self, puppet: Puppet, choice: int) -> None:
        self.troubled.add(puppet.server)
        puppet.die(b'{"jsonrpc":"2.0","id":1,"resu' if choice % 2 else b"")

    async def restart(self, server: str) -> None:
        self.troubled.add(server)
        await self.stage.supervisor.restart([server])


STEPS = (
    *("rest",) * 2, *("call",) * 6, *("answer",) * 5, *("progress",) * 3, *("ask",) * 3,
    *("need",) * 2, *("reply",) * 3, *("retry",) * 3, *("cancel",) * 2, *("pass",) * 2,
    "stray", "withdraw", "die", "restart", "leave", "come",
)  # fmt: skip
Step = tuple[str, int, int, int]
SCRIPTS = st.tuples(
    st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from(STEPS), st.integers(0, 11), st.integers(0, 11), st.integers(0, 3)
        ),
        min_size=30,
        max_size=60,
    ),
)


async def take(world: World, step: Step) -> None:  # noqa: C901 - a table
    what, one, other, turns = step
    clients, waiting, puppets = world.clients, world.waiting, world.puppets
    client = clients[one % len(clients)] if clients else None
    puppet, given = waiting[one % len(waiting)] if waiting else (None, None)
    calls = [call for each in clients for call in each.calls if call.is_open]
    match what:
        case "call" if client is not None:
            client.call(list(ERAS)[other % len(ERAS)], IDS[(one + other) % len(IDS)], other)
        case "answer" if puppet and given:
            world.answer(puppet, given, other)
        case "progress" if puppet and given:
            world.progress(puppet, given)
        case "ask" if found := [each for each in world.works if each.can_ask]:
            world.ask(found[one % len(found)], IDS[other], one)
        case "need" if needing := [each for each in waiting if each[0].is_modern]:
            world.need(*needing[one % len(needing)], other)
        case "reply":
            asked = [(each, key) for each in clients for key in each.asked]
            if asked:
                who, key = asked[one % len(asked)]
                who.reply(key, is_error=other % 3 == 0)
        case "retry":
            parked = [(each, at) for each in clients for at in range(len(each.parked))]
            if parked:
                who, at = parked[one % len(parked)]
                who.retry(at, IDS[other], other)
        case "cancel" if calls:
            call = calls[one % len(calls)]
            call.client.cancel(call)
        case "rest":
            await settle(world)
        case "pass":
            await anyio.sleep((0.03, 0.3, 3.0)[one % 3])
            await settle(world)
        case "stray":
            world.stray(one)
        case "withdraw":
            world.withdraw(one)
        case "die" if puppets:
            world.die(puppets[one % len(puppets)], other)
        case "restart":
            world.tasks.start_soon(world.restart, list(ERAS)[one % len(ERAS)])
        case "leave" if client is not None:
            client.leave()
            clients.remove(client)
        case "come" if len(clients) < 5:
            await enter(world, one % len(KINDS))
    for _ in range(turns):
        await asyncio.sleep(0)


async def settle(world: World) -> None:
    await rest()
    for number, call in world.unheard.items():
        # Nor is it heard while the call is parked, or after its server's death.
        is_heard = not call.is_open or call.work.asks or call.work.server in world.troubled
        world.must(bool(is_heard), f"progress {number} was lost")
    world.unheard.clear()
    for client in world.clients:
        for call in client.calls:
            call.is_going = False


async def enter(world: World, kind: int) -> None:
    client = Client(world, KINDS[kind])
    await client.come()
    world.clients.append(client)
    world.all_clients.append(client)


async def finish(world: World) -> None:
    """Let everybody do what he still has to do."""
    for number in range(40):
        await settle(world)
        for puppet, waiting in world.waiting:
            world.answer(puppet, waiting, 1)
        for client in world.clients:
            for identifier, question in list(client.asked.items()):
                is_wanted = question.puppet.is_alive and not question.is_withdrawn
                world.must(is_wanted or question.id is None, "not told that it was withdrawn")
                client.reply(identifier, is_error=False)
            while client.parked:
                client.retry(0, b'"last-%d"' % next(world.numbers), 1)
        # A server that died may come back only then, and questions are gathered.
        await anyio.sleep(0.1 if number < 20 else 5.0)
    await rest()


def instances(world: World) -> list[Instance]:
    return [each for server in world.stage.supervisor.servers.values() for each in server.instances]


def look_for_leftovers(world: World) -> None:
    """Note what is kept although everything has ended."""
    for client in world.all_clients:
        session = client.session
        for call in client.calls:
            world.must(not call.is_open, f"never answered: {call.work.__dict__} {call.id!r}")
        kept = (session._open, session._client._asked, session._crossing.lot._parked)
        world.must(not any(kept), f"kept by a session: {kept}")
        world.must(not client.asked, "a question that stayed open")
    for question in world.questions.values():
        is_over = question.is_withdrawn or not question.is_open or question.id is None
        world.must(is_over or not question.puppet.is_alive, f"{question.key} was never answered")
    for each in instances(world):
        in_flight = each._connection.in_flight if each._connection else 0
        questions = each.exchange.questions
        left = (each.exchange.calls.count, questions.count, len(questions._callers), in_flight)
        world.must(not any(left), f"kept of {each.name}: {left}")


async def play(folder: Path, kinds: list[int], steps: list[Step]) -> World:
    stage = Stage(folder, ERAS, POLICIES)
    async with stage.open() as tasks:
        world = World(stage, tasks)
        for number, kind in enumerate(kinds):
            await enter(world, kind)
            world.clients[-1].call(list(ERAS)[number % len(ERAS)], IDS[number], number)
        await settle(world)
        for step in steps:
            await take(world, step)
        await finish(world)
        look_for_leftovers(world)
        for client in world.clients:
            client.leave()
        await anyio.sleep(10.0)
        look_for_leftovers(world)
        private = [each for each in instances(world) if each.role.owner is not None]
        world.must(not private, "a process of a client that has left")
    return world


def run(folder: Path, kinds: list[int], steps: list[Step]) -> None:
    world = anyio.run(play, folder, kinds, steps, backend_options={"loop_factory": Loop})
    assert not world.wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("known")


PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(PROFILE, max_examples=120)
@given(script=SCRIPTS)
def test_every_request_gets_its_own_answer_whatever_comes_when(
    folder: Path, script: tuple[list[int], list[Step]]
) -> None:
    run(folder, *script)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@settings(PROFILE, max_examples=5000)
@given(script=SCRIPTS)
def test_every_request_gets_its_own_answer_in_many_more_orders(
    folder: Path, script: tuple[list[int], list[Step]]
) -> None:
    run(folder, *script)
