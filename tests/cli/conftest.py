from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.desk import Desk
from tests.packages.npm_registry import NpmRegistry, asked_by
from tests.packages.story import World
from tests.packages.wheel_index import WheelIndex


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    index = WheelIndex()
    yield World(tmp_path, index)
    index.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as made:
        yield made


@pytest.fixture
def npm(world: World) -> Iterator[NpmRegistry]:
    """A registry that the npm of `world` asks."""
    yield from asked_by(world.environ)
