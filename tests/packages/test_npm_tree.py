"""Installing locked npm packages from a registry on loopback, and checking the result."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed, RegistryUnreachable
from octave.packages.ecosystems.npm_command import NeedsNpm, RegistryAccess
from octave.packages.ecosystems.npm_tree import empty, fill, verify


def package_tarball(name: str, version: str = "1.0.0", **files: str) -> bytes:
    manifest = json.dumps({"name": name, "version": version, "bin": "index.js"})
    contents = {"package.json": manifest, "index.js": f"// {name}", **files}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in contents.items():
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


def sha512(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def row(path: str, content: bytes, **more: object) -> dict[str, object]:
    return {
        "path": f"node_modules/{path}",
        "version": "1.0.0",
        "integrity": sha512(content),
        **more,
    }


class LoopbackRegistry:
    """Serves `answers[path] = (status, body)` and remembers what was asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.accesses = 0
        registry = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.asked.append(self.path)
                status, body = registry.answers.get(self.path, (404, b""))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", body.decode())
                    body = b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/base/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def publish(self, name: str, content: bytes) -> bytes:
        self.answers[f"/base/{name}/-/{name.rpartition('/')[2]}-1.0.0.tgz"] = (200, content)
        return content

    def access(self) -> RegistryAccess:
        self.accesses += 1
        return RegistryAccess(self.url)


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    registry = LoopbackRegistry()
    registry.thread.start()
    yield registry
    registry.server.shutdown()
    registry.thread.join()
    registry.server.server_close()


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
    rows = [
        row(path, registry.publish(name, package_tarball(name)), name=name)
        for path, name in names.items()
    ]
    fill(rows, target, tarballs, registry.access)
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
    other = registry.publish("a", package_tarball("a", evil="x"))
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


def test_a_refused_archive_names_its_package(registry, target, tarballs):
    content = registry.publish("a", gzip.compress(b"\1" * 512))
    with pytest.raises(InstallFailed, match=r"tarball of `a` 1\.0\.0 is refused"):
        fill([row("a", content)], target, tarballs, registry.access)


def test_a_package_with_its_own_lock_is_left_to_npm(target, tarballs):
    with pytest.raises(NeedsNpm):
        fill([row("a", b"", hasShrinkwrap=True)], target, tarballs, None)


def test_executables_that_packages_name_become_executable(registry, target, tarballs):
    rows = [row("a", registry.publish("a", package_tarball("a")))]
    fill(rows, target, tarballs, registry.access)
    verify(rows, target, "a", "node_modules/a/index.js")
    assert (target / "node_modules/a/index.js").stat().st_mode & 0o777 == 0o755
    assert (target / "node_modules/a/package.json").stat().st_mode & 0o777 == 0o644


def lay(target: Path, name: str, version: str = "1.0.0") -> None:
    folder = target / "node_modules" / name
    folder.mkdir(parents=True)
    manifest = {"name": name, "version": version}
    (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "index.js").write_text("", encoding="utf-8")


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
