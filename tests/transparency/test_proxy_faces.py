"""The installed command in the middle: `octave proxy NAME`, its runtime, and real pipes."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import OCTAVE, Octave
from tests.transparency import questions, scenes
from tests.transparency.comparison import assert_bridged, assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import PROBE, Probe, Talk, piped
from tests.transparency.scripts import Era, Scene

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("transparency")]
SAME = [
    scenes.CALLS, scenes.ERRORS, scenes.LISTS, scenes.LOG_LINES, scenes.PROGRESS_OF_CALLS,
    scenes.CANCELLATION, scenes.NUMBERS, scenes.UNKNOWN, scenes.SUBSCRIPTIONS,
    scenes.LISTS_CHANGE, *questions.SCENES[4:6],
]  # fmt: skip
CROSSED = [scenes.CALLS, scenes.LISTS, scenes.PROGRESS_OF_CALLS, questions.SCENES[4]]


@dataclass(frozen=True, slots=True)
class Case:
    scene: Scene
    client: Era
    server: Era

    def __str__(self) -> str:
        return f"{self.client}-{self.server}-{self.scene.name}"


ERAS: tuple[Era, Era] = ("legacy", "modern")
CASES = [
    *(Case(scene, era, era) for scene in SAME for era in ERAS),
    *(
        Case(scene, era, other)
        for scene in CROSSED
        for era in ERAS
        for other in ERAS
        if era != other
    ),
]


class Runtime:
    """A runtime with a server for each case."""

    def __init__(self, octave: Octave, folder: Path) -> None:
        self.octave = octave
        self.probes = {
            str(case): Probe(folder / f"s{number}", case.scene, case.server, f"s{number}")
            for number, case in enumerate(CASES)
        }
        octave.home.mkdir(mode=0o700)
        text = ["[runtime]\nport = 0\n"]
        for probe in self.probes.values():
            command = json.dumps([sys.executable, "-S", os.fspath(PROBE), *probe.words])
            text.append(f"[servers.{probe.name}]\ncommand = {command}\n")
        (octave.home / "octave.toml").write_text("\n".join(text))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("faces")
    octave = Octave(folder / "h", folder, {"HOME": str(folder)})
    started = Runtime(octave, folder)
    octave("serve", "--detach")
    yield started
    octave("shutdown", code=None)


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
