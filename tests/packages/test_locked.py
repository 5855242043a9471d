"""`install --locked`: nothing is resolved, nothing is written, and every difference is named."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.packages import lockfile
from tests.packages.npm_registry import NpmRegistry, running, tarball_path
from tests.packages.story import GOOD, World

MANIFEST = '[servers.n]\npackage = "npm:server"\n[servers.p]\npackage = "pypi:story-good"\n'


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


def locked_project(world: World, registry: NpmRegistry) -> Path:
    """A trusted project whose lockfile answers an npm and a PyPI server; nothing is cached."""
    world.environ["npm_config_registry"] = registry.url
    world.environ["npm_config_fetch_retries"] = "0"
    registry.offer("server", dependencies={"dep": "^1.0.0"})
    registry.offer("dep")
    world.offer("story-good", GOOD)
    project = world.cwd / "project"
    project.mkdir()
    (project / "octave.toml").write_text(MANIFEST, encoding="utf-8")
    assert world.octave("lock", cwd=project).code == 0
    assert world.octave("trust", "-y", cwd=project).code == 0
    shutil.rmtree(world.home / "cache")
    return project


def facts(project: Path) -> dict[str, tuple[bytes, int]]:
    files = (project / "octave.toml", project / "octave.lock")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_only_what_is_locked_is_fetched_though_registries_have_something_newer(
    world: World, registry: NpmRegistry
) -> None:
    project = locked_project(world, registry)
    before = facts(project)
    registry.offer("dep", "1.5.0")
    world.offer("story-good", GOOD, "2.0")
    # Of npm's registry not even a page: it answers nothing but tarballs.
    for path in [path for path in registry.answers if not path.endswith(".tgz")]:
        registry.answers[path] = (500, b"{}")
    registry.asked.clear()
    world.index.asked.clear()
    done = world.octave("install", "--locked", "--no-start", "--json", cwd=project)
    assert (done.code, [row["version"] for row in done.json["results"]]) == (0, ["1.0.0", "1.0"])
    assert sorted(registry.asked) == sorted([tarball_path("server"), tarball_path("dep")])
    assert set(world.index.asked) == {
        "/simple/story-good/",
        "/files/story_good-1.0-py3-none-any.whl",
    }
    assert facts(project) == before


def refused(world: World, project: Path) -> str:
    """What `--locked` and `--check` both say, having done nothing."""
    before = facts(project)
    world.index.asked.clear()
    done = world.octave("install", "--locked", "--json", cwd=project)
    assert (done.code, done.error["code"]) == (7, "lock_stale")
    assert world.octave("lock", "--check", "--json", cwd=project).error == done.error
    assert facts(project) == before
    assert (world.installed(), world.index.asked) == ([], [])
    assert done.error["hint"] == "run `octave install`, and commit `octave.lock`"
    return str(done.error["message"]).removeprefix("`octave.lock` is stale: ")


def test_each_difference_to_the_manifest_is_named(world: World) -> None:
    world.offer("story-good", GOOD)
    names = ("range", "bin", "limits", "gone", "same")
    tables = {name: f'[servers.{name}]\npackage = "pypi:story-good"\n' for name in names}
    project = world.cwd / "project"
    project.mkdir()
    (project / "octave.toml").write_text("".join(tables.values()), encoding="utf-8")
    assert world.octave("lock", cwd=project).code == 0
    del tables["gone"]
    tables["range"] += 'version = "<1"\n'
    tables["bin"] += 'bin = "other"\n'
    tables["limits"] += 'constraints = ["mcp<2"]\n'
    tables["new"] = '[servers.new]\npackage = "pypi:story-good"\n'
    (project / "octave.toml").write_text("".join(tables.values()), encoding="utf-8")
    assert world.octave("trust", "-y", cwd=project).code == 0
    assert refused(world, project).split("; ") == [
        "`range` is wanted as `pypi:story-good@<1` and locked as `pypi:story-good@*`",
        "`bin` is wanted with `bin = other` and locked with no `bin`",
        "`limits` is locked without the constraint `mcp<2`",
        "`new` is not locked",
        "`gone` is locked but not wanted",
    ]


def test_a_version_outside_of_the_range_is_no_answer(world: World) -> None:
    world.offer("story-good", GOOD)
    assert world.octave("install", "pypi:story-good", "--no-start").code == 0
    manifest, path = world.home / "octave.toml", world.home / "octave.lock"
    text = world.manifest
    assert "version" not in text
    for wanted, difference in (("v1.0", ""), (">=0.9", ""), (">=2", "`story-good` is wanted as")):
        manifest.write_text(f'{text}version = "{wanted}"\n', encoding="utf-8")
        request = f'request = "pypi:story-good@{wanted}"'
        lock = re.sub(r'request = ".*"', request, path.read_text(encoding="utf-8"))
        path.write_text(lock, encoding="utf-8")
        assert difference in world.octave("lock", "--check").stderr
    assert "@>=2` and locked as 1.0, which is none" in world.octave("lock", "--check").stderr


def test_a_lockfile_starts_nothing_but_the_package_that_is_asked_for(world: World) -> None:
    world.offer("story-good", GOOD, scripts=["story-good"])
    path = world.home / "octave.lock"
    assert world.octave("install", "pypi:story-good", "--no-start").code == 0
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace('entry = "story-good"', 'entry = "python"'), encoding="utf-8")
    refusal = "the lockfile's entry `python` is no executable of `story-good`"
    assert refusal in world.octave("install", "--locked").stderr
    shutil.rmtree(world.home / "servers")
    assert refusal in world.octave("install", "--locked").stderr
    assert world.installed() == []


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount `folder` so that nobody can write in it, or skip the test."""
    bind = ["mount", "--bind", str(folder), str(folder)]
    if os.getuid() != 0 or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("needs root and a mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_project_that_may_not_be_written_installs(world: World) -> None:
    world.offer("story-good", GOOD)
    project = world.cwd / "project"
    project.mkdir()
    text = '[servers.p]\npackage = "pypi:story-good"\n'
    (project / "octave.toml").write_text(text, encoding="utf-8")
    assert world.octave("lock", cwd=project).code == 0
    assert world.octave("trust", "-y", cwd=project).code == 0
    with read_only(project):
        done = world.octave("install", "--locked", "--json", cwd=project)
        (row,) = done.json["results"]
        assert (done.code, row["status"], row["checked"]) == (0, "installed", False)
        assert row["warning"].endswith("where its data belongs, cannot be written")
        assert world.octave("list", cwd=project).code == 0
        called = world.octave("call", "p", "echo", "text=hi", cwd=project)
        assert called.told == (0, "hi\n", "")
    assert sorted(path.name for path in project.iterdir()) == ["octave.lock", "octave.toml"]


def test_a_lockfile_with_the_line_ends_of_windows_says_the_same(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good", "--no-start")
    path = world.home / "octave.lock"
    pins = lockfile.read(path).pins
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert lockfile.read(path).pins == pins
