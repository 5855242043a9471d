"""The bundled registry is true to the official schema, and lookups answer as they should."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # ships no types
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from octave.errors import InstallFailed, OctaveError, ServerNotFound
from octave.packages.info import describe, install_command, server_command
from octave.packages.registry import Entry, Registry, bundled_folder, decode_entry
from octave.packages.server_json import EXTENSION

FOLDER = bundled_folder()
FILES = sorted(FOLDER.glob("*.json"))
SCHEMA = json.loads((Path(__file__).parent / "server.schema.json").read_text(encoding="utf-8"))
OFFICIAL = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"

EXTENSION_MEMBERS = {
    "categories", "keywords", "license", "vendorOfficial", "systemRequires", "notes", "deprecated",
    "replacedBy", "packages",
}  # fmt: skip
PACKAGE_MEMBERS = {
    "executable", "requires", "constraints", "defaultEnvironment", "envOneOf", "network",
    "needsAtStart", "archived", "notes", "figures", "ociRegistry",
}  # fmt: skip
GOLDEN = {
    "duckdb": ("pypi:mcp-server-motherduck", "mcp-server-motherduck", 4),
    "everything": ("npm:@modelcontextprotocol/server-everything", "mcp-server-everything", 13),
    "fetch": ("pypi:mcp-server-fetch", "mcp-server-fetch", 1),
    "filesystem": ("npm:@modelcontextprotocol/server-filesystem", "mcp-server-filesystem", 14),
    "git": ("pypi:mcp-server-git", "mcp-server-git", 12),
    "kubernetes": ("npm:kubernetes-mcp-server", "kubernetes-mcp-server", 20),
    "memory": ("npm:@modelcontextprotocol/server-memory", "mcp-server-memory", 9),
    "sequential-thinking": (
        "npm:@modelcontextprotocol/server-sequential-thinking",
        "mcp-server-sequential-thinking",
        1,
    ),
    "sqlite": ("pypi:mcp-server-sqlite", "mcp-server-sqlite", 6),
    "time": ("pypi:mcp-server-time", "mcp-server-time", 2),
}
OFFICIAL_NAMES = {
    "everything": "io.github.modelcontextprotocol/server-everything",
    "filesystem": "io.github.modelcontextprotocol/server-filesystem",
    "memory": "io.github.modelcontextprotocol/server-memory",
    "sequential-thinking": "io.github.modelcontextprotocol/server-sequential-thinking",
    "fetch": "io.github.modelcontextprotocol/server-fetch",
    "git": "io.github.modelcontextprotocol/server-git",
    "time": "io.github.modelcontextprotocol/server-time",
    "kubernetes": "io.github.containers/kubernetes-mcp-server",
    "duckdb": "io.github.motherduckdb/mcp-server-motherduck",
}
"""`mcpName` of the npm packages, `mcp-name:` in the README of the PyPI ones."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(FOLDER)


def document(**changes: Any) -> bytes:
    """A server.json with the least in it, and `changes`."""
    least = {"name": "io.github.someone/thing", "description": "Does a thing.", "version": "1.0.0"}
    return json.dumps(least | changes).encode()


def one_package(**changes: Any) -> Entry:
    package = {"registryType": "npm", "identifier": "thing", "transport": {"type": "stdio"}}
    return decode_entry("thing", document(packages=[package | changes]))


# What is bundled


def test_the_mandatory_servers_are_bundled(registry):
    assert set(registry.names()) >= {"github", "linear", "slack", *GOLDEN}
    assert len(registry.names()) >= 83


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bundled_file_follows_the_official_schema(path):
    content = json.loads(path.read_text(encoding="utf-8"))

    jsonschema.validate(content, SCHEMA, cls=jsonschema.Draft7Validator)

    assert content["$schema"] == OFFICIAL
    assert len(content["title"]) <= 100
    assert not any("registryBaseUrl" in package for package in content["packages"])
    assert content["version"] in [one["version"] for one in content["packages"][:1]] or (
        not content["packages"]
    )
    urls = [content.get("websiteUrl"), content.get("repository", {}).get("url")]
    urls += [remote["url"] for remote in content.get("remotes", [])]
    assert all(url.startswith("https://") for url in urls if url is not None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_the_schema_lacks_lies_under_one_key_and_has_no_unknown_members(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    more = content["_meta"][EXTENSION]
    packages = {f"{p['registryType']}:{p['identifier']}" for p in content["packages"]}

    assert set(content["_meta"]) == {EXTENSION}
    assert set(more) <= EXTENSION_MEMBERS
    assert set(more["packages"]) == packages
    assert all(set(package) <= PACKAGE_MEMBERS for package in more["packages"].values())
    assert {p["network"] for p in more["packages"].values()} <= {"none", "call", "start"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bundled_file_names_no_package_registry_no_machine_path_and_no_secret(path):
    text = path.read_text(encoding="utf-8")

    hosts = re.findall(r"https?://([^/\s\"]+)", text)
    identifiers = [package["identifier"] for package in json.loads(text)["packages"]]
    assert not [host for host in hosts if re.search("npm|pypi|python|registry|docker", host)]
    assert not [name for name in identifiers if re.match(r"[\w-]+\.[\w.-]+/|\w+:", name)]
    assert not re.search(r'"/(?:home|root|tmp|Users|usr|opt|var)\b', text)
    assert not re.search(r"\b(?:ghp_|github_pat_|xox[bp]-\d|sk-)[A-Za-z0-9_-]{8,}", text)
    assert text.isascii()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no-slash"},
        {"name": "two/slashes/here"},
        {"description": "x" * 101},
        {"packages": [{"registryType": "npm", "identifier": "thing"}]},
        {"remotes": [{"type": "streamable-http"}]},
        {"remotes": [{"type": "stdio"}]},
    ],
)
def test_the_schema_refuses_what_the_official_one_refuses(wrong):
    jsonschema.validate(json.loads(document()), SCHEMA)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(document(**wrong)), SCHEMA)


def test_every_bundled_file_can_be_read_and_says_how_its_server_is_got(registry):
    entries, warnings = registry.scan()

    assert warnings == ()
    assert [entry.short_name for entry in entries] == registry.names()
    assert sorted(path.stem for path in FILES) == registry.names()
    for entry in entries:
        if entry.packages:
            assert entry.preferred().installable
        else:
            assert entry.remotes or entry.deprecated, entry.short_name
        assert entry.categories, entry.short_name
        assert entry.license, entry.short_name


def test_official_names_and_installable_packages_belong_to_one_file_each(registry):
    entries = registry.entries()
    names = [entry.name for entry in entries]
    packages = [choice.request for entry in entries for choice in entry.packages]

    assert len(set(names)) == len(names)
    assert len(set(packages)) == len(packages)


def test_aliases_name_files_and_hide_none(registry):
    aliases = registry.aliases()

    assert aliases["gh"] == "github"
    assert aliases["seq-thinking"] == "sequential-thinking"
    assert set(aliases.values()) <= set(registry.names())
    assert not set(aliases) & set(registry.names())
    for alias, name in aliases.items():
        assert registry.get(alias).short_name == name


def test_replacements_of_deprecated_servers_exist(registry):
    replaced = {entry.short_name: entry.replaced_by for entry in registry.entries()}

    assert replaced["postgres"] == "dbhub"
    assert {name for name in replaced.values() if name} <= set(registry.names())


def test_dependency_limits_and_version_ranges_can_be_parsed(registry):
    for entry in registry.entries():
        for choice in entry.packages:
            assert set(choice.requires) <= {"node", "python"}
            if choice.kind == "pypi":
                SpecifierSet(choice.requires.get("python", ""))
                assert all(Requirement(limit).name for limit in choice.constraints)


def test_no_default_is_a_secret_and_every_choice_of_variables_is_declared(registry):
    for entry in registry.entries():
        for choice in entry.packages:
            declared = {variable.name for variable in choice.variables}
            assert not choice.secret_env & set(choice.default_env), entry.short_name
            assert not [v for v in choice.variables if v.secret and v.default]
            assert {name for group in choice.env_one_of for name in group} <= declared


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_server_is_installed_from_the_package_that_was_tried(registry, name):
    request, executable, tools = GOLDEN[name]
    choice = registry.get(name).preferred()

    assert choice.request == request
    assert choice.executable == executable
    assert choice.figures is not None
    assert choice.figures.tools == tools
    assert choice.fixed_args() == ()
    assert choice.required_env == ()
    assert choice.constraints == (("mcp<2",) if name == "sqlite" else ())
    memory = {"MEMORY_FILE_PATH": "{data}/memory.jsonl"}
    assert choice.default_env == (memory if name == "memory" else {})


@pytest.mark.parametrize("name", OFFICIAL_NAMES)
def test_the_official_name_is_the_one_the_package_claims(registry, name):
    assert registry.get(name).name == OFFICIAL_NAMES[name]


def test_golden_servers_say_which_arguments_they_need(registry):
    needed = {name: install_command(name, registry.get(name).preferred()) for name in GOLDEN}
    bare = {name: f"octave install {name}" for name in GOLDEN}

    assert needed == bare | {
        "duckdb": "octave install duckdb --arg=--db-path --arg PATH",
        "filesystem": "octave install filesystem --arg ALLOWED_DIR",
    }
    assert registry.get("kubernetes").preferred().needs_at_start


def test_github_is_the_archived_package_with_notes_and_never_its_namesake(registry):
    entry = registry.get("github")
    choice = entry.preferred()

    assert choice.request == "npm:@modelcontextprotocol/server-github"
    assert choice.required_env == ("GITHUB_PERSONAL_ACCESS_TOKEN",)
    assert choice.secret_env == {"GITHUB_PERSONAL_ACCESS_TOKEN"}
    assert "archived" in entry.notes_for(choice)[0]
    assert any("--remote" in note for note in entry.notes_for(choice))
    assert entry.package("npm", "github-mcp-server") is None
    assert registry.find_package("npm", "github-mcp-server") is None
    assert [remote.url for remote in entry.remotes] == ["https://api.githubcopilot.com/mcp/"]


def test_slack_is_the_package_that_was_tried_and_knows_the_other(registry):
    entry = registry.get("slack")
    other = entry.package("npm", "slack-mcp-server")

    assert entry.preferred().request == "npm:@modelcontextprotocol/server-slack"
    assert entry.preferred().required_env == ("SLACK_BOT_TOKEN", "SLACK_TEAM_ID")
    assert "archived" in entry.notes_for(entry.preferred())[0]
    assert other is not None
    assert other.fixed_args() == ("--transport", "stdio")
    assert other.network == "start"
    assert other.env_one_of[-1] == ("SLACK_MCP_XOXC_TOKEN", "SLACK_MCP_XOXD_TOKEN")
    assert "archived" not in "".join(entry.notes_for(other))


def test_a_deprecated_server_says_so_first_and_names_its_replacement(registry):
    entry = registry.get("postgres")

    assert entry.notes_for(entry.preferred())[0] == (
        "`postgres` is archived upstream, no longer maintained; `dbhub` replaces it"
    )


# Looking up


def test_a_lookup_by_name_opens_no_other_file(tmp_path):
    shutil.copy(FOLDER / "time.json", tmp_path)
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "aliases.toml").write_text("= broken", encoding="utf-8")

    assert Registry(tmp_path).get("time").title == "Time"


def test_a_broken_file_is_named_and_hides_no_other(tmp_path):
    shutil.copy(FOLDER / "time.json", tmp_path)
    (tmp_path / "broken.json").write_text('{"name": 3}', encoding="utf-8")
    registry = Registry(tmp_path)

    entries, warnings = registry.scan()

    assert [entry.short_name for entry in entries] == ["time"]
    assert [re.sub(": .*", "", warning) for warning in warnings] == [
        "the registry entry `broken` cannot be read"
    ]
    with pytest.raises(OctaveError, match="`broken` cannot be read"):
        registry.get("broken")


def test_a_missing_folder_knows_no_server(tmp_path):
    registry = Registry(tmp_path / "missing")

    assert registry.scan() == ((), ())
    with pytest.raises(ServerNotFound):
        registry.get("time")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("psql", "postgres"),
        ("mysql", "dbhub"),
        ("chrome", "chrome-devtools"),
        ("kubectl", "kubernetes"),
        ("gmaps", "google-maps"),
        # Not the npm package of that name, which is somebody else's.
        ("github-mcp-server", "github"),
    ],
)
def test_what_people_call_a_server_is_known(registry, typed, name):
    assert registry.get(typed).short_name == name


def test_the_name_of_a_package_leads_to_its_server(registry):
    with pytest.raises(ServerNotFound) as raised:
        registry.get("mcp-server-fetch")
    assert raised.value.hint == "that package is the server `fetch`: `octave info fetch`"


def test_an_alias_to_nowhere_finds_nothing(tmp_path):
    shutil.copy(FOLDER / "time.json", tmp_path / "time.json")
    (tmp_path / "aliases.toml").write_text(
        'clock = "time"\nlost = "gone"\nup = "../time"\n', encoding="utf-8"
    )
    registry = Registry(tmp_path)

    assert registry.get("clock").short_name == "time"
    for name in ("lost", "up"):
        with pytest.raises(ServerNotFound, match=f"no server `{name}`"):
            registry.get(name)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("githbu", "did you mean `github` or"),
        ("sequental-thinking", "did you mean `sequential-thinking`?"),
        ("GitHub", "did you mean `github`"),
        ("g\u0456thub", "did you mean `github`"),
        ("\uff47\uff49\uff54\uff48\uff55\uff42", "did you mean `github`"),
        ("quite-unheard-of", "octave install npm:PKG"),
        ("@scope/name", "octave install npm:@scope/name"),
        ("../time", "did you mean `time`"),
        ("time.json", "did you mean `time`"),
        ("time\n", "did you mean `time`"),
        ("", "octave install npm:PKG"),
        ("a" * 10_000, "octave install npm:PKG"),
        ("/etc/passwd", "octave install npm:PKG"),
        ("time\0", "did you mean `time`"),
    ],
)
def test_a_wrong_name_is_not_found_and_the_hint_helps(registry, typed, hint):
    with pytest.raises(ServerNotFound) as caught:
        registry.get(typed)

    assert caught.value.exit_code == 4
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("kind", "package", "name"),
    [
        ("npm", "@modelcontextprotocol/server-memory", "memory"),
        ("npm", "slack-mcp-server", "slack"),
        ("pypi", "mcp-server-sqlite", "sqlite"),
        ("pypi", "MCP_Server.SQLite[extra]", "sqlite"),
        ("pypi", "@modelcontextprotocol/server-memory", None),
        ("npm", "Kubernetes-MCP-Server", None),
    ],
)
def test_a_package_asked_for_directly_profits_from_its_entry(registry, kind, package, name):
    entry = registry.find_package(kind, package)

    assert (entry and entry.short_name) == name
    if entry is not None:
        assert entry.package(kind, package) is not None


# Reading server.json files of others


def test_members_octave_does_not_know_are_ignored():
    entry = decode_entry("thing", document(icons=[{"src": "https://x.test/i.png"}], future=[1]))

    assert (entry.title, entry.packages, entry.deprecated) == ("thing", (), None)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": "a/b"}', document(packages=3)])
def test_a_file_of_another_shape_is_a_value_error(text):
    with pytest.raises(ValueError):
        decode_entry("thing", text)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "in no form at all"),
        (
            {
                "packages": [
                    {
                        "registryType": "nuget",
                        "identifier": "Thing",
                        "transport": {"type": "stdio"},
                    }
                ]
            },
            "only as nuget package",
        ),
        (
            {"remotes": [{"type": "sse", "url": "https://thing.test/sse"}]},
            "only at https://thing.test/sse",
        ),
        (
            {
                "packages": [
                    {
                        "registryType": "npm",
                        "identifier": "thing",
                        "transport": {"type": "sse", "url": "http://localhost:{port}"},
                    }
                ]
            },
            "only as npm package",
        ),
    ],
)
def test_a_server_without_an_installable_package_says_which_forms_there_are(changes, why):
    entry = decode_entry("thing", document(**changes))

    with pytest.raises(InstallFailed, match=why) as caught:
        entry.preferred()

    connect = "octave add thing https://thing.test/sse" if entry.remotes else None
    assert caught.value.hint == (connect or "`octave info thing` shows what is known about it")
    assert describe(entry)["install"] == connect


def test_fixed_arguments_become_elements_of_argv_and_open_ones_do_not():
    entry = one_package(
        packageArguments=[
            {"type": "positional", "value": "serve"},
            {"type": "named", "name": "--mode", "value": "a b; rm"},
            {"type": "named", "name": "--level", "value": "{level}",
             "variables": {"level": {"default": "3"}}},
            {"type": "named", "name": "--as", "value": "{unknown}"},
            {"type": "named", "name": "--key", "value": "{key}", "isRequired": True,
             "variables": {"key": {"isRequired": True}}},
            {"type": "named", "name": "--quiet", "format": "boolean"},
            {"type": "positional", "valueHint": "folder", "isRequired": True, "isRepeated": True},
        ]
    )  # fmt: skip
    choice = entry.preferred()

    assert choice.fixed_args() == (
        "serve", "--mode", "a b; rm", "--level", "3", "--as", "{unknown}",
    )  # fmt: skip
    assert server_command(choice) == (
        "thing serve --mode 'a b; rm' --level 3 --as '{unknown}' --key {key} FOLDER..."
    )


def test_environment_fixed_by_the_author_or_needed_with_a_default_is_set():
    entry = one_package(
        environmentVariables=[
            {"name": "FIXED", "value": "1"},
            {"name": "NEEDED", "isRequired": True, "default": "there"},
            {"name": "OPTIONAL", "default": "the server's own"},
            {"name": "TOKEN", "isRequired": True, "isSecret": True, "default": "never"},
            {"name": "PLACE", "isRequired": True},
        ]
    )
    choice = entry.preferred()

    assert choice.default_env == {"FIXED": "1", "NEEDED": "there"}
    assert choice.required_env == ("TOKEN", "PLACE")


def test_the_description_of_an_entry_is_json_with_the_commands_to_run(registry):
    told = describe(registry.get("filesystem"))

    assert json.loads(json.dumps(told)) == told
    assert told["install"] == "octave install filesystem --arg ALLOWED_DIR"
    assert told["packages"][0]["command"] == "mcp-server-filesystem ALLOWED_DIR..."
    assert told["packages"][0]["figures"]["startSeconds"] > 0
    assert told["packages"][0]["preferred"] is True
    assert described_secrets(describe(registry.get("github"))) == ["GITHUB_PERSONAL_ACCESS_TOKEN"]


def described_secrets(told: dict[str, Any]) -> list[str]:
    return [v["name"] for v in told["packages"][0]["environment"] if v["secret"]]
