"""What is known of a server's eras may be wrong, or nothing: whoever calls it has an answer."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import anyio
import pytest

from octave.errors import OctaveError
from octave.packages import offered as offered_file
from octave.packages.launch import Endpoint, LaunchSpec
from octave.packages.offered import Offered
from octave.runtime import instance, lifecycle, probe, wire
from octave.runtime.handshake import CAPABILITIES_KEY, MODERN_VERSION, VERSION_KEY, Era
from tests.gateway.asking import Asker, peer, until
from tests.gateway.conversation import BOUND_S, Desk, desk
from tests.remote_peer import modern as remote_modern
from tests.remote_peer import server as remote_legacy
from tests.remote_peer.listening import Listening
from tests.remote_peer.modern import ModernPeer
from tests.remote_peer.server import Peer as LegacyPeer

pytestmark = pytest.mark.anyio

CHANGED = "notifications/tools/list_changed"
LEGACY, MODERN, BOTH = ("legacy",), ("modern",), ("legacy", "modern")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


def store(folder: Path, eras: tuple[str, ...], name: str = "asker") -> None:
    initialize = b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{}}}'
    lists = {"tools": (b'{"name":"do","inputSchema":{"type":"object"}}',)}
    offered_file.save(folder / f"{name}.json", Offered(initialize, lists, eras=eras), "1", "d")


def stored(folder: Path) -> tuple[str, ...]:
    found = offered_file.load(folder / "asker.json", "1", "d")
    return () if found is None else found.eras


@pytest.mark.parametrize("client", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("said", "server", "really"),
    [
        (MODERN, ("legacy",), LEGACY),
        (MODERN, ("legacy", "dies"), LEGACY),
        (LEGACY, ("modern",), MODERN),
        (LEGACY, ("modern", "version"), MODERN),
        (LEGACY, ("modern", "faints"), MODERN),
    ],
)
async def test_server_of_another_era_than_was_stored_answers_the_first_call(
    tmp_path: Path, client: Era, said: tuple[str, ...], server: tuple[str, ...], really: object
) -> None:
    store(tmp_path, said)
    asker = Asker(tmp_path, *server)
    async with desk(tmp_path, asker.spec) as found:
        caller = await peer(found, "asker", era=client)
        assert (await caller.did(1))["pid"] in asker.pids
        await until(lambda: stored(tmp_path) == really)
        started = len(asker.pids)
        await caller.did(2)
        assert len(asker.pids) == started


async def test_server_of_both_eras_that_has_dropped_the_old_one_needs_one_process(
    tmp_path: Path,
) -> None:
    store(tmp_path, BOTH)
    asker = Asker(tmp_path, "modern")
    async with desk(tmp_path, asker.spec) as found:
        old, new = await peer(found, "asker"), await peer(found, "asker", era="modern")
        first = (await old.did(1))["pid"]
        assert (await new.did(1))["pid"] == first


@pytest.mark.parametrize("habit", [(), ("dies",), ("pretends",)])
async def test_server_that_lacks_the_modern_era_serves_modern_clients_all_the_same(
    tmp_path: Path, habit: tuple[str, ...]
) -> None:
    store(tmp_path, BOTH)
    asker = Asker(tmp_path, "legacy", *habit)
    async with desk(tmp_path, asker.spec) as found:
        caller = await peer(found, "asker", era="modern")
        assert (await caller.did(1))["opened"] is not None
        await until(lambda: stored(tmp_path) == LEGACY)
        asked = asker.methods().count("server/discover")
        await caller.did(2)
        await found.catalogue.refresh("asker")
        assert asker.methods().count("server/discover") == asked
        assert stored(tmp_path) == LEGACY


async def test_server_that_pretends_to_both_eras_is_found_out_once(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "legacy", "pretends")
    async with desk(tmp_path, asker.spec) as found:
        caller = await peer(found, "asker", era="modern")
        assert (await caller.did(1))["opened"] is not None
        await until(lambda: stored(tmp_path) == LEGACY)
        await caller.did(2)
        await found.catalogue.refresh("asker")
        # Behind the lists, and as the first word of a process.
        assert asker.methods().count("server/discover") == 2


async def test_greeting_of_the_other_era_is_not_kept_as_what_was_discovered(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy", "pretends")
    async with desk(tmp_path, asker.spec) as found:
        caller = await peer(found, "asker", era="modern")
        meta = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}
        params = json.dumps({"_meta": meta}).encode()
        for identifier in (b"1", b"2"):
            said = await caller.ask(identifier, "server/discover", params)
            assert wire.member(said, "result", "supportedVersions") == b'["2026-07-28"]'
        await until(lambda: stored(tmp_path) == LEGACY)


async def test_server_that_starts_in_neither_era_is_given_up_and_its_eras_kept(
    tmp_path: Path,
) -> None:
    store(tmp_path, MODERN)
    asker = Asker(tmp_path, "legacy", "dies", "faints")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        with pytest.raises(OctaveError), anyio.fail_after(BOUND_S):
            await server.start()
        assert server.state == "failed"
        assert len(asker.pids) == lifecycle.GIVE_UP_AFTER
        assert stored(tmp_path) == MODERN


async def test_server_that_has_room_for_one_process_is_used_through_that(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "fixed", "alone")
    async with desk(tmp_path, asker.spec) as found:
        old = await peer(found, "asker")
        first = (await old.did(1))["pid"]
        new = await peer(found, "asker", era="modern")
        for number in (1, 2):
            assert (await new.did(number))["pid"] == first
        assert stored(tmp_path) == LEGACY


@pytest.mark.parametrize("client", ["legacy", "modern"])
@pytest.mark.parametrize(
    ("said", "listening"),
    [
        (LEGACY, lambda: remote_modern.listening(ModernPeer().server)),
        (MODERN, lambda: remote_legacy.listening(LegacyPeer())),
    ],
)
async def test_remote_server_that_was_replaced_by_one_of_another_era_answers_the_first_call(
    tmp_path: Path,
    client: Era,
    said: tuple[str, ...],
    listening: Callable[[], AbstractContextManager[Listening]],
) -> None:
    store(tmp_path, said, "remote")
    with listening() as remote:
        endpoint = Endpoint(f"{remote.origin}/mcp", dict)
        spec = LaunchSpec("remote", (), tmp_path, dict, version="1", digest="d", endpoint=endpoint)
        async with desk(tmp_path, spec) as found:
            caller = await peer(found, "remote", era=client)
            caller.do(1, tool="echo", arguments={"text": "hi"})
            assert (await caller.result(1))["content"][0]["text"] == "hi"


# Where nothing is known, it is asked behind everybody's back.


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asker:
    """A server that never says anything to `server/discover`, which has all the time for it."""
    monkeypatch.setattr(probe, "ERA_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(instance, "DRAIN_S", 3600.0)
    return Asker(tmp_path, "legacy", "silent")


async def probed(found: Desk, asker: Asker) -> None:
    """The lists of the server are there, and it was asked for its eras."""
    await found.catalogue.refresh("asker")
    await asker.told("server/discover")


async def test_first_lists_do_not_wait_for_a_silent_probe(tmp_path: Path, silent: Asker) -> None:
    async with desk(tmp_path, silent.spec) as found:
        with anyio.fail_after(BOUND_S):
            offered = await found.catalogue.refresh("asker")
            assert offered.names() == ("do",)
            assert await found.router.merged_tools(["asker"])
        assert offered.eras == ()


@pytest.mark.parametrize("servers", [("asker",), ()])
async def test_silent_probe_holds_back_no_legacy_client(
    tmp_path: Path, silent: Asker, servers: tuple[str, ...]
) -> None:
    async with desk(tmp_path, silent.spec) as found:
        client = await peer(found, *servers)
        assert b'"do"' in (await client.ask(b'"list"', "tools/list")).replace(b"asker__", b"")
        await silent.told("server/discover")
        client.do(1, tool="do" if servers else "asker__do")
        assert (await client.done(1))["pid"] == silent.pids[0]


async def test_silent_probe_holds_back_no_stop_and_tells_nothing(
    tmp_path: Path, silent: Asker
) -> None:
    async with desk(tmp_path, silent.spec) as found:
        await probed(found, silent)
        with anyio.fail_after(BOUND_S):
            await found.supervisor.stop(["asker"])
        assert stored(tmp_path) == ()
        await found.supervisor.start(["asker"])
        await silent.told("server/discover", 2)


async def test_change_during_a_silent_probe_is_looked_at(tmp_path: Path, silent: Asker) -> None:
    async with desk(tmp_path, silent.spec) as found:
        await probed(found, silent)
        client = await peer(found, "asker")
        await client.did(1, {"send": wire.notification(CHANGED).decode()})
        await client.heard(CHANGED)


async def test_one_probe_is_enough_for_all_who_want_to_know(tmp_path: Path) -> None:
    asker = Asker(tmp_path, "mixed")
    async with desk(tmp_path, asker.spec) as found:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(found.catalogue.know_eras, "asker")
                tasks.start_soon(found.catalogue.refresh, "asker")
        await until(lambda: stored(tmp_path) == BOTH)
        assert asker.methods().count("server/discover") == 1


@pytest.mark.parametrize("face", ["asker", ""])
async def test_call_of_a_server_that_does_not_start_counts_as_one(
    tmp_path: Path, face: str
) -> None:
    store(tmp_path, LEGACY)
    asker = Asker(tmp_path, "legacy", "faints", "dies")
    async with desk(tmp_path, asker.spec) as found:
        caller = await peer(found, *([face] if face else []))
        caller.do(1, tool="do" if face else "asker__do")
        assert "ended with exit code 3" in (await caller.result(1))["message"]
        assert found.supervisor.servers["asker"].figures.errors == 1
