"""Members of JSON objects taken away and added, as text: all else stays as it was written. Pure."""

import json
from collections.abc import Collection

from octave.runtime import json_text


def without(text: bytes, names: Collection[str]) -> bytes:
    """Return a JSON object without the members of those names; its own text if it has none."""
    found = list(json_text.members(text))
    if not any(key in names for key, _, _ in found):
        return text
    kept = ((key, text[start:end]) for key, start, end in found if key not in names)
    return b"{%b}" % b",".join(b"%b:%b" % (json.dumps(key).encode(), value) for key, value in kept)


def with_first(text: bytes, members: bytes) -> bytes:
    """Return a JSON object with further members, raw and without braces, in front of its own."""
    rest = text.strip()[1:].lstrip()
    return b"{%b%b" % (members, rest if rest.startswith(b"}") else b"," + rest)
