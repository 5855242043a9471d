"""Registries over HTTP: what they are asked, what is kept of the answers and for how long."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.errors import RegistryUnreachable
from octave.packages.mcp_registry import LIFETIME_S
from octave.packages.registry_cache import MOST_FILES
from tests.packages.mcp_registry import (
    Asked,
    RegistryServer,
    gzipped,
    item,
    package,
    server,
)
from tests.packages.registry_reader import Reader, problem
from tests.packages.web_host import Answer


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


@pytest.fixture
def reader(tmp_path: Path, registry: RegistryServer) -> Reader:
    return Reader(tmp_path / "cache", registry.url)


def numbered(registry: RegistryServer, count: int) -> list[str]:
    names = [f"com.example/server-{number:03}" for number in range(count)]
    for name in names:
        registry.add(name)
    return names


# What it is asked


def test_a_search_reads_all_pages_of_the_newest_versions(
    registry: RegistryServer, reader: Reader
) -> None:
    names = numbered(registry, 250)
    registry.add("com.example/server-000", isLatest=False)
    registry.add("com.example/other")

    assert reader.names("Server-") == names
    assert registry.told() == [
        "?search=server-",
        "?search=server-&cursor=100",
        "?search=server-&cursor=200",
    ]


def test_a_full_name_is_asked_for_exactly(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing", package("npm", "thing"))

    found = reader.open().get("com.example/thing")
    assert found is not None
    assert (found.name, found.registry) == ("com.example/thing", "company")
    assert found.preferred().claim == "com.example/thing"
    assert reader.open().get("com.example/thin") is None
    assert [asked.path for asked in registry.asked] == [
        "/v0.1/servers/com.example%2Fthing/versions/latest",
        "/v0.1/servers/com.example%2Fthin/versions/latest",
    ]


def test_an_address_below_a_path_is_kept(registry: RegistryServer, reader: Reader) -> None:
    reader.url = f"{registry.url}/mcp/"
    registry.answer = lambda asked: registry.honest(
        Asked(asked.path.removeprefix("/mcp"), asked.params)
    )
    registry.add("com.example/thing")

    assert reader.names("thing") == ["com.example/thing"]
    assert registry.asked[0].path == "/mcp/v0.1/servers"


def test_an_answer_may_be_compressed(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    registry.answer = lambda asked: gzipped(registry.honest(asked).body)

    assert reader.names("thing") == ["com.example/thing"]


def test_a_passing_failure_is_asked_again(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    answers = iter([Answer(status=503), Answer(status=429)])
    registry.answer = lambda asked: next(answers, None) or registry.honest(asked)

    assert reader.names("thing") == ["com.example/thing"]
    assert len(registry.told()) == 3


# What is kept


def test_an_answer_is_kept_for_an_hour(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    registry.told()

    reader.later(LIFETIME_S - 1)
    assert reader.names("thing") == ["com.example/thing"]
    assert registry.told() == []
    reader.later(2)
    reader.names("thing")
    assert registry.told() == ["?search=thing&updated_since=2026-01-01T00:00:00Z"]


def test_only_what_changed_is_fetched_of_an_old_list(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.add("com.example/kept")
    changed = registry.add("com.example/changed")
    gone = registry.add("com.example/gone")
    assert reader.open().update().added == (
        "com.example/changed",
        "com.example/gone",
        "com.example/kept",
    )
    registry.told()
    official = {"updatedAt": "2026-02-01T00:00:00Z", "isLatest": True}
    registry.items.remove(changed)
    registry.items.remove(gone)
    registry.items += [
        item(server("com.example/changed", version="2.0.0"), **official),
        item(server("com.example/gone"), status="deleted", **official),
        item(server("com.example/new"), **official),
    ]

    change = reader.open().update()

    assert registry.told() == ["?updated_since=2026-01-01T00:00:00Z"]
    assert change.added == ("com.example/new",)
    assert change.changed == ("com.example/changed",)
    assert change.removed == ("com.example/gone",)
    assert change.servers == 3
    assert reader.names() == ["com.example/changed", "com.example/kept", "com.example/new"]


def test_a_whole_list_is_fetched_anew_each_week(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    reader.open().update()
    reader.later(6 * 86400)
    reader.open().update()
    registry.items.clear()
    registry.add("com.example/other")
    registry.told()
    reader.later(2 * 86400)

    assert reader.open().update().removed == ("com.example/thing",)
    assert registry.told() == [""]


def test_with_the_whole_list_a_search_asks_nothing(
    registry: RegistryServer, reader: Reader
) -> None:
    numbered(registry, 3)
    reader.open().update()
    registry.told()

    assert len(reader.names("anything at all")) == 3
    assert registry.told() == []


def test_what_was_told_before_an_update_is_told_anew(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.add("com.example/one")
    same = reader.open()
    same.update()
    assert len(same.search("")) == 1
    registry.add("com.example/two", updatedAt="2026-02-01T00:00:00Z")
    same.update()
    assert len(same.search("")) == 2


def test_an_answer_from_the_future_is_old(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    registry.told()
    reader.later(-86400)
    reader.names("thing")
    assert len(registry.told()) == 1


def test_an_entry_from_the_future_hides_no_change(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/liar", updatedAt="9999-01-01T00:00:00Z")
    registry.add("com.example/thing", updatedAt="2026-03-01T00:00:00+00:00")
    registry.add("com.example/vague", updatedAt="soon")
    reader.open().update()
    registry.told()
    reader.open().update()

    assert registry.told() == ["?updated_since=2026-03-01T00:00:00+00:00"]


def test_what_was_kept_does_when_it_cannot_be_reached(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    reader.open().get("com.example/thing")
    registry.close()
    reader.later(3 * 3600)

    assert reader.names("thing") == ["com.example/thing"]
    assert reader.open().get("com.example/thing") is not None
    assert len(reader.warnings) == 2
    assert reader.warnings[0].startswith("the registry `company` cannot be reached: ")
    assert reader.warnings[0].endswith("; what it said 3 h ago is used")
    assert problem(reader, "other").startswith("the registry `company` cannot be reached: ")


def test_offline_opens_no_network(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    registry.told()
    reader.later(30 * 86400)
    offline = reader.open(offline=True)

    assert [entry.name for entry in offline.search("thing")] == ["com.example/thing"]
    with pytest.raises(RegistryUnreachable, match="nothing is kept"):
        offline.search("other")
    assert registry.told() == []
    assert reader.warnings == ["what the registry `company` said 30 days ago is used"]


def test_with_the_whole_list_a_server_is_known_offline(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.add("com.example/thing")
    reader.open().update()
    registry.close()

    assert reader.open(offline=True).get("com.example/thing") is not None
    assert reader.warnings == []
    assert reader.open().get("com.example/thing") is not None
    assert reader.warnings[0].endswith("; what its list said is used")
    with pytest.raises(RegistryUnreachable):
        reader.open().get("com.example/other")


def test_another_registry_under_the_same_name_inherits_nothing(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    with RegistryServer() as other:
        reader.url = other.url
        assert reader.names("thing") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b'{"format": 2}'])
def test_a_damaged_cache_is_fetched_anew(
    registry: RegistryServer, reader: Reader, tmp_path: Path, content: bytes
) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_bytes(content)

    assert reader.names("thing") == ["com.example/thing"]


@pytest.mark.parametrize("changes", [{"format": 2}, {"url": "https://x.test"}, {"question": ""}])
def test_an_answer_to_something_else_is_not_taken(
    registry: RegistryServer, reader: Reader, tmp_path: Path, changes: dict[str, object]
) -> None:
    registry.add("com.example/thing")
    reader.names("thing")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    found = json.loads(kept.read_bytes())
    kept.write_text(json.dumps(found | {"items": []} | changes), encoding="utf-8")

    assert reader.names("thing") == ["com.example/thing"]


def test_only_the_latest_answers_are_kept(
    registry: RegistryServer, reader: Reader, tmp_path: Path
) -> None:
    registry.add("com.example/thing")
    reader.names("first")
    (kept,) = (tmp_path / "cache").rglob("*.json")
    for number in range(MOST_FILES + 5):
        kept.with_name(f"{number}.json").write_bytes(b"{}")
    reader.names("thing")
    registry.told()

    assert len(list((tmp_path / "cache").rglob("*.json"))) == MOST_FILES
    assert reader.names("thing") == ["com.example/thing"]
    assert registry.told() == []


def test_a_folder_that_cannot_be_written_costs_time_only(
    registry: RegistryServer, reader: Reader, tmp_path: Path
) -> None:
    registry.add("com.example/thing")
    (tmp_path / "cache").write_bytes(b"a file in the way")

    assert reader.names("thing") == reader.names("thing") == ["com.example/thing"]
    assert len(registry.told()) == 2


def test_what_is_kept_is_private_and_can_be_forgotten(
    registry: RegistryServer, reader: Reader, tmp_path: Path
) -> None:
    umask = os.umask(0)
    try:
        registry.add("com.example/thing")
        reader.open().update()
    finally:
        os.umask(umask)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*.json")}

    assert modes == {0o600}
    assert reader.open().kept() == (1, 0.0)
    reader.open().forget()
    assert reader.open().kept() == (None, None)
    assert list((tmp_path / "cache").rglob("*.json")) == []
