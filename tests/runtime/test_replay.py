"""Calls across a crash: which are repeated, and what the callers of the others are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import NotRunning, ServerDied
from octave.packages.launch import Policy
from octave.packages.offered import Offered
from octave.runtime import wire
from octave.runtime.replay import cut_off, is_harmless
from tests.runtime.fleet import call, launch, running

REPLAY = Policy(replay=True)


def tool(name: str, annotations: str = "{}") -> bytes:
    return b'{"name":"%b","annotations":%b}' % (name.encode(), annotations.encode())


def offered(*tools: bytes) -> Offered:
    return Offered(b"{}", {"tools": tools})


def message(name: str = "x", method: str = "tools/call") -> wire.Message:
    return wire.decode(wire.request(1, method, b'{"name":"%b"}' % name.encode()))


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ('{"readOnlyHint":true}', True),
        ('{"readOnlyHint": false, "idempotentHint": true}', True),
        ('{"readOnlyHint":false}', False),
        ('{"readOnlyHint":"true"}', False),
        ('{"destructiveHint":false}', False),
        ("null", False),
        ("[]", False),
    ],
)
def test_a_tool_must_say_that_it_may_be_repeated(annotations: str, expected: bool) -> None:
    assert is_harmless(message(), {}, offered(tool("x", annotations))) is expected


def test_the_name_the_server_knows_counts_however_it_is_written() -> None:
    known = offered(tool("x", '{"readOnlyHint":true}'))
    assert is_harmless(message("server__x"), {("params", "name"): b'"x"'}, known)
    assert is_harmless(message("\\u0078"), {}, known)
    assert not is_harmless(message("x"), {("params", "name"): b'"y"'}, known)


def test_what_is_unknown_or_in_doubt_is_not_repeated() -> None:
    marked = tool("x", '{"readOnlyHint":true}')
    assert not is_harmless(message(), {}, None)
    assert not is_harmless(message(), {}, offered(b"7", b"{}", b'{"name":5}'))
    assert not is_harmless(message(), {}, offered(marked, tool("x")))
    assert not is_harmless(message(method="prompts/get"), {}, offered(marked))


def test_only_a_call_that_was_sent_has_an_unknown_outcome() -> None:
    died = ServerDied("`x` ended", "hint", {"sent": True, "exitCode": 3})
    told = cut_off(died, message())
    assert (told.message, told.hint) == ("`x` ended, outcome unknown", "hint")
    assert told.details == {"sent": True, "exitCode": 3, "outcome": "unknown"}
    assert cut_off(died, message(method="tools/list")) is died
    never = ServerDied("`x` ended", details={"sent": False})
    assert cut_off(never, message()) is never


def test_who_is_cut_off_by_an_order_hears_of_that_and_not_of_a_death() -> None:
    died = ServerDied("`x` ended", "hint", {"sent": True, "exitCode": 3})
    told = cut_off(died, message(), "x")
    assert (type(told), told.hint) == (NotRunning, "octave start x")
    assert told.message == "`x` was stopped before it answered `tools/call`, outcome unknown"
    assert told.details == {"sent": True, "outcome": "unknown"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["look", "put"])
async def test_a_harmless_call_is_repeated_on_the_next_process_when_that_is_wanted(
    tmp_path: Path, name: str
) -> None:
    async with running(tmp_path, launch(tmp_path, "crash_once", policy=REPLAY)) as run:
        server = run["crash-once"]
        server.offered = await server.asker.exchange.ask()
        assert await call(server, name) == "answered"
        assert run.happened("crash-once", f"call:{name}") == 2
        assert (server.figures.count, server.figures.errors) == (1, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "is_wanted"), [("act", True), ("look", False)])
async def test_any_other_call_is_told_that_its_outcome_is_unknown(
    tmp_path: Path, name: str, is_wanted: bool
) -> None:
    policy = replace(REPLAY, replay=is_wanted)
    async with running(tmp_path, launch(tmp_path, "crash_once", policy=policy)) as run:
        server = run["crash-once"]
        server.offered = await server.asker.exchange.ask()
        with pytest.raises(ServerDied, match="outcome unknown") as caught:
            await call(server, name)
        assert caught.value.details["exitCode"] == 3
        assert run.happened("crash-once", f"call:{name}") == 1


@pytest.mark.anyio
async def test_a_call_that_kills_every_process_is_repeated_once_only(tmp_path: Path) -> None:
    async with running(tmp_path, launch(tmp_path, "crash_once", policy=REPLAY)) as run:
        server = run["crash-once"]
        server.offered = await server.asker.exchange.ask()
        with pytest.raises(ServerDied, match="outcome unknown"):
            await call(server, "always")
        assert run.happened("crash-once", "call:always") == 2
