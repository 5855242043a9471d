import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.packages.toml_edit import key_text, value_text
from octave.packages.toml_text import locate, scan, syntax_place

DOCUMENT = '''\
# comment
top = 1
"quoted key" = 'x' # [not.a.header]

[a]
x.y = "1"  # dotted
list = [
  "one", # first
  { k = "v", deep = { n = 1 } },
  """
multi " line ]
""",
]
[a.b."c.d"]
date = 1979-05-27 07:32:00
  indented = true
[[many]]
n = 1
[[many]]
n = 2
[many.sub]
m = \'\'\'it's\'\'\'\'
'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("top",), (2, 1)),
        (("quoted key",), (3, 1)),
        (("a",), (5, 1)),
        (("a", "x"), (6, 1)),
        (("a", "x", "y"), (6, 3)),
        (("a", "list", 0), (8, 3)),
        (("a", "list", 1, "k"), (9, 5)),
        (("a", "list", 1, "deep", "n"), (9, 23)),
        (("a", "list", 2), (10, 3)),
        (("a", "b"), (14, 1)),
        (("a", "b", "c.d", "date"), (15, 1)),
        (("a", "b", "c.d", "indented"), (16, 3)),
        (("many",), (17, 1)),
        (("many", 0, "n"), (18, 1)),
        (("many", 1), (19, 1)),
        (("many", 1, "n"), (20, 1)),
        (("many", 1, "sub", "m"), (22, 1)),
        (("a", "nothing"), (5, 1)),
        (("nothing",), (1, 1)),
    ],
)
def test_a_key_is_found_wherever_it_stands(path, place):
    tomllib.loads(DOCUMENT)
    assert locate(DOCUMENT, path) == place


def test_places_do_not_depend_on_the_line_breaks():
    crlf = DOCUMENT.replace("\n", "\r\n")
    tomllib.loads(crlf)
    assert locate(crlf, ("many", 1, "sub", "m")) == (22, 1)


def test_statements_cover_their_lines_and_values():
    shown = [
        (statement.path, statement.value and DOCUMENT[slice(*statement.value)][:6])
        for statement in scan(DOCUMENT)
    ]
    assert shown == [
        (("top",), "1"),
        (("quoted key",), "'x'"),
        (("a",), None),
        (("a", "x", "y"), '"1"'),
        (("a", "list"), '[\n  "o'),
        (("a", "b", "c.d"), None),
        (("a", "b", "c.d", "date"), "1979-0"),
        (("a", "b", "c.d", "indented"), "true"),
        (("many", 0), None),
        (("many", 0, "n"), "1"),
        (("many", 1), None),
        (("many", 1, "n"), "2"),
        (("many", 1, "sub"), None),
        (("many", 1, "sub", "m"), "'''it'"),
    ]
    assert "".join(DOCUMENT[s.start : s.end] for s in scan(DOCUMENT)) == DOCUMENT.replace(
        "# comment\n", ""
    ).replace("\n\n", "\n")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(TEXT, VALUES)
def test_what_is_written_is_what_is_read(key, value):
    text = f"{key_text(key)} = {value_text(value)}"
    assert "\n" not in text
    assert tomllib.loads(text) == {key: value}


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_every_key_of_a_written_document_is_found_at_its_place(document):
    lines = [f"{key_text(key)} = {value_text(value)}\n" for key, value in document.items()]
    text = "".join(lines)
    assert [statement.path for statement in scan(text)] == [(key,) for key in document]
    for number, key in enumerate(document, 1):
        assert locate(text, (key,)) == (number, 1)


def test_a_value_toml_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="TOML cannot hold NoneType"):
        value_text(None)
    with pytest.raises(ValueError, match="surrogates"):
        value_text("\ud800")


@pytest.mark.parametrize(
    ("text", "place"), [("a = 1\nb = \n", (2, 5)), ("a = ", (1, 5)), ("x = [1,\n", (2, 1))]
)
def test_a_syntax_error_has_a_place_and_a_message_without_it(text, place):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    message, line, column = syntax_place(caught.value, text)
    assert (line, column) == place
    assert "(at" not in message
