"""One module per package ecosystem; `base.py` says what each can do."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from octave.packages.ecosystems.base import Ecosystem

_CLASSES = {
    "npm": ("octave.packages.ecosystems.npm", "Npm"),
    "pypi": ("octave.packages.ecosystems.pypi", "Pypi"),
    "mcpb": ("octave.packages.ecosystems.mcpb", "Mcpb"),
    "oci": ("octave.packages.ecosystems.oci", "Oci"),
    "folder": ("octave.packages.ecosystems.folder", "Folder"),
}


class _Ecosystems(Mapping[str, Ecosystem]):
    """Loads an ecosystem when somebody wants it: each costs as much as the rest of a short verb."""

    def __init__(self) -> None:
        self._loaded: dict[str, Ecosystem] = {}

    def __getitem__(self, kind: str) -> Ecosystem:
        if kind not in self._loaded:
            module, name = _CLASSES[kind]
            self._loaded[kind] = getattr(import_module(module), name)()
        return self._loaded[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


ECOSYSTEMS: Mapping[str, Ecosystem] = _Ecosystems()
"""By the kind in front of a package: `npm:`, `pypi:`, `folder:`, `mcpb:`, `oci:`."""
