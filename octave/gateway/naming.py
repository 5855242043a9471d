"""Names at an aggregated face: `server__tool`, so that many servers can share one list.

Pure and stable: a qualified name depends on the server's and the item's own names alone, never on
their neighbours or their order. It tells the server; for the item's own name there is a table.
"""

import hashlib
import re

SEPARATOR = "__"
LIMIT_CHARS = 64
"""Several clients and models refuse longer tool names, and count a prefix of their own on top."""
HASH_CHARS = 8
"""32 bits: two changed names of one server meet by chance once in some ten thousand tools."""

_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")


def qualified(server: str, item: str) -> str:
    """Return the name of a server's tool or prompt at an aggregated face.

    At most `LIMIT_CHARS` of `[A-Za-z0-9_-]`. Where that needs a change, the name is cut and ends
    in `_` and 8 hex digits of the SHA-256 of the unchanged `server__item`.
    """
    plain = f"{server}{SEPARATOR}{item}"
    legal = _ILLEGAL.sub("_", plain)
    if legal == plain and len(plain) <= LIMIT_CHARS:
        return plain
    digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_CHARS]
    return f"{legal[: LIMIT_CHARS - HASH_CHARS - 1]}_{digest}"


def server_in(name: str) -> str:
    """Return the only server that can have something of that qualified name."""
    # No server's name holds an underscore, and all of it is in front of every cut.
    return name.partition(SEPARATOR)[0]
