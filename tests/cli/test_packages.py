"""`install`, `uninstall`, `lock`, `trust`: what they print, to the letter."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.terminal import on_terminal
from tests.packages.story import CRASHES, GOOD, WANTS_KEY, World, plain


def test_an_install_tells_its_steps_what_was_done_and_what_is_next(world: World) -> None:
    world.offer("story-good", GOOD)
    done = world.octave("install", "pypi:story-good")
    python = world.home / "servers" / world.installed()[0] / "venv" / "bin" / "python"
    assert (done.code, done.stdout, re.sub(r"\d+\.\d s\b", "N s", done.stderr)) == (
        0,
        "installed story-good 1.0 (3 tools)\n",
        "resolving story-good\n"
        "story-good: pypi:story-good 1.0, not in Octave's registry; nobody vouches for it\n"
        "  publisher, by its own account: unknown\n"
        f"  runs: {python} {python.with_name('story-good')}\n"
        "  brings: 1 package, each locked by its hash\n"
        "installing story-good 1.0\n"
        "checking the files of story-good\n"
        "compiling story-good\n"
        "starting `story-good` once\n"
        "done in N s\n"
        "next: `octave tools story-good`, or `octave client add claude`\n",
    )
    assert world.octave("i", "pypi:story-good", "-q").told == (
        0,
        "present story-good 1.0 (3 tools)\n",
        "",
    )


def test_an_unchecked_install_warns(world: World) -> None:
    world.offer("story-key", WANTS_KEY)
    assert world.octave("install", "pypi:story-key", "-q").told == (
        0,
        "installed story-key 1.0\n",
        "warning: `story-key` was not checked: it says: Error: STORY_KEY environment variable is "
        "required\n",
    )


def test_the_json_of_an_install_has_its_fields_and_nothing_on_stderr(world: World) -> None:
    world.offer("story-good", GOOD)
    done = world.octave("install", "pypi:story-good", "--json")
    assert done.stderr == ""
    assert list(done.json) == ["results", "tookSeconds"]
    assert isinstance(done.json["tookSeconds"], float)
    assert done.json["results"] == [
        {
            "name": "story-good",
            "status": "installed",
            "version": "1.0",
            "checked": True,
            "tools": 3,
            "warning": None,
            "error": None,
        }
    ]


def test_a_failed_start_shows_the_last_words_of_the_server(world: World) -> None:
    world.offer("story-crash", CRASHES)
    code, out, err = world.octave("install", "pypi:story-crash", "-q").told
    lines = err.splitlines()
    assert (code, out) == (6, "")
    assert lines[0] == (
        "error: `story-crash` 1.0 was not installed: `story-crash` ended with exit code 1 before "
        "it answered `initialize`"
    )
    assert lines[1] == "  | given nothing"
    assert lines[-1] == "  | AttributeError: 'NoneType' object has no attribute 'attribute'"


def test_several_are_all_done_and_the_failures_told(world: World) -> None:
    world.offer("story-good", GOOD)
    done = world.octave("install", "pypi:story-good", "githb", "pypi:story-none", "-q")
    assert done.told == (
        4,
        "installed story-good 1.0 (3 tools)\n",
        "error: the registry has no server `githb`\n"
        "hint: did you mean `github` or `git` or `gitlab`?\n"
        "error: the package index has no package `story-none`\n"
        "hint: check the spelling of the name\n",
    )
    world.offer("story-crash", CRASHES)
    done = world.octave("install", "githb", "pypi:story-crash", "--json")
    assert done.code == 1
    assert [row["error"]["code"] for row in done.json["results"]] == [
        "server_not_found",
        "start_failed",
    ]


def test_what_is_wrong_with_the_folder_of_one_server_costs_no_other(world: World) -> None:
    for name in ("story-bad", "story-good"):
        world.offer(name, GOOD)
    world.wants("story-bad", "story-good")
    (world.home / "servers").mkdir(mode=0o700)
    (world.home / "servers" / "story-bad").touch()
    done = world.octave("install", "--no-start", "-q")
    assert (done.code, done.stdout) == (1, "installed story-good 1.0\n")
    assert "servers/story-bad`: is not a folder" in done.stderr


def test_with_nothing_to_install_it_says_so(world: World) -> None:
    assert world.octave("install").told == (
        0,
        "",
        "`octave.toml` names no package, so there is nothing to do\n",
    )
    assert world.octave("install", "--json").json["results"] == []


def test_lock_check_tells_fresh_and_stale(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    assert world.octave("lock", "--check").told == (
        0,
        "",
        "`octave.lock` answers `octave.toml`\n",
    )
    assert world.octave("lock", "--check", "--json").json == {"fresh": True}
    (world.home / "octave.toml").write_text("", encoding="utf-8")
    assert world.octave("lock", "--check").told == (
        7,
        "",
        "error: `octave.lock` is stale: `story-good` is locked but not wanted\n"
        "hint: run `octave install`, and commit `octave.lock`\n",
    )
    done = world.octave("install", "--locked", "--json")
    assert done.code == 7
    assert done.error["details"] == {"differences": ["`story-good` is locked but not wanted"]}


def test_a_lockfile_with_a_merge_conflict_is_told_with_its_line(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    path = world.home / "octave.lock"
    path.write_text(f"{world.lockfile}<<<<<<< mine\n", encoding="utf-8")
    line = len(path.read_text(encoding="utf-8").splitlines())
    for verb in (["install"], ["install", "--locked"], ["lock", "--check"]):
        done = world.octave(*verb)
        assert done.code == 7
        assert f"`octave.lock` line {line}: an unresolved merge conflict" in done.stderr


PROJECT = """
[servers.good]
package = "pypi:story-good"
version = "<2"
registry_name = "com.example/good"
args = ["--x", "\\u001b[2J"]
pass_env = ["SSH_AUTH_SOCK"]

[servers.own]
command = ["sh", "-c", "evil"]
cwd = "sub"
env = { NODE_OPTIONS = "--require ./evil.js", T = { secret = "github/TOKEN" } }

[servers.far]
url = "https://mcp.example.com/mcp"
headers = { Authorization = { env = "FAR" } }
"""


def project(world: World) -> Path:
    folder = world.cwd / "project"
    folder.mkdir()
    (folder / "octave.toml").write_text(PROJECT, encoding="utf-8")
    return folder


def test_trust_shows_all_that_it_is_asked_for(world: World) -> None:
    folder = project(world)
    shown = (
        "`octave.toml` wants to run:\n"
        "  good: pypi:story-good@<2 --x \\x1b[2J\n"
        "    started as a registry says of com.example/good\n"
        "    of your environment: SSH_AUTH_SOCK\n"
        "  own: sh -c evil\n"
        "    in sub\n"
        "    NODE_OPTIONS = --require ./evil.js\n"
        '    T = { secret = "github/TOKEN" }\n'
        "  far: https://mcp.example.com/mcp\n"
        '    Authorization = { env = "FAR" }\n'
    )
    code, out, err = world.octave("trust", cwd=folder).told
    assert (code, out) == (2, "")
    assert err == f"{shown}error: nobody can be asked for consent\nhint: octave trust -y\n"
    trusted = "`octave.toml` is trusted as it is now; a change asks again\n"
    assert world.octave("trust", "-y", cwd=folder).told == (0, "", shown + trusted)
    assert world.octave("trust", cwd=folder).told == (0, "", trusted)
    assert world.octave("trust", "--json", cwd=folder).json == {
        "manifest": str(folder / "octave.toml"),
        "trusted": True,
    }


def test_the_command_that_gives_trust_can_be_pasted(world: World) -> None:
    folder = world.root / "my project"
    folder.mkdir()
    (folder / "octave.toml").write_text('[servers.x]\ncommand = ["true"]\n', encoding="utf-8")
    done = world.octave("install", cwd=folder)
    assert f"`octave trust --manifest '{folder / 'octave.toml'}'`" in done.stderr


@pytest.mark.parametrize("verb", ["list", "lock", "serve", "start", "trust", "uninstall x"])
def test_a_manifest_that_is_named_and_not_there_is_told(world: World, verb: str) -> None:
    done = world.octave(*verb.split(), "--manifest", "nowhere.toml")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: there is no `{world.cwd / 'nowhere.toml'}`\n"
        "hint: `octave install NAME` makes one\n"
    )


def test_without_trust_the_command_that_gives_it_is_named(world: World) -> None:
    folder = project(world)
    assert world.octave("install", cwd=folder).told == (
        7,
        "",
        "error: `octave.toml` is not trusted yet\n"
        "hint: read it, then run `octave trust --manifest octave.toml`\n",
    )
    world.octave("trust", "-y", cwd=folder)
    with (folder / "octave.toml").open("a", encoding="utf-8") as file:
        file.write('[servers.more]\ncommand = ["true"]\n')
    assert "was changed since it was trusted" in world.octave("install", cwd=folder).stderr


def test_the_homes_own_manifest_needs_no_trust(world: World) -> None:
    done = world.octave("trust")
    assert done.told == (0, "", "the home's own `octave.toml` is always trusted\n")


def asked(world: World, folder: Path, answer: str, *words: str) -> tuple[int, str]:
    """Run octave on a terminal of its own, answer what it asks, return all it showed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "octave", *words],
        cwd=folder,
        env={**world.environ, "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, question = b"", re.compile(rb"\[y/N\]: ")
    try:
        while piece := os.read(ours, 4096):
            was_asked = question.search(shown)
            shown += piece
            if question.search(shown) and not was_asked:
                os.write(ours, f"{answer}\n".encode())
    except OSError:
        pass  # Linux's way of saying that the other end is closed.
    os.close(ours)
    return child.wait(30), shown.decode()


def test_on_a_terminal_trust_asks_and_no_is_no(world: World) -> None:
    folder = project(world)
    code, shown = asked(world, folder, "n", "trust")
    assert code == 7
    assert "Trust it? [y/N]" in shown
    assert world.octave("install", cwd=folder).code == 7
    assert asked(world, folder, "y", "trust")[0] == 0
    assert world.octave("trust", "--json", cwd=folder).json["trusted"]


def test_on_a_terminal_a_secret_is_asked_for_and_not_shown(world: World) -> None:
    world.offer("elevenlabs-mcp", GOOD)
    words = ("install", "elevenlabs", "-e", "ELEVENLABS_API_KEY")
    answers = [
        ("Install `elevenlabs`? [Y/n]: ", "y"),
        ("Value of ELEVENLABS_API_KEY: ", "hush-typed-value"),
    ]
    code, shown = on_terminal(world.environ, world.cwd, answers, *words)
    assert code == 0, shown
    assert "hush-typed-value" not in shown
    assert "hush-typed-value" in (world.home / "secrets.toml").read_text(encoding="utf-8")


def test_in_ci_nobody_is_asked(world: World) -> None:
    world.environ["CI"] = "true"
    words = ("install", "time", "-e", "MODE")
    code, shown = asked(world, world.cwd, "x", *words)
    assert code == 2
    assert "nobody can be asked" in plain(shown)


def test_uninstall_tells_what_it_removed(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good", "--no-start")
    assert world.octave("rm", "story-god").told == (
        4,
        "",
        "error: `story-god` is not in `octave.toml`\nhint: did you mean `story-good`?\n",
    )
    done = world.octave("uninstall", "story-good", "--json")
    assert done.json["results"] == [
        {
            "name": "story-good",
            "status": "removed",
            "version": None,
            "checked": False,
            "tools": None,
            "warning": None,
            "error": None,
        }
    ]


def test_the_manifest_is_the_named_one_else_the_nearest_else_the_homes(world: World) -> None:
    folder = project(world)
    world.octave("trust", "-y", cwd=folder)
    (folder / "deep" / "er").mkdir(parents=True)
    near = world.octave("list", "--json", cwd=folder / "deep" / "er").json
    assert [row["name"] for row in near] == ["good", "own", "far"]
    assert world.octave("list", "-g", "--json", cwd=folder).json == []
    named = world.octave("list", "--json", "--manifest", str(folder)).json
    assert len(named) == 3
    by_variable = {"OCTAVE_MANIFEST": str(folder / "octave.toml")}
    assert len(world.octave("list", "--json", environ=by_variable).json) == 3
