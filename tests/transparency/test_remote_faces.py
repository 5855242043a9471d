"""A server behind a URL: what client and server see of each other is what they see over a pipe."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.packages.launch import Endpoint, LaunchSpec
from tests.gateway.conversation import desk
from tests.transparency import scenes
from tests.transparency.comparison import Record, assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Talk, sit_down
from tests.transparency.faces import SAME, Case, Runtime

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("transparency")]

OTHERWISE = [scenes.CANCELLATION, scenes.AFTERWARDS, scenes.UNKNOWN]
"""HTTP has its own way of these, at least in one era: see `test_http_faces`."""
CASES = [case for case in SAME if not any(case.scene is each for each in OTHERWISE)]


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, str]]:
    """Another runtime, which serves the servers of all cases by HTTP."""
    runtime = Runtime(tmp_path_factory.mktemp("remote"), CASES)
    yield runtime, runtime.start()
    runtime.octave("shutdown", code=None)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_neither_the_link_nor_the_runtime_behind_it_is_there(
    tmp_path: Path, remote: tuple[Runtime, str], direct: Direct, case: Case
) -> None:
    runtime, url = remote
    probe = runtime.probes[str(case)]
    token = (runtime.octave.home / "run" / "token").read_text()
    endpoint = Endpoint(
        f"{url}/mcp/servers/{probe.name}", lambda: {"Authorization": f"Bearer {token}"}
    )
    spec = LaunchSpec("probe", (), tmp_path, dict, version="1", digest="d", endpoint=endpoint)
    talk = Talk(case.client, case.scene.replies)
    async with desk(tmp_path, spec) as found:
        await sit_down(found, talk, "probe")
        await talk.play(case.scene)
    own = await direct(case.scene, case.client)
    assert_same(own, Record(talk.heard, probe.received))
