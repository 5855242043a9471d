"""How deep JSON text is nested, and the same text without what lies too deep.

Parsers recurse: every one has a depth at which it refuses the whole text, ours too. Pure, iterative
and linear, so that no text is too deep for this. Expects JSON; of other text it makes other text.
"""

import re
from itertools import accumulate

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_WHOLE = re.compile(_STRING, re.DOTALL)
_PIECE = re.compile(rb'(?:[^"]++|' + _STRING + rb'){1,1000}+|"', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_AT_ONCE = 10_000
"""Brackets: less than a millisecond."""
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


def is_deeper(text: bytes, levels: int) -> bool:
    """Whether an array or object in `text` has `levels` others around it; ``[[1]]`` has 2."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth = 0
    # In pieces, since other threads stand still for each.
    for piece in _PIECE.finditer(text):
        brackets = _WHOLE.sub(b"", piece[0]).translate(None, _NO_BRACKETS)
        for start in range(0, len(brackets), _AT_ONCE):
            steps = map(_STEPS.__getitem__, brackets[start : start + _AT_ONCE])
            depths = list(accumulate(steps, initial=depth))
            if max(depths) > levels:
                return True
            depth = depths[-1]
    return False


def pruned(text: bytes, levels: int) -> bytes:
    """Return `text` with null for every array and object that has `levels` others around it."""
    pieces: list[bytes] = []
    position = depth = 0
    for token in _TOKEN.finditer(text):
        step = _STEPS.get(text[token.start()], 0)
        if step > 0 and depth == levels:
            pieces += (text[position : token.start()], b"null")
        elif step < 0 and depth == levels + 1:
            position = token.end()
        depth += step
    if depth <= levels:
        pieces.append(text[position:])
    return b"".join(pieces)
