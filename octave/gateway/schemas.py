"""Why AI tools could not use the definition of a tool, if so.

One definition that a client's parser refuses takes all tools of all servers from it. What decides
is what MCP 2025-11-25 (schema.ts, `Tool`) and JSON Schema 2020-12 say of the type of each member,
as the official SDKs and model APIs enforce it; what merely is of no sense is let pass. References
are never followed, whether they lead into the document or elsewhere. Pure; nothing recurses.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from octave.runtime import nesting, wire

DEFINITION_BYTES = 256 * 1024
"""Some 65,000 tokens of a model's context for one tool; everyday servers need up to 6 KB."""
NESTING_LEVELS = 120
"""The Rust SDK's parser refuses a message nested deeper than 128 levels, the Python SDK's deeper
than 200 (some 60 and 95 schemas with properties, one in the other); the envelope has 4."""
PARTS = 10_000
"""Objects and arrays in one definition; everyday tools have some hundred. A look at each of them
takes time, which thousands of tools have together."""
DIGITS = 4300
"""Python's parser refuses a whole text for one longer integer."""
REASON_CHARS = 200
"""Names in a schema may be as long as it is."""

Fits = Callable[[Any], bool]
Place = tuple[str | int, ...]
"""Keywords, keys and positions, outermost first."""


def problem(definition: bytes) -> str | None:
    """Return what is wrong with the raw definition of a tool, as words that follow its name."""
    if len(definition) > DEFINITION_BYTES:
        return f"its definition of {len(definition):,} bytes is too large ({DEFINITION_BYTES:,})"
    if definition.count(b"{") + definition.count(b"[") > PARTS:
        return f"its definition has more than {PARTS:,} objects and arrays"
    if nesting.is_deeper(definition, NESTING_LEVELS):
        return f"its definition is nested deeper than {NESTING_LEVELS} levels"
    try:
        found = _DECODER.decode(definition.decode())
    except OverflowError:
        return f"its definition has a number of more than {DIGITS:,} digits"
    except ValueError:
        return "its definition is not JSON"
    if not isinstance(found, dict):
        return "its definition is not an object"
    reason = next(_problems(found), None)
    if reason is None or len(reason) <= REASON_CHARS:
        return reason
    return f"{reason[: REASON_CHARS // 2]} ... {reason[-REASON_CHARS // 2 :]}"


def readable(definition: bytes) -> bytes:
    """Return a raw definition, or its name alone where Python's parser would refuse it."""
    try:
        json.loads(definition)
    except (ValueError, RecursionError):
        return b'{"name":%b}' % (wire.member(definition, "name") or b"null")
    return definition


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise OverflowError
    return 0


_DECODER = json.JSONDecoder(parse_int=_integer)


def _is(kind: type) -> Fits:
    return lambda value: isinstance(value, kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _are(fits: Fits) -> Fits:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_one_or_many(fits: Fits) -> Fits:
    return lambda value: fits(value) or _are(fits)(value)


_is_text = _is(str)
_MEMBERS: Mapping[str, tuple[str, Fits]] = {
    "title": ("a string", _is_text),
    "description": ("a string", _is_text),
    "annotations": ("an object", _is(dict)),
    "execution": ("an object", _is(dict)),
    "icons": ("an array of objects", _are(_is(dict))),
    "_meta": ("an object", _is(dict)),
}
"""Of a definition, those that need not be there, and what they are if they are."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ARRAYS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = (
    *("additionalProperties", "propertyNames", "unevaluatedProperties", "unevaluatedItems"),
    *("not", "if", "then", "else", "contains"),
)
_TEXTS = ("$ref", "$dynamicRef", "$id", "$schema", "pattern", "format")
_NUMBERS = (
    *("minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "minContains", "maxContains"),
)
_KEYWORDS: Mapping[str, tuple[str, Fits]] = {
    **dict.fromkeys(_MAPS, ("an object", _is(dict))),
    **dict.fromkeys(_ARRAYS, ("an array", _is(list))),
    **dict.fromkeys(_SCHEMAS, ("a schema", _is_schema)),
    **dict.fromkeys(_TEXTS, ("a string", _is_text)),
    **dict.fromkeys(_NUMBERS, ("a number", _is_number)),
    # The array is older than 2020-12, and still in use.
    "items": ("a schema", _is_one_or_many(_is_schema)),
    "required": ("an array of strings", _are(_is_text)),
    "enum": ("an array", _is(list)),
    "type": ("a string or an array of strings", _is_one_or_many(_is_text)),
}
"""Of a schema, those that steer, and what they are if they are there."""
_WITH_PARTS = frozenset((*_MAPS, *_ARRAYS, *_SCHEMAS, "items"))


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong. For the first: what follows it may expect that all before was right."""
    if not found.get("name") or not isinstance(found["name"], str):
        yield "it has no usable name"
    for member, (wanted, fits) in _MEMBERS.items():
        if member in found and not fits(found[member]):
            yield _mismatch(member, found[member], wanted)
    if "inputSchema" not in found:
        yield "it has no `inputSchema`"
    for member in ("inputSchema", "outputSchema"):
        if member in found:
            yield from _root_problems(member, found[member])


def _root_problems(name: str, schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield _mismatch(name, schema, "an object")
        return
    if schema.get("type") != "object":
        yield f'the `type` of `{name}` is not "object"'
    yield from _schema_problems(name, schema)
    for key, value in schema.get("properties", {}).items():
        # A boolean is a schema; the official TypeScript SDK takes none here.
        if not isinstance(value, dict):
            yield _mismatch(_path((name, "properties", key)), value, "an object")


def _schema_problems(name: str, schema: Any) -> Iterator[str]:
    waiting: list[tuple[Place, Any]] = [((name,), schema)]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, dict):
            for keyword, value in part.items():
                known = _KEYWORDS.get(keyword)
                if known is not None and not known[1](value):
                    yield _mismatch(_path((*place, keyword)), value, known[0])
            waiting += _parts(place, part)
        elif not isinstance(part, bool):
            yield _mismatch(_path(place), part, "a schema")


def _parts(place: Place, schema: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Yield the schemas inside of one whose keywords are of the right types, and their places."""
    for keyword, value in schema.items():
        if keyword not in _WITH_PARTS:
            continue
        if keyword in _MAPS:
            for key, part in value.items():
                yield (*place, keyword, key), part
        elif isinstance(value, list):
            for number, part in enumerate(value):
                yield (*place, keyword, number), part
        else:
            yield (*place, keyword), value


_KINDS: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _path(place: Place) -> str:
    # Escaped as JSON has it: a key may hold what is not to be written into a log, or cannot be.
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{json.dumps(step[:REASON_CHARS])[1:-1]}"
        for step in place
    )
    return "".join(steps).removeprefix(".")


def _mismatch(where: str, value: Any, wanted: str) -> str:
    return f"`{where}` is {_kind(value)}, not {wanted}"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")
