"""`set`, `enable`, `disable`, `pin`, `unpin`: one key of octave.toml, and nothing else of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.desk import Desk
from tests.packages.story import ECHO, GOOD, World
from tests.small_disk import fill, small_disk


@pytest.fixture
def path(desk: Desk) -> Path:
    desk.server("good")
    path = desk.home / "octave.toml"
    text = path.read_text(encoding="utf-8")
    text += '\n# of the other\n[servers.other]\npackage = "npm:story-other"\n'
    path.write_text(f"# mine\n{text}enabled = false # broken until June\n", encoding="utf-8")
    return path


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_keys_are_set_and_unset_and_all_else_stays(desk: Desk, path: Path) -> None:
    before = text_of(path)
    done = desk.octave("set", "good", "auto_start=true", "args=--x", "args=a b")
    assert done.told == (0, "changed good (auto_start, args)\n", "")
    added = 'auto_start = true\nargs = ["--x", "a b"]\n'
    assert text_of(path).replace(added, "") == before
    done = desk.octave("set", "good", "auto_start=true", "--unset", "args")
    assert done.told == (0, "changed good (auto_start, args)\n", "")
    done = desk.octave("set", "good", "--unset", "auto_start", "--unset", "args", "--json")
    assert done.json == {
        "results": [
            {
                "name": "good",
                "status": "changed",
                "keys": ["auto_start", "args"],
                "version": None,
                "note": None,
                "error": None,
            }
        ]
    }
    assert text_of(path) == before
    assert desk.octave("set", "good", "--unset", "args").told == (0, "unchanged good (args)\n", "")


@pytest.mark.parametrize(
    ("words", "code", "stderr"),
    [
        (
            ("goo", "enabled=true"),
            4,
            "error: `ROOT/h/octave.toml` has no server `goo`\nhint: did you mean `good`?\n",
        ),
        (
            ("runtime", "port=1"),
            4,
            "error: `ROOT/h/octave.toml` has no server `runtime`\n"
            "hint: `octave edit` opens the file, where the table [runtime] is\n",
        ),
        (
            ("good", "auto_strt=true"),
            2,
            "error: a server has no key `auto_strt`\nhint: did you mean `auto_start`?\n",
        ),
        (
            ("good", "auto_start=maybe"),
            2,
            "error: `auto_start` must be true or false, not a string\nhint: octave set --help\n",
        ),
        (
            ("good", "version=1"),
            2,
            "error: `version` in [servers.good] goes with package, not with command\n"
            "hint: octave set good KEY=VALUE, or `--unset KEY`\n",
        ),
        (
            ("other", "version=^1 || x y !"),
            2,
            'error: `version` in [servers.other]: "^1 || x y !" is not an npm version range such '
            'as "1.2.3" or "^1.2"\n'
            "hint: octave set other KEY=VALUE, or `--unset KEY`\n",
        ),
        (
            ("good", "--unset", "command"),
            2,
            "error: [servers.good] needs exactly one of package, command, url; it has none of them"
            "\nhint: octave set good KEY=VALUE, or `--unset KEY`\n",
        ),
        (
            ("good", "replay=true", "--unset", "replay"),
            2,
            "error: `replay` cannot be set and unset at once\n"
            "hint: octave set good --unset replay\n",
        ),
        (("good",), 2, "error: nothing is to be changed\nhint: octave set good KEY=VALUE\n"),
        (
            ("good", "env.X_TOKEN=hush"),
            2,
            "error: `X_TOKEN` is a secret: `octave.toml` and a command line can be read by others\n"
            "hint: octave secret set good X_TOKEN, then octave set good "
            "env.X_TOKEN='{ secret = \"good/X_TOKEN\" }'\n",
        ),
    ],
)
def test_what_cannot_be_set_is_told_and_changes_nothing(
    desk: Desk, path: Path, words: tuple[str, ...], code: int, stderr: str
) -> None:
    before = text_of(path)
    assert desk.octave("set", *words).told == (code, "", stderr)
    done = desk.octave("set", *words, "--json")
    assert (done.code, done.stdout) == (code, "")
    assert done.error["message"] == stderr.splitlines()[0].removeprefix("error: ")
    assert text_of(path) == before


def test_disabling_and_enabling_keep_the_comment_and_tell_what_was_so(
    desk: Desk, path: Path
) -> None:
    before = text_of(path)
    assert desk.octave("disable", "good", "other").told == (
        0,
        "disabled good\nalready disabled other\n",
        "",
    )
    assert [row["state"] for row in desk.octave("list", "--json").json] == ["disabled"] * 2
    assert desk.octave("enable", "good", "other").told == (
        0,
        "enabled good\nenabled other\n",
        "note: `octave install` makes it so on disk\n",
    )
    changed = before.replace("= false # broken", "= true # broken")
    assert text_of(path).replace("enabled = true\n", "", 1) == changed
    assert desk.octave("enable", "good").stdout == "already enabled good\n"


def test_all_are_done_and_each_failure_told(desk: Desk, path: Path) -> None:
    assert desk.octave("disable", "goo", "good", "none").told == (
        4,
        "disabled good\n",
        "error: `ROOT/h/octave.toml` has no server `goo`\nhint: did you mean `good`?\n"
        "error: `ROOT/h/octave.toml` has no server `none`\nhint: octave list\n",
    )
    done = desk.octave("pin", "good", "none", "--json")
    assert (done.code, done.stderr) == (1, "")
    assert [row["status"] for row in done.json["results"]] == ["failed", "failed"]
    assert [row["error"]["code"] for row in done.json["results"]] == ["usage", "server_not_found"]


def test_a_pin_is_a_key_of_the_manifest_and_makes_nothing_stale(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    before = world.state()
    done = world.octave("pin", "story-good", "--json")
    (result,) = done.json["results"]
    assert (result["status"], result["version"], result["note"]) == ("pinned", "1.0", None)
    assert "pinned = true\n" in world.manifest
    assert world.octave("lock", "--check").code == 0
    assert world.octave("pin", "story-good").stdout == "already pinned story-good\n"
    assert world.octave("unpin", "story-good").told == (0, "unpinned story-good\n", "")
    world.octave("set", "story-good", "--unset", "pinned")
    assert world.state() == before


def test_a_pin_is_for_packages_alone(desk: Desk, path: Path) -> None:
    assert desk.octave("pin", "good").told == (
        2,
        "",
        "error: `good` comes from no package, so it has no version to stay at\nhint: octave list\n",
    )


def test_a_change_that_pins_depend_on_says_what_is_left_to_do(world: World) -> None:
    world.offer("story-echo", ECHO, "1.0")
    world.offer("story-echo", ECHO, "2.0")
    world.octave("install", "pypi:story-echo@<2")
    assert world.octave("set", "story-echo", "version=>=2").told == (
        0,
        "changed story-echo (version)\n",
        "note: `octave install` makes it so on disk\n",
    )
    assert world.octave("lock", "--check").code == 7
    assert world.octave("install", "-q").stdout == "installed story-echo 2.0 (2 tools)\n"
    assert world.octave("lock", "--check").code == 0
    done = world.octave("set", "story-echo", "env.MODE=fast", "args=--x")
    assert done.told == (0, "changed story-echo (env.MODE, args)\n", "")
    told = world.call("story-echo", "env").json
    assert (told["env"]["MODE"], told["argv"][1:]) == ("fast", ["--x"])


def test_a_lockfile_stays_fresh_when_a_command_changes(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    world.octave("add", "own", "--no-start", "--", "cat")
    assert world.octave("lock", "--check").code == 0
    before = world.lockfile
    world.octave("set", "own", "command=true")
    assert world.octave("lock", "--check").code == 0
    assert world.lockfile != before


def test_a_running_runtime_takes_it_over_at_once(desk: Desk, path: Path) -> None:
    desk.server("env-echo")
    assert desk.octave("start", "good", "env-echo").code == 0
    before = {row["name"]: row["pid"] for row in status(desk)}
    desk.octave("disable", "good")
    assert [row["name"] for row in status(desk)] == ["env-echo"]
    desk.octave("set", "env-echo", "env.MODE=fast")
    assert desk.octave("call", "env-echo", "env").json["env"]["MODE"] == "fast"
    desk.octave("enable", "good")
    rows = {row["name"]: row["pid"] for row in status(desk)}
    assert rows["env-echo"] != before["env-echo"]
    assert desk.octave("call", "good", "echo", "text=hi").stdout == "hi\n"


def status(desk: Desk) -> list[dict[str, object]]:
    found: list[dict[str, object]] = desk.octave("status", "--json").json["servers"]
    return found


def test_trust_stays_and_is_not_given_by_a_change(desk: Desk) -> None:
    folder = desk.root / "project"
    folder.mkdir()
    desk.project(folder / "octave.toml", "good")
    assert desk.octave("set", "good", "env.MODE=1", cwd=folder).code == 0
    assert desk.octave("call", "good", "echo", "text=hi", cwd=folder).code == 7
    desk.octave("trust", "-y", cwd=folder)
    assert desk.octave("set", "good", "env.MODE=2", cwd=folder).code == 0
    assert desk.octave("call", "good", "echo", "text=hi", cwd=folder).stdout == "hi\n"


def test_many_at_once_are_all_done(desk: Desk, path: Path) -> None:
    children = [desk.start("set", "good", f"env.K{number}=v") for number in range(6)]
    assert [desk.ended(child).code for child in children] == [0] * 6
    assert all(f'K{number} = "v"' in text_of(path) for number in range(6))
    assert not list(desk.home.rglob("*.tmp"))


@pytest.mark.parametrize("verb", ["set good replay=true", "disable good", "enable good"])
@pytest.mark.parametrize("text", ["[servers.good\n", '[servers.good]\ncommnd = ["x"]\n'])
def test_a_broken_manifest_is_told_with_its_place_and_left_alone(
    desk: Desk, verb: str, text: str
) -> None:
    path = desk.home / "octave.toml"
    path.write_text(text, encoding="utf-8")
    done = desk.octave(*verb.split())
    assert (done.code, done.stdout) == (2, "")
    assert "`octave.toml` line " in done.stderr
    assert "hint: edit `ROOT/h/octave.toml`" in done.stderr
    assert text_of(path) == text


def test_on_a_full_disk_the_old_file_stays(desk: Desk, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "256k"):
        desk.home = tmp_path / "small"
        desk.environ["OCTAVE_HOME"] = str(desk.home)
        desk.server("good")
        path = desk.home / "octave.toml"
        desk.octave("disable", "good")
        before = text_of(path)
        filler = fill(desk.home)
        for words in (
            ["set", "good", "replay=true"],
            ["enable", "good"],
            ["add", "more", "--no-start", "--", "cat"],
            ["secret", "set", "good", "TOKEN"],
        ):
            done = desk.octave(words[0], "--json", *words[1:], text=b"x")
            assert (done.code, done.error["code"]) == (1, "storage_failed"), words
            assert "free some space" in done.error["hint"]
            assert text_of(path) == before
        filler.unlink()
        assert desk.octave("enable", "good").code == 0
        assert not list(desk.home.rglob("*.tmp"))


def test_on_a_read_only_disk_all_is_told_and_what_is_there_can_be_read(
    desk: Desk, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "1m"):
        desk.home = tmp_path / "small"
        desk.environ["OCTAVE_HOME"] = str(desk.home)
        desk.server("good")
        desk.octave("secret", "set", "good", "TOKEN", text=b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(desk.home)], check=True)
        for words in (
            ["set", "good", "replay=true"],
            ["add", "more", "--no-start", "--", "cat"],
            ["secret", "set", "good", "TOKEN"],
            ["secret", "remove", "good", "TOKEN"],
        ):
            done = desk.octave(words[0], "--json", *words[1:], text=b"y")
            assert (done.code, done.error["code"]) == (1, "storage_failed"), words
            assert "read-only; set OCTAVE_HOME" in done.error["hint"]
        (row,) = desk.octave("secret", "list", "--json").json
        assert (row["key"], row["place"]) == ("TOKEN", "file")
        assert desk.octave("list", "--json").json[0]["name"] == "good"


SOMEBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
READS_ALL = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
"""The interpreter may lie in a folder that only its owner can enter."""


@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root to be somebody else"
)
@pytest.mark.parametrize(
    "words",
    [
        "set good replay=true",
        "disable good",
        "add more --no-start -- cat",
        "secret set good TOKEN",
        "init",
        "init -g",
    ],
)
def test_a_home_of_somebody_else_is_left_alone_with_a_hint(
    desk: Desk, path: Path, words: str
) -> None:
    before = {each: each.stat().st_mtime_ns for each in desk.root.rglob("*")}
    verb, *rest = words.split()
    done = subprocess.run(
        [*SOMEBODY, *READS_ALL, sys.executable, "-m", "octave", verb, "--json", *rest],
        cwd=desk.cwd,
        env=desk.environ,
        input=b"x",
        capture_output=True,
        check=False,
    )
    assert done.stdout == b""
    error = json.loads(done.stderr)["error"]
    if words == "init -g":
        assert (done.returncode, error["code"]) == (2, "usage")
    else:
        assert (done.returncode, error["code"]) == (1, "storage_failed")
        assert "OCTAVE_HOME" in error["hint"]
    assert {each: each.stat().st_mtime_ns for each in desk.root.rglob("*")} == before
