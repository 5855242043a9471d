"""The system's keyring as the place of secrets: real back ends of the library, in this process."""

import builtins
import json
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring as library
import keyring.backends.fail
import keyring.backends.null
import pytest
from keyring.errors import KeyringLocked, PasswordSetError

from octave.errors import StartFailed, StorageFailed
from octave.home import Home
from octave.packages import secret_file
from octave.packages.secrets import Kept, Secrets, resolve, stored
from octave.settings import Reference
from tests.cli.desk import CHECKOUT
from tests.packages.drawer import Clear, Forgetful, Memory

VALUE = "hush-0815-value"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Secrets:
    return Secrets(home)


@pytest.fixture
def use() -> Iterator[Callable[[Any], Any]]:
    """Make a back end the system's keyring."""
    before = library.get_keyring()

    def change(back_end: Any) -> Any:
        library.set_keyring(back_end)
        return back_end

    yield change
    library.set_keyring(before)


@pytest.fixture
def memory(use: Callable[[Any], Any]) -> Memory:
    found: Memory = use(Memory())
    return found


def files(home: Home) -> dict[str, str]:
    paths = (path for path in home.root.rglob("*") if path.is_file())
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def test_where_a_keyring_works_the_value_lies_there_and_in_no_file(
    store: Secrets, home: Home, memory: Memory
) -> None:
    assert store.set("github/TOKEN", VALUE) == Kept("keyring")
    assert Secrets(home).get("github/TOKEN") == VALUE
    assert store.places() == {"github/TOKEN": "keyring"}
    assert store.list() == ["github/TOKEN"]
    ((service, key),) = memory.kept
    assert (service.startswith("octave-"), key) == (True, "github/TOKEN")
    assert not home.secrets.exists()
    assert not any(VALUE in text for text in files(home).values())
    assert stat.S_IMODE(home.keyring.stat().st_mode) == 0o600
    reference = Reference("secret", "github/TOKEN")
    assert resolve(reference, {}, store, home.root) == VALUE


def test_a_value_stays_where_it_is_when_it_changes(
    store: Secrets, home: Home, memory: Memory
) -> None:
    store.set("a/B", "one")
    store.set("a/B", "two")
    assert list(memory.kept.values()) == ["two"]
    assert store.get("a/B") == "two"
    assert store.remove("a/B")
    assert not store.remove("a/B")
    assert memory.kept == {}
    assert store.get("a/B") is None
    assert store.list() == []


def test_two_homes_do_not_share_a_keyrings_entries(
    store: Secrets, memory: Memory, tmp_path: Path
) -> None:
    other = Secrets(Home(tmp_path / "other"))
    store.set("a/B", "one")
    other.set("a/B", "two")
    assert (store.get("a/B"), other.get("a/B")) == ("one", "two")
    other.remove("a/B")
    assert store.get("a/B") == "one"


def test_a_home_that_was_moved_finds_its_own(
    store: Secrets, home: Home, memory: Memory, tmp_path: Path
) -> None:
    store.set("a/B", VALUE)
    home.root.rename(tmp_path / "moved")
    assert Secrets(Home(tmp_path / "moved")).get("a/B") == VALUE


@pytest.mark.parametrize(
    ("back_end", "reason"),
    [
        (keyring.backends.fail.Keyring, "no keyring answers here"),
        (keyring.backends.null.Keyring, "no keyring answers here"),
        (Clear, "no keyring answers here"),
        (Forgetful, "it does not give back what it was given"),
    ],
)
def test_one_that_keeps_nothing_is_not_used_and_the_reason_told(
    store: Secrets, home: Home, use: Callable[[Any], Any], back_end: Any, reason: str
) -> None:
    use(back_end())
    assert store.set("a/B", VALUE) == Kept("file", reason)
    assert store.get("a/B") == VALUE
    assert store.places() == {"a/B": "file"}
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o600


def test_without_the_library_the_file_is_used_and_the_extra_named(
    store: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "keyring":
            raise ModuleNotFoundError("No module named 'keyring'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    kept = store.set("a/B", VALUE)
    assert kept.place == "file"
    assert kept.reason == "`keyring` is not installed (`pip install 'octave-mcp[keyring]'`)"
    assert store.get("a/B") == VALUE


@pytest.mark.parametrize(
    "trouble",
    [KeyringLocked("locked"), PasswordSetError(f"no: {VALUE}"), RuntimeError(), OSError(5, "x")],
    ids=lambda trouble: type(trouble).__name__,
)
def test_whatever_a_keyring_raises_the_value_is_kept_and_not_told(
    store: Secrets, memory: Memory, trouble: Exception
) -> None:
    memory.trouble = trouble
    kept = store.set("a/B", VALUE)
    assert kept.place == "file"
    assert kept.reason
    assert VALUE not in kept.reason
    assert store.get("a/B") == VALUE


def test_a_keyring_that_comes_later_takes_new_values_and_leaves_the_old_where_they_are(
    store: Secrets, use: Callable[[Any], Any]
) -> None:
    store.set("a/OLD", "1")
    memory = use(Memory())
    store.set("a/NEW", "2")
    assert store.set("a/OLD", "3") == Kept("file")
    assert store.places() == {"a/OLD": "file", "a/NEW": "keyring"}
    assert (store.get("a/OLD"), store.get("a/NEW")) == ("3", "2")
    assert len(memory.kept) == 1


def test_a_keyring_that_went_away_is_named_by_what_needs_it_and_by_nothing_else(
    store: Secrets, home: Home, use: Callable[[Any], Any], memory: Memory
) -> None:
    store.set("a/B", VALUE)
    use(keyring.backends.fail.Keyring())
    store.set("a/C", "other")
    assert store.get("a/C") == "other"
    assert store.places() == {"a/B": "keyring", "a/C": "file"}
    for attempt in (store.get, store.remove):
        with pytest.raises(StorageFailed) as caught:
            attempt("a/B")
        assert caught.value.message == (
            "`a/B` lies in the system's keyring, which cannot be used: no keyring answers here"
        )
        assert caught.value.hint == ("unlock it, or give the value anew: `octave secret set a B`")
    with pytest.raises(StartFailed, match="lies in the system's keyring"):
        resolve(Reference("secret", "a/B"), {}, store, home.root)
    use(memory)
    assert store.get("a/B") == VALUE


@pytest.mark.parametrize("how", ["locked", "no keyring answers here"])
def test_a_value_given_while_the_keyring_is_away_counts_from_then_on(
    store: Secrets, memory: Memory, use: Callable[[Any], Any], how: str
) -> None:
    store.set("a/B", "old")
    if how == "locked":
        memory.trouble = KeyringLocked(how)
    else:
        use(keyring.backends.fail.Keyring())
    assert store.set("a/B", "new") == Kept("file", how)
    assert store.get("a/B") == "new"
    memory.trouble = None
    use(memory)
    assert store.get("a/B") == "new"
    store.set("a/OTHER", "x")
    assert [key for _, key in memory.kept] == ["a/OTHER"], "the old value stays in the keyring"
    assert store.places() == {"a/B": "file", "a/OTHER": "keyring"}


def test_whoever_was_killed_between_file_and_index_brings_no_old_value_back(
    store: Secrets, home: Home, memory: Memory
) -> None:
    store.set("a/B", "old")
    secret_file.write(home.secrets, {"a/B": "new"})
    assert store.get("a/B") == "new"
    memory.trouble = KeyringLocked("locked")
    assert store.remove("a/B")
    memory.trouble = None
    assert store.get("a/B") is None


def test_an_old_value_does_not_come_back_when_the_newer_one_is_removed(
    store: Secrets, memory: Memory
) -> None:
    store.set("a/B", "old")
    memory.trouble = KeyringLocked("locked")
    store.set("a/B", "new")
    assert store.remove("a/B")
    memory.trouble = None
    assert store.get("a/B") is None
    assert store.list() == []


def test_what_was_stored_before_comes_back_when_an_install_fails(
    store: Secrets, memory: Memory
) -> None:
    store.set("a/B", "before")
    with pytest.raises(ZeroDivisionError), stored(store, {"a/B": "1", "a/NEW": "2"}) as kept:
        assert [each.place for each in kept] == ["keyring", "keyring"]
        raise ZeroDivisionError
    assert store.get("a/B") == "before"
    assert [key for _, key in memory.kept] == ["a/B"]


def test_a_value_that_somebody_took_out_of_the_keyring_is_none(
    store: Secrets, memory: Memory
) -> None:
    store.set("a/B", VALUE)
    memory.kept.clear()
    assert store.get("a/B") is None
    store.set("a/B", "again")
    assert store.get("a/B") == "again"
    memory.kept.clear()
    assert store.remove("a/B")
    assert store.list() == []


def test_setting_at_once_loses_nothing(store: Secrets, home: Home, memory: Memory) -> None:
    def many(name: str) -> None:
        for number in range(10):
            Secrets(home).set(f"{name}/K{number}", name)

    threads = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list()) == len(memory.kept) == 40
    assert len({service for service, _ in memory.kept}) == 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "service": "x", "keys": 1}']
)
def test_a_damaged_index_is_told_and_not_replaced(
    store: Secrets, home: Home, memory: Memory, content: str
) -> None:
    home.prepare()
    home.keyring.write_text(content, encoding="utf-8")
    with pytest.raises(StorageFailed, match=r"keyring\.json` is damaged"):
        store.set("a/B", VALUE)
    assert home.keyring.read_text(encoding="utf-8") == content
    assert memory.kept == {}


def test_an_index_of_a_newer_octave_is_refused(store: Secrets, home: Home) -> None:
    home.prepare()
    home.keyring.write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(StorageFailed, match="has format 2, and this version of Octave reads 1"):
        store.get("a/B")


def test_the_index_holds_names_only_and_is_the_same_for_the_same(
    store: Secrets, home: Home, memory: Memory
) -> None:
    for key in ("b/X", "a/X"):
        store.set(key, VALUE)
    before = home.keyring.read_bytes()
    store.set("a/X", VALUE)
    assert home.keyring.read_bytes() == before
    found = json.loads(before)
    assert found.keys() == {"format", "service", "keys", "old"}
    assert (found["format"], found["keys"], found["old"]) == (1, ["a/X", "b/X"], [])


def test_the_file_alone_needs_no_keyring(store: Secrets, home: Home) -> None:
    store.set("a/B", VALUE)
    code = (
        "import sys; from pathlib import Path; from octave.home import Home\n"
        "from octave.packages.secrets import Secrets\n"
        f"store = Secrets(Home(Path({str(home.root)!r})))\n"
        "assert store.get('a/B') and store.get('a/NONE') is None and store.set('a/B', 'x')\n"
        "assert store.list() == ['a/B']\n"
        "print('keyring' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert tomllib.loads(home.secrets.read_text(encoding="utf-8"))["secrets"] == {"a/B": "x"}
