import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.packages.toml_edit import drop, key_text, set_keys, value_text

TWO = """\
# mine
[servers.x]
package = "npm:x" # why
env = { A = "1" } # e

# the y server
[servers.y]
package = "npm:y"
[servers.y.env]
B = "2"

# end
"""


def test_a_value_is_replaced_where_it_stands():
    after = set_keys(TWO, ("servers", "x"), {"package": "npm:z"})
    assert after == TWO.replace('"npm:x" # why', '"npm:z" # why')


def test_a_new_key_goes_to_the_lines_of_its_table():
    after = set_keys(TWO, ("servers", "x"), {"enabled": False})
    assert after == TWO.replace("# e\n\n", "# e\nenabled = false\n\n")


def test_a_table_of_its_own_is_replaced_by_a_key():
    after = set_keys(TWO, ("servers", "y"), {"env": {"C": "3"}})
    assert after == TWO.replace(
        'package = "npm:y"\n[servers.y.env]\nB = "2"\n', 'package = "npm:y"\nenv = {C = "3"}\n'
    )


def test_a_new_table_goes_to_the_end():
    after = set_keys(TWO, ("servers", "new-one"), {"package": "npm:n", "args": ["a", "b"]})
    assert after == TWO + '\n[servers.new-one]\npackage = "npm:n"\nargs = ["a", "b"]\n'


def test_what_is_added_and_dropped_again_leaves_no_trace():
    assert drop(set_keys(TWO, ("servers", "new"), {"a": 1}), ("servers", "new")) == TWO


def test_a_dropped_table_takes_its_parts_and_no_comment_of_others():
    assert drop(TWO, ("servers", "x")) == TWO.replace(
        '[servers.x]\npackage = "npm:x" # why\nenv = { A = "1" } # e\n', ""
    )
    assert drop(TWO, ("servers", "y")) == TWO.replace(
        '[servers.y]\npackage = "npm:y"\n[servers.y.env]\nB = "2"\n', ""
    )


def test_dropping_between_blank_lines_leaves_one():
    text = "[a]\nx = 1\n\n[b]\ny = 1\n\n[c]\nz = 1\n"
    assert drop(text, ("b",)) == "[a]\nx = 1\n\n[c]\nz = 1\n"


def test_a_table_whose_parts_stand_apart_is_dropped_as_a_whole():
    text = "[s.x]\na = 1\n[r]\nb = 1\n[s.x.env]\nc = 1\n"
    assert drop(text, ("s", "x")) == "[r]\nb = 1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("s.x.a = 1\n[r]\n", "s.x.a = 1\ns.x.b = 2\n[r]\n"),
        ("[s]\n  x.a = 1\n", "[s]\n  x.a = 1\n  x.b = 2\n"),
        ("[s]\nx = { a = 1 } # c\n", "[s]\nx = {a = 1, b = 2} # c\n"),
        ("s = { x = { a = 1 } }\n", "s = {x = {a = 1, b = 2}}\n"),
        ("s = {}", "s = {x = {b = 2}}"),
        ("[s.x]", "[s.x]\nb = 2\n"),
        ("[s.x]\nb.c = 1\nb.d = 1\na = 1\n", "[s.x]\na = 1\nb = 2\n"),
        ("[s.x.env]\nc = 1\n", "[s.x.env]\nc = 1\n\n[s.x]\nb = 2\n"),
        ("[s.x]\r\na = 1\r\n", "[s.x]\r\na = 1\r\nb = 2\r\n"),
        ("[r]\r\na = 1\r\n", "[r]\r\na = 1\r\n\r\n[s.x]\r\nb = 2\r\n"),
        ("[r]\na = 1", "[r]\na = 1\n\n[s.x]\nb = 2\n"),
        ("", "[s.x]\nb = 2\n"),
        ('["s"."x"]\nb = """\n"""\n', '["s"."x"]\nb = 2\n'),
    ],
)
def test_every_way_to_write_a_table_can_be_edited(before, after):
    assert set_keys(before, ("s", "x"), {"b": 2}) == after
    tomllib.loads(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("s.x.a = 1\ns.y.a = 1\n", "s.y.a = 1\n"),
        ("[s]\nx = { a = 1 }\ny = 1\n", "[s]\ny = 1\n"),
        ("s = { x = { a = 1 }, y = 1 }\n", "s = {y = 1}\n"),
        ("[s.x]\na = 1", ""),
        ("[s.y]\n", "[s.y]\n"),
    ],
)
def test_every_way_to_write_a_table_can_be_dropped(before, after):
    assert drop(before, ("s", "x")) == after


NAMES = st.sampled_from(["a", "b", "c d", 'e"'])
ITEMS = st.integers(0, 9) | st.sampled_from(["x", "[y]", "# z", "a\nb"])
TABLES = st.dictionaries(NAMES, st.dictionaries(NAMES, ITEMS, max_size=3), max_size=4)
LAYOUTS = st.sampled_from(["header", "dotted", "inline", "array"])


def _write(tables, layouts):
    """Write `{"s": tables}`, each table in one of the ways there are, with comments between."""
    dotted, headers = [], []
    for number, (name, keys) in enumerate(tables.items()):
        layout = layouts[number % len(layouts)]
        key = f"s.{key_text(name)}"
        lines = [f"{key_text(k)} = {value_text(v)}" for k, v in keys.items()]
        if layout == "dotted" and keys:
            dotted += [f"{key}.{line} # {number}" for line in lines]
        elif layout == "inline":
            dotted.append(f"{key} = {value_text(keys)}")
        else:
            headers += [f"# about {number}", f"[{key}]", *lines, "", f"# after {number}"]
    return "\n".join([*dotted, "", *headers]) + "\n"


@given(TABLES, st.lists(LAYOUTS, min_size=1), NAMES, st.dictionaries(NAMES, ITEMS, max_size=2))
def test_an_edit_changes_what_it_is_about_and_nothing_else(tables, layouts, name, keys):
    before = _write(tables, layouts)
    expected = {key: dict(table) for key, table in tables.items()}
    expected.setdefault(name, {}).update(keys)
    after = set_keys(before, ("s", name), keys)
    assert tomllib.loads(after).get("s", {}) == expected
    for line in before.splitlines():
        if line.startswith("#"):
            assert line in after

    dropped = drop(before, ("s", name))
    del expected[name]
    assert tomllib.loads(dropped).get("s", {}) == expected
    for line in before.splitlines():
        if line.startswith("#"):
            assert line in dropped
