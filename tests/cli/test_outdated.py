"""`outdated`: what it prints, to the letter, and how it exits."""

import shutil
from pathlib import Path

import pytest

from tests.packages.npm_registry import NpmRegistry
from tests.packages.story import ECHO, GOOD, World


def install(world: World, *names: str) -> None:
    done = world.octave("install", *names, "--no-start", "-q")
    assert done.code == 0, done.stderr


def test_it_lists_what_is_newer_and_exits_1(world: World) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.offer("story-echo", ECHO, "1.0")
    install(world, "pypi:story-good", "pypi:story-echo")
    assert world.octave("outdated", "-q").told == (0, "", "")
    world.offer("story-good", GOOD, "1.1")
    done = world.octave("outdated")
    assert (done.code, done.stdout.split("\n")[0].split()) == (
        1,
        ["NAME", "CURRENT", "WANTED", "LATEST"],
    )
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["story-good", "1.0", "1.1", "1.1"]
    ]
    assert world.octave("outdated", "--json").json == [
        {
            "name": "story-good",
            "current": "1.0",
            "wanted": "1.1",
            "latest": "1.1",
            "pinned": False,
            "notes": [],
            "error": None,
        }
    ]
    assert world.octave("list", "--outdated").told[:2] == done.told[:2]
    assert world.octave("outdated", "story-echo").told == (
        0,
        "",
        "asking for versions of story-echo\nevery server is as new as it can be\n",
    )
    done = world.octave("outdated", "story-god", "story-good")
    assert (done.code, done.stdout.splitlines()[1].split()[0]) == (4, "story-good")
    assert done.stderr.endswith(
        "has no server `story-god`\nhint: did you mean `story-good` or `story-echo`?\n"
    )


def test_the_range_of_the_manifest_is_what_is_wanted_and_pinned_ones_are_marked(
    world: World,
) -> None:
    world.offer("story-good", GOOD, "1.0")
    install(world, "pypi:story-good@>=1,<2")
    world.octave("pin", "story-good")
    world.offer("story-good", GOOD, "2.0")
    done = world.octave("outdated")
    assert done.code == 1
    row = ["story-good", "(pinned)", "1.0", "1.0", "2.0"]
    assert done.stdout.splitlines()[1].split() == row
    world.octave("unpin", "story-good")
    assert world.octave("outdated").stderr.splitlines()[-1] == (
        "note: the range of `story-good` in `octave.toml` keeps it where it is: "
        "`octave set story-good 'version=*'`"
    )


def test_a_pre_release_counts_only_where_there_is_nothing_else(world: World) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.offer("story-early", GOOD, "1.0a1")
    install(world, "pypi:story-good", "pypi:story-early")
    world.offer("story-good", GOOD, "2.0rc1")
    world.offer("story-early", GOOD, "1.0a2")
    done = world.octave("outdated", "--json")
    rows = done.json
    assert [(row["name"], row["current"], row["latest"]) for row in rows] == [
        ("story-early", "1.0a1", "1.0a2")
    ]


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_newest_version_that_no_node_here_runs_is_told_and_not_replaced(
    world: World, npm: NpmRegistry
) -> None:
    npm.offer("story-node", "1.0.0")
    install(world, "npm:story-node")
    npm.offer("story-node", "2.0.0", engines={"node": ">=99"})
    done = world.octave("outdated")
    assert done.code == 1
    assert done.stdout.splitlines()[1].split() == ["story-node", "1.0.0", "2.0.0", "2.0.0"]
    assert "note: `story-node` 2.0.0 does not run here: a node version in `>=99`" in done.stderr


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_registry_that_cannot_be_reached_exits_8_and_the_others_are_shown(
    world: World, npm: NpmRegistry
) -> None:
    npm.offer("story-node", "1.0.0")
    world.offer("story-good", GOOD, "1.0")
    install(world, "npm:story-node", "pypi:story-good")
    world.offer("story-good", GOOD, "1.1")
    npm.close()
    done = world.octave("outdated", "--json")
    assert done.code == 8
    rows = {row["name"]: row for row in done.json}
    assert rows["story-good"]["latest"] == "1.1"
    assert rows["story-node"]["error"]["code"] == "registry_unreachable"
    assert rows["story-node"]["current"] == "1.0.0"
    done = world.octave("outdated")
    assert (done.code, len(done.stdout.splitlines())) == (8, 2)


def test_an_unknown_name_exits_4_and_nothing_is_written(world: World, tmp_path: Path) -> None:
    done = world.octave("outdated", "nobody")
    assert done.code == 4
    assert done.stderr.startswith("error: `/") or "has no server `nobody`" in done.stderr
    assert not (tmp_path / "home").exists()
    assert world.octave("outdated", "-q").told == (0, "", "")
