"""`rollback`: back to what lies on disk, offline, and forward again."""

import json

from tests.packages.story import World
from tests.packages.versions_of import program


def updated(world: World, *versions: str) -> None:
    for version in versions:
        world.offer("story-good", program(version, {f"tool-{version}": "One"}), version)
        words = ["update", "-y"] if version != versions[0] else ["install", "pypi:story-good"]
        done = world.octave(*words, "-q")
        assert done.code == 0, done.stderr


def test_it_goes_back_without_the_index_and_forward_again(world: World) -> None:
    updated(world, "1.0", "2.0")
    locked = world.lockfile
    world.index.status = 500
    done = world.octave("rollback", "story-good")
    assert done.told == (
        0,
        "rolled-back story-good 2.0 -> 1.0 (1 tool)\n",
        "note: `octave pin story-good` keeps `octave update` from it\ndone in N s\n",
    )
    assert world.call("story-good", "tool-1.0").stdout == "1.0\n"
    assert world.octave("lock", "--check").code == 0
    assert world.octave("rollback", "story-good", "-q").code == 0
    assert world.lockfile == locked
    assert world.call("story-good", "tool-2.0").stdout == "2.0\n"


def test_the_lock_entry_and_the_lists_are_those_from_before(world: World) -> None:
    updated(world, "1.0")
    locked, lists = world.lockfile, world.home / "catalogue" / "story-good.json"
    listed = json.loads(lists.read_bytes())
    updated_lock(world)
    assert world.lockfile != locked
    world.octave("rollback", "story-good")
    assert world.lockfile == locked
    assert json.loads(lists.read_bytes())["lists"] == listed["lists"]


def updated_lock(world: World) -> None:
    world.offer("story-good", program("2.0"), "2.0")
    assert world.octave("update", "-y").code == 0


def test_a_version_can_be_named_and_those_that_are_there_are_told(world: World) -> None:
    updated(world, "1.0", "2.0", "3.0")
    assert world.octave("rollback", "story-good", "1.0", "-q").code == 0
    assert world.call("story-good", "tool-1.0").stdout == "1.0\n"
    done = world.octave("rollback", "story-good", "0.9")
    assert done.told == (
        4,
        "",
        "error: no version `0.9` of `story-good` lies on this disk; there is `2.0`, `3.0`\n"
        "hint: octave rollback story-good 3.0\n",
    )
    assert world.octave("rollback", "story-good", "--json").json["results"] == [
        {
            "name": "story-good",
            "status": "rolled-back",
            "version": "3.0",
            "checked": True,
            "tools": 1,
            "warning": None,
            "error": None,
            "note": "`octave pin story-good` keeps `octave update` from it",
            "previous": "1.0",
        }
    ]


def test_without_a_version_before_it_says_so(world: World) -> None:
    updated(world, "1.0")
    assert world.octave("rollback", "story-good").told == (
        4,
        "",
        "error: no version before this one of `story-good` lies on this disk\n"
        "hint: octave install story-good@VERSION\n",
    )
    assert world.octave("rollback", "nobody").code == 4


def test_a_range_that_the_version_is_not_in_returns_too(world: World) -> None:
    world.offer("story-good", program("1.0"), "1.0")
    world.offer("story-good", program("2.0"), "2.0")
    assert world.octave("install", "pypi:story-good@1.0").code == 0
    assert world.octave("install", "pypi:story-good@2.0").code == 0
    before = world.manifest
    assert world.octave("rollback", "story-good").code == 0
    assert 'version = "1.0"' in world.manifest
    assert world.octave("lock", "--check").code == 0
    assert world.octave("rollback", "story-good").code == 0
    assert world.manifest == before


def test_a_version_whose_files_are_gone_is_not_returned_to(world: World) -> None:
    updated(world, "1.0", "2.0")
    locked = world.lockfile
    (folder,) = (world.home / "servers" / "story-good").glob("1.0-*")
    (folder / "venv" / "bin" / "story-good").unlink()
    done = world.octave("rollback", "story-good")
    assert done.told == (
        1,
        "",
        "error: `story-good` 1.0 cannot run any more: part of it is gone\n"
        "hint: octave install pypi:story-good@1.0 --as story-good\n",
    )
    assert world.lockfile == locked


def test_a_lockfile_that_came_from_version_control_can_be_gone_back_from(world: World) -> None:
    updated(world, "1.0", "2.0")
    pulled = world.lockfile
    world.octave("rollback", "story-good", "1.0")
    world.octave("uninstall", "story-good")
    assert world.octave("install", "pypi:story-good@1.0").code == 0
    world.octave("set", "story-good", "--unset", "version")
    world.octave("lock")
    (world.home / "octave.lock").write_text(pulled, encoding="utf-8")
    assert world.octave("install", "--locked").code == 0
    assert world.call("story-good", "tool-2.0").stdout == "2.0\n"
    done = world.octave("rollback", "story-good", "-q")
    assert (done.code, done.stdout) == (0, "rolled-back story-good 2.0 -> 1.0 (1 tool)\n")
    assert world.call("story-good", "tool-1.0").stdout == "1.0\n"
