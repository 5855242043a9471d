"""Which servers a person means by some words. Pure.

Names count before what is said about a server, whole words before parts of words. All words must
be found; where no server has them all, mistyped ones count, and then a part of them.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from octave.packages.entries import Entry
from octave.packages.spelling import allowed, distance

_WORD = re.compile(r"[a-z0-9]+")
_IDLE = frozenset(
    {"a", "an", "and", "any", "app", "apps", "for", "from", "in", "integration", "mcp", "my", "of"}
    | {"on", "server", "servers", "the", "to", "tool", "tools", "use", "using", "with"}
)
"""Words that tell no server from another; they count where there are no others."""
_MOST_WORDS = 8

EXACT, STRONG, WEAK, MISTYPED, PARTLY = range(5)
"""How well an entry answers, best first: its name; its name, title or category; its text; only if
something was mistyped; only some of the words."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that answers a query."""

    entry: Entry
    grade: int
    score: float
    """Within the grade; higher is better."""


def search(
    query: str, entries: Iterable[Entry], aliases: Mapping[str, str] | None = None
) -> list[Hit]:
    """Return the entries that answer `query`, best first.

    `aliases` are other spellings of short names of the bundled registry. Between equals the order
    of `entries` decides.
    """
    words = _words(query)
    found = [
        (entry, _Text.of(entry, [a for a, name in (aliases or {}).items() if _is(entry, name)]))
        for entry in entries
    ]
    whole = _folded(query)
    hits = [hit for entry, text in found if (hit := _answer(entry, text, words, whole))]
    hits = hits or [hit for entry, text in found if (hit := _forgiven(entry, text, words))]
    return sorted(hits or _partly(found, words), key=_order)


def longest_word(query: str) -> str:
    """Return the word of `query` that tells most: registries look for one piece of text only."""
    return max(_words(query), key=len, default="")


def near_names(query: str, names: Iterable[str]) -> list[str]:
    """Return up to three of `names` that look like `query`, the nearest first."""
    typed = "-".join(_WORD.findall(_folded(query)))
    measured = ((distance(typed, name, 3), name) for name in names)
    return [name for off, name in sorted(measured) if off <= min(3, max(1, len(typed) // 2))][:3]


def _order(hit: Hit) -> tuple[bool, bool, int, float]:
    # The exact name first, whoever has it; then the bundled registry, before all others.
    entry = hit.entry
    return (
        hit.grade != EXACT,
        bool(entry.registry),
        hit.grade,
        -hit.score - _merit(entry),
    )


def _merit(entry: Entry) -> float:
    """Return what speaks for an entry beside its words: less than any difference of words."""
    tried = any(choice.figures is not None for choice in entry.packages)
    gone = entry.deprecated is not None or all(choice.archived for choice in entry.packages)
    return 0.02 * tried + 0.01 * entry.vendor_official - 0.3 * (gone and bool(entry.packages))


@dataclass(frozen=True, slots=True)
class _Text:
    """The words of an entry, by how much they say about it."""

    whole: frozenset[str]
    """Everything it is called, each as one."""
    called: frozenset[str]
    """What it is called for short, each as one."""
    names: frozenset[str]
    categories: frozenset[str]
    keywords: frozenset[str]
    title: frozenset[str]
    description: frozenset[str]

    @classmethod
    def of(cls, entry: Entry, aliases: list[str]) -> "_Text":
        packages = [choice.identifier for choice in entry.packages]
        called = [entry.short_name, *aliases]
        if entry.registry:
            called.append(entry.name.rpartition("/")[2])
        whole = (*called, entry.name, entry.title, *packages)
        return cls(
            whole=frozenset(map(_folded, whole)),
            called=frozenset(map(_folded, called)),
            names=_parts(*called, *packages),
            categories=_parts(*entry.categories),
            keywords=_parts(*entry.keywords),
            title=_parts(entry.title),
            description=_parts(entry.description),
        )


def _answer(entry: Entry, text: _Text, words: list[str], whole: str) -> Hit | None:
    # `git hub` and `chrome devtools` are names, too.
    spellings = {whole, "-".join(_WORD.findall(whole)), "".join(_WORD.findall(whole))}
    if spellings & text.whole:
        return Hit(entry, EXACT, 2.0 if whole == entry.short_name else 1.0)
    weights = [_weight(word, text) for word in words]
    if not weights or min(weights) == 0:
        return None
    score = sum(weights) / len(weights)
    return Hit(entry, STRONG if score >= _STRONG else WEAK, score)


_STRONG = 0.6


def _weight(word: str, text: _Text) -> float:
    """Return how well `word` is found: 1 for a part of the name, 0 for not at all."""
    ways = (
        (1.0, word in text.names),
        (0.95, any(name.startswith(word) for name in text.called)),
        (0.9, word in text.title),
        (0.8, any(name.startswith(word) for name in text.names)),
        (0.7, word in text.categories or _stem(word) in map(_stem, text.categories)),
        (0.65, word in text.keywords or _stem(word) in map(_stem, text.keywords)),
        (0.5, word in text.description),
        (0.45, _stem(word) in map(_stem, text.description | text.title)),
        (0.4, len(word) > 2 and any(name.startswith(word) for name in text.categories)),
        (0.35, len(word) > 2 and any(said.startswith(word) for said in text.description)),
        (0.2, len(word) > 3 and any(word in name for name in text.called)),
    )
    return next((weight for weight, holds in ways if holds), 0.0)


def _forgiven(entry: Entry, text: _Text, words: list[str]) -> Hit | None:
    """Return a hit where each word is found, or is a mistyped word of the name or subject."""
    total = 0.0
    for word in words:
        found = _weight(word, text) or _mistyped(word, text.names | text.title | text.categories)
        if not found:
            return None
        total += found
    return Hit(entry, MISTYPED, total / len(words)) if words else None


def _partly(found: Sequence[tuple[Entry, _Text]], words: list[str]) -> list[Hit]:
    """Return what has some of the words; a word that few have tells more."""
    scores = dict.fromkeys(range(len(found)), 0.0)
    for word in words:
        weights = {
            at: weight for at, (_, text) in enumerate(found) if (weight := _weight(word, text))
        }
        for at, weight in weights.items():
            scores[at] += weight / len(weights)
    return [Hit(found[at][0], PARTLY, score) for at, score in scores.items() if score]


def _mistyped(word: str, known: frozenset[str]) -> float:
    most = allowed(word)
    off = min((distance(word, one, most) for one in known if len(one) > 2), default=most + 1)
    return 0.3 / off if 0 < off <= most else 0.0


def _is(entry: Entry, short_name: str) -> bool:
    return not entry.registry and entry.short_name == short_name


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower().strip()


def _parts(*texts: str) -> frozenset[str]:
    return frozenset(part for text in texts for part in _WORD.findall(_folded(text)))


def _words(query: str) -> list[str]:
    found = list(dict.fromkeys(_WORD.findall(_folded(query))))
    return ([word for word in found if word not in _IDLE] or found)[:_MOST_WORDS]


def _stem(word: str) -> str:
    """Return `word` without the endings of numbers and times: `databases`, `searching`."""
    for ending, instead in (("ies", "y"), ("ing", ""), ("es", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: len(word) - len(ending)] + instead
    return word
