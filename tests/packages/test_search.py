"""What a person means by some words: names first, then subjects, then texts, then mistakes."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from octave.packages.entries import Entry, decode_entry
from octave.packages.registry import Registry, bundled_folder
from octave.packages.search import EXACT, MISTYPED, PARTLY, STRONG, near_names, search
from octave.packages.spelling import allowed, distance, looks_like

BUNDLED = Registry(bundled_folder())
ENTRIES = BUNDLED.entries()
ALIASES = BUNDLED.aliases()


def found(query: str) -> list[str]:
    return [hit.entry.short_name for hit in search(query, ENTRIES, ALIASES)]


def grade(query: str) -> int:
    return search(query, ENTRIES, ALIASES)[0].grade


def entry(name: str, registry: str = "", **changes: str) -> Entry:
    document = {"name": name, "description": "Does it.", "version": "1.0", **changes}
    made = decode_entry(name.rpartition("/")[2], json.dumps(document).encode())
    return replace(made, registry=registry)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("github", "github"),
        ("GitHub", "github"),
        (" github ", "github"),
        ("\uff47ithub", "github"),
        ("gh", "github"),
        ("k8s", "kubernetes"),
        ("google drive", "google-workspace"),
        ("@modelcontextprotocol/server-memory", "memory"),
        ("io.github.github/github-mcp-server", "github"),
        ("Sequential Thinking", "sequential-thinking"),
        ("git hub", "github"),
    ],
)
def test_a_name_an_alias_and_a_package_are_exact(query: str, first: str) -> None:
    assert found(query)[0] == first
    assert grade(query) == EXACT


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("github issues", "github"),
        ("post", "postgres-pro"),
        ("web search", "brave-search"),
        ("search the web", "brave-search"),
        ("browser automation", "playwright"),
        ("kubern", "kubernetes"),
        ("jira issues", "atlassian"),
        ("files", "filesystem"),
        ("pdf", "markitdown"),
        ("payments", "stripe"),
        ("databases vector", "chroma"),
        ("linear", "linear"),
        ("spreadsheet", "airtable"),
        ("email", "google-workspace"),
        ("chat", "slack"),
        ("s3", "aws-api"),
    ],
)
def test_words_find_what_is_meant(query: str, first: str) -> None:
    assert found(query)[0] == first
    assert grade(query) <= STRONG + 1


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("githbu", "github"),
        ("postgress", "postgres-pro"),
        ("playwrite", "playwright"),
        ("slak", "slack"),
        ("kubernetis", "kubernetes"),
        ("sqllite", "sqlite"),
        ("brvae serach", "brave-search"),
    ],
)
def test_mistyped_words_find_what_looks_like_them(query: str, first: str) -> None:
    assert found(query)[0] == first
    assert grade(query) == MISTYPED


def test_where_none_has_all_words_the_rarest_decides() -> None:
    assert found("read pdf")[0] == "markitdown"
    assert grade("read pdf") == PARTLY


@pytest.mark.parametrize("query", ["", "  ", "!!!", "\u65e5\u672c", "qwertzuiop", "x" * 100_000])
def test_nonsense_finds_nothing(query: str) -> None:
    assert found(query) == []


def test_all_words_must_be_found_before_some_do() -> None:
    assert "gitlab" not in found("github issues")


def test_idle_words_tell_nothing_unless_they_are_all() -> None:
    assert found("an mcp server for time") == found("time")
    assert len(found("mcp server")) > 10


def test_an_archived_server_stands_behind_its_equals() -> None:
    names = found("gitlab")
    assert names == ["gitlab", "gitlab-archived"]
    assert found("database").index("postgres") > found("database").index("dbhub")


def order(query: str, entries: Sequence[Entry]) -> list[str]:
    return [hit.entry.name for hit in search(query, entries)]


def test_the_exact_name_is_first_then_the_bundled_registry() -> None:
    entries = [
        entry("a.b/notes-plus"),
        entry("a.b/text", description="Keeps notes."),
        entry("x.y/notes", "company"),
        entry("x.y/notes-more", "company"),
    ]
    assert order("notes", entries) == ["x.y/notes", "a.b/notes-plus", "a.b/text", "x.y/notes-more"]
    assert order("notes", [*entries, entry("a.b/notes")])[:2] == ["a.b/notes", "x.y/notes"]


def test_the_owner_of_a_server_is_not_its_name() -> None:
    assert order("github", [entry("io.github.someone/thing", "company")]) == []


def test_a_hostile_text_is_only_text() -> None:
    hostile = entry("x.y/notes", "company", description="(" * 5000 + "\x1b[31m notes")
    assert order("notes (((", [hostile]) == ["x.y/notes"]


def test_near_names_are_few_and_nearest_first() -> None:
    names = [*BUNDLED.names(), *ALIASES]
    assert near_names("githbu", names)[0] == "github"
    assert len(near_names("g", names)) <= 3
    assert near_names("qwertzuiop", names) == []


@pytest.mark.parametrize(
    ("one", "other", "off"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "ab", 1),
        ("abc", "abcd", 1),
        ("abc", "xbc", 1),
        ("kitten", "sitting", 3),
        ("abc", "xyz", 3),
        ("abcdef", "uvwxyz", 4),
        ("a", "abcdefgh", 4),
    ],
)
def test_the_distance_counts_letters(one: str, other: str, off: int) -> None:
    assert distance(one, other, 3) == distance(other, one, 3) == off


def test_short_names_may_have_fewer_mistakes() -> None:
    assert [allowed("x" * n) for n in (3, 4, 5, 6, 8, 9)] == [0, 1, 1, 2, 2, 3]
    assert looks_like("GitHub", "github")
    assert looks_like("githb", "github")
    assert not looks_like("github", "github")
    assert not looks_like("git", "gif")
    assert not looks_like("notion", "motion-x")
