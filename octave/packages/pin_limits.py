"""What a server's entry in a lockfile may say: it is foreign input, as a pull request brings it.

Pure. None of it may lead out of the folder of the installed version, or decide what runs instead.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from octave.packages.names import decides_what_runs, is_server_name

if TYPE_CHECKING:  # the lockfile imports this module
    from octave.packages.lockfile import Pin

_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]*")
"""It becomes the name of a folder."""


def overreaches(pin: "Pin") -> Iterator[tuple[str, str]]:
    """Yield what of `pin` goes too far, and its key."""
    if not is_server_name(pin.name):
        yield f"`{pin.name}` is no name of a server", "name"
    if not _VERSION.fullmatch(pin.version):
        yield f"`{pin.name}` is of `{pin.version}`, which is no version", "version"
    if not pin.request.startswith(f"{pin.kind}:{pin.package}@"):
        told = f"`{pin.name}` is `{pin.kind}:{pin.package}`, and `{pin.request}` was asked for"
        yield told, "package"
    entry = PurePosixPath(pin.entry)
    if entry.is_absolute() or ".." in entry.parts:
        yield f"the entry `{pin.entry}` of `{pin.name}` lies outside of it", "entry"
    # A bundle sets what it likes for its own program, and is compared with what it says.
    for variable in filter(decides_what_runs, pin.env if pin.kind != "mcpb" else ()):
        yield f"`{pin.name}` sets `{variable}`, which decides what runs", "env"
