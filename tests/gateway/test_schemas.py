"""What breaks clients is told in words; whatever is legal, and harmless nonsense, is let pass."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped] # no types

from octave.gateway.schemas import (
    DEFINITION_BYTES,
    DIGITS,
    NESTING_LEVELS,
    PARTS,
    REASON_CHARS,
    problem,
    readable,
)

OBJECT = {"type": "object"}


def of(schema: Any = OBJECT, **more: Any) -> str | None:
    return problem(json.dumps({"name": "a", "inputSchema": schema, **more}).encode())


def below(schema: Any) -> str | None:
    return of({"type": "object", "properties": {"a": schema}})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#"},
        {"$ref": "https://example.invalid/schema.json"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "unknown": [None]},
        {"type": ["string", "null"], "enum": [None, "a"], "const": None, "default": None},
        {"items": [{"type": "string"}, True]},
        {"items": {"type": "string"}, "prefixItems": [True, {}], "contains": False},
        {"properties": {"required": {"type": "boolean"}, "type": True, "properties": {}}},
        {"additionalProperties": False, "not": {}, "anyOf": [{}, True], "minimum": 1.5},
        {"type": "whatever", "minLength": -1, "description": None, "pattern": "("},
    ],
)
def test_what_is_legal_or_of_no_consequence_is_no_problem(schema: object) -> None:
    assert below(schema) is None


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("properties", None, "null, not an object"),
        ("properties", [], "an array, not an object"),
        ("$defs", "x", "a string, not an object"),
        ("required", "x", "a string, not an array of strings"),
        ("required", True, "a boolean, not an array of strings"),
        ("required", [1], "an array, not an array of strings"),
        ("type", 7, "a number, not a string or an array of strings"),
        ("type", [None], "an array, not a string or an array of strings"),
        ("enum", {}, "an object, not an array"),
        ("anyOf", {}, "an object, not an array"),
        ("items", None, "null, not a schema"),
        ("items", [{}, 1], "an array, not a schema"),
        ("additionalProperties", "no", "a string, not a schema"),
        ("$ref", None, "null, not a string"),
        ("maximum", "3", "a string, not a number"),
        ("maxLength", True, "a boolean, not a number"),
    ],
)
def test_keyword_of_a_plainly_wrong_type_is_named_with_its_place(
    keyword: str, value: object, reason: str
) -> None:
    assert of({"type": "object", keyword: value}) in {
        f"`inputSchema.{keyword}` is {reason}",
        'the `type` of `inputSchema` is not "object"',
    }
    assert below({keyword: value}) == f"`inputSchema.properties.a.{keyword}` is {reason}"
    assert below({"allOf": [{}, {"not": {"items": [{keyword: value}]}}]}) == (
        f"`inputSchema.properties.a.allOf[1].not.items[0].{keyword}` is {reason}"
    )
    assert of(outputSchema={"type": "object", "$defs": {"b": {keyword: value}}}) == (
        f"`outputSchema.$defs.b.{keyword}` is {reason}"
    )


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (b"null", "its definition is not an object"),
        (b"[]", "its definition is not an object"),
        (b"{", "its definition is not JSON"),
        (b"{}", "it has no usable name"),
        (b'{"name":""}', "it has no usable name"),
        (b'{"name":"a"}', "it has no `inputSchema`"),
        (b'{"name":"a","inputSchema":null}', "`inputSchema` is null, not an object"),
        (b'{"name":"a","inputSchema":{}}', 'the `type` of `inputSchema` is not "object"'),
    ],
)
def test_definition_that_is_none_is_told(definition: bytes, reason: str) -> None:
    assert problem(definition) == reason


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("title", None, "`title` is null, not a string"),
        ("description", 5, "`description` is a number, not a string"),
        ("annotations", [], "`annotations` is an array, not an object"),
        ("icons", [None], "`icons` is an array, not an array of objects"),
        ("_meta", None, "`_meta` is null, not an object"),
        ("outputSchema", None, "`outputSchema` is null, not an object"),
        ("outputSchema", {}, 'the `type` of `outputSchema` is not "object"'),
    ],
)
def test_member_of_a_wrong_type_is_told(member: str, value: object, reason: str) -> None:
    assert of(**{member: value}) == reason


def test_property_must_be_an_object_at_the_top() -> None:
    assert below(True) == "`inputSchema.properties.a` is a boolean, not an object"
    assert of({"type": "object", "properties": {"a": {"properties": {"b": True}}}}) is None


def test_nesting_is_bounded_wherever_it_is() -> None:
    levels = NESTING_LEVELS - 3
    assert below({"default": json.loads("[" * (levels - 1) + "]" * (levels - 1))}) is None
    assert below({"default": json.loads("[" * levels + "]" * levels)}) == (
        "its definition is nested deeper than 120 levels"
    )
    bomb = b'{"name":"a","inputSchema":' + b'{"not":' * 9_000 + b"{}" + b"}" * 9_001
    assert problem(bomb) == "its definition is nested deeper than 120 levels"


def test_size_and_numbers_are_bounded() -> None:
    assert of(x="x" * (DEFINITION_BYTES // 2)) is None
    assert "is too large" in (of(x="x" * DEFINITION_BYTES) or "")
    assert of({"type": "object", "allOf": [{}] * (PARTS - 3)}) is None
    assert of({"type": "object", "allOf": [{}] * PARTS}) == (
        "its definition has more than 10,000 objects and arrays"
    )
    number = b'{"name":"a","inputSchema":{"type":"object","maximum":%b}}'
    assert problem(number % (b"9" * DIGITS)) is None
    assert problem(number % (b"9" * (DIGITS + 1))) == (
        "its definition has a number of more than 4,300 digits"
    )


def test_reason_is_short_and_safe_whatever_the_names_are() -> None:
    deep: object = {"type": 1}
    for _ in range(10):
        deep = {"properties": {"\x1b\ud800" + "x" * 1000: deep}}
    reason = of({"type": "object", "allOf": [deep]}) or ""
    assert len(reason) <= REASON_CHARS + len(" ... ")
    assert reason.isascii()
    assert reason.isprintable()
    assert reason.endswith(".type` is a number, not a string or an array of strings")


def test_what_python_refuses_is_its_name_alone() -> None:
    assert readable(b'{"name":"a","n":1.10}') == b'{"name":"a","n":1.10}'
    assert readable(b'{"name":"a","n":%b}' % (b"9" * (DIGITS + 1))) == b'{"name":"a"}'
    assert readable(b'{"n":%b}' % (b"9" * (DIGITS + 1))) == b'{"name":null}'


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from(["object", "string", "#", "a"])
    | st.sampled_from([["a"], ["string", "null"], [], {}])
)
_KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "required", "items", "anyOf", "allOf", "not", "enum", "$ref"),
        *("$defs", "definitions", "additionalProperties", "minLength", "maximum", "a", "const"),
        *("patternProperties", "prefixItems", "if", "dependentSchemas", "format", "minContains"),
    ]
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.dictionaries(_KEYWORDS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(schema=_SCHEMAS)
def test_every_schema_that_the_standard_takes_is_taken(schema: object) -> None:
    wrapped = {"type": "object", "properties": {"a": {"not": schema}}}
    try:
        Draft202012Validator.check_schema(wrapped)
    except SchemaError:
        of(wrapped)
    else:
        assert of(wrapped) is None
