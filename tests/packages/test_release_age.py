"""`--min-release-age`: young versions are not chosen, in the whole graph; what is locked stays."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from octave.errors import UsageError
from octave.packages.release_age import release_age
from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import GOOD, World

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def days_ago(days: float) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%S}.123Z"


@pytest.mark.parametrize("text", ["7", "soon", "never", "-1d", "999999999d", "", "7d; x"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        release_age(text, NOW)
    assert caught.value.hint == "--min-release-age 7d"


def test_an_age_counts_back_from_now() -> None:
    age = release_age("7d", NOW)
    assert age is not None
    assert age.cutoff == "2026-11-23T12:00:00Z"
    assert age.admits("2026-11-23T12:00:00+00:00")
    assert age.admits("2026-11-23T14:00:00.000+02:00")
    assert not age.admits("2026-11-23T12:00:01.000Z")
    assert not age.admits("")
    assert age.age("2026-11-28T11:00:00Z") == "2 days old"
    assert age.age("2026-11-29T06:00:00Z") == "30 hours old"
    assert age.age("2026-11-30T11:59:30Z") == "less than a minute old"
    assert age.age("x") == "of unknown age"
    assert release_age("0s", NOW) is None
    assert release_age(None) is None


def publish(world: World, version: str, days: float) -> None:
    world.offer("story-good", GOOD, version)
    world.index.published[f"story_good-{version}-py3-none-any.whl"] = days_ago(days)


def test_a_young_version_is_not_chosen_and_what_is_locked_stays(world: World) -> None:
    publish(world, "1.0", 30)
    publish(world, "2.0", 2)
    words = ("pypi:story-good", "--no-start", "--min-release-age", "7d")
    assert world.octave("install", *words).stdout == "installed story-good 1.0\n"
    assert world.octave("outdated", "--min-release-age", "7d").code == 0
    assert world.octave("outdated").code == 1
    assert world.octave("update", "--check", "--min-release-age", "7d").code == 0
    assert world.octave("update", "--check").code == 1
    # Chosen once, a young version is installed again, and no update leads back.
    assert world.octave("install", "pypi:story-good@>=2", "--no-start").code == 0
    shutil.rmtree(world.home / "servers")
    again = world.octave("install", "--no-start", "--min-release-age", "7d")
    assert again.stdout == "installed story-good 2.0\n"
    assert world.octave("update", "--check", "--min-release-age", "7d").code == 0
    assert world.octave("outdated", "--min-release-age", "7d").code == 0


def test_nothing_old_enough_is_told_with_what_there_is_and_its_age(world: World) -> None:
    publish(world, "1.0", 3)
    done = world.octave("install", "pypi:story-good", "--min-release-age", "7d", "--json")
    assert (done.code, done.stdout) == (4, "")
    assert "the newest is `1.0`, 3 days old" in done.error["message"]
    assert list(done.error["details"]["tooYoung"]) == ["1.0"]


def test_a_young_dependency_is_not_chosen_either(world: World) -> None:
    world.index.add("story-two", "1.0", scripts=["story-two"], requires=["story-dep>=2"])
    world.index.add("story-dep", "1.0")
    world.index.add("story-dep", "2.0")
    for file, days in zip(world.index.files, (30, 30, 2), strict=True):
        world.index.published[file] = days_ago(days)
    done = world.octave("install", "pypi:story-two", "--no-start", "--min-release-age", "7d")
    assert done.code == 4
    assert "`story-dep` has no fitting version that is 7d old" in done.stderr
    assert "`2.0`, 2 days old" in done.stderr


def test_an_index_that_tells_no_times_is_said_to(world: World) -> None:
    world.offer("story-good", GOOD)
    done = world.octave("install", "pypi:story-good", "--min-release-age", "7d")
    assert done.code == 1
    assert "does not tell when the versions of `story-good` were published" in done.stderr
    assert "leave out `--min-release-age`" in done.stderr


@pytest.fixture
def registry(world: World) -> Iterator[NpmRegistry]:
    for registry in running():
        world.environ["npm_config_registry"] = registry.url
        world.environ["npm_config_fetch_retries"] = "0"
        yield registry


@needs_npm
def test_npm_chooses_no_young_version_in_the_whole_graph(
    world: World, registry: NpmRegistry
) -> None:
    for version, days in (("1.0.0", 30), ("1.1.0", 20), ("2.0.0", 2)):
        registry.offer("story-node", version, dependencies={"dep": "^1"}, published=days_ago(days))
    registry.offer("dep", "1.0.0", published=days_ago(30))
    registry.offer("dep", "1.5.0", published=days_ago(1))
    words = ("--no-start", "--min-release-age", "7d", "--json")
    done = world.octave("install", "npm:story-node", *words)
    assert done.json["results"][0]["version"] == "1.1.0"
    assert 'path = "node_modules/dep"\nversion = "1.0.0"' in world.lockfile
    done = world.octave("install", "npm:story-node@^2", "--as", "two", *words)
    assert done.code == 4
    assert "the newest is `2.0.0`, 2 days old" in done.error["message"]


@needs_npm
def test_a_dependency_of_npm_with_nothing_old_enough_is_named(
    world: World, registry: NpmRegistry
) -> None:
    registry.offer("story-node", dependencies={"dep": "^1"}, published=days_ago(30))
    registry.offer("dep", "1.5.0", published=days_ago(1.2))
    words = ("npm:story-node", "--no-start", "--min-release-age", "7d")
    done = world.octave("install", *words)
    assert done.code == 4
    assert "`dep` has no fitting version that is 7d old: the newest is `1.5.0`" in done.stderr


@needs_npm
def test_a_registry_of_npm_that_tells_no_times_is_said_to(
    world: World, registry: NpmRegistry
) -> None:
    registry.offer("story-node")
    done = world.octave("install", "npm:story-node", "--min-release-age", "7d")
    assert done.code == 1
    assert "does not tell when the versions of `story-node` were published" in done.stderr
