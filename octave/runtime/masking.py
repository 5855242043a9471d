"""Hides secret values in what a server writes, however the bytes arrive.

Found as they are, as JSON, in base64 at any of the three alignments, and URL-encoded; of a value
of several lines each line by itself too. Values and lines shorter than `SHORTEST` characters stay:
hiding them would tear holes into every text. Other transformations of a value are not recognised.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 6
MASK = b"***"
LEARNED = 8
"""Tokens are renewed for months; the last ones are all that can still be misused."""

_UNESCAPED = ("", "/", "!'()*", ";,/?:@&=+$#!'()*")
"""What encoders leave alone: RFC 3986, `urllib`, `encodeURIComponent`, `encodeURI`."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Mask:
    """Knows the values and every form of them; belongs to one start of a server."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = frozenset(values)
        self._learned: dict[str, None] = {}
        self._look_for(self._values)

    def learn(self, values: Iterable[str]) -> None:
        """Hide these from now on too; of what was learned the last `LEARNED` values are known."""
        found = list(values)
        is_known = all(value in self._learned for value in found)
        for value in found:
            # To the end: it is in use.
            self._learned.pop(value, None)
            self._learned[value] = None
        while len(self._learned) > LEARNED:
            del self._learned[next(iter(self._learned))]
        if not is_known:
            self._look_for(self._values.union(self._learned))

    def _look_for(self, values: Iterable[str]) -> None:
        found = {form for value in values for form in _forms(value)}
        # Longest first: of two forms that begin alike the longer one is hidden.
        self._forms = sorted(found, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms)))
        self._reach = len(self._forms[0]) - 1 if self._forms else 0
        self._inside = frozenset(byte for form in self._forms for byte in form[:-1])

    def __repr__(self) -> str:
        return f"Mask of {len(self._forms)} forms"

    def stream(self) -> "MaskedStream":
        """Return a filter for one stream of bytes."""
        return MaskedStream(self)

    def whole(self, text: bytes) -> bytes:
        """Return `text`, to which nothing will be added, without the values."""
        if not self._forms or len(text) < SHORTEST:
            return text
        stream = self.stream()
        return stream.feed(text) + stream.end()

    def text(self, text: str) -> str:
        """Return `text` without the values."""
        return self.whole(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what can be said of `data` already, and what depends on the bytes to come."""
        if not self._forms:
            return data, b""
        held = self._beginning(data, 0)
        if not any(form in data for form in self._forms):
            return data[:held], data[held:]
        done, position = bytearray(), 0
        while (found := self._pattern.search(data, position)) and found.start() < held:
            done += data[position : found.start()] + MASK
            position = found.end()
            if held < position:
                held = self._beginning(data, position)
        return bytes(done) + data[position:held], data[held:]

    def _beginning(self, data: bytes, position: int) -> int:
        """Return where, from `position` on, the end of `data` may begin a form; else its end."""
        if not data or data[-1] not in self._inside:
            return len(data)
        earliest = max(position, len(data) - self._reach)
        tail = data[earliest:]
        starts = (_overlap(tail, form) for form in self._forms)
        return earliest + min(starts, default=len(tail))


class MaskedStream:
    """Takes a stream in pieces; what it gives does not depend on where they were cut."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what has become certain; at most the longest form is held back."""
        done, self._held = self._mask._split(self._held + chunk)
        return done

    def end(self) -> bytes:
        """Return what was held back; hidden too, as it may be most of a value that was cut off."""
        held, self._held = self._held, b""
        return held if len(held) < SHORTEST else MASK


def _overlap(tail: bytes, form: bytes) -> int:
    """Return where the longest end of `tail` begins with which `form` begins but does not end."""
    position = tail.find(form[:1], max(0, len(tail) - len(form) + 1))
    while position >= 0 and not form.startswith(tail[position:]):
        position = tail.find(form[:1], position + 1)
    return len(tail) if position < 0 else position


def _forms(value: str) -> Iterator[bytes]:
    for text in {value, value.strip(), *(line.strip() for line in value.splitlines())}:
        if len(text) < SHORTEST:
            continue
        # Variables of the environment that are not UTF-8 hold lone surrogates.
        data = text.encode(errors="surrogateescape")
        yield data
        yield json.dumps(text)[1:-1].encode()
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogateescape")
        yield from _base64_forms(data)
        yield from _url_forms(data)


def _base64_forms(data: bytes) -> Iterator[bytes]:
    """Give the forms by itself, and as part of longer data at each alignment (`user:token`)."""
    whole = base64.b64encode(data)
    inner = [whole, whole.rstrip(b"=")]
    for lead, characters in ((0, 0), (1, 2), (2, 3)):
        coded = base64.b64encode(b"\0" * lead + data)
        # The first and last characters depend on the neighbours too.
        rest = (lead + len(data)) % 3
        inner.append(coded[characters : len(coded) - (0, 3, 2)[rest]])
    for form in inner:
        yield form
        yield form.translate(_URL_SAFE)


def _url_forms(data: bytes) -> Iterator[bytes]:
    for form in (*(quote(data, safe=safe) for safe in _UNESCAPED), quote_plus(data)):
        yield form.encode()
        yield re.sub(r"%..", lambda found: found[0].lower(), form).encode()
