import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octave.errors import StartFailed
from octave.runtime import open_files
from octave.runtime.command import Command, start


@contextlib.contextmanager
def allowed(files: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_open_files_are_counted() -> None:
    before = open_files.used()
    assert before is not None
    opened = os.open(os.devnull, os.O_RDONLY)
    assert open_files.used() == before + 1
    os.close(opened)
    assert open_files.used() == before


def test_when_none_can_be_opened_all_are_in_use() -> None:
    with allowed(3):
        assert open_files.used() == open_files.limit() == 3


def test_the_limit_is_raised_as_far_as_the_system_lets_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with allowed(100):
        open_files.raise_limit()
        assert open_files.limit() == min(open_files.WANTED, before[1])
    if before[0] > open_files.WANTED:
        open_files.raise_limit()
        assert open_files.limit() == before[0]


def test_row_46_a_start_that_finds_no_room_is_refused_and_leaves_none_behind(
    tmp_path: Path,
) -> None:
    true = Command("it", (sys.executable, "-c", ""), tmp_path, os.environ)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    before = open_files.used()
    with allowed(lowest + open_files.PER_START + open_files.KEPT_FREE - 1):
        assert not open_files.has_room()
        with pytest.raises(StartFailed, match="too many files are open, ") as raised:
            start(true)
    assert raised.value.details["permanent"] is False
    assert "ulimit -n" in (raised.value.hint or "")
    assert open_files.used() == before
    assert open_files.has_room()


def test_row_46_running_out_in_the_middle_of_a_start_is_told_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_files, "has_room", lambda: True)
    before = open_files.used()
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    command = Command("it", (sys.executable, "-c", ""), tmp_path, os.environ)
    with allowed(lowest + 3), pytest.raises(StartFailed, match="too many files are open"):
        start(command)
    assert open_files.used() == before
