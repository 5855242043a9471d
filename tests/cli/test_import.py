"""`octave import` as a person runs it, with the files of AI tools in a home of their own."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.cli.desk import WAIT_S, read_until
from tests.cli.test_packages import asked
from tests.packages.story import GOOD, SERVERS, World

TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
OWN = {"command": sys.executable, "args": [str(SERVERS / "good.py")]}
BROKEN = {"command": sys.executable, "args": ["-c", "import no_such_module"]}


def packaged(**env: str) -> dict[str, Any]:
    return {"command": "uvx", "args": ["story-good@1.0", "--flag"], "env": env}


def write(world: World, name: str, servers: dict[str, Any], key: str = "mcpServers") -> Path:
    path = world.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"theme": "dark", key: servers}, indent=2), encoding="utf-8")
    return path


def servers(path: Path, key: str = "mcpServers") -> list[str]:
    return list(json.loads(path.read_bytes())[key])


def holding(world: World, text: str) -> list[str]:
    """Return the files with `text` in them, what is installed aside."""
    found = [path for path in world.root.rglob("*") if path.is_file()]
    kept = [path for path in found if "cache" not in path.parts and "servers" not in path.parts]
    return sorted(path.name for path in kept if text.encode() in path.read_bytes())


def test_servers_move_into_octave_and_come_back(world: World) -> None:
    world.offer("story-good", GOOD)
    claude = write(world, ".claude.json", {"mine": packaged(TOKEN=TOKEN, LANG="C"), "own": OWN})
    cursor = write(world, ".cursor/mcp.json", {"same": OWN, "off": {**OWN, "disabled": True}})
    before = claude.read_bytes(), cursor.read_bytes()
    done = world.octave("import", "-y")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "installed mine 1.0 (3 tools)",
        "added own (3 tools)",
        f"moved claude {claude}: mine, own",
        f"moved cursor {cursor}: same",
    ]
    assert TOKEN not in done.stdout + done.stderr
    assert servers(claude) == ["octave"]
    assert servers(cursor) == ["octave", "off"]
    assert world.manifest.endswith(
        "\n[servers.mine]\n"
        'package = "pypi:story-good"\nversion = "1.0"\nargs = ["--flag"]\n'
        'env = {TOKEN = {secret = "mine/TOKEN"}, LANG = "C"}\n'
        "\n[servers.own]\n"
        f'command = ["{sys.executable}", "{SERVERS / "good.py"}"]\n'
    )
    assert world.octave("lock", "--check").code == 0
    assert holding(world, TOKEN) == ["secrets.toml"]
    again = world.octave("import", "-y")
    assert again.code == 0
    assert again.stderr.endswith("there is nothing to take over\n")
    assert world.octave("client", "undo", "-q").code == 0
    assert (claude.read_bytes(), cursor.read_bytes()) == before
    assert not list(world.root.glob("**/*.octave-backup"))


def test_a_dry_run_shows_everything_but_secrets_and_does_nothing(world: World) -> None:
    write(world, ".claude.json", {"gh": packaged(TOKEN=TOKEN, LANG="C"), "bad name!": OWN})
    before = sorted(world.root.rglob("*"))
    done = world.octave("import", "--dry-run", "-v")
    assert (done.code, done.stderr) == (0, "")
    assert sorted(world.root.rglob("*")) == before
    manifest, file = world.home / "octave.toml", world.root / ".claude.json"
    assert done.stdout.startswith(
        f"2 servers for `{manifest}`:\n"
        "  gh: installs pypi:story-good@1.0 --flag\n"
        f"    from Claude Code: `gh` in `{file}`\n"
        '    TOKEN = { secret = "gh/TOKEN" }\n'
        "    LANG = C\n"
        "    `gh/TOKEN` goes to the secret store: it looks like a GitHub token\n"
        f"  bad-name: stays a command: {sys.executable} {SERVERS / 'good.py'}\n"
    )
    assert f"files that change: `{file}`\n--- {file}\n+++ {file}\n" in done.stdout
    assert TOKEN not in done.stdout


def test_a_package_that_looks_like_a_known_one_is_said_to(world: World) -> None:
    write(world, ".claude.json", {"tim": {"command": "uvx", "args": ["mcp-server-tim"]}})
    said = "note: `pypi:mcp-server-tim` looks like `pypi:mcp-server-time`, and is another package"
    assert said in world.octave("import", "--dry-run").stdout


def test_as_json_everything_is_there_but_secrets(world: World) -> None:
    write(world, ".claude.json", {"mine": {**OWN, "env": {"TOKEN": TOKEN}}, "off": {}})
    (world.root / ".codex").mkdir()
    (world.root / ".codex" / "config.toml").write_text("x = \n", encoding="utf-8")
    done = world.octave("import", "--dry-run", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert TOKEN not in done.stdout
    document = done.json
    (result,), (file,) = document["results"], document["files"]
    assert result == {
        "name": "mine",
        "status": "planned",
        "version": None,
        "checked": False,
        "tools": None,
        "warning": None,
        "error": None,
        "kind": "command",
        "manifest": str(world.home / "octave.toml"),
        "server": {
            "command": [sys.executable, str(SERVERS / "good.py")],
            "env": {"TOKEN": {"secret": "mine/TOKEN"}},
        },
        "secrets": [{"key": "mine/TOKEN", "reason": "it looks like a GitHub token"}],
        "from": [
            {
                "client": "claude",
                "scope": "user",
                "file": str(world.root / ".claude.json"),
                "name": "mine",
            }
        ],
        "notes": [],
    }
    assert [(each["name"], each["reason"]) for each in document["skipped"]] == [
        ("off", "it has neither a command nor an address"),
        (
            None,
            f"`{world.root / '.codex/config.toml'}` cannot be read: line 1, column 5: "
            "Invalid value",
        ),
    ]
    assert (file["client"], file["status"], file["removed"]) == ("claude", "planned", ["mine"])
    assert document["dryRun"] is True
    done = world.octave("import", "-y", "--json")
    assert done.json["results"][0]["status"] == "added"
    assert done.json["results"][0]["tools"] == 3
    assert done.json["files"][0]["status"] == "moved"
    assert TOKEN not in done.stdout + done.stderr


def test_nobody_to_ask_is_told_the_flag_and_nothing_is_done(world: World) -> None:
    file = write(world, ".claude.json", {"own": OWN})
    before = file.read_bytes()
    done = world.octave("import", "claude")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "error: nobody can be asked for consent\nhint: octave import claude -y\n"
    )
    assert file.read_bytes() == before
    assert not (world.home / "octave.toml").exists()
    assert world.octave("import", "--json").error["code"] == "missing_answer"


def test_on_a_terminal_no_is_no_and_yes_is_yes(world: World) -> None:
    file = write(world, ".claude.json", {"own": OWN})
    code, shown = asked(world, world.cwd, "n", "import", "--json")
    assert (code, "Take them over? [y/N]" in shown) == (1, True)
    assert "1 server for" in shown, "nobody is asked about what was not shown"
    assert servers(file) == ["own"]
    code, shown = asked(world, world.cwd, "y", "import")
    assert code == 0, shown
    assert servers(file) == ["octave"]


def test_one_that_fails_stays_and_the_others_move(world: World) -> None:
    file = write(world, ".claude.json", {"bad": BROKEN, "own": OWN})
    done = world.octave("import", "-y")
    assert done.code == 6
    assert done.stdout.splitlines() == ["added own (3 tools)", f"moved claude {file}: own"]
    assert "error: `bad` was not added: " in done.stderr
    assert servers(file) == ["octave", "bad"]
    assert "bad" not in world.manifest


def test_a_secret_that_a_failing_server_shouts_is_not_told(world: World) -> None:
    shouts = ["-c", "import os, sys; sys.stderr.write(os.environ['MY_TOKEN']); None.x"]
    entry = {"command": sys.executable, "args": shouts, "env": {"MY_TOKEN": TOKEN}}
    file = write(world, ".claude.json", {"loud": entry})
    done = world.octave("import", "-y")
    assert done.code == 6
    assert TOKEN not in done.stdout + done.stderr
    assert holding(world, TOKEN) == [file.name]


def test_with_keep_the_files_stay_and_without_it_they_follow_later(world: World) -> None:
    file = write(world, ".claude.json", {"own": {**OWN, "env": {"TOKEN": TOKEN}}})
    before = file.read_bytes()
    assert world.octave("import", "-y", "--keep").code == 0
    assert file.read_bytes() == before
    again = world.octave("import", "-y", "--keep")
    assert (again.code, again.stderr) == (0, "there is nothing to take over\n")
    assert "has it already, as `own`" in again.stdout
    done = world.octave("import", "-y")
    assert done.stdout == f"present own\nmoved claude {file}: own\n"
    assert holding(world, TOKEN) == ["secrets.toml"]
    world.octave("client", "undo")
    assert file.read_bytes() == before


def test_only_some_are_taken_over_by_their_names(world: World) -> None:
    file = write(world, ".claude.json", {"one": OWN, "two": {**OWN, "env": {"A": "b"}}})
    done = world.octave("import", "-y", "--no-start", "--only", "two")
    assert done.stdout == f"added two\nmoved claude {file}: two\n"
    assert servers(file) == ["octave", "one"]
    assert world.octave("import", "-y", "--only", "two").code == 0
    assert world.octave("import", "-y", "--only", "ones").told == (
        4,
        "",
        "error: no AI tool has a server `ones`\nhint: did you mean `one`?\n",
    )


def test_a_project_takes_over_its_own_servers(world: World) -> None:
    (world.cwd / "octave.toml").write_text("", encoding="utf-8")
    project = write(
        world,
        "cwd/.mcp.json",
        {"here": {"command": sys.executable, "args": [str(SERVERS / "good.py")]}},
    )
    user = write(world, ".claude.json", {"mine": {**OWN, "env": {"A": "b"}}})
    done = world.octave("import", "-y")
    assert done.code == 0, done.stderr
    assert 'cwd = "."' in (world.cwd / "octave.toml").read_text(encoding="utf-8")
    assert "[servers.mine]" in world.manifest
    assert "here" not in world.manifest
    entry = json.loads(project.read_bytes())["mcpServers"]["octave"]
    assert entry["args"][-2:] == ["--manifest", str(world.cwd / "octave.toml")]
    assert "--manifest" not in json.loads(user.read_bytes())["mcpServers"]["octave"]["args"]
    assert world.octave("tools", "here").code == 0


def test_answers_that_only_the_tool_has_come_from_the_environment_or_are_asked_for(
    world: World,
) -> None:
    inputs = [{"id": "k", "type": "promptString", "description": "Your key", "password": True}]
    entry = {**OWN, "env": {"STORY_TOKEN": "${input:k}"}}
    file = world.root / ".config" / "Code" / "User" / "mcp.json"
    file.parent.mkdir(parents=True)
    text = json.dumps({"inputs": inputs, "servers": {"own": entry}})
    file.write_text(text, encoding="utf-8")
    done = world.octave("import", "-y")
    assert (done.code, done.stderr) == (0, "there is nothing to take over\n")
    assert "export STORY_TOKEN, or run this on a terminal" in done.stdout
    given = {"STORY_TOKEN": "hush-of-environment"}
    assert world.octave("import", "-y", "--keep", environ=given).code == 0
    done = world.octave("import", "-y")
    assert done.stdout == f"present own\nmoved vscode {file}: own\n"
    assert holding(world, "hush-of-environment") == ["secrets.toml"]
    assert servers(file, "servers") == ["octave"]
    world.octave("client", "undo")
    assert file.read_text(encoding="utf-8") == text


def test_on_a_terminal_a_person_answers_what_the_tool_would_have_asked(world: World) -> None:
    inputs = [{"id": "k", "type": "promptString", "description": "Your key", "password": True}]
    entry = {**OWN, "env": {"STORY_TOKEN": "Bearer ${input:k}"}}
    file = world.root / "cwd" / ".vscode" / "mcp.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"inputs": inputs, "servers": {"own": entry}}), encoding="utf-8")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "octave", "import"],
        cwd=world.cwd,
        env={**world.environ, "TERM": "dumb"},
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = read_until(ours, b"[y/N]:")
    os.write(ours, b"y\n")
    shown += read_until(ours, b"Value of STORY_TOKEN: ")
    os.write(ours, b"hush-typed\n")
    with contextlib.suppress(OSError):  # Linux's way of saying that the other end is closed.
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert child.wait(WAIT_S) == 0, shown.decode()
    assert b"goes to the secret store: it is asked for" in shown
    assert b"STORY_TOKEN: Your key" in shown
    assert holding(world, "Bearer hush-typed") == ["secrets.toml"]


def test_a_tool_that_is_named_must_be_known_and_readable(world: World) -> None:
    assert world.octave("import", "cluade").told == (
        4,
        "",
        "error: there is no AI tool `cluade`\nhint: did you mean `claude`?\n",
    )
    (world.root / ".claude.json").write_text("{", encoding="utf-8")
    assert world.octave("import", "claude", "-y").code == 1
    done = world.octave("import", "-y")
    assert (done.code, done.stderr) == (0, "there is nothing to take over\n")
    assert "left as it is:\n  Claude Code: `" in done.stdout


def test_a_file_that_cannot_be_changed_keeps_its_servers(world: World) -> None:
    foreign = write(world, ".claude.json", {"octave": {"command": "mine"}, "own": OWN})
    fixed = write(world, ".cursor/mcp.json", {"other": OWN})
    fixed.chmod(0o444)
    done = world.octave("import", "-y")
    assert (done.code, done.stderr) == (0, "there is nothing to take over\n")
    assert f"the entry `octave` in `{foreign}` was not written by Octave" in done.stdout
    assert f"`{fixed}` is read-only" in done.stdout
    assert world.octave("import", "-y", "--keep", "--no-start", "--only", "own").code == 0


def test_what_a_strangers_file_says_is_shown_with_its_hidden_characters(world: World) -> None:
    name = "evil\x1b]52;c;x\x07\u202e"
    write(world, "cwd/.mcp.json", {name: {"command": "sh", "args": ["-c", "x\x1b[2Jy\u200b"]}})
    done = world.octave("import", "--dry-run")
    assert "\\x1b[2Jy\\u200b" in done.stdout
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    assert "\x1b" not in world.octave("import", "--dry-run", "--json").stdout


def test_undo_says_what_it_cannot_do(world: World) -> None:
    assert world.octave("client", "undo").told == (
        4,
        "",
        "error: Octave has changed nothing there that could be undone\nhint: octave client list\n",
    )
    file = write(world, ".claude.json", {"own": {**OWN, "env": {"TOKEN": TOKEN}}})
    world.octave("import", "-y", "--no-start")
    world.octave("uninstall", "own", "--purge")
    done = world.octave("client", "undo")
    assert done.code == 1
    assert "error: the secret `own/TOKEN` is not stored any more" in done.stderr
    assert servers(file) == ["octave"]


def test_limits_filters_and_folders_of_a_package_are_kept(world: World) -> None:
    world.offer("story-good", GOOD)
    (world.root / ".codex").mkdir()
    (world.root / ".codex" / "config.toml").write_text(
        '[mcp_servers.good]\ncommand = "uvx"\n'
        'args = ["--with", "mcp<2", "--from", "story-good>=1", "story-good", "--api-key", "hush"]\n'
        f'cwd = "{world.cwd}"\nenabled_tools = ["echo"]\nenv_vars = ["PASSED"]\n',
        encoding="utf-8",
    )
    done = world.octave("import", "codex", "-y")
    assert done.stdout.splitlines()[0] == "installed good 1.0 (3 tools)", done.stderr
    assert "    only the tools echo\n" in done.stderr
    assert world.manifest.endswith(
        "\n[servers.good]\n"
        'package = "pypi:story-good"\nversion = ">=1"\n'
        'args = ["--api-key", {secret = "good/API_KEY"}]\nbin = "story-good"\n'
        f'constraints = ["mcp<2"]\ncwd = "{world.cwd}"\npass_env = ["PASSED"]\n'
        'tools = {allow = ["echo"]}\n'
    )
    assert world.octave("lock", "--check").code == 0
    assert [row["name"] for row in world.octave("tools", "good", "--json").json] == ["echo"]
    world.octave("shutdown")


def test_servers_of_one_name_in_two_manifests_keep_their_own_secrets(world: World) -> None:
    (world.cwd / "octave.toml").write_text("", encoding="utf-8")
    write(world, ".claude.json", {"own": {**OWN, "env": {"TOKEN": "hush-of-mine"}}})
    write(world, "cwd/.mcp.json", {"own": {**OWN, "env": {"TOKEN": "hush-of-project"}}})
    done = world.octave("import", "-y", "--no-start", "--json")
    assert [row["secrets"][0]["key"] for row in done.json["results"]] == [
        "own/TOKEN",
        "own/TOKEN_2",
    ]
    store = tomllib.loads((world.home / "secrets.toml").read_text(encoding="utf-8"))["secrets"]
    assert store == {"own/TOKEN": "hush-of-project", "own/TOKEN_2": "hush-of-mine"}
    assert 'secret = "own/TOKEN_2"' in world.manifest
