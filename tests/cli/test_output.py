import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.cli.output import json_text, safe, tell, tell_error, write, write_json
from octave.errors import ServerNotFound, StartFailed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\x1b]52;c;Y2F0\x07", r"\x1b]52;c;Y2F0\x07"),
        ("\x1bP$q q\x1b\\", r"\x1bP$q q\x1b" + "\\"),
        ("\x9b31m", r"\x9b31m"),
        ("\x9d0;title\x9c", r"\x9d0;title\x9c"),
        ("a\rb", r"a\x0db"),
        ("a\b\b", r"a\x08\x08"),
        ("\x00\x7f", r"\x00\x7f"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\u200eleft", r"\u200eleft"),
        ("in\u200bvis\u2060ible\ufeff", r"in\u200bvis\u2060ible\ufeff"),
        ("soft\u00adhyphen", r"soft\xadhyphen"),
        ("\U000e0041\U000e0042", r"\U000e0041\U000e0042"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u3164hangul filler", r"\u3164hangul filler"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_would_act_upon_or_hide_is_shown(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "two\nlines\tand a tab", "Grüße, 日本語, עברית", "👍🏽 ❤️", "[bold]no markup[/bold]"],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert safe(text) == text


def test_line_breaks_of_another_system_are_line_breaks() -> None:
    assert safe("a\r\nb") == "a\nb"


@given(st.text())
def test_nothing_that_unicode_calls_control_or_format_comes_through(text: str) -> None:
    shown = safe(text)
    kinds = {unicodedata.category(c) for c in shown if c not in "\n\t"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not bidi & {unicodedata.bidirectional(c) for c in shown}
    assert safe(shown) == shown


@given(st.recursive(st.text() | st.integers() | st.none(), lambda s: st.lists(s), max_leaves=5))
def test_json_means_the_same_and_acts_upon_nothing(value: object) -> None:
    text = json_text({"key": value}, indent=2)
    assert json.loads(text) == {"key": value}
    assert safe(text) == text


def test_results_go_to_stdout_and_the_rest_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    write("result")
    write_json({"a": "é"})
    tell("note")
    assert capsys.readouterr() == ('result\n{\n  "a": "é"\n}\n', "note\n")


def test_an_error_is_a_sentence_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error(ServerNotFound("no `x\x1b`", hint="octave list"), as_json=False)
    assert capsys.readouterr() == ("", "error: no `x\\x1b`\nhint: octave list\n")


def test_the_last_words_of_a_server_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    error = StartFailed("`x` died", details={"stderrTail": ["one", "\x1b[2Jtwo"]})
    tell_error(error, as_json=False)
    assert capsys.readouterr().err == "error: `x` died\n  | one\n  | \\x1b[2Jtwo\n"


def test_an_error_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error(ServerNotFound("two\nlines\u2028\x9b", hint=None, details={"a": 1}), as_json=True)
    line = capsys.readouterr().err
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert json.loads(line) == {
        "error": {
            "code": "server_not_found",
            "message": "two\nlines\u2028\x9b",
            "hint": None,
            "details": {"a": 1},
        }
    }
