from pathlib import Path

import pytest

from octave.clients.diff import difference

FILE = Path("/home/me/.claude.json")


def test_only_the_lines_that_differ_are_shown():
    before = '{\n  "token": "secret",\n  "a": 1\n}\n'
    after = '{\n  "token": "secret",\n  "b": 2,\n  "c": 3,\n  "a": 1\n}\n'
    assert difference(FILE, before, after) == (
        f'--- {FILE}\n+++ {FILE}\n@@ -2,0 +3,2 @@\n+  "b": 2,\n+  "c": 3,\n'
    )


def test_of_a_single_line_only_the_surroundings_of_the_change_are_shown():
    before = '{"oauth":{"token":"' + "s" * 100 + '"},"mcpServers":{"x":{}},"z":"' + "t" * 100 + '"}'
    after = before.replace('{"x"', '{"octave":{},"x"')
    assert difference(FILE, before, after).splitlines()[3:] == [
        '-…ss"},"mcpServers":{"x":{}},"z":"tttttttt…',
        '+…ss"},"mcpServers":{"octave":{},"x":{}},"z":"tttttttt…',
    ]


@pytest.mark.parametrize(
    ("before", "after", "head"),
    [
        (None, "{}\n", f"--- /dev/null\n+++ {FILE}\n@@ -0,0 +1 @@\n+{{}}\n"),
        ("{}\n", None, f"--- {FILE}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{{}}\n"),
    ],
    ids=["created", "deleted"],
)
def test_a_file_that_does_not_exist_is_the_null_device(before, after, head):
    assert difference(FILE, before, after) == head


@pytest.mark.parametrize(("before", "after"), [("a\n", "a\n"), ("a\r\n", "a\n"), (None, "")])
def test_equal_lines_make_no_diff(before, after):
    assert difference(FILE, before, after) == ""
