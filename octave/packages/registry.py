"""The registry that comes with Octave: short names of MCP servers, and what is known about each.

A folder of server.json files, one per server. A lookup by name opens one file. An entry that
cannot be read is named and never hides the others. `registries.py` adds those a user configured.
"""

import re
import tomllib
import unicodedata
from pathlib import Path
from typing import Protocol

from octave.errors import OctaveError, ServerNotFound, nearest
from octave.packages.entries import Entry, PackageChoice, decode_entry

__all__ = ["Entry", "Lookup", "PackageChoice", "Registry", "bundled_folder", "decode_entry"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class Lookup(Protocol):
    """Whoever can say which server a name means; `Registry` and `Registries` can."""

    def get(self, name: str) -> Entry:
        """Return the entry that `name` means.

        Raises:
            ServerNotFound, Ambiguous, RegistryUnreachable.
        """

    def find_package(self, kind: str, identifier: str) -> Entry | None:
        """Return the entry of the bundled registry that knows the package."""


def bundled_folder() -> Path:
    """Return the registry that came with Octave: inside the wheel, else in the checkout."""
    inside = Path(__file__).parents[1] / "registry"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "registry"


class Registry:
    """A folder of server.json files and `aliases.toml`. Reads on demand, writes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the short names, sorted; a missing folder has none."""
        stems = (path.stem for path in self._folder.glob("*.json"))
        return sorted(stem for stem in stems if _NAME.fullmatch(stem))

    def aliases(self) -> dict[str, str]:
        """Return other spellings and the names they stand for; none when the file is broken."""
        try:
            found = tomllib.loads((self._folder / "aliases.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {spelling: name for spelling, name in found.items() if isinstance(name, str)}

    def get(self, name: str) -> Entry:
        """Return the entry of a short name or of another spelling of it.

        Raises:
            ServerNotFound: there is none, or it is not a name; the hint says what is close.
            OctaveError: its file cannot be read.
        """
        if not _NAME.fullmatch(name):
            raise ServerNotFound(
                f"`{name}` is no name of a server: those have lower-case letters, digits and "
                "hyphens, 40 at most",
                hint=self._hint(name),
            )
        known = name if self._path(name).is_file() else self.aliases().get(name, "")
        if not _NAME.fullmatch(known) or not self._path(known).is_file():
            raise ServerNotFound(f"the registry has no server `{name}`", hint=self._hint(name))
        return self._read(known)

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries that can be read, sorted by short name."""
        return self.scan()[0]

    def scan(self) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
        """Return the entries, sorted, and a sentence for each file that cannot be read."""
        entries: list[Entry] = []
        warnings: list[str] = []
        for name in self.names():
            try:
                entries.append(self._read(name))
            except OctaveError as error:
                warnings.append(error.message)
        return tuple(entries), tuple(warnings)

    def find_package(self, kind: str, identifier: str) -> Entry | None:
        """Return the entry that knows the package, so that its defaults and limits apply."""
        return next(
            (entry for entry in self.entries() if entry.package(kind, identifier) is not None), None
        )

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read(self, name: str) -> Entry:
        try:
            return decode_entry(name, self._path(name).read_bytes())
        except (OSError, ValueError) as error:
            raise OctaveError(
                f"the registry entry `{name}` cannot be read: {error}",
                hint="install Octave anew, or name the package: `octave install npm:PKG`",
            ) from error

    def _hint(self, name: str) -> str:
        if re.fullmatch(r"@[a-z0-9._-]+/[a-z0-9._-]+", name):
            return f"for the npm package run `octave install npm:{name}`"
        if known := self._package_called(name):
            short = known.short_name
            return f"that package is the server `{short}`: `octave info {short}`"
        folded = unicodedata.normalize("NFKC", name)
        aliases = self.aliases()
        close = nearest(folded, [*self.names(), *aliases])
        if not close:
            return "a package goes by kind and name: `octave install npm:PKG` or `pypi:PKG`"
        meant = dict.fromkeys(aliases.get(name, name) for name in close)
        return f"did you mean {' or '.join(f'`{name}`' for name in meant)}?"

    def _package_called(self, name: str) -> Entry | None:
        """Return the entry whose package goes by that name, without its kind or scope."""
        called = (
            (entry, choice.identifier.rpartition("/")[2])
            for entry in self.entries()
            for choice in entry.packages
        )
        return next((entry for entry, package in called if package == name), None)
