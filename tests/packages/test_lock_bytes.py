"""The same manifest and registries give the same lockfile, whoever makes it wherever."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.packages.lockfile import Lock, Pin, dump
from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import World
from tests.packages.test_lockfile import NPM, PYPI
from tests.packages.wheel_index import WheelIndex

SOURCES = ("npm:server", "pypi:some-server", "pypi:other-thing")
SECRET = "hush-hush"
OTHERWISE = {
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "de_DE.ISO-8859-1",
    "TZ": "Asia/Tokyo",
    "PYTHONHASHSEED": "7",
    "NO_COLOR": "1",
    "npm_config_save_exact": "true",
    "npm_config_loglevel": "silly",
    "npm_config_fund": "true",
    "npm_config_package_lock": "false",
    "npm_config_omit": "optional peer",
    "npm_config_install_strategy": "nested",
    "UV_RESOLUTION": "lowest",
    "UV_PRERELEASE": "allow",
}
"""What differs between two people's machines, and must not matter."""


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


def offer_all(registry: NpmRegistry, index: WheelIndex) -> None:
    funding = {"url": f"{registry.url}fund"}
    registry.offer(
        "server",
        dependencies={"b": "^1.0.0", "a": "*"},
        optionalDependencies={"mac": "1.0.0"},
        funding=funding,
    )
    registry.offer("a", dependencies={"b": "^1.0.0"}, funding=[funding], license="MIT")
    for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
        registry.offer("b", version)
    registry.offer("mac", os=["darwin"])
    index.add("some-server", "1.0", scripts=["some-server"], requires=["dep-y", "dep-x>=1"])
    for name in ("dep-x", "dep-y", "other-thing"):
        index.add(name, "1.0", scripts=[name])
        index.add(name, "2.0rc1", scripts=[name])


def locked(world: World, sources: Sequence[str], umask: int) -> str:
    """Return what installing one after the other leaves."""
    done = world.octave("install", *sources, "--no-start", "-q", umask=umask)
    assert done.code == 0, done
    assert (world.home / "octave.lock").stat().st_mode & 0o777 == 0o644
    return world.lockfile


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_order_locale_umask_settings_and_places_leave_no_trace(
    world: World, registry: NpmRegistry, tmp_path: Path
) -> None:
    offer_all(registry, world.index)
    registries = {"npm_config_registry": registry.url, "npm_config_fetch_retries": "0"}
    world.environ |= registries
    first = locked(world, SOURCES, 0o022)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    npmrc = elsewhere / ".npmrc"
    npmrc.write_text(f"//registry.invalid/:_authToken={SECRET}\nfund=true\n", encoding="utf-8")
    other = World(elsewhere, world.index, {**registries, **OTHERWISE, "SOME_TOKEN": SECRET})
    assert locked(other, SOURCES[::-1], 0o077) == first
    for trace in (registry.url, world.index.url, "127.0.0.1", str(tmp_path), SECRET, "funding"):
        assert trace not in first
    assert not re.search(r"\d{4}-\d\d-\d\d|://|resolved", first)


ROWS = st.permutations(NPM.graph)


@given(ROWS, st.permutations(list(NPM.env)), st.permutations([NPM, PYPI]))
def test_the_order_of_anything_leaves_no_trace(
    rows: Sequence[dict[str, object]], names: Sequence[str], pins: Sequence[Pin]
) -> None:
    turned = replace(
        NPM,
        graph=tuple(dict(reversed(list(row.items()))) for row in rows),
        env={name: NPM.env[name] for name in names},
    )
    found = {pin.name: turned if pin is NPM else pin for pin in pins}
    assert dump(Lock("", found)) == dump(Lock("", {"github": NPM, "fetch": PYPI}))
