from pathlib import Path

import pytest

from octave.errors import MissingAnswer, UsageError
from octave.packages.registry import PackageChoice, Registry, bundled_folder
from octave.packages.variables import (
    Answers,
    Question,
    is_secret,
    is_secret_header,
    read_file,
    sort,
)
from octave.settings import Reference


@pytest.fixture(scope="module")
def grafana() -> PackageChoice:
    """Wants GRAFANA_URL, which is no secret, and GRAFANA_SERVICE_ACCOUNT_TOKEN, which is."""
    return Registry(bundled_folder()).get("grafana").preferred()


def test_a_plain_value_goes_into_the_manifest_and_a_secret_into_the_store(
    grafana: PackageChoice,
) -> None:
    words = ("GRAFANA_URL=http://x", "GRAFANA_SERVICE_ACCOUNT_TOKEN")
    environ = {"GRAFANA_SERVICE_ACCOUNT_TOKEN": "hush"}
    given = sort("g", Answers(words), grafana, environ)
    assert given.values == {
        "GRAFANA_URL": "http://x",
        "GRAFANA_SERVICE_ACCOUNT_TOKEN": Reference("secret", "g/GRAFANA_SERVICE_ACCOUNT_TOKEN"),
    }
    assert given.secrets == {"g/GRAFANA_SERVICE_ACCOUNT_TOKEN": "hush"}
    assert "hush" not in repr(given)


def test_the_value_of_a_secret_in_the_words_is_refused_and_not_repeated(
    grafana: PackageChoice,
) -> None:
    with pytest.raises(UsageError) as caught:
        sort("g", Answers(("GRAFANA_SERVICE_ACCOUNT_TOKEN=hush",)), grafana, {})
    assert "hush" not in f"{caught.value} {caught.value.hint}"
    assert "--env-file" in str(caught.value.hint)


@pytest.mark.parametrize(
    "name",
    ["X_TOKEN", "api_key", "APIKEY", "OPENAI_KEY", "DB_PASSWORD", "REDIS_PWD", "DATABASE_URL"],
)
def test_a_variable_nobody_knows_is_secret_when_it_looks_like_it(name: str) -> None:
    assert is_secret(name, None)


@pytest.mark.parametrize("name", ["MODE", "LOG_LEVEL", "GITHUB_HOST", "KEYBOARD", "AUTHOR", "PWDS"])
def test_other_variables_are_plain(name: str) -> None:
    assert not is_secret(name, None)


def test_the_registry_has_the_last_word_on_what_is_secret(grafana: PackageChoice) -> None:
    google = Registry(bundled_folder()).get("google-workspace").preferred()
    assert not is_secret("GRAFANA_URL", grafana)
    assert is_secret("GOOGLE_OAUTH_CLIENT_ID", google)


def test_values_come_from_the_file_then_the_words_then_a_person() -> None:
    asked: list[Question] = []

    def ask(question: Question) -> str:
        asked.append(question)
        return "typed"

    answers = Answers(("A", "B", "C=given"), {"B": "file", "C": "file", "D": "file"}, ask)
    values = sort("x", answers, None, {"B": "shell"}).values
    assert values == {"A": "typed", "B": "shell", "C": "given", "D": "file"}
    assert asked == [Question("A", secret=False)]


def test_without_a_person_a_missing_value_ends_it() -> None:
    with pytest.raises(MissingAnswer, match="`A` is not set here"):
        sort("x", Answers(("A",)), None, {})


@pytest.mark.parametrize("word", ["", "=x", "1A=x", "A B=x", "A-B", "--as", "Ä=x"])
def test_a_word_that_names_no_variable_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="names no variable"):
        sort("x", Answers((word,)), None, {})


@pytest.mark.parametrize("value", ["a\0b", "\udcff"])
def test_a_value_that_no_process_could_take_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="`A` is not text"):
        sort("x", Answers(file={"A": value}), None, {})


def test_a_value_may_be_empty_long_and_in_any_script() -> None:
    value = "日本\n" * 1000
    assert sort("x", Answers(file={"A": value, "B": ""}), None, {}).values == {"A": value, "B": ""}


def test_a_file_has_comments_quotes_exports_and_equals_signs(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(
        '\ufeffA=1\n\n# B=no\nexport C=three = 3\nD=\'quo"ted\'\nE="x"\n F = spaced \nG=\n',
        encoding="utf-8",
    )
    assert read_file(path) == {
        "A": "1",
        "C": "three = 3",
        "D": 'quo"ted',
        "E": "x",
        "F": "spaced",
        "G": "",
    }


@pytest.mark.parametrize("text", ["A=1\nhush-value\n", "A=1\n2B=hush-value\n"])
def test_a_wrong_line_is_named_by_its_number_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "env"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="line 2: expected `KEY=VALUE`") as caught:
        read_file(path)
    assert "hush" not in str(caught.value)


def test_a_file_that_cannot_be_read_says_why_and_shows_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_file(tmp_path / "missing")
    with pytest.raises(UsageError, match="Is a directory"):
        read_file(tmp_path)
    (tmp_path / "env").write_bytes(b"A=hush\xff")
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        read_file(tmp_path / "env")
    assert "hush" not in str(caught.value)


def test_the_value_in_a_malformed_word_is_not_shown() -> None:
    with pytest.raises(UsageError, match=r"`-e 1X=\.\.\.` names no variable") as caught:
        sort("x", Answers(("1X=hush",)), None, {})
    assert "hush" not in str(caught.value.as_json())


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "authorization",
        "Proxy-Authorization",
        "X-API-Key",
        "X-Auth-Token",
        "Cookie",
        "Api-Token",
        "X-Secret",
    ],
)
def test_headers_that_say_who_asks_are_secret(name: str) -> None:
    assert is_secret_header(name)


@pytest.mark.parametrize("name", ["X-Team", "Accept", "User-Agent", "X-Author", "X-Keyboard"])
def test_other_headers_are_not(name: str) -> None:
    assert not is_secret_header(name)
