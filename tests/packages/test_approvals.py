"""What was approved is found at a launch: in the lockfile, else beside the catalogue."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.home import Home, Workspace
from octave.packages import approvals, lockfile, offered
from octave.packages.definitions import pins_of
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.packages.specs import launch_specs
from tests.packages.story import GOOD, World
from tests.packages.wheel_index import WheelIndex


def raw(name: str, **more: object) -> bytes:
    return json.dumps({"name": name, **more}).encode()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    index = WheelIndex()
    yield World(tmp_path, index)
    index.close()


@pytest.fixture
def good(world: World) -> World:
    world.offer("story-good", GOOD, "1.0.0")
    assert world.octave("install", "pypi:story-good").code == 0
    return world


def workspace_of(world: World) -> Workspace:
    return Workspace(Home(world.home), world.home / "octave.toml")


def spec_of(world: World) -> LaunchSpec:
    (spec,) = launch_specs(workspace_of(world), world.environ)
    return spec


def test_a_launch_carries_what_the_lockfile_says_as_soon_as_it_says_it(good: World) -> None:
    workspace = workspace_of(good)
    lock = lockfile.read(workspace.lockfile)
    pin = lock.pins["story-good"]
    assert spec_of(good).approvals.tools == {tool.name: tool for tool in pin.tools}

    changed = replace(pin, tools=pin.tools[:1])
    lockfile.write(workspace.lockfile, replace(lock, pins={"story-good": changed}))
    assert spec_of(good).approvals.tools == {pin.tools[0].name: pin.tools[0]}
    # From the cache, and with a damaged one.
    assert spec_of(good).approvals.tools == {pin.tools[0].name: pin.tools[0]}
    (workspace.state / "catalogue" / "approved.lock.json").write_bytes(b"{")
    assert spec_of(good).approvals.tools == {pin.tools[0].name: pin.tools[0]}


def test_installing_from_a_lockfile_takes_over_no_other_definition(good: World) -> None:
    workspace = workspace_of(good)
    lock = lockfile.read(workspace.lockfile)
    pin = lock.pins["story-good"]
    others = tuple(replace(tool, sha256="0" * 64) for tool in pin.tools)
    other = replace(lock, pins={"story-good": replace(pin, tools=others)})
    colleague = good.root / "colleague"
    colleague.mkdir(mode=0o700)
    (colleague / "octave.toml").write_text(good.manifest, encoding="utf-8")
    lockfile.write(colleague / "octave.lock", other)
    before = (colleague / "octave.lock").read_bytes()

    environ = {"OCTAVE_HOME": str(colleague)}
    installed = good.octave("install", environ=environ)
    tools = good.octave("tools", "story-good", "--json", environ=environ)

    assert installed.code == 0
    assert (colleague / "octave.lock").read_bytes() == before
    assert {tool["_approval"] for tool in tools.json} == {"changed"}


def test_the_approved_text_outlives_the_catalogue_that_had_it(tmp_path: Path) -> None:
    catalogue = tmp_path / "x.json"
    old, new = raw("a", description="old"), raw("a", description="new")
    approved = {pin.name: pin for pin in pins_of([old])}
    offered.save(catalogue, Offered(b"{}", {"tools": (old,)}), "1", "d")

    approvals.keep(catalogue, "1", "d", approved, [new])
    offered.save(catalogue, Offered(b"{}", {"tools": (new,)}), "1", "d")
    approvals.keep(catalogue, "1", "d", approved, [new])

    assert approvals.texts(catalogue, "1", "d") == {"a": old}
    assert approvals.texts(catalogue, "2", "d") is None
    assert approvals.path_of(catalogue).stat().st_mode & 0o077 == 0


def test_an_approval_of_another_command_counts_for_nothing(tmp_path: Path) -> None:
    catalogue = tmp_path / "x.json"
    pins = {pin.name: pin for pin in pins_of([raw("a")])}
    approvals.keep(catalogue, "", "of the old command", pins, [raw("a")])
    assert approvals.texts(catalogue, "", "of the new command") is None


def test_a_damaged_file_approves_nothing_and_is_kept_beside(tmp_path: Path) -> None:
    catalogue = tmp_path / "x.json"
    approvals.path_of(catalogue).write_bytes(b'{"format":1')
    assert approvals.texts(catalogue, "", "") is None
    assert [path.name[:22] for path in tmp_path.iterdir()] == ["x.approved.json.bad-20"]


def test_what_no_file_of_json_could_hold_is_left_without_its_text(tmp_path: Path) -> None:
    catalogue = tmp_path / "x.json"
    tools = [b'{"name":"a","description":"\\ud800"}', b'{"name":"b","description":"\xed\xa0\x80"}']
    pins = {pin.name: pin for pin in pins_of(tools)}
    approvals.keep(catalogue, "", "", pins, tools)
    assert approvals.texts(catalogue, "", "") == {"a": tools[0]}


def test_a_server_that_is_added_is_approved_as_it_was_seen(world: World) -> None:
    program = Path(__file__).parents[1] / "servers" / "good.py"
    done = world.octave("add", "mine", "--", "python3", str(program))
    assert done.code == 0
    approved = spec_of(world).approvals.tools
    assert approved is not None
    assert "echo" in approved
    assert world.octave("uninstall", "mine").code == 0
    assert not list((world.home / "catalogue").glob("mine*"))
