"""One user who asks registries: a cache, a clock that is set, and what he was warned of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octave.errors import RegistryUnreachable
from octave.packages.mcp_registry import LIFETIME_S, Access, McpRegistry
from octave.packages.registry_http import Limits

NOW = 1_790_000_000.0
"""September 2026, after all that the entries say of themselves."""
LIMITS = Limits(connect_s=2.0, silence_s=0.2, retry_wait_s=0.0, total_s=5.0)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Reader:
    """One user's registries, asked through one cache."""

    def __init__(self, folder: Path, url: str) -> None:
        self.clock = Clock()
        self.url = url
        self.warnings: list[str] = []
        self.access = Access(folder, self.warnings.append, limits=LIMITS, now=self.clock)

    def open(self, **changes: Any) -> McpRegistry:
        """A registry as a new command sees it."""
        return McpRegistry("company", self.url, replace(self.access, **changes))

    def names(self, text: str = "") -> list[str]:
        return [entry.name for entry in self.open().search(text)]

    def later(self, seconds: float = LIFETIME_S + 1) -> None:
        self.clock.now += seconds


def problem(reader: Reader, text: str = "x") -> str:
    with pytest.raises(RegistryUnreachable) as caught:
        reader.open().search(text)
    assert caught.value.exit_code == 8
    return caught.value.message
