"""Offered: what a server said it offers, as raw JSON, and the file it is kept in.

The hand-over back from the runtime: `install` learns with it what it installed, and a sleeping
server's tools stay listed from the file. Every list item is the exact text the server wrote.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from octave.home import atomic_write, private_folder
from octave.packages import state_file

FORMAT = 1
LISTS: Mapping[str, str] = {
    "tools": "tools/list",
    "prompts": "prompts/list",
    "resources": "resources/list",
    "resourceTemplates": "resources/templates/list",
}
"""The member that holds the items, and the method that lists them (MCP 2025-11-25)."""

_log = logging.getLogger(__name__)


class _Named(msgspec.Struct):
    name: str = ""


class _Format(msgspec.Struct):
    format: int


class _File(msgspec.Struct):
    format: int
    version: str
    digest: str
    initialize: msgspec.Raw
    lists: dict[str, list[msgspec.Raw]]
    discover: msgspec.Raw = msgspec.Raw(b"null")  # msgspec reads no `Raw | None`
    eras: tuple[str, ...] = ()
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """One server's answer to `initialize` and its lists."""

    initialize: bytes
    """The `result` of `initialize`: protocolVersion, capabilities, serverInfo, instructions. Of a
    server without one what its `server/discover` says, in that shape."""
    lists: Mapping[str, tuple[bytes, ...]]
    """Keys as in `LISTS`; a list the server has no capability for is absent."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What of the lists is missing here, and why; sentences. Not kept in the file."""
    discover: bytes | None = None
    """The `result` of `server/discover`; None when it was not asked yet, or has none."""
    eras: tuple[str, ...] = ()
    """Which of "legacy" and "modern" it speaks; empty: not known yet."""
    asks: bool = False
    """It was seen to ask its client something."""

    @property
    def tools(self) -> tuple[bytes, ...]:
        """The tools, each as the server wrote it."""
        return self.lists.get("tools", ())

    def names(self, kind: str = "tools") -> tuple[str, ...]:
        """Return the `name` of each item of a list that has one, in the server's order."""
        return tuple(_names(self.lists.get(kind, ())))


def save(path: Path, offered: Offered, version: str, digest: str) -> None:
    """Keep `offered` in `path` as what `version` with `digest` offers.

    What a newer Octave keeps there stays. A text that could not be read back, as one with a lone
    surrogate, is left out until the server is asked again.
    """
    greetings = (offered.initialize, offered.discover or b"{}")
    if _is_newer(path) or not all(map(_is_readable, greetings)):
        return
    content = _File(
        format=FORMAT,
        version=version,
        digest=digest,
        initialize=msgspec.Raw(offered.initialize),
        lists={
            kind: [msgspec.Raw(item) for item in items if _is_readable(item)]
            for kind, items in offered.lists.items()
        },
        discover=msgspec.Raw(offered.discover or b"null"),
        eras=offered.eras,
        asks=offered.asks,
    )
    private_folder(path.parent)
    atomic_write(path, msgspec.json.encode(content))


def load(path: Path, version: str, digest: str) -> Offered | None:
    """Return what `path` keeps for `version` with `digest`; None when it is missing or other."""
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_File)
    except OSError:
        return None
    except (ValueError, RecursionError):
        if not _is_newer(path):
            state_file.set_aside(path, content)
        return None
    if (found.format, found.version, found.digest) != (FORMAT, version, digest):
        return None
    return Offered(
        bytes(found.initialize),
        {kind: tuple(bytes(item) for item in items) for kind, items in found.lists.items()},
        discover=None if bytes(found.discover) == b"null" else bytes(found.discover),
        eras=found.eras,
        asks=found.asks,
    )


def kept_names(path: Path) -> tuple[str, ...]:
    """Return the names of the tools that `path` keeps, of whatever version; none: not readable."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        tools = msgspec.json.decode(path.read_bytes(), type=_File).lists.get("tools", [])
        return tuple(_names(tools))
    return ()


def _names(items: Iterable[bytes | msgspec.Raw]) -> Iterator[str]:
    for item in items:
        # What a server says amiss of one tool costs none of the others.
        with contextlib.suppress(ValueError, RecursionError):
            name = msgspec.json.decode(item, type=_Named).name
            if name:
                yield name


def _is_readable(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _is_newer(path: Path) -> bool:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Format).format
    except (OSError, ValueError, RecursionError):
        return False
    if found > FORMAT:
        _log.error("%s; the lists are not kept", state_file.too_new(path, found, FORMAT))
    return found > FORMAT
