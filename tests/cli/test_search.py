"""`search`: what it tells to the letter, in the order of the registries; and what it recommends."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.mcp_registry import RegistryServer, configure, package, server
from tests.packages.mcp_registry import item as listed
from tests.packages.story import World

FIELDS = [
    "name", "registryName", "registry", "title", "description", "kind", "package", "version",
    "categories", "tools", "startSeconds", "memoryBytes", "vendorOfficial", "archived",
    "deprecated", "replacedBy", "install",
]  # fmt: skip
HOSTILE = "\x1b[31mred\u202e [bold]x[/bold] \U000e0041"


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


def names(world: World, *words: str) -> list[str]:
    done = world.octave("search", *words, "--json")
    assert (done.code, done.stderr) == (0, "")
    return [row["name"] for row in done.json]


# The bundled registry alone


def test_a_search_needs_no_network_and_tells_what_was_tested(world: World) -> None:
    code, out, err = world.octave("search", "sequential").told
    assert (code, err) == (0, "next: `octave info sequential-thinking`\n")
    header, row = out.splitlines()
    assert header.split() == ["NAME", "WHAT", "IT", "DOES", "KIND", "TOOLS", "START", "MEMORY"]
    assert row.startswith("sequential-thinking")
    assert re.search(r" npm +1 +N s +\d+ MB *$", row)
    assert world.octave("search", "sequential", "-q").stderr == ""
    assert not world.home.exists()


def test_the_json_of_a_search_has_its_fields(world: World) -> None:
    done = world.octave("search", "postgres", "--json")
    assert done.stderr == ""
    assert [list(row) for row in done.json] == [FIELDS] * len(done.json)
    row = done.json[0]
    assert row["startSeconds"] > 0 and row["memoryBytes"] > 0
    assert row | {"startSeconds": 0, "memoryBytes": 0} == {
        "name": "postgres",
        "registryName": "io.github.modelcontextprotocol/server-postgres",
        "registry": "bundled",
        "title": "PostgreSQL (read-only)",
        "description": "Read-only SQL and schema inspection on a PostgreSQL database.",
        "kind": "npm",
        "package": "npm:@modelcontextprotocol/server-postgres",
        "version": "0.6.2",
        "categories": ["database"],
        "tools": 1,
        "startSeconds": 0,
        "memoryBytes": 0,
        "vendorOfficial": False,
        "archived": True,
        "deprecated": "archived upstream, no longer maintained; `dbhub` replaces it",
        "replacedBy": "dbhub",
        "install": """octave install postgres --arg '{ secret = "postgres/DATABASE_URL" }'""",
    }


def test_a_deprecated_server_is_marked_with_what_replaces_it(world: World) -> None:
    out = world.octave("search", "postgres").stdout
    assert "PostgreSQL database. (deprecated: use dbhub)" in out


def test_limit_and_category(world: World) -> None:
    done = world.octave("search", "--category", "Database", "--limit", "2")
    assert len(done.stdout.splitlines()) == 3
    assert "more; `--limit " in done.stderr
    everything = world.octave("search", "--category", "database", "--limit", "100", "--json").json
    assert all("database" in row["categories"] for row in everything)
    assert names(world, "browser", "--category", "vcs") == []
    assert world.octave("search", "x", "--limit", "0").code == 2


def test_a_remote_server_says_how_it_is_connected(world: World) -> None:
    row = world.octave("search", "linear", "--json").json[0]
    assert (row["kind"], row["package"]) == ("remote", None)
    assert row["install"] == "octave add linear https://mcp.linear.app/mcp"


def test_a_mistyped_word_shows_what_looks_like_it(world: World) -> None:
    code, out, err = world.octave("search", "githbu").told
    assert code == 0
    assert out.splitlines()[1].startswith("github ")
    assert err.splitlines()[0] == "nothing is called so; this is what looks like it"


def test_words_that_none_has_all_of_show_some(world: World) -> None:
    err = world.octave("search", "read pdf").stderr
    assert err.splitlines()[0] == "nothing has all these words; this has some of them"


def test_an_empty_result_says_what_to_do(world: World) -> None:
    assert world.octave("search", "qwertz", "uiop").told == (
        0,
        "",
        "no server is found for `qwertz uiop`\n"
        "hint: `octave search` alone suggests some, `--registry official` asks the official MCP\n"
        "  registry, and a package goes by its name: `octave install npm:PKG` or `pypi:PKG`\n",
    )
    assert world.octave("search", "qwertz", "--json").told == (0, "[]\n", "")
    assert world.octave("search", "gti").stderr == (
        "no server is found for `gti`\nhint: did you mean `git`?\n"
    )
    assert world.octave("search", "--category", "databse").stderr == (
        "no server is in the category `databse`\nhint: did you mean `database`?\n"
    )


# Further registries


def test_configured_registries_stand_behind_the_bundled_one(
    world: World, registry: RegistryServer
) -> None:
    registry.add("com.example/memory-plus", package("npm", "memory-plus"))
    registry.add("com.example/elsewhere", package("npm", "elsewhere"))
    configure(world.home, company=registry.url)

    found = names(world, "memory")
    assert found[0] == "memory"
    assert found[-1] == "com.example/memory-plus"
    assert names(world, "memory", "--registry", "company") == ["com.example/memory-plus"]
    assert "com.example/memory-plus" not in names(world, "memory", "--registry", "bundled")
    assert registry.told() == ["?search=memory"]
    out = world.octave("search", "memory-plus").stdout
    assert out.splitlines()[0].split()[-1] == "REGISTRY"
    assert out.splitlines()[1].split()[-1] == "company"


def test_a_registry_that_cannot_be_reached_takes_nothing_from_the_others(
    world: World, registry: RegistryServer
) -> None:
    registry.add("com.example/memory-plus")
    configure(world.home, company=registry.url)
    registry.close()
    done = world.octave("search", "memory")

    assert done.code == 8
    assert done.stdout.splitlines()[1].startswith("memory ")
    assert "error: the registry `company` cannot be reached: " in done.stderr
    done = world.octave("search", "memory", "--json")
    assert (done.code, done.json[0]["name"]) == (8, "memory")
    assert done.error["code"] == "registry_unreachable"
    assert done.error["details"]["registry"] == "company"


def test_with_something_kept_it_warns_and_goes_on(world: World, registry: RegistryServer) -> None:
    registry.add("com.example/memory-plus")
    configure(world.home, company=registry.url)
    names(world, "memory-plus")
    registry.close()
    (kept,) = (world.home / "cache" / "registry").rglob("*.json")
    found = json.loads(kept.read_bytes())
    kept.write_text(json.dumps(found | {"fetched_at": found["fetched_at"] - 7200}), "utf-8")

    done = world.octave("search", "memory-plus")
    assert done.code == 0
    assert done.stdout.splitlines()[1].startswith("com.example/memory-plus ")
    assert "warning: the registry `company` cannot be reached: " in done.stderr
    assert "what it said 2 h ago is used" in done.stderr


def test_a_hostile_text_of_a_registry_does_nothing_to_a_terminal(
    world: World, registry: RegistryServer
) -> None:
    content = server("com.example/thing", title=HOSTILE, description=HOSTILE)
    registry.items.append(listed(content, status="deprecated", statusMessage=HOSTILE))
    configure(world.home, company=registry.url)
    for words in (("search", "thing"), ("info", "com.example/thing")):
        done = world.octave(*words)
        assert done.code == 0
        assert "\\x1b[31mred\\u202e [bold]x[/bold] \\U000e0041" in done.stdout
        for text in (done.stdout, done.stderr, world.octave(*words, "--json").stdout):
            assert not {"\x1b", "\u202e", "\U000e0041"} & set(text)


def test_a_registry_nobody_knows_is_not_found(world: World) -> None:
    assert world.octave("search", "x", "--registry", "oficial").told == (
        4,
        "",
        "error: there is no registry `oficial`\nhint: did you mean `official`?\n",
    )


def test_the_registries_of_a_strangers_project_are_not_asked(
    world: World, registry: RegistryServer
) -> None:
    registry.add("com.example/quokka")
    folder = world.cwd / "project"
    folder.mkdir()
    manifest = f'[registries.theirs]\nurl = "{registry.url}"\n'
    (folder / "octave.toml").write_text(manifest, encoding="utf-8")

    done = world.octave("search", "quokka", cwd=folder)
    assert "are not asked until you trust it: `octave trust`" in done.stderr
    assert registry.told() == []
    shown = world.octave("trust", "-y", cwd=folder).stderr
    assert f"  names packages: registry theirs at {registry.url}\n" in shown
    done = world.octave("search", "quokka", "--json", cwd=folder)
    assert [row["name"] for row in done.json] == ["com.example/quokka"]


# Without a query


def test_without_a_query_it_recommends_with_reasons(world: World) -> None:
    package_json = json.dumps({"dependencies": {"pg": "1"}})
    (world.cwd / "package.json").write_text(package_json, encoding="utf-8")
    (world.cwd / ".env").write_text("MONGO=mongodb://u:hush@h/x\n", encoding="utf-8")
    done = world.octave("search")

    assert done.code == 0
    rows = done.stdout.splitlines()
    assert rows[0].split()[-1] == "BECAUSE"
    assert rows[1].startswith("dbhub ") and "  the project depends on `pg`" in rows[1]
    assert "`MONGO` in `.env` is the address of a mongodb database" in rows[2]
    assert "hush" not in done.stdout
    assert done.stderr == "next: `octave install dbhub`\n"
    told = world.octave("search", "--json", "--limit", "1").json
    assert [list(row) for row in told] == [[*FIELDS, "reasons"]]
    assert told[0]["reasons"] == ["the project depends on `pg`"]


def test_what_is_installed_is_not_recommended(world: World) -> None:
    configure(world.home)
    (world.home / "octave.toml").write_text('[servers.time]\ncommand = ["true"]\n', "utf-8")
    assert world.octave("search").told == (
        0,
        "",
        "nothing here asks for a further server; `octave search QUERY` looks for one\n",
    )


# What it loads


@pytest.mark.parametrize("module", ["octave.cli.search", "octave.cli.registry", "octave.cli.info"])
def test_the_network_is_loaded_only_when_a_registry_is_asked(world: World, module: str) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    child = world.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    loaded = set(child.communicate(timeout=30)[0].split())
    assert loaded.isdisjoint({"httpx", "mcp", "pydantic", "starlette", "asyncio"})
