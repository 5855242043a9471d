"""`init`: the first octave.toml of a project."""

import re
import subprocess
from pathlib import Path

from octave.packages import manifest
from octave.packages.manifest_edit import EXAMPLE
from tests.cli.desk import Desk
from tests.packages.story import GOOD, World


def test_a_project_gets_a_manifest_that_asks_for_nothing(desk: Desk) -> None:
    assert desk.octave("init").told == (
        0,
        "created ROOT/cwd/octave.toml\n",
        "next: `octave install NAME`, then commit `octave.toml` and `octave.lock`\n",
    )
    found = manifest.load(desk.cwd / "octave.toml")
    assert (found.servers, found.profiles, found.registries) == ({}, {}, {})
    assert [path.name for path in desk.cwd.iterdir()] == ["octave.toml"]
    assert desk.octave("list", "--json").json == []


def test_its_comments_are_a_manifest() -> None:
    text = re.sub(r"^# (?=[\[a-z ])", "", EXAMPLE.partition("\n\n")[2], flags=re.MULTILINE)
    found = manifest.parse(Path("octave.toml"), text)
    assert set(found.servers) == {"github", "notes", "linear"}
    assert found.profiles == {"work": ("github", "linear")}


def test_what_is_there_is_not_overwritten(desk: Desk) -> None:
    path = desk.cwd / "octave.toml"
    path.write_text("x", encoding="utf-8")
    assert desk.octave("init").told == (
        2,
        "",
        "error: there is a `ROOT/cwd/octave.toml` already\nhint: octave edit\n",
    )
    assert path.read_text(encoding="utf-8") == "x"
    path.unlink()
    assert desk.octave("init", "--json").json == {
        "manifest": "ROOT/cwd/octave.toml",
        "status": "created",
    }


def test_it_is_for_this_very_folder_or_the_one_that_is_named(desk: Desk) -> None:
    deep = desk.cwd / "deep"
    deep.mkdir()
    desk.octave("init")
    assert desk.octave("init", cwd=deep).stdout == "created ROOT/cwd/deep/octave.toml\n"
    other = desk.root / "other"
    other.mkdir()
    assert desk.octave("init", "--manifest", str(other)).stdout == (
        "created ROOT/other/octave.toml\n"
    )
    assert desk.octave("init", "-g").stdout == "created ROOT/h/octave.toml\n"
    assert desk.octave("init", "--manifest", "none/octave.toml").told == (
        2,
        "",
        "error: there is no folder `ROOT/cwd/none`\nhint: mkdir -p ROOT/cwd/none\n",
    )


def test_of_two_at_once_one_makes_it(desk: Desk) -> None:
    children = [desk.start("init") for _ in range(3)]
    assert sorted(desk.ended(child).code for child in children) == [0, 2, 2]
    assert (desk.cwd / "octave.toml").read_text(encoding="utf-8") == EXAMPLE


def test_a_server_installed_into_it_leaves_two_files_to_commit(world: World) -> None:
    world.offer("story-good", GOOD)
    subprocess.run(["git", "init", "-q", str(world.cwd)], check=True)
    assert world.octave("init").code == 0
    assert world.octave("install", "pypi:story-good").code == 0
    assert world.octave("call", "story-good", "echo", "text=hi").stdout == "hi\n"
    text = (world.cwd / "octave.toml").read_text(encoding="utf-8")
    assert text == f'{EXAMPLE}\n[servers.story-good]\npackage = "pypi:story-good"\n'
    done = subprocess.run(
        ["git", "status", "--porcelain", "-uall"],
        cwd=world.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "?? octave.lock\n?? octave.toml\n"
