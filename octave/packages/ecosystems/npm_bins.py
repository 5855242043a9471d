"""The executables of packages in a tree, linked in `node_modules/.bin` as npm does.

Servers look for programs of their dependencies there. Only links that stay inside the tree.
"""

import contextlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MODE = 0o755
_DOS_SHEBANG = re.compile(rb"(#![^\n]+)\r\n")
_SHEBANG_BYTES = 2048
"""As far as npm looks for the end of a script's first line."""


def link(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Link what `manifest`, the package.json in `folder`, names as executables.

    The file becomes executable, and its first line one that Unix can read. A name that is taken
    stays with whom it belongs to: npm goes through a tree in the order of its paths.

    Raises:
        OSError: the disk is full, or what is there cannot be read or changed.
    """
    programs = _modules_of(folder) / ".bin"
    inside = folder.resolve()
    for name, path in _named(folder, manifest):
        file = folder / path
        place = programs / name
        if place.is_symlink() or not (file.is_file() and file.resolve().is_relative_to(inside)):
            continue
        with contextlib.suppress(FileExistsError):
            programs.mkdir()
            programs.chmod(_MODE)
        place.symlink_to(posixpath.relpath(file, programs))
        file.chmod(_MODE)
        _mend_shebang(file)


def _modules_of(folder: Path) -> Path:
    return folder.parent.parent if folder.parent.name.startswith("@") else folder.parent


def _named(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # npm-normalize-package-bin: whatever the author wrote, no name or path leads upwards.
    named = manifest.get("bin")
    if isinstance(named, str):
        named = {folder.name: named}
    elif isinstance(named, list):
        named = {posixpath.basename(str(path)): path for path in named}
    for key, value in named.items() if isinstance(named, dict) else ():
        name = posixpath.basename(re.sub(r"[\\:]", "/", key))
        if not isinstance(value, str) or "\0" in key + value or name in {"", ".", ".."}:
            continue
        path = posixpath.normpath("/" + value.replace("\\", "/")).lstrip("/")
        if path:
            yield name, path


def _mend_shebang(file: Path) -> None:
    with file.open("r+b") as opened:
        if _DOS_SHEBANG.match(opened.read(_SHEBANG_BYTES)):
            opened.seek(0)
            content = opened.read()
            opened.seek(0)
            opened.write(_DOS_SHEBANG.sub(rb"\1\n", content, count=1))
            opened.truncate()
