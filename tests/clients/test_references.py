from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.clients.references import Copied, Question, Surroundings, Unclear, meaning
from octave.settings import Reference

ASKED = Question("key", "Your key", secret=True)
HERE = Surroundings({"SET": "value", "EMPTY": ""}, Path("/u"), Path("/p/q"), {"key": ASKED})
NOWHERE = Surroundings({}, Path("/u"))


@pytest.mark.parametrize(
    ("text", "syntax", "expected"),
    [
        ("plain", "shell", "plain"),
        ("${SET}", "plain", "${SET}"),
        ("${SET}", "shell", Reference("env", "SET")),
        ("${UNSET}", "shell", Reference("env", "UNSET")),
        ("${SET:-other}", "shell", Reference("env", "SET")),
        ("${UNSET:-other}", "shell", "other"),
        ("${EMPTY:-other}", "shell", "other"),
        ("a ${SET} b ${UNSET:-c}", "shell", Copied("a value b c", ("SET", "UNSET"))),
        ("$SET", "shell", "$SET"),
        ("$SET", "dollar", Reference("env", "SET")),
        ("${SET}", "dollar", Reference("env", "SET")),
        ("Bearer $SET", "dollar", Copied("Bearer value", ("SET",))),
        ("${SET}", "braces", "${SET}"),
        ("${env:SET}", "braces", Reference("env", "SET")),
        ("x${env:SET}", "braces", Copied("xvalue", ("SET",))),
        ("${userHome}${/}x", "braces", "/u/x"),
        ("${workspaceFolder}/x", "braces", "/p/q/x"),
        ("${workspaceFolderBasename}", "braces", "q"),
        ("${input:key}", "braces", ASKED),
        ("Bearer ${input:key}!", "braces", Question("key", "Your key", True, None, "Bearer ", "!")),
        ("${input:other}", "braces", None),
        ("${input:key}${env:SET}", "braces", None),
        ("${command:x}", "braces", None),
        ("${whatever}", "braces", None),
        ("x ${UNSET}", "shell", None),
        ("${env:a b}", "braces", None),
    ],
)
def test_references_are_read_as_each_tool_writes_them(text, syntax, expected):
    if expected is None:
        with pytest.raises(Unclear):
            meaning(text, syntax, HERE)
    else:
        assert meaning(text, syntax, HERE) == expected


def test_an_open_folder_is_not_known_for_all_projects():
    with pytest.raises(Unclear, match="depends on the folder that is open"):
        meaning("${workspaceFolder}", "braces", NOWHERE)


@given(st.text(), st.sampled_from(["plain", "shell", "dollar", "braces"]))
def test_any_text_is_read_or_refused(text, syntax):
    try:
        found = meaning(text, syntax, NOWHERE)
    except Unclear:
        return
    assert "$" in text or found == text


def test_a_copy_is_not_shown():
    assert "value" not in repr(meaning("a ${SET}", "shell", HERE))
