"""`octave client` as a person runs it: a child with a home folder of its own."""

import json
import stat
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from octave.clients import jsonc
from octave.clients.table import CLIENTS, words

COMMAND, *WORDS = words(sys.executable)
NEXT = "next: restart Claude Code; `claude mcp list` tells whether it connects\n"
NEXT_PROJECT = (
    "next: start Claude Code in this folder and approve the server `octave`; "
    "`claude mcp list` tells whether it connects\n"
)
USUAL = b'{\r\n\t"numStartups": 7, // keep\r\n\t"mcpServers": {\r\n\t\t"x": {},\r\n\t},\r\n}\r\n'
BROKEN = b'{\n  "mcpServers": {\n    "a": 1\n    "b": 2\n  }\n}\n'
FOREIGN = b'{"mcpServers":{"octave":{"command":"mine"}}}'


def entry(*args: str, **env: str) -> dict[str, Any]:
    return {"type": "stdio", "command": COMMAND, "args": [*WORDS, "proxy", *args], "env": env}


def whole(value: dict[str, Any]) -> str:
    return json.dumps({"mcpServers": {"octave": value}}, indent=2)


@dataclass(frozen=True)
class User:
    """A person with a home folder, a folder to stand in, and no other command than Octave."""

    home: Path
    cwd: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.home / ".claude.json"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run `octave client ARGUMENTS`; return exit code, stdout and stderr, paths shortened."""
        done = subprocess.run(
            [sys.executable, "-m", "octave", "client", *arguments],
            cwd=self.cwd,
            env={"HOME": str(self.home), "PATH": str(self.home / "bin"), **self.environ},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
        return done.returncode, self._short(done.stdout), self._short(done.stderr)

    def document(self, *arguments: str) -> Any:
        """Run `octave client ARGUMENTS`, which must go well, and return its JSON."""
        code, stdout, stderr = self(*arguments)
        assert (code, stderr) == (0, "")
        return json.loads(stdout)

    def error(self, *arguments: str) -> dict[str, Any]:
        """Run `octave client ARGUMENTS`, which must fail, and return the error of --json."""
        code, stdout, stderr = self(*arguments)
        assert code
        assert stdout == ""
        error: dict[str, Any] = json.loads(stderr)["error"]
        return error

    def have_claude(self) -> None:
        (self.home / "bin").mkdir()
        (self.home / "bin" / "claude").touch(mode=0o755)

    def _short(self, text: str) -> str:
        return text.replace(str(self.cwd), "{cwd}").replace(str(self.home), "~")


@pytest.fixture
def user(tmp_path: Path) -> User:
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    return User(tmp_path / "home", tmp_path / "cwd")


def test_without_a_verb_help_is_shown(user):
    code, stdout, stderr = user()
    assert (code, stderr) == (0, "")
    assert stdout.startswith("Usage: octave client [OPTIONS] COMMAND [ARGS]...\n")
    for verb in ("list", "add", "remove"):
        assert f"\n  {verb} " in stdout


def test_an_unknown_verb_is_told_with_what_it_may_have_been(user):
    assert user("lst") == (
        2,
        "",
        "error: No such command `lst`\nhint: did you mean `octave client list`?\n",
    )


def test_the_list_shows_what_is_here_and_what_is_connected(user):
    code, stdout, stderr = user("list")
    lines = [line.split() for line in stdout.splitlines()]
    assert (code, stderr) == (0, "")
    assert lines[:2] == [
        ["ID", "NAME", "PRESENT", "CONNECTED", "FILE"],
        ["claude", "Claude", "Code", "no", "no", "~/.claude.json"],
    ]
    assert [line[0] for line in lines[1:]] == list(CLIENTS)
    user.have_claude()
    user("add", "claude")
    assert user("list")[1].splitlines()[1].split()[3:] == ["yes", "yes", "~/.claude.json"]
    user.file.write_bytes(FOREIGN)
    assert "yes      to another Octave" in user("list")[1]


@pytest.mark.parametrize("arguments", [("--json", "list"), ("list", "--json")])
def test_the_list_as_json(user, arguments):
    first, *others = user.document(*arguments)
    assert first == {
        "id": "claude",
        "title": "Claude Code",
        "present": False,
        "connected": False,
        "here": False,
        "file": "~/.claude.json",
        "problem": None,
    }
    assert [row["id"] for row in (first, *others)] == list(CLIENTS)


def test_the_list_names_a_file_that_it_cannot_read_and_goes_on(user):
    user.file.write_bytes(BROKEN)
    problem = "`~/.claude.json` cannot be read: line 4, column 5: expected `,` or `}`"
    code, stdout, stderr = user("list")
    assert (code, stderr) == (0, f"warning: {problem}\n")
    assert stdout.splitlines()[1].split()[3:5] == ["yes", "unknown"]
    row, *_ = user.document("list", "--json")
    assert (row["connected"], row["problem"]) == (False, problem)


def test_add_shows_the_diff_and_what_to_do_next(user):
    lines = whole(entry()).splitlines()
    added = ["--- /dev/null", "+++ ~/.claude.json", f"@@ -0,0 +1,{len(lines)} @@"]
    added += [f"+{line}" for line in lines]
    diff = "\n".join(added) + "\n"
    assert user("add", "claude", "--dry-run") == (0, diff, "")
    assert list(user.home.iterdir()) == []
    assert user("add", "claude") == (0, "added claude ~/.claude.json\n", diff + NEXT)
    assert user.file.read_text(encoding="utf-8").splitlines() == lines
    assert stat.S_IMODE(user.file.stat().st_mode) == 0o600
    assert user("add", "claude") == (0, "present claude ~/.claude.json\n", "")


def test_remove_shows_the_diff_and_deletes_the_file_that_add_created(user):
    user("add", "claude")
    lines = user.file.read_text(encoding="utf-8").splitlines()
    removed = ["--- ~/.claude.json", "+++ /dev/null", f"@@ -1,{len(lines)} +0,0 @@"]
    removed += [f"-{line}" for line in lines]
    diff = "\n".join(removed) + "\n"
    assert user("remove", "claude", "--dry-run") == (0, diff, "")
    assert user("remove", "claude") == (0, "removed claude ~/.claude.json\n", diff)
    assert not user.file.exists()
    assert user("remove", "claude") == (0, "absent claude ~/.claude.json\n", "")


def test_a_file_with_other_servers_keeps_their_bytes_and_gets_a_backup(user):
    user.file.write_bytes(USUAL)
    code, stdout, stderr = user("add", "claude", "-q")
    assert (code, stdout, stderr) == (0, "added claude ~/.claude.json\n", "")
    before, brace, after = USUAL.partition(b'"mcpServers": {')
    found = user.file.read_bytes()
    assert found.startswith(before + brace + b'\r\n\t\t"octave": {\r\n\t\t\t"type": "stdio",')
    assert found.endswith(after)
    assert (user.home / ".claude.json.octave-backup").read_bytes() == USUAL
    user("remove", "claude")
    assert user.file.read_bytes() == USUAL
    assert not (user.home / ".claude.json.octave-backup").exists()


def test_add_and_remove_as_json(user):
    user.file.write_bytes(USUAL)
    (added,) = user.document("add", "claude", "--json")["results"]
    diff = added.pop("diff")
    assert diff.startswith("--- ~/.claude.json\n+++ ~/.claude.json\n")
    assert added == {
        "id": "claude",
        "status": "added",
        "file": "~/.claude.json",
        "backup": "~/.claude.json.octave-backup",
        "notes": [],
        "dryRun": False,
        "error": None,
    }
    (removed,) = user.document("remove", "claude", "--json", "--dry-run")["results"]
    assert (removed["status"], removed["dryRun"], removed["backup"]) == ("removed", True, None)


def test_an_unknown_tool_is_told_with_what_it_may_have_been(user):
    error = "error: there is no AI tool `cluade`\nhint: did you mean `claude`?\n"
    assert user("add", "cluade") == (4, "", error)
    assert user("remove", "emacs")[2].endswith("hint: octave client list\n")
    assert user.error("add", "cluade", "--json")["code"] == "not_found"


@pytest.mark.parametrize(
    ("tool", "file", "before", "after"),
    [
        ("claude-desktop", ".config/Claude/claude_desktop_config.json", "{}", "mcpServers"),
        ("cursor", ".cursor/mcp.json", '{"mcpServers": {}}', "mcpServers"),
        ("windsurf", ".codeium/windsurf/mcp_config.json", "", "mcpServers"),
        ("vscode", ".config/Code/User/mcp.json", '{"inputs": [], // c\n}', "servers"),
        ("gemini", ".gemini/settings.json", '{"theme": "x"}', "mcpServers"),
        ("codex", ".codex/config.toml", 'model = "o9"  # c\n\n[tui]\nx = 1\n', "mcp_servers"),
    ],
)
def test_each_tool_gets_an_entry_in_its_own_words_and_its_bytes_back(
    user, tool, file, before, after
):
    path = user.home / file
    path.parent.mkdir(parents=True)
    path.write_text(before, encoding="utf-8")
    assert user("add", tool, "-q")[:2] == (0, f"added {tool} ~/{file}\n")
    text = path.read_text(encoding="utf-8")
    document = tomllib.loads(text) if tool == "codex" else jsonc.parse(text).value
    kind = {"type": "stdio"} if tool == "vscode" else {}
    expected = {**kind, "command": COMMAND, "args": [*WORDS, "proxy"], "env": {}}
    assert document[after] == {"octave": expected}
    (row,) = [each for each in user.document("list", "--json") if each["id"] == tool]
    assert (row["present"], row["connected"], row["here"]) == (True, True, True)
    assert user("undo", tool, "-q")[:2] == (0, f"undone {tool} ~/{file}\n")
    assert path.read_text(encoding="utf-8") == before
    user("add", tool)
    user("remove", tool)
    assert path.read_text(encoding="utf-8") == before


def test_undo_takes_back_the_last_change_and_shows_it(user):
    user.file.write_bytes(USUAL)
    user("add", "claude")
    code, stdout, stderr = user("undo", "--dry-run")
    assert (code, stderr) == (0, "")
    assert '-\t\t"octave": {' in stdout
    (undone,) = user.document("undo", "--json")["results"]
    assert (undone["id"], undone["status"]) == ("claude", "undone")
    assert user.file.read_bytes() == USUAL
    assert user("list")[1].splitlines()[1].split()[4] == "no"
    assert user("undo", "cluade")[0] == 4


def test_of_several_tools_each_is_reported_and_the_failure_tells(user):
    code, stdout, stderr = user("add", "claude", "nope", "claude", "-q")
    assert (code, stdout) == (4, "added claude ~/.claude.json\n")
    assert stderr == "error: there is no AI tool `nope`\nhint: octave client list\n"
    code, stdout, stderr = user("add", "claude", "nope", "--json")
    present, failed = json.loads(stdout)["results"]
    assert (code, stderr) == (4, "")
    assert (present["status"], failed["status"]) == ("present", "failed")
    assert failed["error"]["code"] == "not_found"


def test_a_file_that_does_not_parse_is_left_alone_and_told_with_what_to_write(user):
    user.file.write_bytes(BROKEN)
    message = "`~/.claude.json` cannot be read: line 4, column 5: expected `,` or `}`"
    hint = f"repair it, then try again, or write this into it yourself:\n{whole(entry())}"
    told = hint.replace("\n", "\n  ")
    assert user("add", "claude") == (1, "", f"error: {message}\nhint: {told}\n")
    error = user.error("add", "claude", "--json")
    assert (error["code"], error["message"], error["hint"]) == ("failed", message, hint)
    assert (error["details"]["line"], error["details"]["column"]) == (4, 5)
    assert user.file.read_bytes() == BROKEN


def test_an_entry_of_somebody_else_needs_force(user):
    user.file.write_bytes(FOREIGN)
    error = "error: the entry `octave` in `~/.claude.json` was not written by Octave\n"
    hint = "hint: look at it, then run `octave client add claude --force`\n"
    assert user("add", "claude") == (1, "", error + hint)
    assert user("remove", "claude") == (1, "", error + hint.replace("add", "remove"))
    assert user.file.read_bytes() == FOREIGN
    code, stdout, stderr = user("add", "claude", "--force")
    assert (code, stdout) == (0, "updated claude ~/.claude.json\n")
    assert stderr.endswith(f"backup: ~/.claude.json.octave-backup\n{NEXT}")


def test_a_read_only_file_is_refused(user):
    user.file.write_bytes(USUAL)
    user.file.chmod(0o444)
    code, stdout, stderr = user("add", "claude")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: `~/.claude.json` is read-only\nhint: chmod u+w ~/.claude.json")
    assert user.error("add", "claude", "--json")["code"] == "storage_failed"
    assert user.file.read_bytes() == USUAL


def test_another_home_is_named_in_the_entry(user, tmp_path):
    user.environ["OCTAVE_HOME"] = str(tmp_path / "elsewhere")
    user("add", "claude")
    found = json.loads(user.file.read_bytes())["mcpServers"]["octave"]
    assert found == entry(OCTAVE_HOME=str(tmp_path / "elsewhere"))
    user.environ["OCTAVE_HOME"] = str(user.home / ".octave")
    assert "to another Octave" in user("list")[1]


def test_a_moved_configuration_is_followed(user, tmp_path):
    user.environ["CLAUDE_CONFIG_DIR"] = str(tmp_path / "moved")
    assert user("add", "claude")[0] == 0
    assert not user.file.exists()
    assert (tmp_path / "moved" / ".claude.json").is_file()


def test_a_projects_scope_names_the_projects_manifest(user):
    manifest = user.cwd / "octave.toml"
    manifest.touch()
    code, stdout, stderr = user("add", "claude", "--scope", "project")
    assert (code, stdout) == (0, "added claude {cwd}/.mcp.json\n")
    assert stderr.endswith(f"\n{NEXT_PROJECT}")
    found = json.loads((user.cwd / ".mcp.json").read_bytes())["mcpServers"]["octave"]
    assert found == entry("--manifest", str(manifest))
    assert not user.file.exists()
    row, *_ = user.document("list", "--json")
    assert (row["present"], row["connected"], row["here"]) == (False, True, True)
    assert row["file"] == "{cwd}/.mcp.json"
    assert user("remove", "claude", "--scope", "project")[0] == 0
    assert list(user.cwd.iterdir()) == [manifest]


def test_the_users_scope_does_not_depend_on_the_folder_one_stands_in(user):
    (user.cwd / "octave.toml").touch()
    note = "note: `{cwd}/octave.toml` is not part of it; for this folder add --scope project\n"
    stderr = user("add", "claude")[2]
    assert stderr.endswith(f"\n{note}{NEXT}")
    assert json.loads(user.file.read_bytes())["mcpServers"]["octave"] == entry()


def test_a_manifest_that_is_named_goes_into_the_users_entry_too(user):
    manifest = user.cwd / "octave.toml"
    manifest.touch()
    stderr = user("add", "claude", "--manifest", "octave.toml")[2]
    assert "note:" not in stderr
    found = json.loads(user.file.read_bytes())["mcpServers"]["octave"]
    assert found == entry("--manifest", str(manifest))


def test_another_octave_that_is_first_on_path_is_noticed(user):
    (user.home / "bin").mkdir()
    (user.home / "bin" / "octave").touch(mode=0o755)
    stderr = user("add", "claude")[2]
    note = f"note: `octave` on your PATH is `~/bin/octave`; the entry runs `{COMMAND}`\n"
    assert (note in stderr) == (not WORDS)


def test_a_folder_that_is_gone_is_a_usage_error(user):
    code = (
        "import os, sys; from octave.cli.main import run; os.rmdir(os.getcwd()); "
        "sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "client", "add", "claude"],
        cwd=user.cwd,
        env={"HOME": str(user.home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "error: the current folder does not exist any more\nhint: cd\n"
