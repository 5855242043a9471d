"""What servers answer, late, twice, to nobody, in odd text, or never; and callers who go away.

Real children, each with one fault of tests/servers.
"""

import itertools
import json
import os
from pathlib import Path

import anyio
import httpx
import pytest

from octave.errors import CallTimedOut, OctaveError, ServerBusy, ServerDied
from octave.home import Workspace
from octave.packages.launch import Policy
from octave.runtime import process, wire
from octave.runtime.exchange import CALLS_AT_ONCE
from octave.runtime.server import Server
from tests.runtime.fleet import call, launch, running
from tests.runtime.peer import Peer, connected
from tests.serve.running import home_workspace, manifest_text
from tests.serve.running import running as whole_runtime

pytestmark = pytest.mark.anyio

BRIEF = Policy(call_timeout_s=0.3, call_timeout_max_s=0.3)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


# Answers nobody waits for.


async def test_row_29_answers_under_foreign_ids_reach_nobody_and_the_next_calls_are_in_step(
    state: Path,
) -> None:
    async with running(state, launch(state, "stray_answers", policy=BRIEF)) as run:
        server = run["stray-answers"]
        for number in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runs_out, server)
                for neighbour in range(20):
                    tasks.start_soon(gets_its_own, server, f"{number}-{neighbour}")
        await runs_out(server, ahead=True)
        await gets_its_own(server, "after")
        assert (run.happened("stray-answers", "start"), server.figures.errors) == (1, 4)


async def runs_out(server: Server, *, ahead: bool = False) -> None:
    with pytest.raises(CallTimedOut):
        await call(server, "foreign", ahead=ahead)


async def gets_its_own(server: Server, text: str) -> None:
    assert await call(server, "plain", text=text) == f"plain {text}"


async def test_row_30_of_two_answers_the_first_counts_and_a_late_one_reaches_no_other_call(
    state: Path,
) -> None:
    async with running(state, launch(state, "stray_answers", policy=BRIEF)) as run:
        server = run["stray-answers"]
        for number in range(3):
            assert await call(server, "twice", text=str(number)) == f"twice {number}"
            assert await call(server, "repeat", text=str(number)) == f"repeat {number}"
            with pytest.raises(CallTimedOut):
                await call(server, "hold")
            # Now it answers the call that ran out of time, too.
            assert await call(server, "plain", text=str(number)) == f"plain {number}"
        assert run.happened("stray-answers", "start") == 1


# Progress.


async def work(server: Server, **arguments: object) -> wire.Message:
    params = {"name": "work", "arguments": arguments, "_meta": {"progressToken": "p"}}
    line = wire.request(1, "tools/call", json.dumps(params).encode())
    return await server.forward(wire.decode(line), {})


async def test_row_16_progress_extends_a_call_up_to_the_maximum_and_then_it_is_cancelled(
    state: Path,
) -> None:
    policy = Policy(call_timeout_s=0.4, call_timeout_max_s=1.5)
    async with running(state, launch(state, "endless_progress", policy=policy)) as run:
        server = run["endless-progress"]
        await call(server, "echo")
        assert b"done" in (await work(server, steps=8)).line
        with anyio.fail_after(5), pytest.raises(CallTimedOut):
            await work(server)
        assert await call(server, "echo", text="well") == "well"
        assert run.happened("endless-progress", "start") == 1
        journal = (state / "endless-progress" / "events.log").read_text(encoding="utf-8")
        assert journal.count("cancelled:") == 1


# Callers who go away.


@pytest.fixture
def workspace(state: Path) -> Workspace:
    table = f"env = {{ HOSTILE_STATE = {json.dumps(str(state / 'journal'))} }}"
    return home_workspace(state / "h", manifest_text("hang_on_call", table=table))


@pytest.mark.parametrize("how", ["cancels", "leaves", "interrupts"])
async def test_row_17_the_server_hears_of_a_caller_that_goes_away_within_a_second(
    workspace: Workspace, state: Path, how: str
) -> None:
    kind = "control" if how == "interrupts" else "proxy"
    async with (
        whole_runtime(workspace),
        connected(workspace, "proxy", servers=["hang-on-call"]) as other,
        connected(
            workspace, kind, **({} if kind == "control" else {"servers": ["hang-on-call"]})
        ) as peer,
    ):
        if how == "interrupts":
            params = b'{"server":"hang-on-call","tool":"hang"}'
            await peer.say(wire.request(1, "octave/call", params))
        else:
            await peer.call(1, "hang")
        journal = state / "journal" / "events.log"
        await noted(other, journal, "call:hang", 10)
        if how == "cancels":
            note = wire.notification("notifications/cancelled", b'{"requestId":1}')
            await peer.say(note)
        else:
            await peer.leave()
        await noted(other, journal, "cancelled:", 1)


async def test_row_17_a_caller_over_http_that_leaves_is_one_too(
    workspace: Workspace, state: Path
) -> None:
    async with (
        whole_runtime(workspace) as told,
        connected(workspace, "proxy", servers=["hang-on-call"]) as other,
        httpx.AsyncClient(
            base_url=str(told.facts["url"]),
            headers={"Authorization": f"Bearer {token_of(workspace)}"},
        ) as client,
    ):
        journal = state / "journal" / "events.log"
        async with anyio.create_task_group() as tasks:
            body = {"serverId": "hang-on-call", "toolName": "hang"}
            tasks.start_soon(lambda: client.post("/mcp/call", json=body, timeout=30))
            await noted(other, journal, "call:hang", 10)
            tasks.cancel_scope.cancel()
        await noted(other, journal, "cancelled:", 1)


def token_of(workspace: Workspace) -> str:
    return workspace.token.read_text(encoding="utf-8")


async def noted(other: Peer, journal: Path, what: str, bound_s: float) -> None:
    """Wait for it, answer by answer of the server that keeps the journal."""
    numbers = itertools.count(100)
    with anyio.fail_after(bound_s):
        while not has(journal, what):
            await other.result(next(numbers), "echo")


def has(journal: Path, what: str) -> bool:
    return journal.exists() and what in journal.read_text(encoding="utf-8")


# Slow readers.


async def test_row_54_a_slow_reader_is_busy_and_its_neighbour_does_not_notice(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_OF_INPUT_GRACE_S", 0.1)
    async with running(state, launch(state, "slow_reader"), launch(state, "good")) as run:
        slow, good = run["slow-reader"], run["good"]
        await slow.start()
        await call(good, "echo")
        ends: list[str] = []
        async with anyio.create_task_group() as tasks:
            for number in range(CALLS_AT_ONCE + 20):
                tasks.start_soon(ask_slowly, slow, number, ends)
            await anyio.wait_all_tasks_blocked()
            assert ends == ["busy"] * 20
            for number in range(100):
                with anyio.fail_after(1):
                    assert await call(good, "echo", text=str(number)) == str(number)
            assert ends == ["busy"] * 20
            assert slow.pid is not None
            os.kill(slow.pid, 9)
        # What lay in the pipe is lost; all else went to the next process, once.
        died = ends.count("died")
        assert 0 < died < 40
        assert ends.count("answered") == CALLS_AT_ONCE - died
        journal = (state / "slow-reader" / "events.log").read_text(encoding="utf-8")
        got = [line.split()[0] for line in journal.splitlines() if line.startswith("got:")]
        assert len(got) == len(set(got))
        assert set(got) >= {f"got:{number}" for number in range(died, CALLS_AT_ONCE)}


async def ask_slowly(server: Server, number: int, ends: list[str]) -> None:
    try:
        await call(server, "echo", text="x" * 5000, number=number)
    except ServerBusy:
        ends.append("busy")
    except ServerDied as error:
        assert error.details["outcome"] == "unknown"
        ends.append("died")
    else:
        ends.append("answered")


# Requests of the server.


async def test_row_59_a_server_that_waits_for_its_client_is_answered_and_does_not_hang(
    state: Path,
) -> None:
    async with running(state, launch(state, "server_request")) as run:
        server = run["server-request"]
        assert await call(server, "echo", text="x") == "x"
        with anyio.fail_after(5):
            assert await call(server, "wait") == repr([-32601] * 4)
        assert await call(server, "echo", text="in step") == "in step"


# Size.


async def test_row_21_ten_megabytes_pass_through_the_whole_runtime(state: Path) -> None:
    workspace = home_workspace(state / "h", manifest_text("good"))
    async with whole_runtime(workspace), connected(workspace, "proxy", servers=["good"]) as peer:
        text = "0123456789" * 10**6
        assert await peer.result(1, "echo", text=text) == text


# Text.

PASSED = {
    "separators": "text\u2028\u2029\u0085",
    "controls": "text\0\x1b\x7f\x7f",
    "surrogate": "text\ud800",
    "surrogates": "text\udc00\ud800",
    "noncharacters": "text\uffff\U0010ffff\ufeff",
    "astral": "text\U0001f600",
    "escaped": "text/",
    "split": "text\u20ac\U0001f600",
    "crlf": "text",
    "bom": "text",
    "bytes": "text\ufffd\ufffd",
}
REFUSED = {
    "deep": "nested too deeply",
    "deep_last": "nested too deeply",
    "nan": "NaN",
    "nan_last": "NaN",
}


@pytest.mark.parametrize("tool", [*PASSED, *REFUSED])
async def test_row_60_odd_text_passes_or_costs_that_call_alone(state: Path, tool: str) -> None:
    policy = Policy(call_timeout_s=5, call_timeout_max_s=5)
    async with running(state, launch(state, "odd_text", policy=policy)) as run:
        server = run["odd-text"]
        if tool in PASSED:
            assert await call(server, tool) == PASSED[tool]
        else:
            with pytest.raises(OctaveError, match=f"cannot be read: .*{REFUSED[tool]}") as caught:
                await call(server, tool)
            assert caught.value.code == "failed"
        assert await call(server, "echo", text="in step") == "in step"
        assert run.happened("odd-text", "start") == 1
