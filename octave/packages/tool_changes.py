"""What differs between what two versions of a server show a model: tools and instructions. Pure.

The texts are the server's; whoever shows them filters them.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from octave.errors import IntegrityFailed
from octave.packages.definitions import ToolPin, definition_hashes, difference
from octave.packages.offered import Offered


@dataclass(frozen=True, slots=True)
class ToolChange:
    """A tool that both versions have, and that is another one now; or a new one."""

    name: str
    diff: tuple[str, ...]
    """Lines of a unified diff of its definition; none when the old one is not known."""


@dataclass(frozen=True, slots=True)
class ToolChanges:
    """From one version to the next."""

    added: tuple[ToolChange, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[ToolChange, ...] = ()
    instructions: tuple[str, ...] = ()
    """The diff of what the server tells the model to do; empty: the same."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed or self.instructions)


def tool_changes(
    before: Offered | None, approved: Iterable[ToolPin], after: Offered
) -> ToolChanges:
    """Return what differs in `after` from `before`; where that is not known, from `approved`."""
    texts = _definitions(before) if before is not None else {}
    pins = {name: pin for name, (pin, _) in texts.items()}
    if before is None:
        pins = {pin.name: pin for pin in approved}
    new = _definitions(after)
    return ToolChanges(
        added=tuple(
            ToolChange(name, tuple(difference(None, text)))
            for name, (_, text) in new.items()
            if name not in pins
        ),
        removed=tuple(name for name in pins if name not in new),
        changed=tuple(
            ToolChange(name, tuple(difference(texts[name][1], text)) if name in texts else ())
            for name, (pin, text) in new.items()
            if name in pins and pin != pins[name]
        ),
        instructions=() if before is None else _instructions_diff(before, after),
    )


def _definitions(offered: Offered) -> dict[str, tuple[ToolPin, bytes]]:
    """Return hashes and text of each tool that can be read; of two with one name the first."""
    found: dict[str, tuple[ToolPin, bytes]] = {}
    for text in offered.tools:
        try:
            pin = definition_hashes(text)
        except IntegrityFailed:
            continue
        found.setdefault(pin.name, (pin, text))
    return found


def _instructions_diff(before: Offered, after: Offered) -> tuple[str, ...]:
    old, new = _instructions(before).splitlines(), _instructions(after).splitlines()
    return tuple(difflib.unified_diff(old, new, lineterm="", n=2))[2:]


def _instructions(offered: Offered) -> str:
    try:
        said = json.loads(offered.initialize)
    except (ValueError, RecursionError):
        return ""
    found = said.get("instructions") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""
