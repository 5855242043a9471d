"""`clean`: what goes, what stays, and what it says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.packages.story import World
from tests.packages.versions_of import program


def versions(world: World, *chosen: str) -> None:
    for version in chosen:
        world.offer("story-good", program(version), version)
        done = world.octave("install", f"pypi:story-good@{version}", "--no-start")
        assert done.code == 0, done.stderr


def folders(world: World) -> list[str]:
    place = world.home / "servers" / "story-good"
    return sorted(path.name.partition("-")[0] for path in place.iterdir())


@contextmanager
def holding(world: World, name: str) -> Iterator[None]:
    """Hold a lock as an installation in another process does."""
    program = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    path = world.home / "locks" / f"{name}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "held\n"
        yield
        child.stdin.close()
        child.wait(30)


def test_it_removes_what_neither_counts_nor_would_be_returned_to(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    litter = world.home / "staging" / "story-dead" / "ab12"
    litter.mkdir(parents=True)
    (litter / "half").write_bytes(b"x" * 10_000)
    (world.home / "locks" / "story-dead.lock").touch()
    before = sorted(str(path) for path in world.home.rglob("*") if path.suffix != ".lock")
    dry = world.octave("clean", "--dry-run", "--json").json
    assert sorted(str(path) for path in world.home.rglob("*") if path.suffix != ".lock") == before
    done = world.octave("clean", "--json")
    assert (done.code, done.stderr) == (0, "")
    kinds = {(each["kind"], each["name"]) for each in done.json["removed"]}
    assert kinds >= {
        ("version", "story-good"),
        ("staging", "story-dead"),
        ("cache", "uv"),
        ("lock", "story-dead"),
    }
    assert done.json["freedBytes"] == sum(each["bytes"] for each in done.json["removed"]) > 20_000
    assert {(each["kind"], each["name"]) for each in dry["removed"]} == kinds
    assert folders(world) == ["2.0", "3.0"]
    assert list((world.home / "staging").iterdir()) == []
    assert list((world.home / "cache").iterdir()) == []
    assert world.octave("rollback", "story-good").code == 0
    assert world.call("story-good", "echo").stdout == "2.0\n"
    assert world.octave("install", "--locked").code == 0


def test_it_tells_what_it_did(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    code, out, err = world.octave("clean").told
    assert (code, out.splitlines()[-1].startswith("removed story-good 1.0-")) == (0, False)
    assert any(line.startswith("removed story-good 1.0-") for line in out.splitlines())
    assert any(line.startswith("removed cache uv (") for line in out.splitlines())
    assert err.splitlines()[-1].startswith("freed ")
    assert world.octave("clean", "-q").told == (0, "", "")


def test_what_another_project_means_stays_until_that_is_gone(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    project = world.root / "project"
    project.mkdir()
    (project / "octave.toml").write_text(
        '[servers.story-good]\npackage = "pypi:story-good"\nversion = "1.0"\n', encoding="utf-8"
    )
    assert world.octave("trust", "-y", cwd=project).code == 0
    assert world.octave("install", "--no-start", cwd=project).code == 0
    world.octave("clean")
    assert folders(world) == ["1.0", "2.0", "3.0"]
    shutil.rmtree(project)
    world.octave("clean")
    assert folders(world) == ["2.0", "3.0"]


def test_a_lockfile_that_cannot_be_read_keeps_every_version(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    (world.home / "octave.lock").write_text("<<<<<<< ours\n", encoding="utf-8")
    done = world.octave("clean")
    assert done.code == 0
    assert "note: no versions are removed: `octave.lock` line 1" in done.stderr
    assert folders(world) == ["1.0", "2.0", "3.0"]


def test_what_is_being_installed_is_left_alone(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    staged = world.home / "staging" / "story-good" / "ab12"
    staged.mkdir(parents=True)
    with holding(world, "story-good"):
        done = world.octave("clean")
    assert folders(world) == ["1.0", "2.0", "3.0"]
    assert staged.is_dir()
    assert (world.home / "cache" / "uv").is_dir()
    assert "note: `story-good` is being installed, so its versions stay\n" in done.stderr
    assert "note: the caches stay while something is being installed\n" in done.stderr


def test_a_version_that_runs_stays(world: World) -> None:
    versions(world, "1.0", "2.0", "3.0")
    (folder,) = (world.home / "servers" / "story-good").glob("1.0-*")
    record = json.loads((folder / "record.json").read_bytes())
    words = [word.replace("{folder}", str(folder)) for word in record["command"]]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        done = world.octave("clean")
        assert child.stdin is not None
        child.stdin.close()
        child.wait(30)
    assert folders(world) == ["1.0", "2.0", "3.0"]
    assert f"note: `story-good` {folder.name} is running, so it stays\n" in done.stderr
    world.octave("clean")
    assert folders(world) == ["2.0", "3.0"]


def test_a_home_that_is_not_there_is_clean(world: World) -> None:
    assert world.octave("clean", "-q").told == (0, "", "")
    assert not world.home.exists()
    moved = world.root / "moved"
    versions(world, "1.0", "2.0")
    world.home.rename(moved)
    environ = {"OCTAVE_HOME": str(moved)}
    assert world.octave("clean", environ=environ).code == 0
    names = [path.name for path in (moved / "servers" / "story-good").iterdir()]
    assert any(name.startswith("2.0-") for name in names)
    assert (moved / "octave.lock").exists()


def test_what_is_kept_of_tools_goes_with_the_last_who_names_the_server(world: World) -> None:
    world.offer("story-good", program("1.0"), "1.0")
    assert world.octave("install", "pypi:story-good").code == 0
    catalogue = world.home / "catalogue"
    used = {path.name for path in catalogue.iterdir()} | {"story-good.approved.json"}
    (catalogue / "story-good.approved.json").write_text("{}", encoding="utf-8")
    for left in ("story-dead.json", "story-dead.approved.json"):
        (catalogue / left).write_text("{}", encoding="utf-8")
    done = world.octave("clean", "--json")
    lists = [each["name"] for each in done.json["removed"] if each["kind"] == "lists"]
    assert (done.code, lists) == (0, ["story-dead", "story-dead"])
    assert {path.name for path in catalogue.iterdir()} == used
    assert world.call("story-good", "echo").stdout == "1.0\n"
    assert "approved.lock.json" in {path.name for path in catalogue.iterdir()}
    (world.home / "octave.lock").unlink()
    world.octave("clean")
    assert "approved.lock.json" not in {path.name for path in catalogue.iterdir()}
    manifest = (world.home / "octave.toml").read_text(encoding="utf-8")
    (world.home / "octave.toml").write_text("[servers", encoding="utf-8")
    (catalogue / "story-dead.json").write_text("{}", encoding="utf-8")
    world.octave("clean")
    assert (catalogue / "story-dead.json").exists()
    (world.home / "octave.toml").write_text(manifest, encoding="utf-8")
    assert "what is kept of the tools of story-dead" in world.octave("clean").stdout
