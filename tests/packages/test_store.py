import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import StorageFailed
from octave.home import Home
from octave.packages import store
from octave.packages.store import Record

RECORD = Record(
    name="good",
    kind="pypi",
    package="good",
    version="1.0",
    integrity="sha256:a",
    digest="sha256:b",
    command=("{folder}/venv/bin/python", "{folder}/venv/bin/good"),
    args=("--db", "{data}/x.db"),
    env={"MODE": "{data}"},
    required_env=("KEY",),
    env_one_of=(("A",), ("B", "C")),
    tools=3,
    checked=True,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def published(home: Home, record: Record = RECORD, folder: str = "1.0-b") -> Path:
    staging = store.stage(home, record.name)
    (staging / "entry").write_text("entry", encoding="utf-8")
    return store.publish(home, staging, record, folder)


def test_what_was_published_is_found_again_and_nothing_stays_staged(home: Home) -> None:
    place = published(home)
    assert store.find(home, "good", "1.0-b") == RECORD
    assert (place / "entry").read_text(encoding="utf-8") == "entry"
    assert list(home.staging.iterdir()) == []


def test_a_folder_without_record_counts_for_nothing(home: Home) -> None:
    (home.servers / "good" / "1.0-b").mkdir(parents=True)
    assert store.find(home, "good", "1.0-b") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\0" * 64,
        "[" * 100_000,
        '{"format": 0}',
        '{"format": "2"}',
        '{"format": 1}',
        '{"format": 1, "name": 5}',
        json.dumps({"format": 1, **{"name": "good", "command": "python"}}),
    ],
)
def test_a_damaged_record_is_no_record(home: Home, content: str) -> None:
    (published(home) / store.RECORD).write_text(content, encoding="utf-8")
    assert store.find(home, "good", "1.0-b") is None


def test_a_record_of_a_newer_octave_is_refused_by_its_name(home: Home) -> None:
    path = published(home) / store.RECORD
    path.write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(StorageFailed, match=r"record\.json` has format 2, and this .* reads 1"):
        store.find(home, "good", "1.0-b")


def test_a_record_with_a_command_of_the_wrong_type_is_no_record(home: Home) -> None:
    path = published(home) / store.RECORD
    found = json.loads(path.read_bytes())
    path.write_text(json.dumps({**found, "command": "python good"}), encoding="utf-8")
    assert store.find(home, "good", "1.0-b") is None


def test_publishing_replaces_a_version_whose_record_is_damaged(home: Home) -> None:
    (published(home) / store.RECORD).write_text("{", encoding="utf-8")
    published(home)
    assert store.find(home, "good", "1.0-b") == RECORD
    assert list(home.staging.iterdir()) == []


def test_a_removed_version_is_gone_and_so_is_its_last_empty_folder(home: Home) -> None:
    published(home)
    published(home, folder="2.0-c")
    store.remove(home, "good", "1.0-b")
    assert store.folders(home, "good") == ("2.0-c",)
    store.remove(home, "good", "2.0-c")
    store.remove(home, "good", "2.0-c")
    assert store.folders(home, "good") == ()
    assert list(home.servers.iterdir()) == list(home.staging.iterdir()) == []


def test_staging_sweeps_what_a_dead_predecessor_left(home: Home) -> None:
    (store.stage(home, "good") / "litter").write_text("x", encoding="utf-8")
    fresh = store.stage(home, "good")
    assert [path.name for path in fresh.parent.iterdir()] == [fresh.name]
    assert list(fresh.iterdir()) == []


def test_preparing_sweeps_what_the_dead_staged_and_nothing_of_the_living(home: Home) -> None:
    for name in ("dead", "alive"):
        (store.stage(home, name) / "half").write_text("x", encoding="utf-8")
    with store.locked(home, "alive"):
        store.prepare(home)
        assert [path.name for path in home.staging.iterdir()] == ["alive"]
    store.prepare(home)
    assert list(home.staging.iterdir()) == []


def test_a_rewritten_record_is_what_is_found(home: Home) -> None:
    published(home)
    changed = replace(RECORD, checked=False, unchecked_reason="it says: no")
    store.rewrite(home, changed, "1.0-b")
    assert store.find(home, "good", "1.0-b") == changed


def test_a_command_survives_the_move_of_its_folder_and_of_the_home(tmp_path: Path) -> None:
    old, new = Home(tmp_path / "old"), Home(tmp_path / "new")
    words = (f"{old.root}/runtimes/node", f"{tmp_path}/staging/x/index.js", "/usr/bin/x", "plain")
    kept = store.portable(words, tmp_path / "staging/x", old)
    assert kept == ("{home}/runtimes/node", "{folder}/index.js", "/usr/bin/x", "plain")
    assert store.absolute(kept, new.servers / "x/1", new) == (
        f"{new.root}/runtimes/node",
        f"{new.servers}/x/1/index.js",
        "/usr/bin/x",
        "plain",
    )


def test_one_holds_the_lock_of_a_server_and_the_next_is_told_to_wait(home: Home) -> None:
    told: list[str] = []
    entered, waits = threading.Event(), threading.Event()

    def second() -> None:
        def waiting(text: str) -> None:
            told.append(text)
            waits.set()

        with store.locked(home, "good", waiting):
            entered.set()

    with store.locked(home, "good"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(5)
        assert not entered.is_set()
    assert entered.wait(5)
    thread.join(5)
    by = f" ({os.getpid()})" if sys.platform == "linux" else ""
    assert told == [f"waiting for another process{by}, which is installing `good`"]


def test_servers_do_not_wait_for_each_other(home: Home) -> None:
    with store.locked(home, "one"), store.locked(home, "two", pytest.fail):
        pass


def test_a_lock_is_free_again_after_an_error(home: Home) -> None:
    with pytest.raises(KeyError), store.locked(home, "good"):
        raise KeyError
    with store.locked(home, "good", pytest.fail):
        pass
