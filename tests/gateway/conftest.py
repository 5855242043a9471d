"""Desks with one and with two servers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.conversation import Desk, desk, odd


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, odd("one")) as found:
        yield found


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path, odd("one"), odd("two")) as found:
        yield found
