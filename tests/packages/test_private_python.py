"""A Python for servers that need another one: uv has it, from a server on loopback, or says why."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from octave.errors import InstallFailed
from octave.home import Home
from octave.packages import private_python, uv
from octave.packages.ecosystems.base import Bench
from octave.packages.toolchains import python

WANTED = ">=3.12"


class Mirror:
    """Answers what `answers` holds and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        mirror = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                body = mirror.answers.get(self.path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    made = Mirror()
    yield made
    made.server.shutdown()
    made.server.server_close()


def bench_of(tmp_path: Path, mirror: Mirror, **environ: str) -> Bench:
    """A machine with no Python but the one Octave runs on, whose user has a mirror for uv."""
    settings = {
        "HOME": str(tmp_path),
        "PATH": str(tmp_path / "nowhere"),
        "XDG_CONFIG_DIRS": str(tmp_path / "nowhere"),
        "UV_HTTP_RETRIES": "0",
        **(environ or {"UV_PYTHON_INSTALL_MIRROR": mirror.url}),
    }
    return Bench(Home(tmp_path / "home"), settings)


def refused(bench: Bench, wanted: str = WANTED) -> InstallFailed:
    with pytest.raises(InstallFailed) as caught:
        python(bench, wanted)
    assert caught.value.message.startswith(f"Python `{wanted}` is needed; Octave runs on ")
    assert "uv python install" in str(caught.value.hint)
    return caught.value


def test_one_that_cannot_be_downloaded_is_told_with_the_reason_and_asked_for_once(
    tmp_path: Path, mirror: Mirror
) -> None:
    bench = bench_of(tmp_path, mirror)
    for _ in range(2):
        error = refused(bench)
        assert "no other one was found, and none can be downloaded: HTTP status" in error.message
    assert len(mirror.asked) == 1
    assert "cpython-3" in mirror.asked[0]


def test_one_that_nobody_builds_is_not_looked_for_in_the_network(
    tmp_path: Path, mirror: Mirror
) -> None:
    bench = bench_of(tmp_path, mirror)
    assert "none can be downloaded" in refused(bench, ">=3.99").message
    assert not private_python.is_offered(bench, ">=3.99")
    assert private_python.is_offered(bench, WANTED)
    assert mirror.asked == []


@pytest.mark.parametrize("environ", [{"UV_PYTHON_DOWNLOADS": "never"}, {}])
def test_nothing_is_downloaded_where_the_users_settings_of_uv_say_so(
    tmp_path: Path, mirror: Mirror, environ: Mapping[str, str]
) -> None:
    if not environ:
        path = tmp_path / ".config/uv/uv.toml"
        path.parent.mkdir(parents=True)
        path.write_text('python-downloads = "manual"\n', encoding="utf-8")
    error = refused(bench_of(tmp_path, mirror, **environ))
    assert error.message.endswith("and no other one was found")
    assert mirror.asked == []


def another_python() -> tuple[Path, str] | None:
    """Return a Python of this machine that fits, and its version."""
    home = str(Path("~" + os.environ.get("USER", "root")).expanduser())
    known = [
        *Path(home).glob(".pyenv/versions/3.1[2-9]*/bin/python3"),
        *Path("/usr/bin").glob("python3.1[2-9]"),
    ]
    for path in sorted(known):
        said = subprocess.run([path, "-V"], capture_output=True, text=True)
        if said.returncode == 0:
            return path, said.stdout.split()[1]
    return None


def archive(program: Path, minor: str) -> bytes:
    """Return a build of Python as uv expects it, which is `program` in truth."""
    library = f"python/lib/python{minor}"
    (data,) = list(program.parents[1].glob(f"lib/python{minor}/_sysconfigdata_*.py"))[:1]
    files = {
        f"python/bin/python{minor}": f'#!/bin/sh\nexec {program} "$@"\n',
        f"{library}/os.py": "",
        f"{library}/{data.name}": data.read_text(encoding="utf-8"),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o755
            made.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def offer(mirror: Mirror, version: str, content: bytes, digest: str) -> str:
    """Offer a build; return the address of the list of builds."""
    major, minor, patch = map(int, version.split("."))
    listed = json.loads(
        subprocess.run(
            [uv.binary(), "python", "list", "--only-installed", "--output-format", "json"],
            capture_output=True,
            check=True,
        ).stdout
    )
    platform: dict[str, Any] = listed[0]
    build = {
        **{"name": "cpython", "os": platform["os"], "libc": platform["libc"]},
        "arch": {"family": platform["arch"], "variant": None},
        **{"major": major, "minor": minor, "patch": patch, "prerelease": "", "variant": None},
        **{"url": f"{mirror.url}/build.tar.gz", "sha256": digest, "build": "1"},
    }
    key = f"cpython-{version}-{platform['os']}-{platform['arch']}-{platform['libc']}"
    mirror.answers = {
        "/builds.json": json.dumps({key: build}).encode(),
        "/build.tar.gz": content,
    }
    return f"{mirror.url}/builds.json"


@pytest.mark.parametrize("is_right", [True, False])
def test_uv_downloads_one_below_the_home_and_checks_its_hash(
    tmp_path: Path, mirror: Mirror, *, is_right: bool
) -> None:
    found = another_python()
    if found is None:
        pytest.skip("needs another Python to pass for the downloaded one")
    program, version = found
    content = archive(program, version.rpartition(".")[0])
    digest = hashlib.sha256(content if is_right else b"another").hexdigest()
    address = offer(mirror, version, content, digest)
    bench = bench_of(tmp_path, mirror, UV_PYTHON_DOWNLOADS_JSON_URL=address)
    if not is_right:
        assert "none can be downloaded: Hash mismatch" in refused(bench).message
        return
    assert python(bench, WANTED).version == version
    assert list(private_python.folder(bench).glob("cpython-*/bin/python3*"))
    mirror.asked.clear()
    assert python(bench, WANTED).version == version
    assert "/build.tar.gz" not in mirror.asked
