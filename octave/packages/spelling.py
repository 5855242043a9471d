"""How far apart two names are, as a person mistypes them. Pure."""

IMITATED = 2
"""So many letters apart, a name is questioned as an imitation of another."""


def distance(one: str, other: str, most: int) -> int:
    """Return how many letters were added, left out, replaced or swapped; `most` + 1 for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 1] + other[j - 2]:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def allowed(word: str) -> int:
    """Return how many mistakes a word of that length may have and still be that word."""
    return sum(len(word) > length for length in (3, 5, 8))


def looks_like(typed: str, known: str) -> bool:
    """Whether `typed`, which is not `known`, may well be a mistyped or imitated `known`."""
    most = min(allowed(known), IMITATED)
    return typed != known and distance(typed.lower(), known, most) <= most
