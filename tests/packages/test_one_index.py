"""Dependency confusion: packages come from one index of the user's, and that is said."""

import shutil
from collections.abc import Iterator

import pytest

from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import GOOD, World
from tests.packages.wheel_index import WheelIndex

IGNORED = "note: Extra package indexes of your uv or pip settings are ignored.\n"


@pytest.fixture
def evil(world: World) -> Iterator[WheelIndex]:
    """An index that has the same package in a higher version."""
    index = WheelIndex()
    world.offer("story-good", GOOD, "9.9")
    index.files |= world.index.files
    world.index.files.clear()
    world.offer("story-good", GOOD, "1.0")
    yield index
    index.close()


@pytest.mark.parametrize(
    "variable",
    ["PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "PIP_FIND_LINKS", "UV_FIND_LINKS"],
)
def test_an_extra_index_of_the_environment_is_ignored_and_told(
    world: World, evil: WheelIndex, variable: str
) -> None:
    address = f"{evil.url}/story-good/" if "LINKS" in variable else evil.url
    done = world.octave("install", "pypi:story-good", "--dry-run", environ={variable: address})
    assert done.stdout.startswith("would install story-good 1.0\n"), done.stderr
    assert IGNORED in done.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".config/pip/pip.conf", "[global]\nextra-index-url = {}\n"),
        (".pip/pip.conf", "[install]\nfind-links = {}/story-good/\n"),
        (".config/uv/uv.toml", '[[index]]\nurl = "{}"\n'),
        (".config/uv/uv.toml", 'extra-index-url = ["{}"]\n'),
    ],
)
def test_an_extra_index_of_the_users_files_is_ignored_and_told(
    world: World, evil: WheelIndex, file: str, text: str
) -> None:
    path = world.root / file
    path.parent.mkdir(parents=True)
    path.write_text(text.format(evil.url), encoding="utf-8")
    done = world.octave("install", "pypi:story-good", "--dry-run")
    assert done.stdout.startswith("would install story-good 1.0\n"), done.stderr
    assert IGNORED in done.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("uv.toml", '[[index]]\nurl = "{}"\ndefault = true\n'),
        ("pyproject.toml", '[[tool.uv.index]]\nurl = "{}"\n'),
    ],
)
def test_an_index_of_the_projects_files_is_ignored_and_told(
    world: World, evil: WheelIndex, file: str, text: str
) -> None:
    (world.cwd / file).write_text(text.format(evil.url), encoding="utf-8")
    done = world.octave("install", "pypi:story-good", "--dry-run")
    assert done.stdout.startswith("would install story-good 1.0\n"), done.stderr
    assert f"the package index in this folder's `{file}` is ignored" in done.stderr


@pytest.fixture
def registries() -> Iterator[tuple[NpmRegistry, NpmRegistry]]:
    for mine in running():
        for other in running():
            yield mine, other


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_registry_of_the_projects_npmrc_is_ignored_and_told(
    world: World, registries: tuple[NpmRegistry, NpmRegistry]
) -> None:
    mine, other = registries
    mine.offer("@s/story", "1.0.0")
    other.offer("@s/story", "9.9.0")
    text = f"@s:registry={other.url}\nregistry={other.url}\n"
    (world.cwd / ".npmrc").write_text(text, encoding="utf-8")
    (world.cwd / "package.json").write_text("{}", encoding="utf-8")
    (world.root / ".npmrc").write_text(f"registry={mine.url}\n", encoding="utf-8")
    done = world.octave("install", "npm:@s/story", "--dry-run")
    assert done.stdout.startswith("would install story 1.0.0\n"), done.stderr
    assert "the registry for `@s` in this folder's `.npmrc` is ignored" in done.stderr
    assert other.asked == []
