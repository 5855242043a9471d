"""secrets.toml: the values that no keyring of the system keeps. Readable by its owner alone."""

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from octave.errors import StorageFailed
from octave.home import atomic_write, private_folder
from octave.packages import state_file

FORMAT = 1
_HEADER = """# Secrets of MCP servers, kept by Octave. Readable by you alone; do not commit it.
"""


def read(path: Path) -> dict[str, str]:
    """Return the values by their keys; none when there is no file.

    Raises:
        StorageFailed: it is damaged or of a newer Octave, or others can read it.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise StorageFailed(f"`{path}` can be read by others", hint=f"chmod 600 {path}")
            found = tomllib.loads(file.read().decode())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        # Its cause would quote the text around the fault: a secret.
        raise damaged(path) from None
    version, stored = found.get("version"), found.get("secrets")
    if isinstance(version, int) and version > FORMAT:
        raise state_file.too_new(path, version, FORMAT)
    if version != FORMAT or not isinstance(stored, dict):
        raise damaged(path)
    return {key: value for key, value in stored.items() if isinstance(value, str)}


def write(path: Path, stored: Mapping[str, str]) -> None:
    """Replace the file at `path`; the caller holds the lock that keeps other writers away.

    Raises:
        OSError: it cannot be written.
    """
    document = {"version": FORMAT, "secrets": {key: stored[key] for key in sorted(stored)}}
    private_folder(path.parent)
    atomic_write(path, (_HEADER + tomli_w.dumps(document)).encode(), 0o600)


def damaged(path: Path) -> StorageFailed:
    """Return the error for a file of secrets that cannot be read; it shows nothing of it."""
    return StorageFailed(
        f"`{path}` is damaged", hint="repair it, or move it away and set the secrets anew"
    )
