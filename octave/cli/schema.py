"""What the JSON Schema of a tool's input says plainly: types to convert by, a signature to read.

Schemas are written by servers: any part may be missing, of another type, or refer to itself.
"""

import json
from typing import Any

DEEPEST = 16
"""Nesting and chains of references beyond this are no help to anybody, and may be endless."""
MOST_PARTS = 256
"""So many parts of a union are looked at: one may contain itself, many times over."""
ENUM_SHOWN = 8
"""More values of an enumeration make a signature harder to read, not easier."""
_UNIONS = ("anyOf", "oneOf", "allOf")


def properties_of(schema: Any) -> dict[str, Any]:
    """Return the schemas of the named arguments; none when the schema does not say."""
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def json_types(schema: Any, root: Any) -> set[str]:
    """Return the JSON types that `schema`, a part of `root`, admits; empty: it does not say."""
    found: set[str] = set()
    waiting, seen = [schema], 0
    while waiting and seen < MOST_PARTS:
        seen += 1
        part = _resolved(waiting.pop(), root)
        if not isinstance(part, dict):
            continue
        named = part.get("type")
        found.update(name for name in _list(named) or [named] if isinstance(name, str))
        found.update(_json_type(value) for value in _list(part.get("enum")))
        if "const" in part:
            found.add(_json_type(part["const"]))
        for key in _UNIONS:
            waiting += _list(part.get(key))
    return found


def signature(name: str, schema: Any) -> str:
    """Return `name(key: type, optional?: type)`, what is required first."""
    properties = properties_of(schema)
    needed = _list(schema.get("required")) if isinstance(schema, dict) else []
    shown = [
        f"{key}{'' if key in needed else '?'}: {_type_name(value, schema)}"
        for key, value in sorted(properties.items(), key=lambda item: item[0] not in needed)
    ]
    return f"{name}({', '.join(shown)})"


def _type_name(schema: Any, root: Any, depth: int = 0) -> str:
    if not isinstance(schema, dict) or depth > DEEPEST:
        return "any"
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if root is None:
            return reference.rpartition("/")[2]
        # One step only: definitions that refer to each other have endless names.
        return _type_name(_resolved(schema, root), None, depth + 1)
    values = _list(schema.get("enum")) or ([schema["const"]] if "const" in schema else [])
    if values:
        shown = [json.dumps(value, ensure_ascii=False) for value in values[:ENUM_SHOWN]]
        return " | ".join(shown + ["..."] * (len(values) > ENUM_SHOWN))
    named = schema.get("type")
    if named == "array":
        item = _type_name(schema.get("items"), root, depth + 1)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if isinstance(named, list):
        return " | ".join(map(str, named))
    for key in _UNIONS:
        if choices := _list(schema.get(key)):
            names = (_type_name(choice, root, depth + 1) for choice in choices)
            return " | ".join(dict.fromkeys(names))
    return str(named or "any")


def _resolved(schema: Any, root: Any) -> Any:
    """Return what a `$ref` into `root` stands for; other schemas are themselves."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str):
            return schema
        schema = _at(root, reference)
    return None


def _at(root: Any, reference: str) -> Any:
    """Follow a JSON pointer (RFC 6901) such as `#/$defs/Colour`; None when it leads nowhere."""
    start, *steps = reference.split("/")
    found = root if start == "#" else None
    for step in steps:
        key = step.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _json_type(value: Any) -> str:
    for kind, name in (
        (str, "string"),
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, kind):
            return name
    return "null"
