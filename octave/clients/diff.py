"""A unified diff of one change, without a line of context: the neighbours may hold tokens."""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

_AROUND_CHARACTERS = 20
"""So much of a line, on each side of the change, tells where that is."""
_MANY_LINES = 1000
"""Between the first and the last that differ; beyond it the exact way takes too long."""


def difference(
    file: Path, before: str | None, after: str | None, shown: Callable[[str], str] = str
) -> str:
    """Return the diff that turns `before` into `after`, empty when they are equal.

    None is a file that does not exist; `shown` gives what may be seen of some lines, as many. Of
    a single line, which may be a whole file, only the part around the change is shown.
    """
    old, new = _lines(before), _lines(after)
    if old == new:
        return ""
    first = _same(old, new)
    last = _same(old[first:][::-1], new[first:][::-1])
    removed = _visible(old[first : len(old) - last], shown)
    added = _visible(new[first : len(new) - last], shown)
    lines = [
        f"--- {'/dev/null' if before is None else file}",
        f"+++ {'/dev/null' if after is None else file}",
    ]
    matcher = SequenceMatcher(None, removed, added, autojunk=len(removed) > _MANY_LINES)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        cut = (removed[a:b], added[c:d])
        if b - a == d - c == 1:
            cut = _cut(removed[a], added[c])
        lines.append(f"@@ -{_range(first + a, b - a)} +{_range(first + c, d - c)} @@")
        lines += [f"-{line}" for line in cut[0]]
        lines += [f"+{line}" for line in cut[1]]
    return "\n".join(lines) + "\n"


def _visible(lines: list[str], shown: Callable[[str], str]) -> list[str]:
    return shown("\n".join(lines)).split("\n") if lines else []


def _lines(text: str | None) -> list[str]:
    lines = (text or "").replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _same(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many lines, or characters, both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _range(first: int, count: int) -> str:
    # A range of no lines names the line before it (POSIX diff -u).
    start = first + 1 if count else first
    return f"{start}" if count == 1 else f"{start},{count}"


def _cut(old: str, new: str) -> tuple[list[str], list[str]]:
    head = _same(old, new)
    tail = _same(old[head:][::-1], new[head:][::-1])
    start, end = max(0, head - _AROUND_CHARACTERS), max(0, tail - _AROUND_CHARACTERS)

    def part(line: str) -> str:
        before, after = "…" if start else "", "…" if end else ""
        return before + line[start : len(line) - end] + after

    return [part(old)], [part(new)]
