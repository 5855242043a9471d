"""What several servers can do, as one announcement. Pure; capabilities are raw JSON objects.

Sleeping servers count as those that are up: what a client was told at the beginning has to hold.
"""

from collections.abc import Iterable
from typing import Union

from octave.runtime import json_text, wire

Tree = dict[str, Union["Tree", bytes]]
"""Members by name: raw JSON, or a tree of them where it is an object."""

_CHANGES = b'{"listChanged":true}'
ALWAYS = b'{"tools":%b,"prompts":%b,"resources":%b}' % ((_CHANGES,) * 3)
"""Servers come and go, while a client keeps what it was told: the lists are always there."""
DEPTH = 8
"""What is nested deeper is not merged."""
_ALONE = {("tasks", "list")}
"""What only a server's own face does."""


def union(capabilities: Iterable[bytes]) -> bytes:
    """Return everything that any of the servers announces, members that nobody knows included.

    Of values that differ the first counts, but `true` outweighs all others.
    """
    merged = Tree()
    for each in (ALWAYS, *capabilities):
        if each.startswith(b"{"):
            _merge(merged, each, ())
    return _text(merged)


def _merge(into: Tree, text: bytes, path: wire.Path) -> None:
    for name, value in json_text.members_by_name(text).items():
        here = (*path, name)
        if here in _ALONE:
            continue
        if value.startswith(b"{") and len(here) < DEPTH:
            inner = into.setdefault(name, {})
            if isinstance(inner, dict):
                _merge(inner, value, here)
        elif name not in into or value == b"true":
            into[name] = value


def _text(tree: Tree) -> bytes:
    members = (
        b"%b:%b" % (wire.text(name), _text(value) if isinstance(value, dict) else value)
        for name, value in tree.items()
    )
    return b"{%b}" % b",".join(members)
