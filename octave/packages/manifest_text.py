"""The text of octave.toml: read, decoded, and its errors with the place they are at."""

import stat
import tomllib
from pathlib import Path
from typing import Any

from octave.errors import ManifestError, storage_hint
from octave.packages.toml_text import merge_conflict, position, syntax_place

BYTE_ORDER_MARK = "\ufeff"


def read_text(path: Path) -> str | None:
    """Return the text of the manifest at `path`; None when there is none.

    Raises:
        ManifestError: it cannot be read.
    """
    try:
        # Opening a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise problem(path, 1, 1, "it is not a file")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError(
            f"`{path}` cannot be read: {reason}",
            hint=storage_hint(error) or f"check `{path}`, or move it away",
            details={"path": str(path), "problem": f"it cannot be read: {reason}"},
        ) from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = position(before, len(before))
        raise problem(path, line, column, "it is not UTF-8 text") from None


def decode(path: Path, text: str) -> dict[str, Any]:
    """Return the TOML in `text`, which has no byte order mark; `path` is where it comes from.

    Raises:
        ManifestError: it is none.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise problem(path, 1, 1, "it is nested too deeply") from None
    except ValueError as error:
        conflict = merge_conflict(text)
        if conflict:
            raise problem(path, *conflict, "an unresolved merge conflict") from None
        message, line, column = syntax_place(error, text)
        raise problem(path, line, column, f"it is not TOML: {message}") from None


def problem(path: Path, line: int, column: int, message: str) -> ManifestError:
    """Return the error for what stands at that place of the manifest; `message` is a clause."""
    return ManifestError(
        f"`{path.name}` line {line}, column {column}: {message}",
        hint=f"edit `{path}`",
        details={"path": str(path), "line": line, "column": column, "problem": message},
    )
