"""`octave help`: verbs, topics, and the table of exit codes."""

import pytest

from octave.cli.main import VERBS
from octave.errors import EXIT_CODES
from tests.cli.desk import Desk


def test_exit_codes_are_the_one_table(desk: Desk) -> None:
    done = desk.octave("help", "exit-codes")

    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
    ]
    assert desk.octave("help", "exit-codes", "--json").json == [
        {"code": code, "means": meaning} for code, meaning in EXIT_CODES.items()
    ]


def test_help_of_a_verb_or_an_alias_is_the_verb_s_own(desk: Desk) -> None:
    about = desk.octave("help", "call")

    assert (about.code, about.stderr) == (0, "")
    assert about.stdout.startswith("Usage: octave call [OPTIONS] {SERVER} {TOOL} [KEY=VALUE]...\n")
    assert about == desk.octave("call", "--help") == desk.octave("call", "-h")
    assert desk.octave("help", "ps").stdout.startswith("Usage: octave ps [OPTIONS] [NAME]...\n")
    assert desk.octave("help", "call", "--json").json["verb"] == "call"


def test_help_without_a_word_lists_the_verbs(desk: Desk) -> None:
    done = desk.octave("help")

    assert (done.code, done.stderr) == (0, "")
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert set(VERBS) <= listed


@pytest.mark.parametrize(
    ("topic", "hint"),
    [
        ("exit-code", "did you mean `exit-codes`?"),
        ("complete", "did you mean `completion`?"),
        ("zzzzz", "octave --help"),
    ],
)
def test_an_unknown_topic_exits_2(desk: Desk, topic: str, hint: str) -> None:
    assert desk.octave("help", topic).told == (
        2,
        "",
        f"error: there is no verb `{topic}`\nhint: {hint}\n",
    )


def test_the_proxy_has_a_help_of_its_own(desk: Desk) -> None:
    assert desk.octave("help", "proxy").stdout.startswith("Usage: octave proxy [OPTIONS] [NAME")
    assert desk.octave("help", "proxy") == desk.octave("proxy", "--help")
