"""Edits of octave.toml: what they are not about stays as it was, to the byte.

Apart from `manifest.py`, because only the verbs that write pay for tomlkit.
"""

import stat
from collections.abc import Mapping
from pathlib import Path

from octave.home import atomic_write
from octave.packages.manifest import BYTE_ORDER_MARK, Reference, parse, read_text
from octave.packages.names import check_server_name
from octave.packages.toml_edit import drop, set_keys

_NEW = """# What Octave installs and runs. Edit it freely: comments and layout are kept.
"""
_NEW_MODE = 0o644
"""Meant to be committed and read by others; the home's own lies in a folder of mode 0700."""


def add_server(path: Path, name: str, entry: Mapping[str, object]) -> None:
    """Write the keys of `entry` into [servers.NAME], and nothing else into the file.

    The values of `entry` are strings, booleans, integers, references, and lists and mappings of
    them. A missing file is created; keys of an existing table are replaced, its others stay. The
    caller holds the lock that keeps other writers away.

    Raises:
        ManifestError: the manifest was wrong before, or would be with this entry.
        OSError: it cannot be written.
    """
    check_server_name(name)
    before = read_text(path)
    text = _NEW if before is None else before
    parse(path, text)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    plain = {key: _plain(item) for key, item in entry.items()}
    after = mark + set_keys(text.removeprefix(mark), ("servers", name), plain)
    parse(path, after)
    _write(path, after)


def _plain(item: object) -> object:
    """Return `item` with its references as the tables they are written as."""
    if isinstance(item, Reference):
        return {item.kind: item.key}
    if isinstance(item, Mapping):
        return {key: _plain(inner) for key, inner in item.items()}
    return [_plain(inner) for inner in item] if isinstance(item, list | tuple) else item


def remove_server(path: Path, name: str) -> bool:
    """Remove [servers.NAME] and tell whether it was there; comments around it stay.

    Raises:
        ManifestError: the manifest was wrong before.
        OSError: it cannot be written.
    """
    text = read_text(path) or ""
    if name not in parse(path, text).servers:
        return False
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    after = mark + drop(text.removeprefix(mark), ("servers", name))
    parse(path, after)
    _write(path, after)
    return True


def _write(path: Path, text: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _NEW_MODE
    atomic_write(path, text.encode(), mode)
