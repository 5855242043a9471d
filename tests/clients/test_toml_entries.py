import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.clients.jsonc import Unreadable
from octave.clients.toml_entries import find, insert, remove, replace, snippet

PATH = ("mcp_servers", "octave")
ENTRY = {"command": "/opt/octave", "args": ["proxy"], "env": {"A": "ü"}}
USUAL = """# mine
model = "o9"   # keep

[mcp_servers.time]   # local
command = "uvx"
args = [
  "mcp-server-time",  # pinned?
]

[mcp_servers.time.env]
TZ = "UTC"

[tui]
since = 2026-01-01
"""

texts = st.sampled_from(
    [
        "",
        "\n",
        "\ufeff",
        "a = 1",
        "a = 1\n\n\n",
        "a = 1\r\n",
        USUAL,
        USUAL.replace("\n", "\r\n"),
        "\ufeff" + USUAL,
        USUAL.rstrip(),
        "mcp_servers.time.command = 'x'\n",
        "[mcp_servers]\n",
        "[mcp_servers]\ntime = {command = 'x'}\n[x]\n",
        "mcp_servers = {time = {command = 'x'}}\n",
    ]
)


@given(texts)
def test_an_entry_is_put_in_found_and_taken_out_without_a_trace(text):
    done = insert(text, PATH, ENTRY)
    found = find(done.text, PATH)
    assert found is not None
    assert found.value == ENTRY
    assert remove(done.text, PATH, done.created, done.gap) == text.replace(
        "mcp_servers = {time = {command = 'x'}}", 'mcp_servers = {time = {command = "x"}}'
    )


@given(texts)
def test_everything_else_says_what_it_said(text):
    before = tomllib.loads(text.removeprefix("\ufeff"))
    after = tomllib.loads(insert(text, PATH, ENTRY).text.removeprefix("\ufeff"))
    assert after["mcp_servers"].pop("octave") == ENTRY
    assert after == {**before, "mcp_servers": before.get("mcp_servers", {})}


def test_an_entry_with_tables_of_its_own_goes_with_them_and_comments_elsewhere_stay():
    after = remove(USUAL, ("mcp_servers", "time"))
    assert after == '# mine\nmodel = "o9"   # keep\n\n[tui]\nsince = 2026-01-01\n'
    assert find(after, ("mcp_servers",)) is None
    assert remove(after, ("mcp_servers", "time")) == after


def test_an_entry_is_replaced_whole():
    text = replace(USUAL, ("mcp_servers", "time"), {"url": "https://x.example"})
    assert tomllib.loads(text)["mcp_servers"]["time"] == {"url": "https://x.example"}
    assert text.startswith('# mine\nmodel = "o9"   # keep\n')


def test_dates_are_read_as_text():
    found = find(USUAL, ())
    assert found is not None
    assert found.value["tui"] == {"since": "2026-01-01"}


@pytest.mark.parametrize(
    ("text", "place"),
    [("a = 1\nb =\n", (2, 4)), ("mcp_servers = 3\n", (1, 1)), ("[mcp_servers.octave]\nx", (2, 2))],
)
def test_a_file_that_is_something_else_is_refused_with_its_place(text, place):
    with pytest.raises(Unreadable) as caught:
        find(text, PATH)
    assert (caught.value.line, caught.value.column) == place


def test_the_snippet_is_a_whole_file():
    assert tomllib.loads(snippet(PATH, ENTRY)) == {"mcp_servers": {"octave": ENTRY}}


@pytest.mark.parametrize("levels", [250, 450, 5000])
def test_deep_nesting_is_refused(levels):
    with pytest.raises(Unreadable, match="nested too deeply"):
        find("a = " + "[" * levels + "]" * levels + "\n", ())
