"""What registries of MCP servers have said, kept on disk: one file for each list or server.

Everything may be deleted at any time, and what cannot be written or read costs time only.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from octave.home import atomic_write, private_folder

FORMAT = 1
MOST_FILES = 200
"""Of one registry; the oldest go. Each search that was not made before adds one."""


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """What a registry said to one question."""

    format: int
    url: str
    question: str
    fetched_at: float
    """Unix time of the last answer."""
    complete_at: float
    """Unix time at which all of it was fetched, not only what had changed."""
    since: str
    """The latest `updatedAt` in it, to ask what changed after; empty: the registry tells none."""
    items: tuple[msgspec.Raw, ...]
    is_cut: bool = False
    """Whether the answer went on: no more was asked for."""

    def age_s(self, now: float) -> float:
        """Return the seconds since the last answer; a time in the future counts as long ago."""
        age_s = now - self.fetched_at
        return age_s if age_s >= 0 else float("inf")


class Cache:
    """The answers of the registry at one address."""

    def __init__(self, folder: Path, url: str) -> None:
        # The address and not the name: another registry of that name must not inherit answers.
        self._folder = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._url = url

    def read(self, question: str) -> Kept | None:
        """Return what was kept for `question`; None when there is nothing that can be used."""
        try:
            kept = msgspec.json.decode(self._path(question).read_bytes(), type=Kept)
        except (OSError, ValueError, RecursionError):
            return None
        said = (kept.format, kept.url, kept.question)
        return kept if said == (FORMAT, self._url, question) else None

    def write(self, kept: Kept) -> None:
        """Keep it; a home that cannot be written keeps nothing."""
        with contextlib.suppress(OSError):
            private_folder(self._folder)
            new = self._path(kept.question)
            atomic_write(new, msgspec.json.encode(kept))
            for path in _oldest(one for one in self._folder.glob("*.json") if one != new):
                path.unlink()

    def remove(self) -> None:
        """Forget everything of this registry."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, question: str) -> Path:
        return self._folder / f"{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"


def _oldest(paths: Iterable[Path]) -> list[Path]:
    by_age = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    return by_age[MOST_FILES - 1 :]
