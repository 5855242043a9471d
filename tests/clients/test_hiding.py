import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from octave.clients.hiding import difference, without

FILE = Path("/home/me/.claude.json")
TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"

values = st.text(min_size=4, max_size=20).filter(lambda text: "<" not in text and ">" not in text)


@given(values, st.text(max_size=10), st.booleans())
def test_a_secret_is_in_no_text_that_is_shown(secret, other, ascii_only):
    document = {"env": {"A": secret, "B": f"x{secret}y", "C": other}, "args": [secret, other]}
    text = json.dumps(document, ensure_ascii=ascii_only)
    shown = without(text, {"k/A": secret})
    assert json.loads(shown)["env"]["A"] == "<k/A>"
    found = json.loads(shown)
    assert secret not in (*found["env"].values(), *found["args"])


@given(values)
def test_a_secret_written_with_escapes_is_seen(secret):
    odd = "".join(f"\\u{unit:04x}" for unit in memoryview(secret.encode("utf-16-le")).cast("H"))
    shown = without(f'{{"A": "{odd}"}}', {"k/A": secret})
    assert "<k/A>" in shown
    assert odd not in shown


def test_what_looks_like_a_secret_is_hidden_by_name_by_flag_and_by_itself():
    text = f'{{"API_KEY": "hush", "x": "{TOKEN}", "args": ["--token", "shh", "plain"]}}'
    assert without(text, {}, others=True) == (
        '{"API_KEY": "<hidden>", "x": "<hidden>", "args": ["--token", "<hidden>", "plain"]}'
    )
    text = f"a = 'plain'\nAPI_KEY = 'hush' # c\nb = \"{TOKEN}\"\n"
    assert without(text, {}, others=True) == (
        "a = 'plain'\nAPI_KEY = '<hidden>' # c\nb = \"<hidden>\"\n"
    )
    assert without(text, {}) == text


def test_a_diff_leaves_out_what_stayed_and_hides_neighbours_of_the_same_line():
    before = f'{{\n"a": 1,\n"b": 2,\n"c": {{"x": {{"TOKEN": "{TOKEN}"}}, "y": 1}}\n}}\n'
    after = before.replace('"a": 1,\n', "").replace(', "y": 1', "")
    diff = difference(FILE, before, after, {})
    assert TOKEN not in diff
    assert '"b"' not in diff
    assert diff.splitlines()[2:5] == ["@@ -2 +1,0 @@", '-"a": 1,', "@@ -4 +3 @@"]
    assert ', "y": 1' in diff
    assert difference(FILE, before, before, {}) == ""
