import asyncio
import errno
import logging

import pytest

from octave.runtime import open_files
from octave.serve.troubles import Troubles


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def troubles(told: list[str]) -> Troubles:
    return Troubles(told.append)


def test_a_trouble_is_told_once_and_shown_until_it_ends(
    troubles: Troubles, told: list[str]
) -> None:
    assert (troubles.text, told) == (None, [])
    for sentence in ("port 1 is taken", "port 1 is taken", "port 1 is taken by `x`"):
        troubles.begin("port", sentence)
    troubles.begin("manifest", "line 2")
    assert told == ["port 1 is taken", "port 1 is taken by `x`", "line 2"]
    assert troubles.text == "port 1 is taken by `x`; line 2"
    troubles.end("port")
    troubles.end("port")
    assert troubles.text == "line 2"


def test_row_46_a_limit_too_low_for_all_servers_is_told_with_what_is_needed(
    troubles: Troubles, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "limit", lambda: 256)
    troubles.count_files(10)
    assert told == []
    troubles.count_files(50)
    assert told == [
        "only 256 files may be open at once, these servers can need 374:"
        " `ulimit -n 374` before the runtime starts allows that"
    ]
    troubles.count_files(10)
    assert troubles.text is None


def test_row_46_an_accept_loop_without_files_is_told_once_until_there_are_some(
    troubles: Troubles, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.new_event_loop()
    full = {"message": "full", "exception": OSError(errno.EMFILE, "full"), "socket": None}
    monkeypatch.setattr(open_files, "has_room", lambda: False)
    for _ in range(100):
        troubles.hear(loop, full)
    troubles.look_again()
    sentence = "too many files are open: new connections wait"
    assert (troubles.text, told) == (sentence, [sentence])
    monkeypatch.setattr(open_files, "has_room", lambda: True)
    troubles.look_again()
    assert troubles.text is None
    loop.close()


def test_what_else_the_event_loop_complains_of_goes_where_it_always_did(
    troubles: Troubles, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, "asyncio"):
        troubles.hear(loop, {"message": "a bug", "exception": ValueError("x")})
    assert "a bug" in caplog.text
    assert told == []
    loop.close()
