import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from octave.clients import records
from octave.clients.records import Record, digest
from octave.errors import StorageFailed
from octave.home import Home

RECORD = Record(
    client="claude",
    file="/home/me/.claude.json",
    key="/mcpServers/octave",
    sha256="0" * 64,
    created=2,
    gap=None,
    existed=True,
    blank=None,
)
FILE = Path(RECORD.file)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_what_was_recorded_is_found_by_its_file_and_place(home):
    records.put(home, RECORD)
    assert records.find(home, FILE, RECORD.key) == RECORD
    assert records.find(home, FILE, "/other") is None
    assert records.find(home, FILE.with_name("other"), RECORD.key) is None


def test_a_later_record_takes_the_place_of_an_older_one_and_others_stay(home):
    other = replace(RECORD, file="/home/me/.mcp.json")
    for record in (RECORD, other, replace(RECORD, created=1)):
        records.put(home, record)
    assert records.find(home, FILE, RECORD.key) == replace(RECORD, created=1)
    assert records.find(home, Path(other.file), RECORD.key) == other


def test_a_dropped_record_is_forgotten_and_others_stay(home):
    other = replace(RECORD, key="/other")
    records.put(home, RECORD)
    records.put(home, other)
    records.drop(home, FILE, RECORD.key)
    records.drop(home, FILE, RECORD.key)
    assert records.find(home, FILE, RECORD.key) is None
    assert records.find(home, FILE, other.key) == other


def test_dropping_what_is_not_there_makes_no_file(home):
    records.drop(home, FILE, RECORD.key)
    assert not home.root.exists()


def test_the_records_are_private_and_sorted(home):
    for name in ("/b", "/a"):
        records.put(home, replace(RECORD, file=name))
    assert stat.S_IMODE(home.clients.stat().st_mode) == 0o600
    found = json.loads(home.clients.read_bytes())
    assert found["format"] == records.FORMAT
    assert [entry["file"] for entry in found["entries"]] == ["/a", "/b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 1, "entries": 5}',
        b'{"format": 1, "entries": [5, {"file": "x"}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_knows_nothing_and_can_be_written_again(home, content):
    home.root.mkdir()
    home.clients.write_bytes(content)
    assert records.find(home, FILE, RECORD.key) is None
    records.put(home, RECORD)
    assert records.find(home, FILE, RECORD.key) == RECORD


def test_a_newer_format_is_refused_by_its_name_and_left_alone(home):
    home.root.mkdir()
    home.clients.write_bytes(b'{"format": 2}')
    for use in (
        lambda: records.find(home, FILE, RECORD.key),
        lambda: records.put(home, RECORD),
        lambda: records.drop(home, FILE, RECORD.key),
    ):
        with pytest.raises(StorageFailed, match="has format 2, and this version of Octave reads 1"):
            use()
    assert home.clients.read_bytes() == b'{"format": 2}'


def test_the_digest_is_of_what_an_entry_says_not_of_its_layout():
    assert digest({"a": "ü", "b": [1]}) == digest({"b": [1], "a": "ü"})
    assert digest({"a": "ü"}) != digest({"a": "u"})
