"""`/mcp/servers/NAME` in the middle, over real HTTP: streams, sessions, and POSTs of either era."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from octave.runtime import wire
from tests.transparency import scenes
from tests.transparency.comparison import Record, as_server, assert_bridged, assert_same
from tests.transparency.conftest import Direct
from tests.transparency.faces import CROSSED, ERAS, SAME, Case, Runtime
from tests.transparency.posted import posted

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("transparency")]

APART = [scenes.CANCELLATION, scenes.AFTERWARDS]
"""HTTP has its own way of these: what is cancelled is answered, or its stream closed, and what
belongs to no request comes by another stream than the answers."""


def is_posted(case: Case) -> bool:
    """Whether HTTP carries all of it: no other notifications of a modern client."""
    if any(case.scene is each for each in APART):
        return False
    return case.client == "legacy" or case.scene is not scenes.UNKNOWN


CASES = [case for case in (*SAME, *CROSSED) if is_posted(case)]
CANCELLED = {era: Case(scenes.CANCELLATION, era, era) for era in ERAS}
UNASKED = Case(scenes.AFTERWARDS, "legacy", "legacy")


@dataclass(frozen=True, slots=True)
class Served:
    runtime: Runtime
    url: str

    async def play(self, case: Case) -> Record:
        octave, probe = self.runtime.octave, self.runtime.probes[str(case)]
        token = (octave.home / "run" / "token").read_text()
        url = f"{self.url}/mcp/servers/{probe.name}"
        return await posted(url, token, case.client, case.scene, probe)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("posted")
    runtime = Runtime(folder, [*CASES, *CANCELLED.values(), UNASKED])
    yield Served(runtime, runtime.start())
    runtime.octave("shutdown", code=None)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_endpoint_is_not_there(served: Served, direct: Direct, case: Case) -> None:
    own, proxied = await direct(case.scene, case.client), await served.play(case)
    if case.client == case.server:
        assert_same(own, proxied)
    else:
        assert_bridged(own, await direct(case.scene, case.server), proxied)


async def test_cancellation_reaches_the_server_as_its_legacy_client_wrote_it(
    served: Served, direct: Direct
) -> None:
    own, proxied = (
        await direct(scenes.CANCELLATION, "legacy"),
        await served.play(CANCELLED["legacy"]),
    )
    assert as_server(proxied.server) == as_server(own.server)
    answers = [line for line in proxied.client if wire.decode(line).id == b'"c \\/"']
    assert [wire.decode(line).result for line in answers] == [None]


async def test_closed_stream_of_a_modern_request_cancels_it_at_the_server(
    served: Served, direct: Direct
) -> None:
    own, proxied = (
        await direct(scenes.CANCELLATION, "modern"),
        await served.play(CANCELLED["modern"]),
    )
    assert said(proxied) == said(own)
    assert not [line for line in proxied.client if wire.decode(line).id == b'"c \\/"']


def said(record: Record) -> list[tuple[str | None, bytes]]:
    """What the server was told, and of which request a cancellation is."""
    return [
        (message.method, wire.member(line, "params", "requestId") or b"")
        for line in as_server(record.server)
        if (message := wire.decode(line))
    ]


async def test_what_belongs_to_no_request_comes_by_the_stand_alone_stream(
    served: Served, direct: Direct
) -> None:
    own, proxied = await direct(scenes.AFTERWARDS, "legacy"), await served.play(UNASKED)
    assert sorted(proxied.client) == sorted(own.client)
