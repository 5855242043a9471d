"""Direct runs, each played once: they are what several comparisons expect."""

from pathlib import Path

import pytest

from tests.transparency.comparison import Record
from tests.transparency.conversation import LATEST, directly
from tests.transparency.scripts import Era, Scene


class Direct:
    """Plays a named scene directly; what was played before is remembered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[tuple[str, Era, str, str], Record] = {}

    async def __call__(
        self, scene: Scene, era: Era, server: str = "", version: str = LATEST
    ) -> Record:
        key = (scene.name, era, server, version)
        if key not in self._runs:
            folder = self._folder / str(len(self._runs))
            self._runs[key] = await directly(folder, scene, era, server, version)
        return self._runs[key]


@pytest.fixture(scope="session")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    return Direct(tmp_path_factory.mktemp("direct"))
