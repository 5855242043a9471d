import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.furnished import copied, furnish
from tests.packages.story import World
from tests.packages.wheel_index import WheelIndex


@pytest.fixture
def user_environ() -> dict[str, str]:
    """The environment of whoever runs the tests, with their proxies and certificates."""
    return dict(os.environ)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    index = WheelIndex()
    yield World(tmp_path, index)
    index.close()


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What each `home` is a copy of."""
    index = WheelIndex()
    yield furnish(tmp_path_factory.mktemp("furnished"), index)
    index.close()


@pytest.fixture
def home(furnished: World, tmp_path: Path) -> World:
    """A home of one's own with all that can be lost, as `furnish` makes it."""
    return copied(furnished, tmp_path)
