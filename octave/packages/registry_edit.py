"""Edits of the [registries] of octave.toml: everything else stays as it was, to the byte.

Apart from `registries.py`, because only the verbs that write pay for tomlkit.
"""

import stat
from collections.abc import Callable

from octave.home import Workspace, atomic_write
from octave.packages import ledger, manifest, workspaces
from octave.packages.manifest import RegistryEntry
from octave.packages.manifest_edit import plain_value
from octave.packages.manifest_text import BYTE_ORDER_MARK, read_text
from octave.packages.toml_edit import drop, set_keys

_NEW_MODE = 0o644
"""As for every octave.toml: meant to be committed."""


def add(workspace: Workspace, name: str, entry: RegistryEntry) -> None:
    """Write [registries.NAME] behind those that are there; they are asked in that order.

    Raises:
        ManifestError: the manifest was wrong before, or would be with it.
        NotTrusted: it lies outside the home and was not trusted as it is now.
        OSError: it cannot be written.
    """
    values: dict[str, object] = {"url": entry.url}
    if entry.headers:
        values["headers"] = {key: plain_value(value) for key, value in entry.headers.items()}
    _change(workspace, lambda text: set_keys(text, ("registries", name), values))


def remove(workspace: Workspace, name: str) -> None:
    """Remove [registries.NAME]; comments around it stay.

    Raises:
        ManifestError, NotTrusted, OSError: as `add`.
    """
    _change(workspace, lambda text: drop(text, ("registries", name)))


def _change(workspace: Workspace, edit: Callable[[str], str]) -> None:
    path = workspace.manifest
    with ledger.changing(workspace):
        before = manifest.load(path)
        # Whoever changed it meanwhile does not become trusted by this.
        workspaces.require_trust(workspace, before)
        text = read_text(path) or ""
        mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
        after = mark + edit(text.removeprefix(mark))
        wanted = manifest.parse(path, after)
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _NEW_MODE
        atomic_write(path, after.encode(), mode)
        workspaces.trust(workspace, wanted)
