"""Source distributions: refused before any of their code runs, or built where they are named."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed, UsageError
from octave.home import Home
from octave.packages.ecosystems.base import Bench
from octave.packages.ecosystems.pypi_rows import hashes_of
from octave.packages.newest import newest_of
from octave.packages.resolve import Choice
from tests.packages.test_pypi import install, pin_of, resolve
from tests.packages.wheel_index import WheelIndex


@pytest.fixture
def index() -> Iterator[WheelIndex]:
    index = WheelIndex()
    yield index
    index.close()


@pytest.fixture
def bench(index: WheelIndex, tmp_path: Path) -> Bench:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url}
    home = Home(tmp_path / "home")
    home.prepare()
    return Bench(home, environ | {"UV_HTTP_RETRIES": "0"})


@pytest.fixture
def marker(index: WheelIndex, tmp_path: Path) -> Path:
    """Where the build code of `sour-cy` leaves a line; that of `other` has a file of its own."""
    marker = tmp_path / "marker"
    index.add("some-server", "1.0", scripts=["some-server"], requires=["Sour.cy"])
    index.add_buildable("sour-cy", "1.0", marker)
    index.add("server-two", "1.0", scripts=["server-two"], requires=["sour-cy", "other"])
    index.add_buildable("other", "1.0", tmp_path / "other")
    return marker


def test_a_source_is_refused_before_its_code_runs_and_the_flag_is_named(
    bench: Bench, marker: Path
) -> None:
    with pytest.raises(InstallFailed, match="`sour-cy` is offered as source only") as caught:
        resolve(bench, "some-server")
    assert "`octave install pypi:some-server --allow-build sour-cy`" in str(caught.value.hint)
    assert not marker.exists()


def test_a_named_source_is_built_and_only_that(bench: Bench, marker: Path) -> None:
    found = resolve(bench, "some-server", builds=("Sour_Cy",))
    (row,) = [row for row in found.graph if row["name"] == "sour-cy"]
    assert row["build"] is True
    assert [row for row in found.graph if row.get("build")] == [row]
    assert any("`sour-cy`" in note for note in found.notes)
    target = install(bench, pin_of("some-server", found))
    assert list(target.glob("venv/lib/*/site-packages/sour_cy/__init__.py"))
    assert marker.exists()
    with pytest.raises(InstallFailed, match="`other` is offered as source only"):
        resolve(bench, "server-two", builds=("sour-cy",))
    assert not marker.with_name("other").exists()


def test_what_a_named_source_brings_is_left_out_where_nothing_may_run(
    bench: Bench, marker: Path
) -> None:
    found = resolve(replace(bench, runs_code=False), "some-server", builds=("Sour_Cy",))
    assert (found.version, found.integrity) == ("1.0", "")
    assert list(found.graph) == [
        {"name": "some-server", "version": "1.0"},
        {"name": "sour-cy", "build": True},
    ]
    assert not marker.exists()


def test_a_named_source_is_built_also_where_there_is_a_wheel(
    index: WheelIndex, bench: Bench, marker: Path
) -> None:
    index.add("sour-cy", "1.0")
    found = resolve(bench, "some-server", builds=("sour-cy",))
    (row,) = [row for row in found.graph if row["name"] == "sour-cy"]
    source = hashlib.sha256(index.files["sour_cy-1.0.tar.gz"]).hexdigest()
    assert f"sha256:{source}" in hashes_of(row)
    install(bench, pin_of("some-server", found))
    assert marker.exists()


def test_another_source_than_the_locked_one_is_refused_before_its_code_runs(
    index: WheelIndex, bench: Bench, marker: Path
) -> None:
    pin = pin_of("some-server", resolve(bench, "some-server", builds=("sour-cy",)))
    marker.unlink(missing_ok=True)
    elsewhere = Home(bench.home.root.parent / "elsewhere")
    elsewhere.prepare()
    index.add_buildable("sour-cy", "1.0", marker, requires=["some-server"])
    with pytest.raises(IntegrityFailed, match="sour-cy"):
        install(replace(bench, home=elsewhere), pin)
    assert not marker.exists()


def test_a_package_that_there_is_nothing_to_build_of_is_told(bench: Bench, marker: Path) -> None:
    with pytest.raises(UsageError, match="wheels only") as caught:
        resolve(bench, "some-server", builds=("sour-cy", "some-server"))
    assert "allow_build" in str(caught.value.hint)


def test_the_newest_version_of_a_source_is_told_without_its_code(
    bench: Bench, marker: Path, tmp_path: Path
) -> None:
    choice = Choice("other", "other", "pypi", "other", "*", builds=("other",))
    assert newest_of(choice, "*", tmp_path, bench).version == "1.0"
    assert not marker.with_name("other").exists()
