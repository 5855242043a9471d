import json

import pytest
from hypothesis import given

from octave.clients import json_edit
from octave.clients.jsonc import Unreadable, parse
from tests.clients.documents import ENTRY, PATH, texts, tidy_texts

SHORT = {"command": "/o"}
NEW = {"command": "/new/octave", "args": ["proxy", "--manifest", "/x"]}


def squeezed(text: str) -> str:
    return "".join(text.split())


def is_only_longer(text: str, result: str) -> bool:
    """Tell whether `result` is `text` with one piece put in."""
    pairs = zip(text, result, strict=False)
    same = next((at for at, (old, new) in enumerate(pairs) if old != new), len(text))
    return result.endswith(text[same:]) and len(result) >= len(text)


@given(texts)
def test_what_is_put_in_and_taken_out_leaves_the_text_as_it_was(text):
    done = json_edit.insert(text, PATH, ENTRY)
    assert json_edit.remove(done.text, PATH, done.created, done.gap) == text


@given(texts)
def test_putting_in_adds_one_piece_and_touches_no_other_character(text):
    done = json_edit.insert(text, PATH, ENTRY)
    if done.gap is None:
        assert is_only_longer(text, done.text)
    else:
        # Blanks between the braces of an empty object may become a line break.
        assert is_only_longer(squeezed(text), squeezed(done.text))


@given(tidy_texts())
def test_everything_else_says_the_same_in_the_same_order(text):
    before = json.loads(text.removeprefix("\ufeff"))
    after = json.loads(json_edit.insert(text, PATH, ENTRY).text.removeprefix("\ufeff"))
    assert after["mcpServers"].pop("octave") == ENTRY
    if "mcpServers" not in before:
        assert after.pop("mcpServers") == {}
    assert json.dumps(after) == json.dumps(before)


@given(texts)
def test_what_was_put_in_is_found(text):
    assert json_edit.find(text, PATH) is None
    found = json_edit.find(json_edit.insert(text, PATH, ENTRY).text, PATH)
    assert found is not None
    assert found.value == ENTRY


@given(texts)
def test_replacing_changes_the_entry_and_no_other_character(text):
    done = json_edit.insert(text, PATH, ENTRY)
    old = json_edit.find(done.text, PATH)
    result = json_edit.replace(done.text, PATH, NEW)
    new = json_edit.find(result, PATH)
    assert old is not None
    assert new is not None
    assert new.value == NEW
    assert result[: new.start] == done.text[: old.start]
    assert result[new.end :] == done.text[old.end :]
    assert json_edit.remove(result, PATH, done.created, done.gap) == text


@given(tidy_texts())
def test_an_entry_is_taken_out_of_a_text_that_was_laid_out_anew(text):
    done = json_edit.insert(text, PATH, ENTRY)
    anew = json.dumps(json.loads(done.text.removeprefix("\ufeff")), indent=3, sort_keys=True)
    result = json_edit.remove(anew, PATH, done.created, done.gap)
    assert json.loads(result) == json.loads(text.removeprefix("\ufeff"))


@given(texts)
def test_neighbours_that_came_later_stay(text):
    done = json_edit.insert(text, PATH, ENTRY)
    later = json_edit.insert(done.text, ("mcpServers", "later"), SHORT).text
    result = parse(json_edit.remove(later, PATH, done.created, done.gap)).value
    before = parse(text).value
    assert result == {**before, "mcpServers": {**before.get("mcpServers", {}), "later": SHORT}}


@given(texts)
def test_taking_out_what_is_not_there_changes_nothing(text):
    assert json_edit.remove(text, PATH) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{}", '{\n  "mcpServers": {\n    "octave": {\n      "command": "/o"\n    }\n  }\n}'),
        (
            '{\n  "a": 1\n}\n',
            '{\n  "mcpServers": {\n    "octave": {\n      "command": "/o"\n    }\n  },\n'
            '  "a": 1\n}\n',
        ),
        (
            '{\n  "mcpServers": {}\n}\n',
            '{\n  "mcpServers": {\n    "octave": {\n      "command": "/o"\n    }\n  }\n}\n',
        ),
        (
            '{\n\t"mcpServers": {\n\t\t"a": {},\n\t},\n}\n',
            '{\n\t"mcpServers": {\n\t\t"octave": {\n\t\t\t"command": "/o"\n\t\t},\n'
            '\t\t"a": {},\n\t},\n}\n',
        ),
        (
            '{\r\n    "mcpServers": {\r\n        "a": {}\r\n    }\r\n}',
            '{\r\n    "mcpServers": {\r\n        "octave": {\r\n            "command": "/o"\r\n'
            '        },\r\n        "a": {}\r\n    }\r\n}',
        ),
        ('{"a":1}', '{"mcpServers":{"octave":{"command":"/o"}},"a":1}'),
        ('{"a": 1}', '{"mcpServers": {"octave": {"command": "/o"}},"a": 1}'),
        (
            '{"mcpServers":{"a":{}},"b":2}',
            '{"mcpServers":{"octave":{"command":"/o"},"a":{}},"b":2}',
        ),
        (
            '\ufeff{\n  "mcpServers": { // mine\n    "a": {} // b\n  }\n}',
            '\ufeff{\n  "mcpServers": { // mine\n    "octave": {\n      "command": "/o"\n    },\n'
            '    "a": {} // b\n  }\n}',
        ),
        (
            '{\n  "mcpServers": {\n    // nothing yet\n  }\n}',
            '{\n  "mcpServers": {\n    "octave": {\n      "command": "/o"\n    }\n'
            "    // nothing yet\n  }\n}",
        ),
    ],
    ids=[
        "empty", "no map", "empty map", "tabs and trailing commas", "CRLF", "minified",
        "one line", "minified map", "byte order mark and comments", "comment in an empty map",
    ],
)  # fmt: skip
def test_an_entry_is_written_as_the_file_writes(text, result):
    done = json_edit.insert(text, PATH, SHORT)
    assert done.text == result
    assert json_edit.remove(done.text, PATH, done.created, done.gap) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('{"mcpServers": {"a": 1, "octave": {}}}', '{"mcpServers": {"a": 1}}'),
        ('{"mcpServers": {"a": 1, "octave": {}, "b": 2}}', '{"mcpServers": {"a": 1, "b": 2}}'),
        ('{"mcpServers": {"a": 1, "octave": {},}}', '{"mcpServers": {"a": 1,}}'),
        ('{"mcpServers": {"octave": {}}}', '{"mcpServers": {}}'),
        (
            '{"mcpServers": {\n  "a": 1, // keep\n  "octave": {} // and this\n}}',
            '{"mcpServers": {\n  "a": 1 // keep\n   // and this\n}}',
        ),
        (
            '{"mcpServers": {\n  // about octave\n  "octave": {}, "b": 2\n}}',
            '{"mcpServers": {\n  // about octave\n   "b": 2\n}}',
        ),
        (
            '{"mcpServers": {\n  "octave": {} /* x */,\n  "b": 2\n}}',
            '{"mcpServers": { /* x */\n  "b": 2\n}}',
        ),
    ],
)
def test_an_entry_that_a_person_wrote_goes_with_one_comma_and_comments_stay(text, result):
    assert json_edit.remove(text, PATH) == result


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"mcpServers": null}', "line 1, column 16: `mcpServers` is not an object"),
        ('{\n  "mcpServers": []\n}', "line 2, column 17: `mcpServers` is not an object"),
        ('{"mcpServers": {}, "mcpServers": {}}', "column 20: `mcpServers` is there twice"),
        ('{"mcpServers": {"octave": 1, "octave": 2}}', "column 30: `octave` is there twice"),
        ('{"a": 1', "line 1, column 8: expected `,` or `}`"),
    ],
)
def test_where_the_way_is_barred_nothing_is_edited(text, problem):
    for edit in (
        json_edit.find,
        json_edit.remove,
        lambda *to: json_edit.insert(to[0], to[1], ENTRY),
    ):
        with pytest.raises(Unreadable, match=problem):
            edit(text, PATH)


def test_an_entry_of_another_kind_is_found_and_replaced():
    text = '{"mcpServers": {"octave": null}}'
    found = json_edit.find(text, PATH)
    assert found is not None
    assert found.value is None
    assert json_edit.replace(text, PATH, SHORT) == '{"mcpServers": {"octave": {"command": "/o"}}}'


def test_a_snippet_is_a_whole_file_to_copy_from():
    assert json.loads(json_edit.snippet(PATH, ENTRY)) == {"mcpServers": {"octave": ENTRY}}
