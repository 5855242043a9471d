"""Edits of octave.toml: what they are not about stays as it was, to the byte.

Apart from `manifest.py`, because only the verbs that write pay for tomlkit.
"""

import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from octave.home import atomic_write
from octave.packages.manifest import Reference, parse
from octave.packages.manifest_text import BYTE_ORDER_MARK, read_text
from octave.packages.names import check_server_name
from octave.packages.toml_edit import drop, set_keys

_NEW = """# What Octave installs and runs. Edit it freely: comments and layout are kept.
"""
EXAMPLE = """# The MCP servers of this project. `octave install NAME` adds one; comments are kept.
# Commit this file and octave.lock: everybody who runs `octave install` gets the same bytes.

# [servers.github]                 # `octave tools github`, `octave call github ...`
# package = "npm:@modelcontextprotocol/server-github"
# version = "*"                    # octave.lock says exactly which one
# args = []
# env = { GITHUB_PERSONAL_ACCESS_TOKEN = { secret = "github/GITHUB_PERSONAL_ACCESS_TOKEN" } }
#                                  # also { env = "VARIABLE" } and { file = "PATH" }
# auto_start = false               # start it with the runtime, not at its first call
# idle_timeout = "5m"              # stop it after that without calls; "never"
# tools = { deny = ["delete_*"] }  # neither listed nor callable

# [servers.notes]                  # one of your own: `octave add notes -- node ./server.js`
# command = ["node", "./server.js"]
# cwd = "."                        # counts from this file; default: a folder of its own

# [servers.linear]                 # a remote one: `octave add linear https://mcp.linear.app/mcp`
# url = "https://mcp.linear.app/mcp"
# headers = { Authorization = { env = "LINEAR_AUTH" } }

# [profiles.work]                  # `octave proxy --profile work` shows these alone
# servers = ["github", "linear"]

# [runtime]
# definitions = "warn"             # what happens to a tool whose definition changed: also "block"
"""
"""What `octave init` writes."""
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
    text = with_server(path, name, entry)
    _write(path, text)


def with_server(path: Path, name: str, entry: Mapping[str, object]) -> str:
    """Return the text of `path` as `add_server` would write it, and write nothing.

    Raises:
        ManifestError: as `add_server`.
    """
    check_server_name(name)
    before = read_text(path)
    text = _NEW if before is None else before
    parse(path, text)
    mark, body = _marked(text)
    plain = {key: plain_value(item) for key, item in entry.items()}
    after = mark + set_keys(body, ("servers", name), plain)
    parse(path, after)
    return after


def begin(path: Path, text: str = _NEW) -> None:
    """Write a manifest that asks for nothing; the caller holds the lock and knows of no other.

    Raises:
        OSError: it cannot be written.
    """
    _write(path, text)


def change_server(
    path: Path,
    name: str,
    values: Mapping[tuple[str, ...], object],
    unset: Iterable[tuple[str, ...]] = (),
) -> bool:
    """Set `values` and drop `unset` in [servers.NAME], which exists; tell whether that changed it.

    Keys are of the server's table, or of a table in it: `("env", "MODE")`. The caller holds the
    lock that keeps other writers away.

    Raises:
        ManifestError: the manifest was wrong before, or would be after.
        OSError: it cannot be written.
    """
    text = read_text(path) or ""
    parse(path, text)
    mark, body = _marked(text)
    server = ("servers", name)
    for keys in unset:
        if _found(body, (*server, *keys)) is not None:
            body = drop(body, (*server, *keys))
    for keys, value in values.items():
        table, key, plain = (*server, *keys[:-1]), keys[-1], plain_value(value)
        if table != server and _found(body, table) is None:
            # Else it would get a header of its own, at the end of the file.
            table, key, plain = server, keys[0], {key: plain}
        if _found(body, (*table, key)) != plain:
            body = set_keys(body, table, {key: plain})
    after = mark + body
    parse(path, after)
    if after == text:
        return False
    _write(path, after)
    return True


def _marked(text: str) -> tuple[str, str]:
    """Return the byte order mark, where there is one, and the rest."""
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    return mark, text.removeprefix(mark)


def _found(body: str, path: tuple[str, ...]) -> object:
    """Return the value at `path`; None when there is none."""
    found: object = tomllib.loads(body)
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def plain_value(item: object) -> object:
    """Return `item` with its references as the tables they are written as."""
    if isinstance(item, Reference):
        return {item.kind: item.key}
    if isinstance(item, Mapping):
        return {key: plain_value(inner) for key, inner in item.items()}
    return [plain_value(inner) for inner in item] if isinstance(item, list | tuple) else item


def remove_server(path: Path, name: str) -> bool:
    """Remove [servers.NAME] and tell whether it was there; comments around it stay.

    Raises:
        ManifestError: the manifest was wrong before.
        OSError: it cannot be written.
    """
    text = read_text(path) or ""
    if name not in parse(path, text).servers:
        return False
    mark, body = _marked(text)
    after = mark + drop(body, ("servers", name))
    parse(path, after)
    _write(path, after)
    return True


def _write(path: Path, text: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else _NEW_MODE
    atomic_write(path, text.encode(), mode)
