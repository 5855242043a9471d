"""The system's keyring, where there is one that can be used, and which secrets lie in it.

The library of that name is an extra of the installation, and costs a tenth of a second: it is
imported only to look for a value that `keyring.json` says is there, or to keep a new one.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from octave.errors import StorageFailed
from octave.home import atomic_write, private_folder
from octave.packages import secret_file, state_file

FORMAT = 1
EXTRA = "pip install 'octave-mcp[keyring]'"


class Unusable(Exception):
    """The keyring cannot be used here and now; the text says why and holds no value."""


def _new_service() -> str:
    return f"octave-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Index:
    """Which secrets of one home the keyring has; a keyring cannot be asked for that."""

    service: str = field(default_factory=_new_service)
    """Under which they lie there: homes do not share, and one that is moved finds its own."""
    keys: frozenset[str] = frozenset()
    old: frozenset[str] = frozenset()
    """Values that a newer one in secrets.toml replaced while the keyring could not be used."""

    def having(self, key: str) -> "Index":
        """Return the index with the value of `key` in the keyring."""
        return replace(self, keys=self.keys | {key}, old=self.old - {key})

    def without(self, key: str) -> "Index":
        """Return the index with nothing under `key`."""
        return replace(self, keys=self.keys - {key}, old=self.old - {key})

    def outdated(self, key: str) -> "Index":
        """Return the index with a value under `key` that does not count any more."""
        return replace(self, keys=self.keys - {key}, old=self.old | {key})


def read_index(path: Path) -> Index:
    """Return the index in `path`; a new one when there is none.

    Raises:
        StorageFailed: it is damaged or of a newer Octave.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Index()
    except (ValueError, RecursionError):
        raise secret_file.damaged(path) from None
    version = found.get("format") if isinstance(found, dict) else None
    if type(version) is int and version > FORMAT:
        raise state_file.too_new(path, version, FORMAT)
    try:
        keys, old = frozenset(map(str, found["keys"])), frozenset(map(str, found["old"]))
        return Index(str(found["service"]), keys, old)
    except (TypeError, KeyError):
        raise secret_file.damaged(path) from None


def write_index(path: Path, index: Index) -> None:
    """Replace the index at `path`; the caller holds the lock that keeps other writers away.

    Raises:
        OSError: it cannot be written.
    """
    document = asdict(index) | {"format": FORMAT, "keys": sorted(index.keys)}
    content = json.dumps(document | {"old": sorted(index.old)}, indent=1, sort_keys=True)
    private_folder(path.parent)
    atomic_write(path, content.encode() + b"\n")


class Keyring:
    """The keyring of this system. Each method blocks, and may have a person asked to unlock it.

    Raises, also when it is made:
        Unusable: it cannot be used.
    """

    LEAST_PRIORITY = 1
    """What the library itself recommends; below are files in clear, and the ones that keep
    nothing: `fail` raises, and `null` forgets without a word."""

    def __init__(self) -> None:
        with _foreign():
            # Imported late: most homes keep nothing in a keyring, and never pay for it.
            import keyring

            self._back_end: Any = keyring.get_keyring()
            if self._back_end.priority < self.LEAST_PRIORITY:
                raise Unusable("no keyring answers here")

    def get(self, service: str, key: str) -> str | None:
        """Return a value; None when it is not there."""
        with _foreign():
            found = self._back_end.get_password(service, key)
        return found if isinstance(found, str) else None

    def set(self, service: str, key: str, value: str) -> None:
        """Keep a value, and see that it can be had again."""
        with _foreign(value):
            self._back_end.set_password(service, key, value)
        if self.get(service, key) != value:
            raise Unusable("it does not give back what it was given")

    def remove(self, service: str, key: str) -> None:
        """Forget a value, if it is there."""
        if self.get(service, key) is not None:
            with _foreign():
                self._back_end.delete_password(service, key)


@contextlib.contextmanager
def _foreign(hidden: str = "") -> Iterator[None]:
    try:
        yield
    except Unusable:
        raise
    except ImportError:
        raise Unusable(f"`keyring` is not installed (`{EXTRA}`)") from None
    except Exception as error:  # noqa: BLE001 - a back end is foreign code and raises what it likes
        words = f"{error}".replace(hidden, "***") if hidden else f"{error}"
        # Without a cause: whatever the back end says of the value ends here.
        raise Unusable(words or type(error).__name__) from None


def unreachable(key: str, reason: Unusable) -> StorageFailed:
    """Return the error of a secret that is in the keyring, which cannot be used."""
    server, _, variable = key.partition("/")
    return StorageFailed(
        f"`{key}` lies in the system's keyring, which cannot be used: {reason}",
        hint=f"unlock it, or give the value anew: `octave secret set {server} {variable}`",
    )
