"""Package indexes that a project's files name, and that Octave does not follow.

A checkout must not decide where packages come from: whoever wrote it could put a package of the
same name there. The user's own configuration decides.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

_REGISTRY = re.compile(r"^\s*(?:(@[\w.~-]+):)?registry\s*=", re.MULTILINE)
_KEYS = ("index", "index-url", "extra-index-url", "find-links")


def ignored(folder: Path) -> Iterator[str]:
    """Yield a sentence for each file in `folder` that names an index."""
    scopes = _REGISTRY.findall(_text(folder / ".npmrc"))
    if scopes and not _is_users(folder):
        named = ", ".join(f"`{scope}`" for scope in dict.fromkeys(scopes) if scope)
        of = f" for {named}" if named else ""
        yield (
            f"the registry{of} in this folder's `.npmrc` is ignored; "
            "`npm config set` writes it into your own"
        )
    for name, path in (("uv.toml", ()), ("pyproject.toml", ("tool", "uv"))):
        table = _table(folder / name)
        for key in path:
            inner = table.get(key)
            table = inner if isinstance(inner, dict) else {}
        if any(table.get(key) for key in _KEYS):
            yield (
                f"the package index in this folder's `{name}` is ignored; "
                "`UV_DEFAULT_INDEX` or your own uv.toml names one"
            )


def _is_users(folder: Path) -> bool:
    # There it is no project's file but the one that npm reads for its user.
    return folder == Path(os.path.expanduser("~"))  # noqa: PTH111 - some users have no home


def _table(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(_text(path))
    except (ValueError, RecursionError):
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""
