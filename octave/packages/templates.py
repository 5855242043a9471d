"""Words with places in them that are filled at each start: `{data}`, `{folder}`, `{env:NAME}`.

What a lock holds is the same on every machine; folders and what the user gave come in here.
`{list:NAME}` stands for several words, parted by `:` in the variable as in PATH.
"""

import re
from collections.abc import Callable, Iterable

Lookup = Callable[[str], str | None]
"""Gives the value of a variable; None or an empty one: it has none."""

_PLACE = re.compile(r"\{(env|list):([A-Za-z_][A-Za-z0-9_.-]*)\}")


def variable(name: str, *, is_list: bool = False) -> str:
    """Return the place where the value of `name` comes."""
    return f"{{{'list' if is_list else 'env'}:{name}}}"


def names(word: str) -> list[str]:
    """Return the variables that `word` has places for."""
    return [found[2] for found in _PLACE.finditer(word)]


def filled(word: str, lookup: Lookup) -> str | None:
    """Return `word` with its places filled; None when one of the variables has no value."""
    values = {name: lookup(name) for name in names(word)}
    if not all(values.values()):
        return None
    return _PLACE.sub(lambda found: values[found[2]] or "", word)


def filled_all(words: Iterable[str], lookup: Lookup) -> tuple[str, ...]:
    """Return `words` with their places filled; a word whose variable has no value is left out.

    So is the option right before it: `--limit` means nothing without its value.
    """
    found: list[str] = []
    for word in words:
        several = _PLACE.fullmatch(word)
        if several and several[1] == "list":
            values = [each for each in (lookup(several[2]) or "").split(":") if each]
        else:
            text = filled(word, lookup)
            values = [] if text is None else [text]
        if not values and found and found[-1].startswith("-") and "=" not in found[-1]:
            found.pop()
        found += values
    return tuple(found)
