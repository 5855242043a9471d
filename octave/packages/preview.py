"""What can be told of a locked package before anything of it is installed or run.

Who published it, as far as its registry says, which file or script would start it, how much would
be fetched. Nothing is guessed: what is not told stays empty.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from octave.packages.ecosystems.base import Bench
from octave.packages.lockfile import Pin

_MODULES = {
    "npm": "octave.packages.ecosystems.npm_preview",
    "pypi": "octave.packages.ecosystems.pypi_preview",
    "mcpb": "octave.packages.ecosystems.mcpb_preview",
}
"""Loaded like the ecosystems: when somebody wants them."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of the package itself; texts of its author and its registry."""

    published_by: str = ""
    """Who published this version."""
    maintainers: tuple[str, ...] = ()
    """Who may publish the next one, or else who says to have written it."""
    page: str = ""
    """Its repository, else its home page."""
    entry: str = ""
    """As `Pin.entry`, where only the package can tell; empty where it cannot be told yet."""


def preview(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    """Return what is told of `pin`, which was resolved within `version_range`.

    `staging` is a scratch folder. A registry that tells nothing is no error.
    """
    module = _module(pin)
    return module.preview(pin, version_range, staging, bench) if module else Preview()


def download_bytes(pin: Pin, staging: Path, bench: Bench) -> int | None:
    """Return how many bytes `pin` takes on this machine at most; None where nobody tells."""
    module = _module(pin)
    return module.download_bytes(pin, staging, bench) if module else None


def _module(pin: Pin) -> Any:
    return import_module(_MODULES[pin.kind]) if pin.kind in _MODULES else None
