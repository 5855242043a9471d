"""The installed command in the middle: `octave proxy NAME`, its runtime, and real pipes."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import OCTAVE
from tests.transparency.comparison import assert_bridged, assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import Talk, piped
from tests.transparency.faces import CROSSED, SAME, Case, Runtime

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("transparency")]
CASES = [*SAME, *CROSSED]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    started = Runtime(tmp_path_factory.mktemp("proxied"), CASES)
    started.start()
    yield started
    started.octave("shutdown", code=None)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_proxy_is_not_there(runtime: Runtime, direct: Direct, case: Case) -> None:
    probe = runtime.probes[str(case)]
    talk = Talk(case.client, case.scene.replies)
    argv = [os.fspath(OCTAVE), "proxy", probe.name]
    proxied = await piped(argv, talk, case.scene, probe, runtime.octave.environ)
    own = await direct(case.scene, case.client)
    if case.client == case.server:
        assert_same(own, proxied)
    else:
        assert_bridged(own, await direct(case.scene, case.server), proxied)
