import json
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.clients.jsonc import Node, Unreadable, parse
from tests.clients.documents import texts, tidy_texts


def refuse(word: str) -> NoReturn:
    raise ValueError(word)


def oracle(text: str) -> object:
    """Return what the standard library reads; it knows neither comments nor open ends."""
    return json.loads(text.removeprefix("\ufeff"), parse_int=float, parse_constant=refuse)


COMMENTED = "//\n"
"""In front of a text it makes it one that the standard library does not read."""


def places(node: Node, offset: int = 0) -> object:
    """Return where everything that can be found stands, by name."""
    members = [(each.name, each.start, places(each.node, offset)) for each in node.members or ()]
    moved = [(name, start - offset, inner) for name, start, inner in members]
    return node.start - offset, node.end - offset, node.value, moved


@given(tidy_texts())
def test_json_says_what_the_standard_library_reads(text):
    plain = text.removeprefix("\ufeff")
    assert parse(text).value == parse(COMMENTED + plain).value == oracle(text)


@given(tidy_texts())
def test_with_comments_everything_is_found_where_it_is_without(text):
    plain = text.removeprefix("\ufeff")
    assert places(parse(COMMENTED + plain), len(COMMENTED)) == places(parse(plain))


@pytest.mark.parametrize("inner", ["[" * 199 + "]" * 199, "[" * 200 + "]" * 200])
def test_both_ways_of_reading_go_equally_deep(inner):
    text = f'{{"a": {inner}}}'

    def reads(text: str) -> bool:
        try:
            return bool(parse(text))
        except Unreadable:
            return False

    assert reads(text) == reads(COMMENTED + text)


@given(texts)
def test_every_member_stands_where_it_says(text):
    for member in parse(text).members or ():
        assert json.loads(text[member.start :].partition('"')[0] + '"x"') == "x"
        assert text[member.start] == '"'
        if member.node.members is not None:
            assert text[member.node.start] + text[member.node.end - 1] == "{}"
        elif not isinstance(member.node.value, list):
            assert oracle(text[member.node.start : member.node.end]) == member.node.value


@given(
    tidy_texts(),
    st.data(),
    st.sampled_from(["", "{", "}", "[", '"', ",", ":", "\\", "0", "/", "-"]),
)
def test_a_damaged_text_is_refused_or_means_what_it_means_elsewhere(text, data, junk):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    damaged = text[:start] + junk + text[end:]
    try:
        meant = oracle(damaged)
    except ValueError:
        meant = None
    try:
        found = parse(damaged).value
    except Unreadable:
        assert not isinstance(meant, dict)
    else:
        assert meant is None or found == meant


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1, column 1: expected `{`"),
        ("[]", "line 1, column 1: expected `{`"),
        ('{"a": 1} x', "line 1, column 10: expected nothing more"),
        ('{\n  "a": 1\n  "b": 2\n}', "line 3, column 3: expected `,` or `}`"),
        ('{\n  "a" 1\n}', "line 2, column 7: expected `:`"),
        ('{"a": tru}', "line 1, column 7: expected a value"),
        ('{"a": "x\n"}', "line 1, column 7: expected a value"),
        (r'{"\u": 1}', "line 1, column 2: expected a name in double quotes, or `}`"),
        (r'{"a": "\u00g0\n"}', "line 1, column 7: expected a value"),
        (r'{"a": "\x"}', "line 1, column 7: expected a value"),
        ('{"a": NaN}', "line 1, column 7: expected a value"),
        ('{"a": 01}', "line 1, column 8: expected `,` or `}`"),
        ("{'a': 1}", "line 1, column 2: expected a name in double quotes, or `}`"),
        ('{"a": [1, 2}', "line 1, column 12: expected `,` or `]`"),
        ('{"a": 1,,}', "line 1, column 9: expected a name in double quotes, or `}`"),
        ("{,}", "line 1, column 2: expected a name in double quotes, or `}`"),
        ('{"a": [,]}', "line 1, column 8: expected a value"),
        ('{"a": 1 /* open', "line 1, column 9: expected `,` or `}`"),
        ("<<<<<<< HEAD\n{}", "line 1, column 1: expected `{`"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_told_with_its_place(text, problem):
    with pytest.raises(Unreadable) as caught:
        parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ("\ufeff{}", {}),
        ('// a\n{ /* b */ "a" /**/ : // c\n 1, }', {"a": 1}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"url": "https://x//y /* z */"}', {"url": "https://x//y /* z */"}),
        (r'{"\u0061\n\/": "\ud83d\ude00"}', {"a\n/": "\U0001f600"}),
        ('{"a": -0.5e+3, "b": true, "c": null}', {"a": -500, "b": True, "c": None}),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_comments_and_trailing_commas_are_read(text, value):
    assert parse(text).value == value


def test_a_deeply_nested_text_is_refused_before_the_stack_ends():
    with pytest.raises(Unreadable, match="nested more than 200 levels deep"):
        parse('{"a": ' + "[" * 100_000)


def test_a_large_text_is_read_in_linear_time():
    text = json.dumps({str(number): "x" * 50 for number in range(20_000)})
    assert len(parse(text).value) == 20_000
    with pytest.raises(Unreadable):
        parse('{"a": "' + "\\" * 200_001)
