"""What may be wrong with a home: not ours, read-only, in an odd place, moved, partly damaged.

Each verb either does its work or says in one sentence what is wrong and what to do, and what worked
before works afterwards.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.packages.forked import Told, octave
from tests.packages.story import SERVERS, World

WITHOUT_RIGHTS = {"has_rights": False}
READERS = (
    ["search", "fetch"],
    ["info", "fetch"],
    ["list"],
    ["lock", "--check"],
    ["audit"],
    ["secret", "list"],
    ["registry", "list"],
    ["tools"],
)
"""Verbs that write nothing a person would miss."""
WRITERS = (
    ["install", "pypi:story-next"],
    ["add", "own", "--", sys.executable, str(SERVERS / "good.py")],
    ["uninstall", "story-good"],
    ["update", "-y"],
    ["rollback", "story-good"],
    ["pin", "story-good"],
    ["set", "story-good", "auto_start=true"],
    ["disable", "story-good"],
    ["secret", "set", "story-good", "KEY"],
    ["secret", "remove", "story-good", "X_TOKEN"],
    ["import", "cursor", "-y"],
    ["client", "add", "cursor"],
)


def check_told(done: Told, code: int) -> None:
    """It failed as it should: one sentence, something to do, no bug."""
    assert done.code == code, done
    assert done.error["code"] != "bug"
    assert done.error["hint"], done
    assert "\n" not in done.error["message"], done


def read_only(world: World) -> None:
    for folder in (world.home, *(path for path in world.home.iterdir() if path.is_dir())):
        folder.chmod(0o555)


def of_somebody_else(world: World) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a home away")
    subprocess.run(["chown", "-R", "1234:1234", world.home], check=True)
    world.home.chmod(0o700)


def test_row_66_a_home_that_cannot_be_written_is_read_and_refused(home: World) -> None:
    read_only(home)
    for words in READERS:
        assert octave(home, *words, **WITHOUT_RIGHTS).code == 0, words
    for words in WRITERS:
        done = octave(home, words[0], "--json", *words[1:], stdin=b"value\n", **WITHOUT_RIGHTS)
        check_told(done, 1)
        assert "cannot write" in done.error["message"], (words, done)
    called = octave(home, "call", "story-good", "echo", "text=hi", **WITHOUT_RIGHTS)
    assert (called.code, called.stdout, called.stderr) == (0, "hi\n", "")


def test_row_66_the_home_of_another_user_is_refused(home: World) -> None:
    of_somebody_else(home)
    others = ("clean", "list", "audit", "install", "search fetch", "call story-good echo text=hi")
    for words in [*WRITERS, *map(str.split, others)]:
        done = octave(home, words[0], "--json", *words[1:], stdin=b"value\n", **WITHOUT_RIGHTS)
        assert done.code in {1, 2}, (words, done)
        check_told(done, done.code)
        assert "who owns it" in done.error["hint"], (words, done)


@pytest.mark.parametrize("verb", ["list", "install", "search fetch", "clean", "secret set a KEY"])
@pytest.mark.parametrize("place", ["file", "file/below", "loop"])
def test_row_66_a_home_that_can_be_no_folder_says_so(tmp_path: Path, place: str, verb: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "cwd").mkdir()
    environ = {"OCTAVE_HOME": str(tmp_path / place), "HOME": str(tmp_path), "PATH": os.defpath}
    done = octave(environ, *verb.split(), "--json", cwd=tmp_path / "cwd", stdin=b"value\n")
    if (verb, place) in {("clean", "file/below"), ("clean", "loop")}:
        assert done.code == 0
        return
    check_told(done, 2 if verb in {"list", "search fetch"} else 1)
    assert "OCTAVE_HOME" in done.error["hint"]


@pytest.mark.parametrize("name", ['it\'s "mine" hömé-日本', "/".join(["x" * 60] * 4)])
def test_row_67_a_home_may_lie_anywhere(home: World, name: str) -> None:
    place = home.root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    home.home.rename(place)
    moved = {"OCTAVE_HOME": str(place)}
    assert octave(home, "call", "story-good", "echo", "text=hi", environ=moved).stdout == "hi\n"
    assert octave(home, "audit", environ=moved).code == 0
    assert octave(home, "rollback", "story-good", environ=moved).code == 0


MOVES: dict[str, Callable[[Path, Path], Any]] = {
    "moved": Path.rename,
    "copied": lambda old, new: subprocess.run(["cp", "-a", old, new], check=True),
    "linked": lambda old, new: new.symlink_to(old.rename(old.with_name("real"))),
}


@pytest.mark.parametrize(
    "how",
    ["moved", *(pytest.param(how, marks=pytest.mark.campaign) for how in MOVES if how != "moved")],
)
def test_row_67_a_home_that_was_moved_has_all_it_had(home: World, how: str) -> None:
    project = home.root / "project" / "octave.toml"
    project.parent.mkdir()
    project.write_text('[servers.story-good]\npackage = "pypi:story-good"\nversion = "2.0"\n')
    there = {"cwd": project.parent}
    assert octave(home, "trust", "-y", **there).code == 0
    assert octave(home, "install", **there).code == 0
    assert octave(home, "set", "story-good", "version=2.0").code == 0
    assert octave(home, "rollback", "story-good", "1.0").code == 0

    MOVES[how](home.home, home.root / "elsewhere")
    if how == "copied":
        shutil.rmtree(home.home)
    moved: dict[str, Any] = {"environ": {"OCTAVE_HOME": str(home.root / "elsewhere")}}

    assert octave(home, "call", "story-good", "echo", "text=hi", **moved).stdout == "hi\n"
    assert octave(home, "call", "story-good", "echo", "text=hi", **moved, **there).stdout == "hi\n"
    assert octave(home, "lock", "--check", **moved).code == 0
    (row,) = json.loads(octave(home, "secret", "list", "--json", **moved).stdout)
    assert (row["key"], row["place"]) == ("X_TOKEN", "file")
    # What a rollback would return to is known, so it also stays.
    assert octave(home, "clean", **moved).code == 0
    done = octave(home, "rollback", "story-good", "--json", **moved)
    assert json.loads(done.stdout)["results"][0]["version"] == "2.0"
