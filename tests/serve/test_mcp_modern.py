"""Clients without sessions: which are one and the same, what each is asked, and where."""

import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from octave.runtime.handshake import CAPABILITIES_KEY, CLIENT_INFO_KEY, MODERN_VERSION, VERSION_KEY
from octave.serve import mcp_modern, mcp_sessions
from tests.gateway.asking import ACCEPTED, ASKER, ask
from tests.serve.mcp_client import BOUND_S, HEADERS, Stage, initialize, modern, staged
from tests.serve.running import home_workspace, running
from tests.serve.test_mcp_legacy import Held, at_once

pytestmark = pytest.mark.anyio

FORMS: Mapping[str, Any] = {"elicitation": {"form": {}}}
SAMPLES: Mapping[str, Any] = {"sampling": {}}
Result = dict[str, Any]


class Someone:
    """A client of the modern era, which says who it is and what it can be asked."""

    def __init__(self, http: httpx.AsyncClient, name: str, can: Mapping[str, Any] = FORMS) -> None:
        self._http = http
        self._meta = {
            VERSION_KEY: MODERN_VERSION,
            CAPABILITIES_KEY: can,
            CLIENT_INFO_KEY: {"name": name, "version": "1"},
        }

    async def post(self, path: str = "/mcp", method: str = "x", **params: Any) -> httpx.Response:
        return await self._http.post(path, **modern(method, {"_meta": self._meta, **params}))

    async def call(self, *steps: Mapping[str, Any], **more: Any) -> Result:
        """The result or error of a call that does these steps."""
        params = {"name": "do", "arguments": {"steps": steps}, **more}
        answer = (await self.post("/mcp/servers/asker", "tools/call", **params)).json()
        found: Result = answer.get("result") or answer["error"]
        return found

    async def answered(self, *steps: Mapping[str, Any]) -> Result:
        """Call, and answer what is asked meanwhile, until the server says that it is done."""
        asked = await self.call(*steps)
        answers = {"inputResponses": dict.fromkeys(asked["inputRequests"], ACCEPTED)}
        return await self.did(*steps, requestState=asked["requestState"], **answers)

    async def did(self, *steps: Mapping[str, Any], **more: Any) -> Result:
        """What the server says at the end of that call."""
        result = await self.call(*steps, **more)
        found: Result = json.loads(result["content"][0]["text"])
        return found


# With a script in place of servers.


@pytest.fixture
def stage() -> Stage:
    return Stage(at_once)


@pytest.fixture
async def client(stage: Stage, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with staged(tmp_path, stage) as client:
        yield client


async def test_who_says_the_same_at_the_same_endpoint_is_one_client(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    for name, can, path, count in [
        ("a", FORMS, "/mcp", 1),
        ("a", FORMS, "/mcp", 1),
        ("b", FORMS, "/mcp", 2),
        ("a", SAMPLES, "/mcp", 3),
        ("a", FORMS, "/mcp/profiles/p", 4),
        ("a", FORMS, "/mcp", 4),
    ]:
        assert (await Someone(client, name, can).post(path)).status_code == 200
        assert len(stage.sessions) == count
    assert not any(session.is_closed for session in stage.sessions)


async def test_a_client_that_stays_away_is_forgotten(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    await Someone(client, "a").post()
    stage.now_s += mcp_sessions.IDLE_S - 1
    await Someone(client, "b").post()
    stage.now_s += 1
    # Somebody comes, and it is looked who is there.
    await initialize(client)
    away, here, _ = stage.sessions
    assert (away.is_closed, here.is_closed) == (True, False)


async def test_who_was_away_longest_makes_room(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_modern, "CLIENTS_LIMIT", 2)
    for name in ("a", "b", "a", "c"):
        assert (await Someone(client, name).post()).status_code == 200
    assert [session.is_closed for session in stage.sessions] == [False, True, False]


async def test_nobody_who_waits_for_an_answer_makes_room(
    client: httpx.AsyncClient, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_modern, "CLIENTS_LIMIT", 1)
    held = stage.script = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Someone(client, "a").post)
        await held.until(held.begun)
        refused = await Someone(client, "b").post()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")
        held.release.set()
    assert len(stage.sessions) == 1


# A server that asks.


@pytest.fixture(params=["auto"])
async def http(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    journal = tmp_path / "journal"
    journal.touch()
    command = json.dumps([sys.executable, "-S", str(ASKER), "legacy", str(journal)])
    text = f"[runtime]\nport = 0\n[servers.asker]\ncommand = {command}\n"
    workspace = home_workspace(tmp_path / "h", text + f'instance = "{request.param}"\n')
    async with running(workspace) as told:
        headers = {**HEADERS, "Authorization": f"Bearer {workspace.token.read_text()}"}
        async with httpx.AsyncClient(
            base_url=told.facts["url"], headers=headers, timeout=2 * BOUND_S
        ) as client:
            yield client


@pytest.mark.parametrize("http", ["session"], indirect=True)
async def test_each_client_has_a_process_that_was_opened_for_what_it_can_be_asked(
    http: httpx.AsyncClient,
) -> None:
    said = [
        await Someone(http, name, can).did()
        for name, can in [("a", FORMS), ("b", FORMS), ("a", SAMPLES), ("a", FORMS), ("c", {})]
    ]
    assert [each["opened"]["capabilities"] for each in said] == [FORMS, FORMS, SAMPLES, FORMS, {}]
    pids = [each["pid"] for each in said]
    assert pids[0] == pids[3]
    assert len(set(pids)) == 4


async def test_a_question_is_asked_of_whom_it_is_meant_for_while_others_call(
    http: httpx.AsyncClient,
) -> None:
    one, two = Someone(http, "one"), Someone(http, "two")
    step = ask()
    asked = await one.call(step)
    assert asked["resultType"] == "input_required"
    # Parked, it holds up nobody, and nobody else can answer it.
    both = await two.call(step)
    assert both["resultType"] == "input_required"
    (key,) = asked["inputRequests"]
    answer = {"inputResponses": {key: ACCEPTED}}
    stolen = await two.call(step, requestState=asked["requestState"], **answer)
    assert stolen["code"] == -32602
    mine = await one.did(step, requestState=asked["requestState"], **answer)
    its = await two.did(step, requestState=both["requestState"], **answer)
    assert mine["got"] == its["got"] == [[1, ACCEPTED]]
    # The first of all was in the process of all, which had not asked anything until then.
    assert mine["pid"] != its["pid"]
    assert (await one.did())["pid"] not in (mine["pid"], its["pid"])


async def test_a_client_is_asked_what_it_says_that_it_can_be_asked(
    http: httpx.AsyncClient,
) -> None:
    assert (await Someone(http, "one").answered(ask()))["got"] == [[1, ACCEPTED]]
    for can in (SAMPLES, {}):
        refused = await Someone(http, "one", can).did(ask())
        assert refused["got"][0][1]["code"] == -32601
    sample = ask(method="sampling/createMessage")
    assert (await Someone(http, "one", SAMPLES).answered(sample))["got"] == [[1, ACCEPTED]]


async def test_of_two_that_say_the_same_none_hears_the_question_of_the_other(
    http: httpx.AsyncClient,
) -> None:
    # From now on each has a process of its own.
    await Someone(http, "first").answered(ask())
    one, two = Someone(http, "twin"), Someone(http, "twin")
    asked = await one.call(ask("mine"))
    assert asked["resultType"] == "input_required"
    other = await two.did(ask("its"))
    # Of whom cannot be told, so of nobody.
    assert other["got"][0][1]["message"] == "Octave cannot tell which client is asked"
    answers = {"inputResponses": dict.fromkeys(asked["inputRequests"], ACCEPTED)}
    mine = await one.did(ask("mine"), requestState=asked["requestState"], **answers)
    assert mine["got"] == [["mine", ACCEPTED]]
