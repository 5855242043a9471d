"""The package that a folder's graph has as its root. Pure."""

from dataclasses import replace

from octave.errors import IntegrityFailed
from octave.packages.lockfile import Pin


def as_packed(pin: Pin) -> Pin:
    """Return what npm or PyPI would have locked for the package in the folder of `pin`.

    Raises:
        IntegrityFailed: the graph does not hold it.
    """
    for row in pin.graph:
        if "path" in row and row.get("integrity") == pin.integrity:
            name = str(row["path"]).removeprefix("node_modules/")
            return replace(pin, kind="npm", package=name)
        if row.get("hashes") in ([pin.integrity], (pin.integrity,)):
            return replace(pin, kind="pypi", package=str(row["name"]))
    raise IntegrityFailed(
        f"the lockfile's graph of `{pin.name}` does not hold its folder", hint="octave lock"
    )
