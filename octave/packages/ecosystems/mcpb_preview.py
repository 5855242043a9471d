"""What a bundle tells of itself; it was fetched to be read."""

from pathlib import Path

from octave.packages.ecosystems import mcpb
from octave.packages.ecosystems.base import Bench
from octave.packages.lockfile import Pin
from octave.packages.preview import Preview


def preview(pin: Pin, version_range: str, staging: Path, bench: Bench) -> Preview:
    """Return its author; nothing of it runs."""
    author = mcpb.read(pin.package, bench).author
    return Preview(maintainers=(author,) if author else ())


def download_bytes(pin: Pin, staging: Path, bench: Bench) -> int:
    """Return 0: it lies in the cache by now."""
    return 0
