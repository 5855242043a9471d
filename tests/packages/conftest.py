import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
