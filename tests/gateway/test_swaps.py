"""Another version takes over while clients of either era use the one before, or sleep."""

import gc
import os
import signal
import weakref
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.gateway.shelf import Shelf
from octave.packages.offered import Offered
from octave.runtime.exchange import Exchange
from octave.runtime.generation import Generation
from octave.runtime.server import Server
from octave.serve.control import Call, Control, Runtime
from tests.gateway.asking import Asker, Peer, peer, until
from tests.gateway.conversation import Desk, desk
from tests.gateway.test_lasting import params, subscribe, subscribers

pytestmark = pytest.mark.anyio
LIST_CHANGED = "notifications/tools/list_changed"


async def swap(found: Desk, asker: Asker, version: str = "2") -> None:
    await found.supervisor.swap(replace(asker.spec, version=version, digest=version))


async def hold(asker: Asker, client: Peer) -> None:
    """Let the client call what is not going to be answered."""
    before = asker.methods().count("tools/call")
    client.do("held", {"wait": "for ever"})
    await asker.told("tools/call", before + 1)


def is_held(client: Peer) -> bool:
    return not any(b'"held"' in line for line in client.lines)


async def test_both_processes_of_a_server_that_sleeps_serve_in_the_next_version(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "fixed", idle_timeout_s=0.1)
    async with desk(tmp_path, asker.spec) as found:
        old, new = await peer(found, "asker"), await peer(found, "asker", era="modern")
        before = {(await client.did(1))["pid"] for client in (old, new)}
        server = found.supervisor.servers["asker"]
        await until(lambda: {each.state for each in server.instances} == {"idle"})
        await swap(found, asker)
        after = {(await client.did(2))["pid"] for client in (old, new)}
        assert (len(before), len(after), before & after) == (2, 2, set())


async def test_a_call_in_flight_is_not_cut_where_the_first_process_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.runtime.instance.DRAIN_S", 0.05)
    asker = Asker(tmp_path, "fixed")
    async with desk(tmp_path, asker.spec) as found:
        old, new = await peer(found, "asker"), await peer(found, "asker", era="modern")
        await old.did(1)
        pid = (await new.did(1))["pid"]
        await hold(asker, new)
        await swap(found, asker)
        await anyio.sleep(0.3)
        assert is_held(new)
        assert pid in found.supervisor.servers["asker"].pids
        await found.supervisor.stop(["asker"])
        assert "was stopped before it answered" in (await new.result("held"))["message"]
        assert found.supervisor.servers["asker"].pids == []


async def test_a_session_that_is_moved_on_is_told_and_its_call_ends_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octave.runtime.instance.DRAIN_S", 0.05)
    monkeypatch.setattr("octave.runtime.generation.REPLACED_DRAIN_S", 0.5)
    asker = Asker(tmp_path, "legacy", instance="session")
    async with desk(tmp_path, asker.spec) as found:
        client, other = await peer(found, "asker"), await peer(found, "asker")
        pid = (await client.did(1))["pid"]
        await other.did(1)
        await hold(asker, client)
        await swap(found, asker)
        other.session.close()
        # Which tells everybody of lists that nobody had seen.
        await found.catalogue.refresh("asker")
        client.lines.clear()
        await client.heard(LIST_CHANGED)
        await anyio.sleep(0.3)
        assert sum(LIST_CHANGED.encode() in line for line in client.lines) == 1
        assert is_held(client)
        os.kill(pid, 0)
        assert (await client.did(2))["pid"] != pid


async def test_what_is_wanted_while_the_next_process_comes_up_is_told_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(tmp_path, "legacy", "listens")
    async with desk(tmp_path, asker.spec) as found:
        client = await peer(found, "asker")
        await client.ask(b'"gone"', "resources/subscribe", params(uri="asker://gone"))
        rise = Generation.rise

        async def risen(self: Generation, before: Generation) -> None:
            await rise(self, before)
            await subscribe(client)
            await client.ask(b'"un"', "resources/unsubscribe", params(uri="asker://gone"))

        monkeypatch.setattr(Generation, "rise", risen)
        await swap(found, asker)
        old, new = asker.pids
        await client.did(1)
        assert sorted(subscribers(asker, "resources/subscribe")) == sorted([old, new] * 2)
        assert sorted(subscribers(asker, "resources/unsubscribe")) == sorted([old, new])
        assert asker.methods().count("logging/setLevel") == 2


async def test_lists_that_the_old_process_gave_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        await (await peer(found, "asker")).did(1)
        ask, asked = Exchange.ask, list[str]()

        async def overtaken(self: Exchange) -> Offered:
            offered = await ask(self)
            asked.append(self.subject.spec.version)
            if len(asked) == 1:
                await swap(found, asker)
            return offered

        monkeypatch.setattr(Exchange, "ask", overtaken)
        await found.catalogue.refresh("asker")
        assert asked == ["1", "2"]
        assert found.catalogue.approving.is_current(found.supervisor.servers["asker"])


async def test_whoever_waits_for_what_is_known_of_a_server_waits_for_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        found.supervisor.on_event = lambda _: None
        save, saved = Shelf.save, list[str]()

        async def overtaken(self: Shelf, server: Server) -> None:
            saved.append(server.spec.version)
            if len(saved) == 1:
                await swap(found, asker)
            await save(self, server)

        monkeypatch.setattr(Shelf, "save", overtaken)
        await found.catalogue.know_eras("asker")
        assert saved == ["1", "2"]


async def test_a_session_that_does_nothing_holds_no_version_that_came_and_went(
    tmp_path: Path,
) -> None:
    asker = Asker(tmp_path, "legacy")
    async with desk(tmp_path, asker.spec) as found:
        server = found.supervisor.servers["asker"]
        await (await peer(found, "asker")).did(1)
        await swap(found, asker, "2")
        second = weakref.ref(server.asker)
        await swap(found, asker, "3")
        await until(lambda: len(server.pids) == 1)
        await found.catalogue.refresh("asker")
        await until(lambda: gc.collect() >= 0 and second() is None)


@pytest.mark.parametrize(("before", "after"), [("legacy", "modern"), ("modern", "legacy")])
async def test_a_call_that_waits_for_an_old_process_is_written_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    asker, other = Asker(tmp_path, before), Asker(tmp_path, after)
    async with desk(tmp_path, asker.spec) as found:
        clients = [await peer(found, "asker"), await peer(found, "asker", era="modern")]
        server, rise = found.supervisor.servers["asker"], Generation.rise
        old = {(await client.did(1))["pid"] for client in clients}
        runtime = Runtime(lambda: [asker.spec], dict, lambda: None)
        control, results = Control(found.supervisor, found.router, runtime), list[bytes]()

        async def call_without_session() -> None:
            results.append(await control.call(Call("do", b'{"steps":[]}', "asker")))

        async def risen(self: Generation, before: Generation) -> None:
            await rise(self, before)
            silent = ("/bin/sleep", "60")
            before.subject.spec = replace(before.subject.spec, argv=silent)
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: before.first.state != "ready")
            for client in clients:
                client.do(2)
            found.tasks.start_soon(call_without_session)
            await until(lambda: before.first.exchange.calls.waiting == len(clients) + 1)

        monkeypatch.setattr(Generation, "rise", risen)
        await found.supervisor.swap(replace(other.spec, version="2", digest="2"))
        after_it = {(await client.done(2))["pid"] for client in clients}
        assert (len(after_it), after_it & old, server.spec.version) == (1, set(), "2")
        await until(lambda: results)
        assert b'\\"pid\\": %d' % after_it.pop() in results[0]
