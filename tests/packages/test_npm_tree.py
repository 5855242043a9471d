"""Installing locked npm packages from a registry on loopback, and checking the result."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed, RegistryUnreachable, StorageFailed
from octave.packages.ecosystems.npm_command import NeedsNpm, RegistryAccess
from octave.packages.ecosystems.npm_tree import empty, fill, verify
from tests.packages.npm_registry import (
    NpmRegistry,
    package_tarball,
    row,
    running,
    sha512,
    tarball_path,
)
from tests.small_disk import small_disk


@pytest.fixture
def registry() -> Iterator[NpmRegistry]:
    yield from running()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def tarballs(tmp_path: Path) -> Path:
    return tmp_path / "tarballs"


def cached(tarballs: Path) -> list[Path]:
    return [path for path in tarballs.rglob("*") if path.is_file()]


def test_a_tree_is_filled_scopes_nesting_and_aliases_included(registry, target, tarballs):
    names = {"a": "a", "@s/b": "@s/b", "a/node_modules/other": "real"}
    asked = {"a": {"other": "npm:real@^1"}}
    rows = [
        row(
            path,
            registry.publish(name, package_tarball(name, dependencies=asked.get(name, {}))),
            name=name,
        )
        for path, name in names.items()
    ]
    counts: list[tuple[int, int]] = []
    fill(rows, target, tarballs, registry.access, lambda *count: counts.append(count))
    assert counts[-1] == (3, 3)
    verify(rows, target, "a", "node_modules/a/index.js")
    for path, name in names.items():
        assert (target / "node_modules" / path / "index.js").read_text() == f"// {name}"
    assert registry.accesses == 1


def test_a_second_tree_comes_from_the_cache_alone(registry, target, tarballs, tmp_path):
    rows = [row("a", registry.publish("a", package_tarball("a")))]
    fill(rows, target, tarballs, registry.access)
    second = tmp_path / "second"
    second.mkdir()
    fill(rows, second, tarballs, None)
    verify(rows, second, "a", "node_modules/a/index.js")
    assert len(registry.asked) == 1


def test_other_bytes_than_the_locked_ones_are_refused_with_both_values(registry, target, tarballs):
    locked = package_tarball("a")
    other = registry.publish("a", package_tarball("a", files={"evil": "x"}))
    with pytest.raises(IntegrityFailed) as caught:
        fill([row("a", locked)], target, tarballs, registry.access)
    assert "`a` 1.0.0" in caught.value.message
    assert caught.value.details == {"expected": sha512(locked), "got": sha512(other)}
    assert not cached(tarballs)


def test_a_damaged_cache_is_noticed_and_fetched_anew(registry, target, tarballs, tmp_path):
    content = registry.publish("a", package_tarball("a"))
    rows = [row("a", content)]
    fill(rows, target, tarballs, registry.access)
    cached(tarballs)[0].write_bytes(content[:-1] + b"x")
    second = tmp_path / "second"
    second.mkdir()
    fill(rows, second, tarballs, registry.access)
    assert cached(tarballs)[0].read_bytes() == content


def test_a_damaged_cache_is_refused_offline(registry, target, tarballs, tmp_path):
    content = registry.publish("a", package_tarball("a"))
    fill([row("a", content)], target, tarballs, registry.access)
    cached(tarballs)[0].write_bytes(b"damaged")
    second = tmp_path / "second"
    second.mkdir()
    with pytest.raises(IntegrityFailed, match="got"):
        fill([row("a", content)], second, tarballs, None)


def test_what_is_missing_offline_is_left_to_npms_cache(target, tarballs):
    with pytest.raises(NeedsNpm):
        fill([row("a", b"")], target, tarballs, None)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_registry_with_other_ways_is_left_to_npm(registry, target, tarballs, status):
    registry.publish("a", b"")
    registry.answers = dict.fromkeys(registry.answers, (status, b""))
    with pytest.raises(NeedsNpm, match=str(status)):
        fill([row("a", b"x")], target, tarballs, registry.access)


def test_a_failing_registry_is_tried_again_then_named(registry, target, tarballs):
    registry.publish("a", b"")
    registry.answers = dict.fromkeys(registry.answers, (503, b""))
    with pytest.raises(RegistryUnreachable, match="answered 503"):
        fill([row("a", b"x")], target, tarballs, registry.access)
    assert len(registry.asked) == 3
    assert not cached(tarballs)


def test_a_redirect_is_followed(registry, target, tarballs):
    content = package_tarball("a")
    registry.answers["/elsewhere"] = (200, content)
    registry.answers["/base/a/-/a-1.0.0.tgz"] = (302, b"/elsewhere")
    fill([row("a", content)], target, tarballs, registry.access)


def test_nobody_listening_is_unreachable(registry, target, tarballs):
    gone = RegistryAccess("http://127.0.0.1:1/")
    with pytest.raises(RegistryUnreachable, match=r"`a` 1\.0\.0 cannot be downloaded"):
        fill([row("a", b"x")], target, tarballs, lambda: gone)


def test_a_download_that_ends_early_is_tried_again(registry, target, tarballs):
    content = registry.publish("a", package_tarball("a"))
    registry.cut.add(tarball_path("a"))
    fill([row("a", content)], target, tarballs, registry.access)
    assert registry.asked == [tarball_path("a")] * 2
    assert cached(tarballs)[0].read_bytes() == content


def test_what_a_killed_download_left_goes_with_the_next_one(registry, target, tarballs):
    tarballs.mkdir(mode=0o700)
    litter = tarballs / ".0123456789abcdef.0123456789ab.tmp"
    litter.write_bytes(b"half")
    fill([row("a", registry.publish("a", package_tarball("a")))], target, tarballs, registry.access)
    assert not litter.exists()


def test_an_installation_that_was_killed_in_a_download_is_done_again(
    registry, target, tarballs, tmp_path
):
    names = [f"p{number}" for number in range(10)]
    rows = [row(name, registry.publish(name, package_tarball(name))) for name in names]
    registry.held[tarball_path("p5")] = threading.Event()
    code = (
        "import json, sys; from pathlib import Path;"
        "from octave.packages.ecosystems.npm_command import RegistryAccess;"
        "from octave.packages.ecosystems.npm_tree import fill;"
        "rows, target, tarballs, url = json.loads(sys.argv[1]);"
        "fill(rows, Path(target), Path(tarballs), lambda: RegistryAccess(url))"
    )
    half = tmp_path / "half"
    half.mkdir()
    words = json.dumps([rows, str(half), str(tarballs), registry.url])
    with subprocess.Popen([sys.executable, "-c", code, words]) as child:
        registry.seen.wait()
        child.kill()
    registry.held.pop(tarball_path("p5")).set()
    fill(rows, target, tarballs, registry.access)
    verify(rows, target, "p0", "node_modules/p0/index.js")
    assert len(cached(tarballs)) == len(names)


def test_ctrl_c_does_not_wait_for_a_silent_registry(registry, target, tarballs):
    rows = [row(name, registry.publish(name, package_tarball(name))) for name in ("a", "b")]
    registry.held[tarball_path("a")] = threading.Event()

    def interrupt() -> None:
        registry.seen.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    # The registry is silent until the test is over, so this returns without it or never.
    with pytest.raises(KeyboardInterrupt):
        fill(rows, target, tarballs, registry.access)
    thread.join()
    assert not (target / "node_modules/a/index.js").exists()
    assert not registry.held[tarball_path("a")].is_set()


def test_the_first_failure_does_not_wait_for_a_silent_registry(registry, target, tarballs):
    rows = [row(name, registry.publish(name, package_tarball(name))) for name in ("a", "b")]
    registry.held[tarball_path("a")] = threading.Event()
    registry.answers[tarball_path("b")] = (200, b"something else")
    with pytest.raises(IntegrityFailed, match="`b`"):
        fill(rows, target, tarballs, registry.access)
    assert not registry.held[tarball_path("a")].is_set()


def test_two_installations_at_once_share_one_cache(registry, tmp_path, tarballs):
    names = [f"p{number}" for number in range(12)]
    rows = [row(name, registry.publish(name, package_tarball(name))) for name in names]
    targets = [tmp_path / "one", tmp_path / "two"]
    failures: list[BaseException] = []

    def work(target: Path) -> None:
        target.mkdir()
        try:
            fill(rows, target, tarballs, registry.access)
            verify(rows, target, "p0", "node_modules/p0/index.js")
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cached(tarballs)) == len(names)


def test_a_full_disk_is_named_and_leaves_no_half_tarball(registry, target, tmp_path):
    content = registry.publish("a", package_tarball("a", files={"big": os.urandom(50_000).hex()}))
    with small_disk(tmp_path / "disk", "4k"):
        with pytest.raises(StorageFailed):
            fill([row("a", content)], target, tmp_path / "disk" / "tarballs", registry.access)
        assert not cached(tmp_path / "disk")


def test_a_full_disk_under_the_tree_is_named(registry, tmp_path, tarballs):
    content = registry.publish("a", package_tarball("a", files={"big": "x" * 100_000}))
    with small_disk(tmp_path / "disk", "64k"), pytest.raises(StorageFailed):
        fill([row("a", content)], tmp_path / "disk", tarballs, registry.access)


def test_a_package_that_brings_another_rows_package_is_left_to_npm(registry, target, tarballs):
    bundled = {"node_modules/b/package.json": "{}"}
    rows = [
        row("a", registry.publish("a", package_tarball("a", files=bundled))),
        row("a/node_modules/b", registry.publish("b", package_tarball("b"))),
    ]
    with pytest.raises(NeedsNpm, match=r"`a` 1\.0\.0 brings a `node_modules/b` of its own"):
        fill(rows, target, tarballs, registry.access)


def test_what_a_package_bundles_comes_with_its_tarball(registry, target, tarballs):
    inner = json.dumps({"name": "b", "version": "1.0.0"})
    outer = package_tarball("a", files={"node_modules/b/package.json": inner})
    bundled = {"path": "node_modules/a/node_modules/b", "version": "1.0.0", "inBundle": True}
    rows = [row("a", registry.publish("a", outer)), bundled]
    fill(rows, target, tarballs, registry.access)
    verify(rows, target, "a", "node_modules/a/index.js")
    assert registry.asked == [tarball_path("a")]


def test_a_refused_archive_names_its_package(registry, target, tarballs):
    content = registry.publish("a", gzip.compress(b"\1" * 512))
    with pytest.raises(InstallFailed, match=r"tarball of `a` 1\.0\.0 is refused"):
        fill([row("a", content)], target, tarballs, registry.access)


def test_a_package_with_its_own_lock_is_left_to_npm(target, tarballs):
    with pytest.raises(NeedsNpm):
        fill([row("a", b"", hasShrinkwrap=True)], target, tarballs, None)


def test_executables_that_packages_name_become_executable_and_are_linked(
    registry, target, tarballs
):
    names = {"a": "a", "@s/b": "@s/b", "a/node_modules/c": "c"}
    rows = [
        row(path, registry.publish(name, package_tarball(name)), name=name)
        for path, name in names.items()
    ]
    fill(rows, target, tarballs, registry.access)
    verify(rows, target, "a", "node_modules/a/index.js")
    modules = target / "node_modules"
    assert (modules / "a/index.js").stat().st_mode & 0o777 == 0o755
    assert (modules / "a/package.json").stat().st_mode & 0o777 == 0o644
    links = {
        str(path.relative_to(modules)): str(path.readlink()) for path in modules.rglob(".bin/*")
    }
    assert links == {
        ".bin/a": "../a/index.js",
        ".bin/b": "../@s/b/index.js",
        "a/node_modules/.bin/c": "../c/index.js",
    }


def lay(target: Path, name: str, version: str = "1.0.0") -> None:
    folder = target / "node_modules" / name
    folder.mkdir(parents=True)
    manifest = {"name": name, "version": version}
    (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "index.js").write_text("", encoding="utf-8")


def test_rows_that_were_written_to_fit_bring_no_other_package_in(registry, target, tarballs):
    asked = {"dependencies": {"dep": "npm:evil@^1"}}
    rows = [
        row("a", registry.publish("a", package_tarball("a", dependencies={"dep": "^1"})), **asked),
        row("dep", registry.publish("evil", package_tarball("evil")), name="evil"),
    ]
    fill(rows, target, tarballs, registry.access)
    with pytest.raises(IntegrityFailed, match="`evil` at `node_modules/dep`, where `dep`"):
        verify(rows, target, "a", "node_modules/a/index.js")


def test_a_missing_or_different_package_is_noticed(target):
    lay(target, "a")
    lay(target, "b", version="2.0.0")
    for other in (row("b", b""), row("c", b""), row("a", b"", name="z")):
        with pytest.raises(IntegrityFailed, match="after the installation"):
            verify([other], target, "a", "node_modules/a/index.js")


def test_only_optional_packages_and_peers_may_be_missing(target):
    lay(target, "a", version="v1.0.0")
    rows = [row("a", b""), row("o", b"", optional=True), row("p", b"", peer=True)]
    verify(rows, target, "a", "node_modules/a/index.js")


def test_an_entry_outside_its_package_is_refused(target, tmp_path):
    lay(target, "a")
    (tmp_path / "outside.js").write_text("", encoding="utf-8")
    (target / "node_modules/a/link.js").symlink_to(tmp_path / "outside.js")
    for entry in ("link.js", "absent.js", "../../../outside.js"):
        with pytest.raises(InstallFailed, match="does not contain"):
            verify([row("a", b"")], target, "a", f"node_modules/a/{entry}")


def test_emptying_removes_links_and_not_what_they_point_to(target, tmp_path):
    lay(target, "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "link").symlink_to(outside)
    empty(target)
    assert not list(target.iterdir())
    assert outside.is_dir()
