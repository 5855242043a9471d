import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octave.errors import StartFailed, StorageFailed
from octave.home import Home
from octave.packages.secrets import VALUE_BYTES, Secrets, resolve
from octave.settings import Reference


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Secrets:
    return Secrets(home)


def test_a_secret_is_kept_until_it_is_removed(store, home):
    assert store.get("github/TOKEN") is None
    assert store.list() == []
    assert not home.root.exists()
    store.set("github/TOKEN", "one")
    store.set("a/B", "two")
    store.set("github/TOKEN", "three")
    assert Secrets(home).get("github/TOKEN") == "three"
    assert store.list() == ["a/B", "github/TOKEN"]
    assert store.remove("github/TOKEN")
    assert not store.remove("github/TOKEN")
    assert store.list() == ["a/B"]


def test_the_file_is_private_and_readable_toml(store, home):
    before = os.umask(0)
    try:
        store.set("github/TOKEN", "a\"b\n'ü")
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    text = home.secrets.read_text(encoding="utf-8")
    assert '"github/TOKEN" = "a\\"b\\n' in text
    assert tomllib.loads(text) == {"version": 1, "secrets": {"github/TOKEN": "a\"b\n'ü"}}
    assert [path.name for path in home.root.glob("*secrets*")] == ["secrets.toml"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_every_value_comes_back_as_it_was(store, value):
    store.set("a/B", value)
    assert store.get("a/B") == value


def test_a_file_that_others_can_read_is_not_used(store, home):
    store.set("a/B", "hush")
    home.secrets.chmod(0o640)
    for use in (lambda: store.get("a/B"), lambda: store.set("a/B", "x"), store.list):
        with pytest.raises(StorageFailed, match="can be read by others") as caught:
            use()
        assert caught.value.hint == f"chmod 600 {home.secrets}"


@pytest.mark.parametrize(
    "content",
    [
        b'"a/B" = "hush',
        b"\xffhush",
        b"hush = " + b"[" * 5000,
        b"",
        b"version = 1\nsecrets = 1\n",
        b"[secrets]\n",
    ],
    ids=range(6),
)
def test_a_damaged_file_is_told_without_its_text_and_not_replaced(store, home, content):
    home.prepare()
    home.secrets.write_bytes(content)
    home.secrets.chmod(0o600)
    with pytest.raises(StorageFailed, match="is damaged") as caught:
        store.set("a/B", "x")
    assert "hush" not in str(caught.value.as_json())
    assert caught.value.__cause__ is None
    assert home.secrets.read_bytes() == content


def test_a_newer_format_is_refused_and_both_are_named(store, home):
    home.prepare()
    home.secrets.write_text("version = 2\n", encoding="utf-8")
    home.secrets.chmod(0o600)
    with pytest.raises(StorageFailed, match="has format 2, and this version of Octave reads 1"):
        store.get("a/B")


@pytest.mark.parametrize("key", ["", "TOKEN", "/TOKEN", "github/"])
def test_a_key_names_server_and_variable(store, key):
    with pytest.raises(ValueError, match="does not have the form SERVER/VARIABLE"):
        store.set(key, "x")


def test_a_value_that_cannot_be_a_variable_is_refused(store):
    with pytest.raises(ValueError, match="contains a NUL") as caught:
        store.set("a/B", "hush\0")
    assert "hush" not in str(caught.value)


def test_a_store_tells_nothing_by_its_repr(store):
    store.set("a/B", "hush")
    assert "hush" not in repr(store) + repr(vars(store))


def test_a_string_is_its_own_value(store, tmp_path):
    assert resolve("plain", {}, store, tmp_path) == "plain"


def test_a_variable_is_taken_from_the_environment_it_is_given(store, tmp_path):
    assert resolve(Reference("env", "A"), {"A": "x"}, store, tmp_path) == "x"
    assert resolve(Reference("env", "A"), {"A": ""}, store, tmp_path) == ""


def test_a_secret_is_taken_from_the_store(store, tmp_path):
    store.set("github/TOKEN", "x")
    assert resolve(Reference("secret", "github/TOKEN"), {}, store, tmp_path) == "x"


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b" x ", " x "), (b"", "")],
)
def test_a_file_counts_from_the_manifest_and_loses_one_line_break(store, tmp_path, content, value):
    (tmp_path / "key").write_bytes(content)
    assert resolve(Reference("file", "key"), {}, store, tmp_path) == value
    assert resolve(Reference("file", str(tmp_path / "key")), {}, store, tmp_path / "x") == value


def test_a_file_may_lie_in_the_users_home(store, tmp_path, no_real_home):
    (no_real_home / "key").write_text("x", encoding="utf-8")
    assert resolve(Reference("file", "~/key"), {}, store, tmp_path) == "x"


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        (
            Reference("env", "A"),
            'the reference `{ env = "A" }` cannot be resolved: that variable is not set',
            "export A, run `octave shutdown`, then try again",
        ),
        (
            Reference("secret", "github/TOKEN"),
            'the reference `{ secret = "github/TOKEN" }` cannot be resolved: no such secret',
            "octave secret set github TOKEN",
        ),
        (
            Reference("file", "missing"),
            'the reference `{ file = "missing" }` cannot be resolved: `',
            "create `",
        ),
        (Reference("file", "."), "cannot be resolved: `", "create `"),
        (Reference("file", "~nobody-here/x"), "cannot be resolved: `", "create `"),
        (Reference("file", "binary"), "the file is not UTF-8 text", None),
        (Reference("file", "nul"), "the file is too long, or not text, for a value", None),
        (Reference("file", "long"), "the file is too long, or not text, for a value", None),
    ],
)
def test_a_reference_that_leads_nowhere_is_named_with_what_to_do(
    store, tmp_path, reference, message, hint
):
    (tmp_path / "binary").write_bytes(b"hush\xff")
    (tmp_path / "nul").write_bytes(b"hush\0")
    (tmp_path / "long").write_bytes(b"hush" + b"x" * VALUE_BYTES)
    with pytest.raises(StartFailed) as caught:
        resolve(reference, {"B": "hush"}, store, tmp_path)
    assert message in caught.value.message
    assert "hush" not in str(caught.value.as_json())
    assert str(caught.value.hint).startswith(str(hint))
    assert caught.value.details == {"reference": {reference.kind: reference.key}}
    assert caught.value.exit_code == 6


def test_a_store_that_cannot_be_used_stops_the_start(store, home, tmp_path):
    store.set("a/B", "hush")
    home.secrets.chmod(0o644)
    with pytest.raises(StartFailed, match="can be read by others") as caught:
        resolve(Reference("secret", "a/B"), {}, store, tmp_path)
    assert caught.value.hint == f"chmod 600 {home.secrets}"
    home.secrets.unlink()
    home.secrets.mkdir()
    with pytest.raises(StartFailed, match="the store cannot be read: Is a directory"):
        resolve(Reference("secret", "a/B"), {}, store, tmp_path)
