"""What a registry may say about a server, and that no lie of it counts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from octave.errors import RegistryUnreachable
from octave.packages.foreign_entries import foreign_entry
from tests.packages.mcp_registry import RegistryServer, item, package, server
from tests.packages.registry_reader import Reader
from tests.packages.web_host import Answer


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


@pytest.fixture
def reader(tmp_path: Path, registry: RegistryServer) -> Reader:
    return Reader(tmp_path / "cache", registry.url)


def test_deprecated_and_deleted_are_told_with_their_reason(
    registry: RegistryServer, reader: Reader
) -> None:
    npm = package("npm", "thing")
    registry.add("com.example/old", npm, status="deprecated", statusMessage="use  com.x/new\n")
    registry.add("com.example/gone", npm, status="deleted", statusMessage="malware")
    registry.add("com.example/odd", npm, status="resting")

    old, gone = (reader.open().get(f"com.example/{name}") for name in ("old", "gone"))
    odd = reader.open().get("com.example/odd")
    assert old is not None and gone is not None and odd is not None
    assert old.notes_for(old.preferred())[0] == (
        "`com.example/old` is deprecated by its publisher: use com.x/new"
    )
    assert (gone.deleted, odd.deprecated, odd.deleted) == ("malware", None, None)
    assert reader.names("com.") == ["com.example/odd", "com.example/old"]


@pytest.mark.parametrize("kind", ["nuget", "cargo", "go", "mcpb", "docker", "", "npm\0", "Npm"])
def test_a_kind_of_package_nobody_knows_is_shown_and_not_installed(
    registry: RegistryServer, reader: Reader, kind: str
) -> None:
    registry.add("com.example/thing", package(kind, "thing"))

    (entry,) = reader.open().search("thing")
    assert [choice.kind for choice in entry.packages] == [kind]
    assert not entry.packages[0].installable


@pytest.mark.parametrize(
    "changes",
    [
        {"identifier": "--global"},
        {"identifier": "git+https://example.com/x"},
        {"identifier": "../x"},
        {"identifier": "a b"},
        {"environmentVariables": [{"name": "NODE_OPTIONS", "value": "--require ./x"}]},
        {"environmentVariables": [{"name": "LD_PRELOAD", "isRequired": True, "default": "x.so"}]},
        {"environmentVariables": [{"name": "https_proxy", "value": "http://x"}]},
        {"environmentVariables": [{"name": "A=B", "value": "x"}]},
        {"environmentVariables": [{"name": "A", "value": "x\0y"}]},
        {"packageArguments": [{"type": "positional", "value": "x\0y"}]},
        {"transport": {"type": "streamable-http", "url": "http://localhost:1"}},
    ],
)
def test_what_would_decide_how_a_program_runs_is_not_installed(
    registry: RegistryServer, reader: Reader, changes: dict[str, Any]
) -> None:
    registry.add("com.example/thing", package("npm", "thing") | changes)

    (entry,) = reader.open().search("thing")
    assert not entry.packages[0].installable


@pytest.mark.parametrize("identifier", ["../../etc/passwd", "--global", "https://x.test/y.tgz"])
def test_a_name_that_no_package_has_says_so(
    registry: RegistryServer, reader: Reader, identifier: str
) -> None:
    registry.add("com.example/thing", package("npm", identifier))

    (entry,) = reader.open().search("thing")
    assert entry.packages[0].notes == (
        "not installed by Octave: its name is none that a package can have",
    )


@pytest.mark.parametrize("version", ["^1", "*", ">=1,<2", "1 || 2", "latest\n", "$(id)", "../1"])
def test_a_range_is_no_version(registry: RegistryServer, reader: Reader, version: str) -> None:
    registry.add("com.example/thing", package("npm", "thing", version=version))

    (entry,) = reader.open().search("thing")
    assert entry.packages[0].version == ""


@pytest.mark.parametrize(
    ("identifier", "address", "image", "version"),
    [
        ("h.test/o/thing:1.2", "", "h.test/o/thing", "1.2"),
        ("o/thing", "https://images.example.com/v2", "images.example.com/o/thing", "1.0"),
        ("h.test/o/thing", "https://images.example.com", "h.test/o/thing", "1.0"),
        ("o/thing:2", "", "o/thing", "2"),
        (f"h.test/o/thing@sha256:{'0' * 64}", "", "h.test/o/thing", f"sha256:{'0' * 64}"),
        (f"h.test/o/thing:2@sha256:{'0' * 64}", "", "h.test/o/thing", f"sha256:{'0' * 64}"),
    ],
)
def test_an_image_lies_where_its_entry_says_and_nowhere_else(
    registry: RegistryServer,
    reader: Reader,
    identifier: str,
    address: str,
    image: str,
    version: str,
) -> None:
    registry.add("com.example/thing", package("oci", identifier, registryBaseUrl=address))

    (entry,) = reader.open().search("thing")
    (choice,) = entry.packages
    assert (choice.identifier, choice.version, choice.installable) == (image, version, True)
    assert choice.index_host == ""


@pytest.mark.parametrize(
    "identifier",
    [
        "h.test/o/thing@sha512:" + "0" * 128,
        "h.test/o/thing:1.0 --privileged",
        "--privileged",
        "user@h.test/o/thing",
        "h.test/../thing",
        "https://h.test/o/thing",
    ],
)
def test_an_image_that_cannot_be_named_as_its_entry_does_is_not_run(
    registry: RegistryServer, reader: Reader, identifier: str
) -> None:
    registry.add("com.example/thing", package("oci", identifier))

    (entry,) = reader.open().search("thing")
    assert not entry.packages[0].installable
    assert entry.packages[0].notes


@pytest.mark.parametrize(
    "identifier",
    [
        "thing.mcpb",
        "http://x.test/thing.mcpb",
        "https://user:pass@x.test/thing.mcpb",
        "https://[::1/thing.mcpb",
        "https://x.test:99999/thing.mcpb",
        "file:///etc/thing.mcpb",
        "../thing.mcpb",
    ],
)
def test_a_bundle_lies_at_an_https_address_or_is_not_installed(
    registry: RegistryServer, reader: Reader, identifier: str
) -> None:
    one = package("mcpb", identifier, fileSha256="0" * 64)
    registry.add("com.example/thing", one)

    (entry,) = reader.open().search("thing")
    assert not entry.packages[0].installable
    assert entry.packages[0].notes


def test_a_registry_elsewhere_knows_no_bundle_of_this_machine() -> None:
    one = package("mcpb", "http://127.0.0.1:8080/thing.mcpb", fileSha256="0" * 64)
    raw = msgspec.Raw(json.dumps(item(server("com.example/thing", packages=[one]))).encode())
    for address, installable in (("https://mcp.test", False), ("http://127.0.0.1:9", True)):
        entry = foreign_entry(raw, "company", address)
        assert entry is not None
        assert entry.packages[0].installable is installable


def test_harmless_variables_are_set(registry: RegistryServer, reader: Reader) -> None:
    fixed = [{"name": name, "value": "1"} for name in ("NODE_ENV", "PYTHONUNBUFFERED", "MODE")]
    registry.add("com.example/thing", package("npm", "thing", environmentVariables=fixed))

    (entry,) = reader.open().search("thing")
    assert set(entry.preferred().default_env) == {"NODE_ENV", "PYTHONUNBUFFERED", "MODE"}


def test_a_word_of_octaves_own_counts_nothing_from_a_registry(
    registry: RegistryServer, reader: Reader
) -> None:
    own = {
        "vendorOfficial": True,
        "packages": {"npm:thing": {"defaultEnvironment": {"NODE_OPTIONS": "--require ./x"}}},
    }
    content = server(
        "com.example/thing",
        packages=[package("npm", "thing")],
        _meta={"io.github.octave-mcp/registry": own},
    )
    registry.items.append(item(content))

    (entry,) = reader.open().search("thing")
    assert not entry.vendor_official
    assert entry.preferred().default_env == {}


def test_addresses_that_are_none_are_left_out(registry: RegistryServer, reader: Reader) -> None:
    urls = ["https://x.test/mcp", "http://x.test/mcp", "javascript:alert(1)", "file:///etc/passwd"]
    urls += ["https://[x.test/mcp", "https://x.test:99999/mcp", "https://mcp.test@x.test/mcp"]
    urls += ["https:///mcp", "https://[::zz]/mcp"]
    content = server(
        "com.example/thing",
        remotes=[{"type": "sse", "url": url} for url in urls],
        websiteUrl="javascript:alert(1)",
        repository={"url": "https://[broken"},
    )
    registry.items.append(item(content))

    (entry,) = reader.open().search("thing")
    assert [remote.url for remote in entry.remotes] == urls[:1]
    assert (entry.website, entry.repository) == ("", "")


WRONG: list[Any] = [
    3,
    None,
    "text",
    [],
    {},
    {"server": 3},
    {"server": {"name": 3}},
    {"server": {"name": "com.example/x", "description": 3, "version": "1"}},
    {"server": {"name": "com.example/x", "description": "x", "version": "1", "packages": 3}},
    {"server": server("no-slash")},
    {"server": server("two/slashes/x")},
    {"server": server("com.example/\x1b[31mred")},
    {"server": server("com.ex\u0430mple/x")},
    {"server": server("com.example/" + "x" * 300)},
    {"server": server("com.example/x", description="x" * 300_000)},
    {"server": server("com.example/x"), "_meta": 3},
    {"server": server("com.example/x"), "_meta": {"io.modelcontextprotocol.registry/official": 3}},
    item(server("com.example/x"), status=3),
    item(server("com.example/x"), isLatest="yes"),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_an_entry_of_another_shape_is_left_out_and_hides_no_other(
    registry: RegistryServer, reader: Reader, wrong: Any
) -> None:
    good = item(server("com.example/good"))
    registry.answer = lambda asked: Answer.of({"servers": [wrong, good, wrong]})

    assert reader.names() == ["com.example/good"]
    change = reader.open().update()
    assert change.unreadable in {1, 2}


def test_the_newest_of_two_entries_of_one_name_counts(
    registry: RegistryServer, reader: Reader
) -> None:
    one = item(server("com.example/x", version="1"), isLatest=False)
    two = item(server("com.example/x", version="2"))
    three = item(server("com.example/x", version="3"), isLatest=False)
    registry.answer = lambda asked: Answer.of({"servers": [one, two, three]})

    assert [entry.version for entry in reader.open().search("x")] == ["2"]


def test_a_text_is_cut_and_stays_on_one_line(registry: RegistryServer, reader: Reader) -> None:
    content = server("com.example/x", description="a\n\n b " + "x" * 5000, title="t" * 5000)
    registry.items.append(item(content))

    (entry,) = reader.open().search("x")
    assert entry.description.startswith("a b xxx")
    assert (len(entry.description), len(entry.title)) == (300, 100)


def test_an_answer_about_another_server_is_refused(
    registry: RegistryServer, reader: Reader
) -> None:
    registry.answer = lambda asked: Answer.of(item(server("com.evil/thing")))

    with pytest.raises(RegistryUnreachable, match="answers something else"):
        reader.open().get("com.example/thing")
