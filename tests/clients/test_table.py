import sys
from pathlib import Path

import pytest

from octave.clients.table import CLIENTS, command, words
from octave.home import Home, Workspace

CLAUDE = CLIENTS["claude"]


def interpreter(folder: Path, *scripts: str) -> str:
    """Return an interpreter with these scripts beside it."""
    folder.mkdir(parents=True)
    for name in ("python", *scripts):
        (folder / name).touch(mode=0o755)
    return str(folder / "python")


def test_the_script_beside_the_interpreter_is_octave_by_its_absolute_path(tmp_path, monkeypatch):
    python = interpreter(tmp_path / "bin", "octave", "octave-mcp")
    assert words(python) == (str(tmp_path / "bin/octave"),)
    monkeypatch.chdir(tmp_path)
    assert words("bin/python") == (str(tmp_path / "bin/octave"),)


def test_gnu_octave_beside_the_interpreter_is_not_taken_for_this_one(tmp_path):
    python = interpreter(tmp_path / "bin", "octave")
    assert words(python) == (python, "-P", "-m", "octave")


def test_a_virtual_environments_interpreter_is_not_resolved_out_of_it(tmp_path):
    folder = tmp_path / "venv" / "bin"
    interpreter(folder, "octave", "octave-mcp")
    (folder / "python").unlink()
    (folder / "python").symlink_to(sys.executable)
    assert words(str(folder / "python")) == (str(folder / "octave"),)


def test_the_default_home_needs_no_variable(no_real_home):
    workspace = Workspace.of_home(Home(no_real_home / ".octave"))
    assert command(workspace, "/nowhere/python").env == {}
    assert command(workspace, "/nowhere/python").args == ("-P", "-m", "octave", "proxy")


def test_another_home_is_named_in_a_variable(tmp_path):
    workspace = Workspace.of_home(Home(tmp_path))
    assert command(workspace, "/nowhere/python").env == {"OCTAVE_HOME": str(tmp_path)}


def test_a_projects_manifest_is_named_in_the_words(tmp_path, no_real_home):
    manifest = tmp_path / "octave.toml"
    made = command(Workspace(Home(no_real_home / ".octave"), manifest), "/nowhere/python")
    assert made.program == "/nowhere/python"
    assert made.args == ("-P", "-m", "octave", "proxy", "--manifest", str(manifest))


def test_claude_codes_entry_names_its_transport(tmp_path):
    made = command(Workspace.of_home(Home(tmp_path)), "/nowhere/python")
    assert CLAUDE.entry(made) == {
        "type": "stdio",
        "command": "/nowhere/python",
        "args": ["-P", "-m", "octave", "proxy"],
        "env": {"OCTAVE_HOME": str(tmp_path)},
    }


@pytest.mark.parametrize(
    ("existing", "variable", "expected"),
    [
        ((), None, ".claude.json"),
        ((".claude.json",), None, ".claude.json"),
        ((".claude/.config.json", ".claude.json"), None, ".claude/.config.json"),
        ((".claude.json",), "moved", "moved/.claude.json"),
        ((".claude.json", "moved/.config.json"), "moved", "moved/.config.json"),
        ((".claude.json",), "", ".claude.json"),
    ],
    ids=["none", "usual", "old one first", "moved", "moved and old", "variable empty"],
)
def test_the_users_file_is_the_one_that_claude_code_reads(tmp_path, existing, variable, expected):
    for name in existing:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    environ = {} if variable is None else {"CLAUDE_CONFIG_DIR": variable and f"{tmp_path}/moved"}
    assert CLAUDE.places["user"].file(tmp_path, environ) == tmp_path / expected


def test_the_projects_file_lies_in_its_folder_wherever_the_users_was_moved(tmp_path):
    place = CLAUDE.places["project"]
    assert place.file(tmp_path, {"CLAUDE_CONFIG_DIR": "/x"}) == tmp_path / ".mcp.json"


def test_every_tool_is_found_by_its_id_and_has_files_and_a_next_step():
    for name, client in CLIENTS.items():
        assert client.id == name
        assert client.places["user"].next_step
        for place in client.places.values():
            assert place.names
            assert bool(place.variable) == bool(place.moved)


@pytest.mark.parametrize(
    ("name", "variable", "expected"),
    [
        ("claude-desktop", None, ".config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "XDG_CONFIG_HOME", "moved/Claude/claude_desktop_config.json"),
        ("vscode", "XDG_CONFIG_HOME", "moved/Code/User/mcp.json"),
        ("codex", "CODEX_HOME", "moved/config.toml"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="other folders there")
def test_a_moved_folder_is_followed(tmp_path, name, variable, expected):
    environ = {} if variable is None else {variable: f"{tmp_path}/moved"}
    assert CLIENTS[name].places["user"].file(tmp_path, environ) == tmp_path / expected
