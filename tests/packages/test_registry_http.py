"""What no registry would say: each is an error with its reason, within limits, and never a bug."""

import contextlib
import gzip
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import Ambiguous, RegistryUnreachable
from tests.packages.mcp_registry import Asked, RegistryServer, gzipped, item, server
from tests.packages.registry_reader import LIMITS, Reader, problem
from tests.packages.web_host import Answer


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


@pytest.fixture
def reader(tmp_path: Path, registry: RegistryServer) -> Reader:
    return Reader(tmp_path / "cache", registry.url)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{", b"[]", b"3", b'{"servers": 3}', b'{"servers": {}}', b'{"metadata": {}}',
     b'{"servers": [], "metadata": {"nextCursor": 3}}', b'{"servers": [' + b"[" * 200_000,
     b"\xff\xfe"],
    ids=range(11),
)  # fmt: skip
def test_an_answer_of_another_shape_is_no_list(
    registry: RegistryServer, reader: Reader, body: bytes
) -> None:
    registry.answer = lambda asked: Answer(body)
    assert problem(reader) == "the registry `company` does not answer with a list of servers"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(status=404), "has no `/v0.1/servers`: it is no registry of MCP servers"),
        (Answer(status=401), "answers 401: it wants authorization"),
        (Answer(status=403), "answers 403: it wants authorization"),
        (Answer(status=500), "answers 500"),
        (Answer(status=429, headers={"Retry-After": "600"}),
         "answers 429: it wants to be asked again in 600 s"),
        (Answer(status=503, headers={"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}),
         "answers 503: it wants to be asked again later"),
        (Answer(status=503, headers={"Retry-After": "\x1b[2J"}), "answers 503"),
        (Answer(status=204), "answers 204"),
        (Answer(b"x", headers={"Content-Encoding": "br"}), "answers in an encoding nobody asked"),
        (Answer(b"xyz", headers={"Content-Encoding": "gzip"}), "cannot be unpacked"),
        (gzipped(b" " * 50_000_000), "answers with more than 8 MiB at once"),
        (Answer(b" " * 9_000_000), "answers with more than 8 MiB at once"),
        (Answer(status=302, headers={"Location": "/v0.1/servers"}), "leads in circles"),
        (Answer(status=302, headers={"Location": "https://evil.test/"}),
         "leads to another host, `evil.test`"),
        (Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}),
         "leads to another host, `127.0.0.1`"),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), ""),
        (Answer(b"{", headers={"Content-Length": "100"}), ""),
        (Answer(b"", headers={"Content-Length": "x"}), ""),
    ],
)  # fmt: skip
def test_a_registry_that_is_none_is_told_apart(
    registry: RegistryServer, reader: Reader, answer: Answer, says: str
) -> None:
    registry.answer = lambda asked: answer
    assert says in problem(reader)


def test_a_small_answer_that_unpacks_to_much_costs_no_memory(
    registry: RegistryServer, reader: Reader
) -> None:
    bomb = gzipped(b" " * 200_000_000)
    registry.answer = lambda asked: bomb
    tracemalloc.start()
    try:
        assert "more than 8 MiB at once" in problem(reader)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 40_000_000


def test_a_redirect_on_the_same_host_is_followed(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    moved = Answer(status=308, headers={"Location": "/new/v0.1/servers?search=thing"})

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/new"):
            return registry.honest(Asked(asked.path.removeprefix("/new"), asked.params))
        return moved

    registry.answer = answer
    assert reader.names("thing") == ["com.example/thing"]


def test_a_registry_that_says_nothing_is_given_up(registry: RegistryServer, reader: Reader) -> None:
    done = threading.Event()

    def silent(asked: Asked) -> None:
        done.wait(5)

    registry.answer = silent
    try:
        assert "does not answer" in problem(reader)
    finally:
        done.set()
    assert len(registry.asked) == 1


def test_a_connection_that_is_cut_is_tried_again(registry: RegistryServer, reader: Reader) -> None:
    registry.answer = lambda asked: None
    assert "does not answer" in problem(reader)
    assert len(registry.asked) == LIMITS.attempts


def test_a_list_whose_cursors_repeat_is_refused(registry: RegistryServer, reader: Reader) -> None:
    registry.answer = lambda asked: Answer.of({"servers": [], "metadata": {"nextCursor": "a"}})
    assert problem(reader).endswith("has a list without an end")


def endless(registry: RegistryServer) -> None:
    def answer(asked: Asked) -> Answer:
        number = int(asked.params.get("cursor", "0")) + 1
        page = [item(server(f"com.example/x{number}"))]
        return Answer.of({"servers": page, "metadata": {"nextCursor": str(number)}})

    registry.answer = answer


def test_an_endless_list_is_refused_and_an_endless_search_is_cut(
    registry: RegistryServer, reader: Reader
) -> None:
    endless(registry)
    limits = replace(LIMITS, pages=20, search_pages=5)

    with pytest.raises(RegistryUnreachable, match="has a list of more than 20 pages"):
        reader.open(limits=limits).update()
    assert len(reader.open(limits=limits).search("x")) == 5
    for _ in range(2):
        with pytest.raises(Ambiguous, match="more names than"):
            reader.open(limits=limits).called("x")


def test_a_list_that_is_too_large_altogether_is_refused(
    registry: RegistryServer, reader: Reader
) -> None:
    endless(registry)
    with pytest.raises(RegistryUnreachable, match="has a list that is too large"):
        reader.open(limits=replace(LIMITS, listing_bytes=3000)).update()


def test_a_list_that_takes_too_long_is_given_up(registry: RegistryServer, reader: Reader) -> None:
    endless(registry)
    with pytest.raises(RegistryUnreachable, match="took longer than 0 s"):
        reader.open(limits=replace(LIMITS, total_s=0.0)).update()


def test_a_failed_update_keeps_what_is_kept(registry: RegistryServer, reader: Reader) -> None:
    registry.add("com.example/thing")
    reader.open().update()
    registry.answer = lambda asked: Answer(b"<html>")
    with pytest.raises(RegistryUnreachable):
        reader.open().update()

    assert reader.names() == ["com.example/thing"]


def test_anybody_between_could_answer_without_tls(reader: Reader) -> None:
    reader.url = "http://mcp.example.com"
    assert "is not reached by https" in problem(reader)


def test_proxies_that_make_no_sense_are_an_error_and_no_bug(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks9://nowhere")
    assert "cannot be asked" in problem(reader)


def test_the_check_tells_a_registry_from_a_web_page(
    registry: RegistryServer, reader: Reader
) -> None:
    reader.open().check()
    assert registry.asked[0].params == {"limit": "1"}
    registry.answer = lambda asked: Answer(gzip.compress(json.dumps({"a": 1}).encode()))
    with pytest.raises(RegistryUnreachable):
        reader.open().check()


def test_who_wants_to_be_asked_later_is(registry: RegistryServer, reader: Reader) -> None:
    answers = [Answer(status=429, headers={"Retry-After": "0"})]
    registry.answer = lambda asked: answers.pop() if answers else registry.honest(asked)
    registry.add("com.example/thing")
    assert reader.names("thing") == ["com.example/thing"]
    assert len(registry.asked) == 2


def test_a_head_that_comes_by_the_byte_is_given_up(reader: Reader) -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble() -> None:
            link, _ = listener.accept()
            with link, contextlib.suppress(OSError):
                while not done.wait(0.02):
                    link.sendall(b"H")

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        reader.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(RegistryUnreachable, match=r"took longer than 0\.3 s"):
            reader.open(limits=replace(LIMITS, total_s=0.3, attempts=1)).update()
        done.set()
        assert time.monotonic() - began < 3
        thread.join(5)


def test_a_registry_that_only_pretends_to_speak_tls_is_an_error(
    registry: RegistryServer, reader: Reader
) -> None:
    reader.url = registry.url.replace("http://", "https://")
    assert "cannot be reached" in problem(reader)
    assert registry.asked == []
