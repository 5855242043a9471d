"""Machine-written JSON files with a format number, as they are found: whole, damaged or too new.

A damaged one is kept beside and counts as missing: what it said can be had again. One of a newer
Octave is refused by its name and left alone. Files of a person are not read with this.
"""

import contextlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octave.errors import StorageFailed

_log = logging.getLogger(__name__)


def read(path: Path, newest: int) -> dict[str, Any]:
    """Return the JSON object in `path`; empty when there is none, or a damaged one.

    Raises:
        StorageFailed: its format is newer than `newest`, or it cannot be read at all.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageFailed(
            f"cannot read `{path}`: {error.strerror}", hint="check who owns it, or move it away"
        ) from error
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    version = found.get("format") if isinstance(found, dict) else None
    if not isinstance(found, dict) or type(version) is not int or version < 1:
        set_aside(path, content)
        return {}
    if version > newest:
        raise too_new(path, version, newest)
    return found


def too_new(path: Path, version: int, newest: int) -> StorageFailed:
    """Return the error for a file that only a newer Octave can read."""
    return StorageFailed(
        f"`{path}` has format {version}, and this version of Octave reads {newest}",
        hint="install a newer Octave: `pip install -U octave-mcp`",
        details={"path": str(path)},
    )


def set_aside(path: Path, content: bytes) -> None:
    """Rename the damaged file at `path`, read as `content`, to PATH.bad-TIME, and say so.

    One that was replaced meanwhile stays, and so does one in a folder that cannot be written.
    """
    kept = path.with_name(f"{path.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    # An error, since whoever runs one verb is told of errors alone.
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            path.rename(kept)
            _log.error("`%s` was damaged: it is kept as `%s` and made anew", path, kept.name)
            return
    _log.error("`%s` is damaged and counts as missing", path)
