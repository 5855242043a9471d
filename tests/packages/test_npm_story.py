"""npm servers from a registry on loopback: the real npm resolves, Octave installs."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octave.errors import Ambiguous, InstallFailed, IntegrityFailed
from octave.home import Home
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.npm import Npm
from octave.packages.lockfile import Pin
from tests.packages.npm_registry import NpmRegistry, package_tarball, running, sha512, tarball_path

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


@pytest.fixture
def bench(tmp_path: Path, registry: NpmRegistry) -> Bench:
    home = Home(tmp_path / "home")
    home.prepare()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "npm_config_registry": registry.url,
        "npm_config_fetch_retries": "0",
    }
    return Bench(home, environ)


def locked(bench: Bench, package: str, version_range: str = "*", **more: Any) -> Pin:
    staging = bench.home.staging / "resolve"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    found = Npm().resolve(Wanted(package, version_range, **more), staging, bench)
    return Pin(
        name="x",
        request=f"npm:{package}@{version_range}",
        kind="npm",
        package=package,
        version=found.version,
        integrity=found.integrity,
        graph=found.graph,
        entry=found.entry,
        requires=found.requires,
    )


def installed(bench: Bench, pin: Pin, name: str = "target") -> Path:
    target = bench.home.staging / name
    target.mkdir()
    Npm().install(pin, target, bench)
    return target


def outside(bench: Bench) -> list[str]:
    """Return what lies beside the folders that Octave and npm own."""
    return sorted(path.name for path in bench.home.root.parent.iterdir())


def test_each_tarball_is_downloaded_once_also_when_it_was_just_resolved(registry, bench):
    registry.offer("server", dependencies={"dep": "^1.0.0", "@s/scoped": "1.0.0"})
    registry.offer("dep", "1.2.0")
    registry.offer("@s/scoped")
    told: list[str] = []
    bench = replace(bench, detail=told.append)
    pin = locked(bench, "server")
    first = installed(bench, pin, "first")
    registry.close()
    second = installed(replace(bench, offline=True), pin, "second")
    for target in (first, second):
        names = {path.parent.name for path in target.rglob("package.json")}
        assert names == {"server", "dep", "scoped"}
    asked = [path for path in registry.asked if path.endswith(".tgz")]
    assert sorted(asked) == sorted(
        [tarball_path("server"), tarball_path("dep", "1.2.0"), tarball_path("@s/scoped")]
    )
    assert told == []


def test_a_tarball_with_another_hash_than_the_registry_says_is_refused(registry, bench):
    other = sha512(b"other")
    content = registry.offer("server", integrity=other)
    pin = locked(bench, "server")
    with pytest.raises(IntegrityFailed) as caught:
        installed(bench, pin)
    assert caught.value.details == {"expected": other, "got": sha512(content)}
    assert not list((bench.home.cache / "npm-tarballs").rglob("*.tgz"))


def test_a_package_without_sha512_is_not_locked(registry, bench):
    registry.offer("server", integrity="sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=")
    with pytest.raises(InstallFailed, match="the registry has no sha512 of `server`"):
        locked(bench, "server")


def test_an_executable_that_is_not_in_the_package_is_named(registry, bench):
    registry.offer("server", bin={"server": "dist/absent.js"})
    pin = locked(bench, "server")
    with pytest.raises(InstallFailed, match=r"names the executable .*absent\.js"):
        installed(bench, pin)


def test_two_executables_are_for_the_user_to_choose(registry, bench):
    registry.offer("server", bin={"one": "index.js", "two": "index.js"})
    with pytest.raises(Ambiguous) as caught:
        locked(bench, "server")
    assert caught.value.details == {"candidates": ["one", "two"]}


def test_no_script_of_a_package_runs(registry, bench):
    marker = bench.home.root.parent / "marker"
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), f"touch {marker}")
    registry.offer("server", dependencies={"dep": "*"}, scripts=scripts)
    registry.offer("dep", scripts=scripts)
    pin = locked(bench, "server")
    installed(bench, pin)
    assert not marker.exists()


def test_scripts_of_a_package_that_was_named_run_and_no_others(registry, bench):
    scripts = {"postinstall": "echo ran > marker"}
    registry.offer("server", dependencies={"dep": "*"}, scripts=scripts)
    registry.offer("dep", scripts=scripts)
    pin = locked(bench, "server", scripts=("dep",))
    target = installed(bench, pin)
    assert [path.parent.name for path in target.rglob("marker")] == ["dep"]


def test_a_version_for_another_node_is_not_replaced_by_an_older_one(registry, bench):
    registry.offer("server", "1.0.0")
    registry.offer("server", "2.0.0", engines={"node": ">=99"})
    with pytest.raises(InstallFailed, match=">=99"):
        locked(bench, "server")
    assert locked(bench, "server", "^1").version == "1.0.0"


def test_a_pre_release_counts_when_there_is_nothing_else(registry, bench):
    registry.offer("server", "1.0.0-beta.1")
    assert locked(bench, "server").version == "1.0.0-beta.1"


def test_an_archive_that_reaches_outside_is_refused(registry, bench):
    plain = package_tarball("server")
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(plain)) as good,
        tarfile.open(fileobj=packed, mode="w:gz") as evil,
    ):
        for member in good.getmembers():
            evil.addfile(member, good.extractfile(member))
        info = tarfile.TarInfo("package/../../../../../escape")
        evil.addfile(info, io.BytesIO())
    registry.offer("server", tarball=packed.getvalue())
    pin = locked(bench, "server")
    before = outside(bench)
    with pytest.raises(InstallFailed, match="wants to write outside its folder"):
        installed(bench, pin)
    assert outside(bench) == before


def elsewhere(registry: NpmRegistry) -> None:
    """Offer a package whose tarball lies where only the registry's own page says."""
    content = registry.offer("server")
    page = json.loads(registry.answers["/base/server"][1])
    page["versions"]["1.0.0"]["dist"]["tarball"] = f"{registry.url}elsewhere.tgz"
    registry.answers["/base/server"] = (200, json.dumps(page).encode())
    registry.answers["/base/elsewhere.tgz"] = (200, content)
    del registry.answers[tarball_path("server")]


@pytest.mark.parametrize("verbose", [True, False])
def test_a_registry_with_other_addresses_is_left_to_npm_and_told_on_demand(
    registry, world, verbose
):
    elsewhere(registry)
    words = ["install", "npm:server", "--no-start", *(["-v"] if verbose else [])]
    done = world.octave(*words, environ={"npm_config_registry": registry.url})
    assert done.code == 0
    (entry,) = world.home.glob("servers/server/*/node_modules/server/index.js")
    assert entry.read_text(encoding="utf-8") == "// server"
    told = "note: npm installs `server`: the registry answered 404."
    assert (told in done.stderr.splitlines()) == verbose
