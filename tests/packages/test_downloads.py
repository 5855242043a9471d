"""A file known by its sha256 comes whole and from where it may, or not at all."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed, OctaveError, RegistryUnreachable
from octave.packages.downloads import Limits, Wanted, keep, open_file
from octave.packages.together import Desk, all_of
from tests.packages.bundle_maker import BundleHost
from tests.packages.web_host import Answer

CONTENT = b"what was meant" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(file_bytes=100_000, retry_wait_s=0.0, connect_s=2.0, silence_s=2.0)


@pytest.fixture
def host() -> Iterator[BundleHost]:
    with BundleHost() as made:
        yield made


def fetch(url: str, folder: Path, *, offline: bool = False, limits: Limits = QUICK) -> bytes:
    wanted = Wanted("x.mcpb", url, SHA256)
    with open_file(wanted, folder, offline=offline, limits=limits) as file:
        return file.read()


def test_it_is_downloaded_once_and_hashed_each_time(host: BundleHost, tmp_path: Path) -> None:
    host.files["/x"] = Answer(CONTENT)
    assert fetch(f"{host.url}/x", tmp_path) == CONTENT
    assert fetch(f"{host.url}/x", tmp_path, offline=True) == CONTENT
    assert host.asked == ["/x"]

    (tmp_path / SHA256).write_bytes(b"damaged")
    assert fetch(f"{host.url}/x", tmp_path) == CONTENT
    assert host.asked == ["/x", "/x"]
    assert [path.name for path in tmp_path.iterdir()] == [SHA256]


def test_other_bytes_are_not_kept(host: BundleHost, tmp_path: Path) -> None:
    host.files["/x"] = Answer(CONTENT[1:])
    with pytest.raises(IntegrityFailed) as caught:
        fetch(f"{host.url}/x", tmp_path)
    assert caught.value.details["wanted"] == SHA256
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_is_followed_to_where_it_may_lead(host: BundleHost, tmp_path: Path) -> None:
    host.files["/x"] = Answer(status=302, headers={"Location": "/y"})
    host.files["/y"] = Answer(CONTENT)
    assert fetch(f"{host.url}/x", tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("http://192.0.2.1/x", "without https"),
        ("http://169.254.169.254/latest", "without https"),
        ("https://169.254.169.254/latest", "where no bundle lies"),
        ("https://[fe80::1]/x", "where no bundle lies"),
        ("https://[::ffff:169.254.169.254]/x", "where no bundle lies"),
        ("https://2852039166/x", "where no bundle lies"),
        ("https://0.0.0.0/x", "where no bundle lies"),
        ("/x", "in circles"),
    ],
)
def test_a_redirect_leads_nowhere_else(
    host: BundleHost, tmp_path: Path, place: str, why: str
) -> None:
    host.files["/x"] = Answer(status=302, headers={"Location": place})
    with pytest.raises(InstallFailed, match=why):
        fetch(f"{host.url}/x", tmp_path)
    assert set(host.asked) == {"/x"}


@pytest.mark.parametrize("url", ["https://169.254.169.254/x", "http://example.test/x"])
def test_nor_does_the_address_itself(tmp_path: Path, url: str) -> None:
    with pytest.raises(InstallFailed, match=r"without https|no bundle lies"):
        fetch(url, tmp_path)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(status=404), "package_not_found"),
        (Answer(status=403), "install_failed"),
        (Answer(status=503), "registry_unreachable"),
        (Answer(CONTENT * 10), "install_failed"),
        (Answer(CONTENT, headers={"Content-Length": "99999"}), "registry_unreachable"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    host: BundleHost, tmp_path: Path, answer: Answer, code: str
) -> None:
    host.files["/x"] = answer
    with pytest.raises(OctaveError) as caught:
        fetch(f"{host.url}/x", tmp_path)
    assert caught.value.code == code
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_offline_only_the_cache_counts(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachable):
        fetch("https://example.test/x", tmp_path, offline=True)
    with pytest.raises(InstallFailed, match="was installed from a file"):
        fetch("", tmp_path)


def test_a_file_of_this_machine_is_kept_by_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "x.mcpb"
    source.write_bytes(CONTENT)
    assert keep(source, tmp_path / "cache") == SHA256
    source.unlink()
    assert fetch("", tmp_path / "cache") == CONTENT
    for wrong in (source, tmp_path):
        with pytest.raises(InstallFailed):
            keep(wrong, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [SHA256]


@contextlib.contextmanager
def dripping() -> Iterator[tuple[str, threading.Event]]:
    """Yield the address of a file that comes byte by byte, and what is set once it is asked for."""
    is_asked, is_over = threading.Event(), threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n")
            is_asked.set()
            while not is_over.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/x", is_asked
        finally:
            is_over.set()
            thread.join(5)


def test_what_drips_is_not_waited_for_longer_than_what_is_silent(tmp_path: Path) -> None:
    with dripping() as (url, _), pytest.raises(InstallFailed, match="took longer than 0 s"):
        fetch(url, tmp_path, limits=replace(QUICK, total_s=0.2))
    assert list(tmp_path.iterdir()) == []


def test_what_drips_in_a_thread_ends_with_the_work_of_the_others(tmp_path: Path) -> None:
    ended = list[str]()

    def work(job: int, _: Desk) -> None:
        if job == 1:
            assert is_asked.wait(5)
            raise LookupError
        try:
            fetch(url, tmp_path)
        except KeyboardInterrupt:
            ended.append("interrupted")
            raise

    with dripping() as (url, is_asked), pytest.raises(LookupError):
        all_of([0, 1], work)
    assert ended == ["interrupted"]
    assert list(tmp_path.iterdir()) == []
