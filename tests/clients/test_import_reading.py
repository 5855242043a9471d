"""What is found in the files of AI tools, and what each entry becomes."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from octave.clients import configured, drafts, plan
from octave.clients.configured import Broken, Configured, Desk
from octave.clients.drafts import Asked, Draft, Known, Secret
from octave.clients.table import CLIENTS
from octave.errors import OctaveError
from octave.packages.manifest import parse
from octave.packages.registry import Registry, bundled_folder
from octave.settings import Reference

KNOWN = Known(Registry(bundled_folder()).entries)
TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


@dataclass(frozen=True)
class User:
    """A person's home and the folder they stand in."""

    home: Path
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, content: object) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
        return path

    def read(self, *ids: str) -> tuple[list[Configured], list[Broken]]:
        clients = [CLIENTS[name] for name in ids or CLIENTS]
        return configured.read(clients, Desk(self.home, self.folder, self.environ))

    def drafts(self, *ids: str) -> dict[str, Draft | str]:
        """Return the draft of each name, or why there is none."""
        found, broken = self.read(*ids)
        assert broken == []
        made: dict[str, Draft | str] = {}
        for each in found:
            try:
                made[each.name] = drafts.draft(each, KNOWN)
            except drafts.Skipped as reason:
                made[each.name] = str(reason)
        return made

    def draft(self, entry: object, client: str = "cursor", **more: object) -> Draft:
        """Return the draft of one entry in the user's file of `client`."""
        key = CLIENTS[client].path[0]
        name = CLIENTS[client].places["user"].names[-1]
        self.write(name, {key: {"it": entry}, **more})
        made = self.drafts(client)["it"]
        assert isinstance(made, Draft), made
        return made

    def reason(self, entry: object, client: str = "cursor", **more: object) -> str:
        """Return why an entry is not taken over."""
        key = CLIENTS[client].path[0]
        self.write(CLIENTS[client].places["user"].names[-1], {key: {"it": entry}, **more})
        made = self.drafts(client)["it"]
        assert isinstance(made, str), made
        return made


@pytest.fixture
def user(tmp_path: Path) -> User:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "project").mkdir()
    return User(tmp_path / "home", tmp_path / "home" / "project")


def test_every_tool_is_read_at_its_place_and_scope(user):
    entry = {"command": "x"}
    user.write(
        ".claude.json",
        {
            "mcpServers": {"a": entry},
            "projects": {
                str(user.folder): {"mcpServers": {"b": entry}},
                "/elsewhere": {"mcpServers": {"no": entry}},
            },
        },
    )
    user.write("project/.mcp.json", {"mcpServers": {"c": entry}})
    user.write(".config/Claude/claude_desktop_config.json", {"mcpServers": {"d": entry}})
    user.write(".cursor/mcp.json", {"mcpServers": {"e": entry}})
    user.write("project/.cursor/mcp.json", {"mcpServers": {"f": entry}})
    user.write(".codeium/windsurf/mcp_config.json", {"mcpServers": {"g": entry}})
    user.write(".config/Code/User/mcp.json", '{"servers": {"h": {"command": "x"},}, /* c */}')
    user.write("project/.vscode/mcp.json", {"servers": {"i": entry}})
    user.write(".codex/config.toml", '[mcp_servers.j]\ncommand = "x"\n')
    user.write("project/.codex/config.toml", '[mcp_servers.k]\ncommand = "x"\n')
    user.write(".gemini/settings.json", {"mcpServers": {"l": entry}})
    user.write("project/.gemini/settings.json", {"mcpServers": {"m": entry}})
    found, broken = user.read()
    assert broken == []
    assert [(each.name, each.client.id, each.level) for each in found] == [
        ("a", "claude", "user"),
        ("b", "claude", "local"),
        ("c", "claude", "project"),
        ("d", "claude-desktop", "user"),
        ("e", "cursor", "user"),
        ("f", "cursor", "project"),
        ("g", "windsurf", "user"),
        ("h", "vscode", "user"),
        ("i", "vscode", "project"),
        ("j", "codex", "user"),
        ("k", "codex", "project"),
        ("l", "gemini", "user"),
        ("m", "gemini", "project"),
    ]
    assert [each.name for each in user.read("codex")[0]] == ["j", "k"]


def test_what_the_tool_itself_does_not_use_is_left_alone(user):
    entry = {"command": "x"}
    user.write(
        ".claude.json",
        {
            "mcpServers": {"a": {**entry, "disabled": True}},
            "projects": {str(user.folder): {"disabledMcpjsonServers": ["b"]}},
        },
    )
    user.write("project/.mcp.json", {"mcpServers": {"b": entry}})
    user.write(".codex/config.toml", '[mcp_servers.c]\ncommand = "x"\nenabled = false\n')
    user.write(".gemini/settings.json", {"mcp": {"excluded": ["d"]}, "mcpServers": {"d": entry}})
    assert set(user.drafts().values()) == {"it is switched off there"}
    user.write(".cursor/mcp.json", '{"mcpServers": {"e": {"command": "x"}, "e": {"command": "y"}}}')
    assert user.drafts("cursor") == {"e": "its name is there twice"}


def test_a_broken_file_is_named_and_hides_no_other(user):
    user.write(".claude.json", '{"mcpServers": {"a": 1 "b"}}')
    user.write(".codex/config.toml", "x = \n")
    user.write("project/.mcp.json", '{"mcpServers": []}')
    user.write(".gemini/settings.json", {"mcpServers": {"l": {"command": "x"}}})
    found, broken = user.read()
    assert [each.name for each in found] == ["l"]
    assert [(each.client.id, each.file.name) for each in broken] == [
        ("claude", ".claude.json"),
        ("claude", ".mcp.json"),
        ("codex", "config.toml"),
    ]


def test_links_in_circles_pipes_folders_and_endless_files_are_named(user):
    (user.home / ".claude.json").symlink_to(user.home / ".claude.json")
    (user.home / ".cursor").mkdir()
    os.mkfifo(user.home / ".cursor" / "mcp.json")
    (user.home / ".codex" / "config.toml").mkdir(parents=True)
    with user.write(".gemini/settings.json", "{").open("wb") as file:
        file.truncate(2**40)
    user.write(".codeium/windsurf/mcp_config.json", '{"mcpServers":' + '{"a":' * 5000)
    found, broken = user.read()
    assert found == []
    reasons = {each.client.id: each.error.message for each in broken}
    assert set(reasons) == {"claude", "cursor", "codex", "gemini", "windsurf"}
    assert "larger than 32 MiB" in reasons["gemini"]
    assert "nested more than 200 levels deep" in reasons["windsurf"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_not_read(user):
    path = user.write("project/.mcp.json", {"mcpServers": {"a": {"command": "x"}}})
    os.chown(path, 12345, -1)
    found, broken = user.read()
    assert found == []
    assert broken[0].error.message == f"`{path}` belongs to another user"


def test_a_known_package_takes_its_short_name_and_what_the_registry_adds_by_itself(user):
    made = user.draft(
        {"command": "npx", "args": ["-y", "slack-mcp-server@latest", "--transport", "stdio"]}
    )
    assert (made.name, made.package, made.version) == ("slack", "npm:slack-mcp-server", "*")
    assert made.args == ()
    made = user.draft({"command": "uvx", "args": ["mcp_server.git==2025.1", "--repository", "/x"]})
    assert (made.name, made.package) == ("git", "pypi:mcp_server.git")
    assert (made.version, made.args) == ("==2025.1", ("--repository", "/x"))


def test_secrets_are_told_by_the_registry_by_their_names_and_by_their_looks(user):
    made = user.draft(
        {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-github"],
            "env": {"GITHUB_PERSONAL_ACCESS_TOKEN": "plain", "X": TOKEN, "LANG": "de"},
        }
    )
    assert {name: getattr(word, "why", None) for name, word in made.env.items()} == {
        "GITHUB_PERSONAL_ACCESS_TOKEN": "the registry calls it a secret",
        "X": "it looks like a GitHub token",
        "LANG": None,
    }
    made = user.draft({"command": "x", "args": ["--api-key", "hush", "--a=b", f"--k={TOKEN}", "c"]})
    assert [
        word if isinstance(word, str) else (word.text, word.label) for word in made.command
    ] == [
        "x",
        "--api-key",
        ("hush", "API_KEY"),
        "--a=b",
        (f"--k={TOKEN}", "K"),
        "c",
    ]
    assert TOKEN not in repr(made)


def test_references_follow_their_variables_and_copies_are_secrets(user):
    user.environ["HUSH_TOKEN"] = "hush"
    made = user.draft(
        {
            "url": "https://x.example/mcp",
            "headers": {"X-Key": "${env:HUSH_TOKEN}", "X-Other": "v ${env:HUSH_TOKEN}"},
        }
    )
    assert made.headers["X-Key"] == Reference("env", "HUSH_TOKEN")
    other = made.headers["X-Other"]
    assert isinstance(other, Secret)
    assert other.text == "v hush"
    assert other.why.endswith("a copy of `HUSH_TOKEN` as it is now")


def test_inputs_of_vs_code_are_questions(user):
    inputs = [{"id": "k", "type": "promptString", "description": "Your key", "password": True}]
    made = user.draft({"command": "x", "env": {"A": "${input:k}"}}, "vscode", inputs=inputs)
    asked = made.env["A"]
    assert isinstance(asked, Asked)
    assert (asked.secret, asked.question.description) == (True, "Your key")


def test_codex_names_variables_instead_of_values(user):
    user.environ["BEARER"] = "hush"
    user.write(
        ".codex/config.toml",
        '[mcp_servers.r]\nurl = "https://x.example/mcp"\nbearer_token_env_var = "BEARER"\n'
        'env_http_headers = { X-A = "VAR" }\nhttp_headers = { X-B = "plain" }\n'
        '[mcp_servers.s]\ncommand = "x"\nenv_vars = ["ONE", { name = "TWO" }]\ncwd = "/w"\n'
        'enabled_tools = ["t"]\ndisabled_tools = ["u"]\nstartup_timeout_sec = 20\n'
        '[mcp_servers.t]\nurl = "https://x.example/mcp"\nbearer_token_env_var = "UNSET"\n',
    )
    made = user.drafts("codex")
    remote, local = made["r"], made["s"]
    assert isinstance(remote, Draft)
    assert isinstance(local, Draft)
    assert remote.headers["X-A"] == Reference("env", "VAR")
    assert remote.headers["X-B"] == "plain"
    assert isinstance(remote.headers["Authorization"], Secret)
    assert remote.headers["Authorization"].text == "Bearer hush"
    assert (local.pass_env, local.cwd) == (("ONE", "TWO"), Path("/w"))
    assert (local.allow, local.deny) == (("t",), ("u",))
    assert local.notes == ("`startup_timeout_sec` is left out",)
    assert made["t"] == "it needs `UNSET`, which is not set here"


def test_variables_of_a_file_are_taken_over(user):
    user.write(".env", f"A=one\nexport TOKEN='{TOKEN}'\n")
    made = user.draft({"command": "x", "envFile": "${userHome}/.env", "env": {"A": "two"}})
    assert made.env["A"] == "two"
    assert isinstance(made.env["TOKEN"], Secret)
    assert "cannot read" in user.reason({"command": "x", "envFile": "/nowhere/.env"})


def test_a_projects_command_runs_in_its_folder(user):
    user.write("project/.mcp.json", {"mcpServers": {"a": {"command": "./run", "cwd": "sub"}}})
    user.write("project/.cursor/mcp.json", {"mcpServers": {"b": {"command": "./run"}}})
    made = user.drafts()
    assert getattr(made["a"], "cwd", None) == user.folder / "sub"
    assert getattr(made["b"], "cwd", None) == user.folder
    assert user.draft({"command": "x"}).cwd is None


def test_a_projects_package_runs_there_only_if_it_is_given_something_there(user):
    entry = {"command": "uvx", "args": ["mcp-server-git", "--repository=."]}
    user.write("project/.mcp.json", {"mcpServers": {"a": entry}})
    user.write("project/.cursor/mcp.json", {"mcpServers": {"b": {**entry, "args": ["x"]}}})
    made = user.drafts()
    assert getattr(made["a"], "cwd", None) == user.folder
    assert getattr(made["b"], "cwd", "none") is None


def test_a_bridge_becomes_the_remote_server_behind_it(user):
    made = user.draft(
        {
            "command": "npx",
            "args": ["mcp-remote", "https://x.example/mcp", "--header", "Authorization:${AUTH}"],
            "env": {"AUTH": "Bearer 0123456789"},
        }
    )
    header = made.headers["Authorization"]
    assert (made.url, made.command) == ("https://x.example/mcp", ())
    assert isinstance(header, Secret)
    assert header.text == "Bearer 0123456789"


@pytest.mark.parametrize("client", ["claude", "gemini", "cursor", "claude-desktop"])
def test_a_variable_that_the_entry_alone_sets_is_left_to_the_bridge(user, client):
    args = ["mcp-remote", "https://x.example/mcp", "--header", "Authorization:${AUTH}"]
    entry = {"command": "npx", "args": args, "env": {"AUTH": "Bearer 0123456789"}}
    assert user.draft(entry, client).headers["Authorization"].text == "Bearer 0123456789"
    user.environ["AUTH"] = "Bearer of-the-shell"
    if client in {"claude", "gemini"}:
        assert user.draft(entry, client).headers["Authorization"].text == "Bearer of-the-shell"


def test_a_secret_of_a_container_goes_by_the_environment_and_the_servers_own_words_stay(user):
    args = ["run", "-i", "-v", "/x:/y", "-e", f"GH={TOKEN}", "--env=API_KEY=hush-hush", "-e", "A=1"]
    made = user.draft({"command": "docker", "args": [*args, "image", "-e", "B=1"]})
    assert made.command == (
        *("docker", "run", "-i", "-v", "/x:/y", "-e", "GH", "--env=API_KEY", "-e", "A=1"),
        *("image", "-e", "B=1"),
    )
    assert {name: value.text for name, value in made.env.items()} == {
        "GH": TOKEN,
        "API_KEY": "hush-hush",
    }
    user.environ["HUSH"] = "hush-hush"
    mixed = {"command": "docker", "args": ["run", "-e", "API_KEY=${HUSH}", "image"]}
    made = user.draft(mixed, "claude")
    assert made.command[-2:] == ("API_KEY", "image")
    assert made.env["API_KEY"].text == "hush-hush"
    server = user.draft(
        {"command": "docker", "args": ["run", "--rm", "image", "-e", f"GH={TOKEN}"]}
    )
    assert isinstance(server.command[-1], Secret)
    assert server.env == {}


def test_containers_stay_commands_with_a_word_about_what_else_there_is(user):
    args = ["run", "-i", "-e", "A", "ghcr.io/github/github-mcp-server:v1"]
    made = user.draft({"command": "docker", "args": args})
    assert made.command == ("docker", *args)
    assert made.notes == (
        "it runs a container, which stays a command",
        "`octave info github` shows in which forms it comes",
    )


def test_numbers_and_switches_of_json_are_texts(user):
    made = user.draft({"command": "x", "args": [8080], "env": {"PORT": 3000, "ON": True, "F": 0.5}})
    assert made.command == ("x", "8080")
    assert made.env == {"PORT": "3000", "ON": "true", "F": "0.5"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (7, "it is not an object"),
        ({}, "it has neither a command nor an address"),
        ({"command": "x", "url": "https://y"}, "it has both `command` and `url`"),
        ({"command": ["x"]}, "its `command` is not text"),
        ({"command": "x", "args": "y"}, "its `args` is not an array"),
        ({"command": "x", "env": []}, "its `env` is not an object"),
        ({"command": "x", "env": {"A": {}}}, "its `A` is not text"),
        ({"command": "x", "args": ["a\0b"]}, "it has a NUL character in it"),
        ({"command": "x", "description": "\0"}, "it has a NUL character in it"),
        ({"command": "x", "args": ["\ud800"]}, "its `args` is not text"),
        ({"command": "x", "env": {"A=B": "c"}}, "cannot be the name of an environment variable"),
        ({"command": "x", "env": {"A": "${env:B} c"}}, "it mixes `B`, which is not set here"),
        ({"command": "x", "cwd": "./here"}, "its `cwd` depends on the folder that is open"),
        ({"url": "unix:///run/x"}, "at http and https addresses only"),
        ({"url": f"https://x.example/mcp?token={TOKEN}"}, "its address holds a secret"),
        ({"url": "https://x.example", "headers": {"A B": "c"}}, "cannot be the name of an HTTP"),
        ({"command": "/opt/bin/octave", "args": ["proxy"]}, "it is Octave itself"),
        ({"command": "/x/python", "args": ["-P", "-m", "octave", "proxy"]}, "it is Octave itself"),
        ({"url": "http://127.0.0.1:3737/mcp"}, "it is Octave itself"),
    ],
)
def test_what_cannot_be_taken_over_is_left_with_the_reason(user, entry, reason):
    assert reason in user.reason(entry)


def rows(user: User, manifest: str = "", store: dict[str, str] | None = None) -> list[plan.Row]:
    found, _ = user.read()
    wanted = parse(user.home / "octave.toml", manifest)
    return plan.rows(found, KNOWN, wanted, (store or {}).get)[0]


def test_equal_entries_are_one_server_and_different_ones_have_names_of_their_own(user):
    user.write(".cursor/mcp.json", {"mcpServers": {"A b!": {"command": "x", "args": ["1"]}}})
    user.write(".gemini/settings.json", {"mcpServers": {"other": {"command": "x", "args": ["1"]}}})
    user.write(".claude.json", {"mcpServers": {"a-b": {"command": "y"}, "Ünï": {"command": "z"}}})
    found = {row.name: row for row in rows(user)}
    assert list(found) == ["a-b", "n", "a-b-2"]
    assert [origin.client.id for origin in found["a-b-2"].origins] == ["cursor", "gemini"]
    assert found["a-b-2"].notes == ("it is called `a-b-2`: `a-b` is another one",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a" * 60, "a" * 40), ("--x--", "x"), ("漢字", "server"), ("\x1b[31mred", "31mred")],
)
def test_names_become_legal(name, expected):
    assert plan.legal(name) == expected


def test_what_octave_has_already_is_known_again_whatever_it_is_called(user):
    user.write(
        ".cursor/mcp.json",
        {"mcpServers": {"x": {"command": "x", "env": {"TOKEN": TOKEN, "A": "b"}}}},
    )
    said = '[servers.mine]\ncommand = ["x"]\nenv = { A = "b", TOKEN = { secret = "mine/T" } }\n'
    (row,) = rows(user, said, {"mine/T": TOKEN})
    assert (row.name, row.stored) == ("mine", {"mine/T": TOKEN})
    (row,) = rows(user, said, {"mine/T": "another"})
    assert (row.name, row.is_present) == ("x", False)


def test_secrets_of_other_workspaces_keep_their_keys(user):
    user.write(".cursor/mcp.json", {"mcpServers": {"x": {"command": "x", "env": {"TOKEN": TOKEN}}}})
    (row,) = rows(user)
    said = plan.written(row, {"x/TOKEN": "somebody else's"}.get, user.home)
    assert said.secrets == {"x/TOKEN_2": TOKEN}
    assert said.env == {"TOKEN": Reference("secret", "x/TOKEN_2")}
    said = plan.written(row, {"x/TOKEN": TOKEN}.get, user.home)
    assert said.secrets == {"x/TOKEN": TOKEN}
    assert TOKEN not in repr(said)


def test_a_hostile_entry_never_raises_anything_else(user):
    entries: list[object] = [None, [], {"command": {}}, {"url": 7}]
    for entry in (*entries, {"command": "npx", "args": [None]}):
        user.write(".cursor/mcp.json", {"mcpServers": {"it": entry}})
        assert isinstance(user.drafts("cursor")["it"], str)
    many: dict[str, object] = {f"s{number}": {} for number in range(configured.MOST_SERVERS + 1)}
    user.write(".cursor/mcp.json", {"mcpServers": many})
    assert "has more than 1000 servers" in user.read("cursor")[1][0].error.message
    user.write(".cursor/mcp.json", {"mcpServers": 7})
    assert isinstance(user.read("cursor")[1][0].error, OctaveError)
