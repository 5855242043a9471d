"""Words into arguments, and what a schema says."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from octave.cli.arguments import arguments_of
from octave.cli.schema import json_types, signature
from octave.errors import UsageError
from tests.cli.toolbox_forms import EVERY_TYPE


def value_of(word: str, **schema: object) -> Any:
    found = arguments_of([word], None, {"properties": {"key": schema}})
    (value,) = found.values()
    return value


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "5", "5"),
        ("string", "", ""),
        ("integer", "5", 5),
        ("integer", "-3", -3),
        ("integer", "3.5", 3.5),
        ("integer", "five", "five"),
        ("integer", "true", "true"),
        ("number", "2.50", 2.5),
        ("number", "NaN", "NaN"),
        ("number", "1e999", "1e999"),
        ("boolean", "false", False),
        ("boolean", "1", "1"),
        ("boolean", "True", "True"),
        ("null", "null", None),
        ("array", "[1,2]", [1, 2]),
        ("array", "1,2", "1,2"),
        ("object", '{"a":null}', {"a": None}),
        ("object", "[]", "[]"),
        ("mystery", "5", "5"),
    ],
)
def test_a_value_is_converted_to_the_type_the_schema_names(
    kind: str, text: str, value: object
) -> None:
    assert value_of(f"key={text}", type=kind) == value
    assert type(value_of(f"key={text}", type=kind)) is type(value)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["integer", "null"]}, "1", 1),
        ({"type": ["integer", "string"]}, "1", "1"),
        ({"anyOf": [{"type": "boolean"}, {"type": "array"}]}, "[true]", [True]),
        ({"oneOf": [{"type": "number"}, {"type": "string"}]}, "1", "1"),
        ({"enum": [1, 2]}, "2", 2),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({"const": True}, "true", True),
        ({}, "1", "1"),
        ({"type": 5, "anyOf": {}, "enum": "x"}, "1", "1"),
        ({"type": [[], None, "integer"]}, "1", 1),
    ],
)
def test_unions_and_enumerations_are_understood(
    schema: dict[str, object], text: str, value: object
) -> None:
    assert value_of(f"key={text}", **schema) == value


def test_references_are_followed_and_those_that_lead_nowhere_say_nothing() -> None:
    schema = {
        "properties": {
            **{"point": {"$ref": "#/$defs/a~1b"}, "loop": {"$ref": "#/$defs/loop"}},
            **{"lost": {"$ref": "#/nowhere/at/all"}, "away": {"$ref": "https://example.com/x"}},
            "wide": {"$ref": "#/$defs/wide"},
        },
        "$defs": {
            "a/b": {"type": "object"},
            "loop": {"$ref": "#/$defs/loop"},
            "wide": {"anyOf": [{"$ref": "#/$defs/wide"}] * 100},
        },
    }
    words = ["point={}", "loop=1", "lost=1", "away=1", "wide=1"]

    assert arguments_of(words, None, schema) == {
        **{"point": {}, "loop": "1", "lost": "1", "away": "1", "wide": "1"}
    }


@pytest.mark.parametrize("schema", [None, True, [], {}, {"properties": []}, {"properties": None}])
def test_without_a_usable_schema_values_stay_text(schema: object) -> None:
    assert arguments_of(["a=1", "b=x=y", "c:d=", "e=="], None, schema) == {
        **{"a": "1", "b": "x=y", "c:d": "", "e": "="}
    }


def test_json_values_are_taken_as_they_are_and_later_words_win() -> None:
    words = ["a:=null", "b:=1", "b:=[1.5]", 'c:="@x"', 'd:="\\ud800"']

    assert arguments_of(words, None, {}) == {"a": None, "b": [1.5], "c": "@x", "d": "\ud800"}


def test_a_file_s_text_is_the_value_and_is_converted_like_one(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'\xef\xbb\xbf{"a":\r\n1}')
    schema = {"properties": {"o": {"type": "object"}}}

    assert arguments_of([f"s=@{file}", f"o=@{file}"], None, schema) == {
        **{"s": '{"a":\r\n1}', "o": {"a": 1}}
    }


@pytest.mark.parametrize(
    ("text", "value"), [('{"a": {"b": []}}', {"a": {"b": []}}), ("{}", {}), (" {} ", {})]
)
def test_args_is_a_json_object(text: str, value: object) -> None:
    assert arguments_of([], text, {}) == value


def test_args_from_standard_input_are_utf_8_whatever_the_locale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = io.BytesIO('{"a": "é"}'.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content, encoding="ascii"))

    assert arguments_of(["b=1"], "-", {}) == {"a": "é", "b": "1"}


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        (["hello"], None, "`hello` is no argument"),
        (["=x"], None, "`=x` is no argument"),
        ([":=1"], None, "`:=1` is no argument"),
        (["a:=x"], None, "`a:=x`: no JSON after `:=`: Expecting value: line 1 column 1 (char 0)"),
        (["a:=NaN"], None, "`a:=NaN`: no JSON after `:=`: NaN is not JSON"),
        (["a:=-1e999"], None, "`a:=-1e999`: no JSON after `:=`: -1e999 is too large"),
        (["a:=" + "[" * 99999], None, "no JSON after `:=`: it is nested too deeply"),
        (["a=\udcff"], None, "is no UTF-8 text"),
        (["a=@/no/file"], None, "`a=@/no/file`: cannot read the file: No such file or directory"),
        (["a=@/"], None, "cannot read the file: Is a directory"),
        (["a=@~nobody-of-that-name/x"], None, "cannot read the file: "),
        ([], "[1]", "`--args` must be a JSON object"),
        ([], "{", "`--args` is no JSON: "),
        ([], '{"a": Infinity}', "`--args` is no JSON: Infinity is not JSON"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error_with_a_hint(
    words: list[str], text: str | None, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        arguments_of(words, text, {})

    assert message in caught.value.message
    assert caught.value.hint


def test_the_hint_of_a_missing_file_tells_how_to_say_an_at_sign() -> None:
    with pytest.raises(UsageError) as caught:
        arguments_of(["to=@someone"], None, {})

    assert caught.value.hint == "a text that begins with `@` is given as to:='\"@someone\"'"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe")

    with pytest.raises(UsageError, match="cannot read the file: 'utf-8' codec"):
        arguments_of([f"a=@{tmp_path}/f"], None, {})


# Signatures.


def test_a_signature_names_every_argument_with_its_type_required_ones_first() -> None:
    assert signature("t", EVERY_TYPE) == (
        "t(text: string, whole: integer, number?: number, flag?: boolean, nothing?: null,"
        " list?: string[], object?: object, maybe?: integer | null, loose?: integer | string,"
        ' level?: 1 | 2 | 3, colour?: "red" | "blue", point?: object, free?: any)'
    )


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "array"}, "any[]"),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
            "integer[][]",
        ),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"const": 3}, "3"),
        ({"enum": list(range(9))}, "0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | ..."),
        ({"anyOf": [{"type": "string"}, {"type": "string"}, {}]}, "string | any"),
        ({"$ref": "#/$defs/List"}, "List[]"),
        ({"$ref": "#/$defs/Gone"}, "any"),
        ({"type": 7}, "7"),
        (False, "any"),
        ({"enum": 5, "anyOf": 5}, "any"),
    ],
)
def test_types_are_shown_as_one_would_write_them(schema: object, shown: str) -> None:
    root = {
        "properties": {"k": schema},
        "$defs": {"List": {"type": "array", "items": {"$ref": "#/$defs/List"}}},
    }

    assert signature("t", root) == f"t(k?: {shown})"


@pytest.mark.parametrize(
    "schema",
    [None, 5, {}, {"properties": 5}, {"properties": {}, "required": 5}, {"required": [[], {}]}],
)
def test_a_schema_that_says_nothing_is_a_tool_without_arguments(schema: object) -> None:
    assert signature("t", schema) == "t()"


def test_a_schema_nested_without_end_costs_neither_time_nor_the_program() -> None:
    deep: dict[str, Any] = {"type": "array"}
    for _ in range(900):
        deep = {"type": "array", "items": deep, "anyOf": [deep]}

    assert signature("t", {"properties": {"k": deep}}).endswith("any[]" + "[]" * 16 + ")")
    assert json_types(deep, {}) == {"array"}
