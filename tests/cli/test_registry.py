"""`registry`: which registries are asked, told to the letter, with the manifest's comments kept."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.packages.mcp_registry import Asked, RegistryServer, item, package, server
from tests.packages.story import GOOD, Done, World
from tests.packages.web_host import Answer

MANIFEST = """# mine
[servers.own]
command = ["true"]   # as it is

# where we get them
[registries.first]
url = "https://first.test"  # theirs

[profiles.work]
servers = ["own"]
"""


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


def manifest(world: World, text: str = MANIFEST) -> None:
    world.home.mkdir(mode=0o700, exist_ok=True)
    (world.home / "octave.toml").write_text(text, encoding="utf-8")


def listed(world: World) -> list[tuple[str, str | None]]:
    return [(row["name"], row["url"]) for row in world.octave("registry", "list", "--json").json]


def told(done: Done, registry: RegistryServer) -> tuple[int, str, str]:
    code, out, err = done.told
    return code, out.replace(registry.url, "URL"), err.replace(registry.url, "URL")


def test_the_list_is_in_the_order_in_which_they_are_asked(world: World) -> None:
    manifest(world)
    code, out, err = world.octave("registry", "list").told
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["NAME", "ADDRESS", "SERVERS", "UPDATED"]
    assert rows[1][:4] == ["bundled", "came", "with", "Octave"]
    assert rows[2] == ["first", "https://first.test", "not", "kept", "here", "-"]
    assert err == ("the official MCP registry is not among them: `octave registry add official`\n")
    found = world.octave("registry", "list", "--json").json
    assert [list(row) for row in found] == [["name", "url", "servers", "ageSeconds", "asked"]] * 2
    assert found[0]["servers"] >= 83


def test_add_asks_it_first_and_keeps_what_stands_in_the_manifest(
    world: World, registry: RegistryServer
) -> None:
    manifest(world)
    assert told(world.octave("registry", "add", "company", f"{registry.url}/v0.1/"), registry) == (
        0,
        "added company URL\n",
        "asking URL\n"
        "next: `octave search QUERY`, or `octave registry update company` to search offline\n",
    )
    assert [asked.params for asked in registry.asked] == [{"limit": "1"}]
    assert world.manifest == f'{MANIFEST}\n[registries.company]\nurl = "{registry.url}"\n'
    assert listed(world)[1:] == [("first", "https://first.test"), ("company", registry.url)]
    again = world.octave("registry", "add", "company", registry.url, "--json")
    assert again.json == {
        "results": [{"name": "company", "status": "present", "url": registry.url}]
    }


def test_add_makes_the_manifest_where_there_is_none(world: World, registry: RegistryServer) -> None:
    assert world.octave("registry", "add", "company", registry.url).code == 0
    assert world.manifest == f'[registries.company]\nurl = "{registry.url}"\n'


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (("bundled", "https://x.test"), 2, "`bundled` is the registry that came with Octave", ""),
        (("company",), 2, "where is `company`?", "octave registry add company https://..."),
        (("Company", "https://x.test"), 2, "`Company` cannot name a registry", ""),
        (("official", "https://evil.test"), 2, "`official` is the registry at https://registry.",
         "choose another name"),
        (("first", "https://other.test"), 2, "`first` is the registry at https://first.test alr",
         "octave registry remove first"),
        (("company", "http://x.test"), 8, "is not reached by https", "octave registry list"),
        (("company", "nonsense"), 2, '"nonsense" is not an address', "octave registry add"),
        (("company", "https://ex..ample"), 2, '"https://ex..ample" is not an address', ""),
        (("company", "https://xn--a"), 8, "the registry `company`", ""),
        (("company", "http://127.0.0.1:1"), 8, "cannot be reached: Connection refused\nhint", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_a_registry_is_not_added(
    world: World, words: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    manifest(world)
    done = world.octave("registry", "add", *words, "-q")
    assert done.code == code
    assert message in done.stderr
    assert hint in done.stderr
    assert world.manifest == MANIFEST


def test_a_web_page_is_no_registry(world: World, registry: RegistryServer) -> None:
    registry.answer = lambda asked: Answer(b"<html>")
    assert world.octave("registry", "add", "company", registry.url, "-q").told == (
        8,
        "",
        "error: the registry `company` does not answer with a list of servers\n"
        "hint: `octave registry list` shows where it is; servers that Octave brought along need "
        "no registry\n",
    )
    assert not (world.home / "octave.toml").exists()


def test_remove_forgets_it_and_keeps_the_rest(world: World, registry: RegistryServer) -> None:
    manifest(world)
    world.octave("registry", "add", "company", registry.url)
    registry.add("com.example/quokka")
    world.octave("registry", "update", "company")
    assert list((world.home / "cache" / "registry").rglob("*.json"))

    done = world.octave("registry", "remove", "company")
    assert told(done, registry) == (0, "removed company URL\n", "")
    assert world.manifest == MANIFEST
    assert not list((world.home / "cache" / "registry").rglob("*.json"))
    assert world.octave("registry", "remove", "frist").told == (
        4,
        "",
        "error: there is no registry `frist` in `octave.toml`\nhint: did you mean `first`?\n",
    )
    assert world.octave("registry", "remove", "bundled").code == 2


def test_update_tells_what_changed(world: World, registry: RegistryServer) -> None:
    world.octave("registry", "add", "company", registry.url)
    one = registry.add("com.example/one")
    registry.add("com.example/two")
    first = world.octave("registry", "update", "-q")
    assert first.told == (0, "updated company: 2 servers\n", "")
    later = {"updatedAt": "2026-02-01T00:00:00Z"}
    registry.items.remove(one)
    registry.items += [
        item(server("com.example/one", version="2.0.0"), **later),
        item(server("com.example/new"), **later),
        item(server("com.example/two"), status="deleted", **later),
    ]

    assert world.octave("registry", "update").told == (
        0,
        "updated company: 2 servers, 1 new, 1 changed, 1 removed\n",
        "asking `company`\n"
        "  new: com.example/new\n"
        "  changed: com.example/one\n"
        "  removed: com.example/two\n"
        "done in N s\n",
    )
    done = world.octave("registry", "update", "--json")
    assert list(done.json) == ["results", "tookSeconds"]
    assert done.json["results"] == [
        {
            "name": "company",
            "status": "updated",
            "servers": 2,
            "added": [],
            "changed": [],
            "removed": [],
            "unreadable": 0,
            "error": None,
        }
    ]
    assert world.octave("registry", "list", "--json").json[1]["servers"] == 2


def test_an_updated_registry_is_searched_offline_and_forgives_mistakes(
    world: World, registry: RegistryServer
) -> None:
    world.octave("registry", "add", "company", registry.url)
    registry.add("com.example/quokka")
    world.octave("registry", "update")
    registry.close()

    done = world.octave("search", "quoka", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert [row["name"] for row in done.json] == ["com.example/quokka"]


def test_each_is_updated_and_the_failures_told(world: World, registry: RegistryServer) -> None:
    manifest(world, '[registries.dead]\nurl = "http://127.0.0.1:1"\n')
    world.octave("registry", "add", "company", registry.url)
    code, out, err = world.octave("registry", "update", "-q").told
    assert (code, out) == (8, "updated company: 0 servers\n")
    assert "error: the registry `dead` cannot be reached: " in err
    done = world.octave("registry", "update", "--json")
    assert [row["status"] for row in done.json["results"]] == ["failed", "updated"]
    assert world.octave("registry", "update", "nobody").code == 4


def test_with_none_configured_update_says_so(world: World) -> None:
    assert world.octave("registry", "update").told == (
        0,
        "",
        "no registry is configured; `octave registry add official` adds one\n",
    )


def test_a_project_one_does_not_trust_gets_no_registry(
    world: World, registry: RegistryServer
) -> None:
    folder = world.cwd / "project"
    folder.mkdir()
    theirs = '[registries.theirs]\nurl = "https://theirs.test"\n'
    (folder / "octave.toml").write_text(theirs, encoding="utf-8")
    assert world.octave("registry", "add", "company", registry.url, cwd=folder).code == 7
    assert (folder / "octave.toml").read_text(encoding="utf-8") == theirs
    listed_there = world.octave("registry", "list", cwd=folder)
    assert "are not asked: `octave trust`" in listed_there.stderr

    assert world.octave("trust", "-y", cwd=folder).code == 0
    assert world.octave("registry", "add", "company", registry.url, cwd=folder).code == 0
    assert world.octave("trust", "--json", cwd=folder).json["trusted"]
    assert world.octave("registry", "list", "--json", cwd=folder).json[2]["asked"]


def test_without_a_word_it_shows_its_help(world: World) -> None:
    done = world.octave("registry")
    assert done.code == 0
    assert all(word in done.stdout for word in ("list", "add", "remove", "update"))
    assert world.octave("registry", "lst").code == 2


def test_who_asks_is_a_reference_and_is_sent(world: World, registry: RegistryServer) -> None:
    def answer(asked: Asked) -> Answer:
        known = asked.headers.get("authorization") == "Bearer t0ps3cret"
        return registry.honest(asked) if known else Answer(status=401)

    registry.answer = answer
    refused = world.octave("registry", "add", "company", registry.url)
    assert refused.code == 8
    assert "it wants authorization\nhint: " in refused.stderr
    clear = world.octave(
        "registry", "add", "company", registry.url, "--header", "Authorization: Bearer t0ps3cret"
    )
    assert (clear.code, "t0ps3cret" in clear.stderr) == (2, False)
    assert not (world.home / "octave.toml").exists()

    variable = {"COMPANY_AUTH": "Bearer t0ps3cret"}
    words = ("registry", "add", "company", registry.url, "--header-env")
    done = world.octave(*words, "Authorization: COMPANY_AUTH", environ=variable)
    assert done.code == 0, done.stderr
    assert world.manifest == (
        f'[registries.company]\nurl = "{registry.url}"\n'
        'headers = {Authorization = {env = "COMPANY_AUTH"}}\n'
    )
    registry.add("com.example/quokka")
    assert "com.example/quokka" in world.octave("search", "quokka", environ=variable).stdout
    without = world.octave("registry", "update")
    assert without.code == 8
    assert "that variable is not set" in without.stderr


def test_who_asks_may_be_a_stored_secret(world: World, registry: RegistryServer) -> None:
    words = ("registry", "add", "company", registry.url, "--header-secret", "Authorization: AUTH")
    missing = world.octave(*words)
    assert missing.code == 8
    assert missing.stderr.endswith("hint: octave secret set company AUTH\n")
    stored = subprocess.run(
        [sys.executable, "-m", "octave", "secret", "set", "company", "AUTH"],
        input=b"Bearer t0ps3cret",
        env=world.environ,
        check=True,
        capture_output=True,
    )
    assert stored.returncode == 0
    assert world.octave(*words).code == 0
    assert registry.asked[-1].headers["authorization"] == "Bearer t0ps3cret"
    assert 'headers = {Authorization = {secret = "company/AUTH"}}' in world.manifest
    (row,) = world.octave("secret", "list", "--json").json
    assert row["usedBy"][0]["server"] == "[registries.company]"


def test_remove_says_which_servers_came_from_it(world: World, registry: RegistryServer) -> None:
    registry.add("com.example/quokka", package("pypi", "quokka-mcp"))
    world.offer("quokka-mcp", GOOD, readme="mcp-name: com.example/quokka")
    assert world.octave("registry", "add", "company", registry.url).code == 0
    assert world.octave("install", "quokka", "--no-start").code == 0
    done = world.octave("registry", "remove", "company")
    assert done.code == 0
    assert done.stderr == (
        "note: `quokka` came from it and stays as it is locked; what its registry says of a newer "
        "version is not known any more\n"
    )
    assert world.octave("install", "--locked").code == 0
