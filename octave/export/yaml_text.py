"""Write YAML that every reader takes the same way: block style, and quotes wherever in doubt."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.-]*")
_TAKEN = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
"""What YAML 1.1 or 1.2 read as something else than text."""
_HIDDEN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What cannot stand in a block as it is (YAML 1.2.2, 5.1)."""


def dump(value: object) -> str:
    """Return `value`, of mappings, sequences, texts, whole numbers and truth values, as YAML."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _under(f"{_scalar(str(key))}:", item)
    elif _is_list(value) and value:
        assert isinstance(value, Sequence)
        for item in value:
            # The first line of what is nested stands behind the dash.
            first, *rest = _lines(item) if _is_nested(item) else _under("", item)
            yield f"- {first.lstrip(' ')}"
            yield from _indented(rest) if _is_nested(item) else rest
    else:
        yield _scalar(value)


def _under(head: str, item: object) -> Iterator[str]:
    if _is_nested(item):
        yield head
        yield from _indented(_lines(item))
    elif isinstance(item, str) and _is_block(item):
        yield f"{head} |"
        yield from _indented(item[:-1].split("\n"))
    else:
        yield f"{head} {_scalar(item)}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    # An empty line of a block needs no indentation, and looks cleaner without.
    yield from (f"  {line}" if line else "" for line in lines)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_nested(value: object) -> bool:
    return (isinstance(value, Mapping) or _is_list(value)) and bool(value)


def _is_block(text: str) -> bool:
    """Whether it can stand as it is, line by line: whole lines, the first one not indented."""
    is_whole = text.endswith("\n") and not text.endswith("\n\n") and text.count("\n") > 1
    return is_whole and not text.startswith((" ", "\n", "\t")) and not _UNFIT.search(text)


def _scalar(value: object) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
            return value
        # A JSON text is a YAML text, but for characters that only JSON takes as they are.
        quoted = json.dumps(value, ensure_ascii=False)
        return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    return json.dumps(value)
