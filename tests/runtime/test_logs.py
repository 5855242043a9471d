"""Log files: what goes in comes out, whatever the bytes, the disk or the rotation."""

import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from octave.runtime.log_reader import Entry, follow, merge, read
from octave.runtime.logs import (
    FLUSH_AFTER_S,
    LINE_LIMIT_BYTES,
    NOISE_LINES,
    NOISE_WINDOW_S,
    ServerLog,
    stamp,
)

pytestmark = pytest.mark.anyio
NOON_S = 1_795_608_000.123


def new_log(
    folder: Path, name: str = "notes", wall_s: Callable[[], float] = lambda: NOON_S
) -> ServerLog:
    return ServerLog(folder / f"{name}.log", wall_s)


def write_lines(path: Path, count: int, first: int = 0) -> None:
    lines = [f"{stamp(NOON_S + n)} err line {n}\n" for n in range(first, first + count)]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def texts(entries: Iterator[Entry]) -> list[bytes]:
    return [entry.line for entry in entries]


async def test_a_line_carries_time_stream_and_the_bytes_as_they_came(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.feed("err", b"\x1b[31m\xff\x00 red\r\n")
    log.feed("out", b"Banner\n")
    log.event("ready")
    log.close()
    assert log.path.read_bytes() == (
        b"2026-11-25T12:00:00.123Z err \x1b[31m\xff\x00 red\r\n"
        b"2026-11-25T12:00:00.123Z out Banner\n"
        b"2026-11-25T12:00:00.123Z octave ready\n"
    )
    assert [(e.at, e.server, e.stream, e.line) for e in read(log.path)][1] == (
        "2026-11-25T12:00:00.123Z",
        "notes",
        "out",
        b"Banner",
    )


async def test_a_line_in_pieces_is_one_line_whatever_comes_between(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    for stream, piece in (("err", b"one"), ("out", b"two\n"), ("err", b" two"), ("err", b"!\nx\n")):
        log.feed(stream, piece)  # type: ignore[arg-type] # a table of literals
    log.close()
    assert texts(read(log.path)) == [b"two", b"one two!", b"x"]


async def test_empty_lines_are_lines(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.feed("err", b"\n\na\n")
    log.close()
    assert texts(read(log.path)) == [b"", b"", b"a"]


async def test_the_file_is_private(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.event("ready")
    log.close()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


async def test_row_26_a_line_without_end_is_split_and_its_last_part_kept(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    for _ in range(300):
        log.feed("err", b"x" * 1000)
    log.feed("err", b"LAST")
    log.end_lines()
    found = texts(read(log.path))
    assert [len(line) for line in found] == [LINE_LIMIT_BYTES] * 4 + [
        300_004 - 4 * LINE_LIMIT_BYTES
    ]
    assert found[-1].endswith(b"LAST")
    log.close()


async def test_one_huge_ended_line_is_split_too(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.feed("err", b"y" * (LINE_LIMIT_BYTES + 5) + b"\nz\n")
    log.close()
    assert [len(line) for line in texts(read(log.path))] == [LINE_LIMIT_BYTES, 5, 1]


async def test_lines_reach_the_file_soon_without_being_asked(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    log.feed("err", b"soon\n")
    with anyio.fail_after(FLUSH_AFTER_S + 5):
        while not log.path.exists():
            await anyio.lowlevel.checkpoint()
    assert texts(read(log.path)) == [b"soon"]
    log.close()


async def test_row_23_two_hundred_thousand_lines_are_all_there_in_order(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    content = b"".join(b"%d\n" % n for n in range(200_000))
    for start in range(0, len(content), 65_521):
        log.feed("err", content[start : start + 65_521])
    log.close()
    assert [int(line) for line in texts(read(log.path))] == list(range(200_000))


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond the limit: write(2) then fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_row_27_a_full_disk_is_counted_and_writing_resumes(tmp_path: Path) -> None:
    log = new_log(tmp_path)
    with full_disk(100):
        for number in range(4):
            log.feed("err", b"line %d\n" % number)
        log.flush()
        log.feed("err", b"line 4\n")
        log.flush()
    assert log.dropped == 3
    log.feed("err", b"line 5\n")
    log.close()
    found = texts(read(log.path))
    assert found[:2] == [b"line 0", b"line 1"]
    assert found[-2:] == [b"3 lines could not be written", b"line 5"]


async def test_row_18_of_a_burst_of_noise_the_beginning_is_kept_and_all_counted(
    tmp_path: Path,
) -> None:
    now_s = [NOON_S]
    log = new_log(tmp_path, wall_s=lambda: now_s[0])
    for number in range(1000):
        log.noise(b"noise %d" % number)
    now_s[0] += NOISE_WINDOW_S
    log.noise(b"later")
    log.close()
    found = texts(read(log.path))
    assert (len(found), found[-1], log.noise_lines) == (NOISE_LINES + 1, b"later", 1001)


async def test_a_missing_folder_is_counted_not_raised(tmp_path: Path) -> None:
    log = new_log(tmp_path / "nowhere")
    log.feed("err", b"a\nb\n")
    log.close()
    assert log.dropped == 2


def test_no_file_means_no_lines(tmp_path: Path) -> None:
    assert list(read(tmp_path / "x.log", last_lines=5)) == []


@pytest.mark.parametrize("count", [0, 1, 3, 5000, 20_000])
def test_the_last_lines_of_a_big_file(tmp_path: Path, count: int) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 20_000)
    found = texts(read(path, last_lines=count))
    assert found == [b"line %d" % n for n in range(20_000 - count, 20_000)]


def test_more_lines_than_there_are(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 3)
    assert len(texts(read(path, last_lines=10))) == 3


@pytest.mark.parametrize("from_line", [0, 1, 10_000, 19_999, 20_000])
def test_lines_since_a_time(tmp_path: Path, from_line: int) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 20_000)
    found = texts(read(path, since=stamp(NOON_S + from_line)))
    assert found == [b"line %d" % n for n in range(from_line, 20_000)]


def test_an_unended_and_a_torn_line_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"torn half\n" + f"{stamp(NOON_S)} err whole\n".encode() + b"rest")
    found = list(read(path, last_lines=3))
    assert texts(iter(found)) == [b"torn half", b"whole", b"rest"]
    assert [entry.at for entry in found] == ["", stamp(NOON_S), stamp(NOON_S)]


def test_several_logs_are_merged_by_time(tmp_path: Path) -> None:
    for name, seconds in (("a", (1, 4)), ("b", (2, 3))):
        lines = [f"{stamp(NOON_S + at)} err {at}\n" for at in seconds]
        (tmp_path / f"{name}.log").write_text("".join(lines), encoding="utf-8")
    found = list(merge(read(tmp_path / "a.log"), read(tmp_path / "b.log")))
    assert [(entry.server, entry.line) for entry in found] == [
        ("a", b"1"),
        ("b", b"2"),
        ("b", b"3"),
        ("a", b"4"),
    ]


class Done(Exception):
    pass


def followed(path: Path, *steps: Callable[[], object], last_lines: int = 0) -> list[bytes]:
    """All lines that `follow` yields while the steps happen, one each time it has nothing new."""
    found, left = [], list(steps)

    def pause() -> None:
        if not left:
            raise Done
        left.pop(0)()

    with pytest.raises(Done):
        for entry in follow([path], last_lines, pause=pause):
            found.append(entry.line)  # noqa: PERF401 - kept when the generator raises
    return found


def test_following_begins_with_the_last_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 5)
    found = followed(path, lambda: write_lines(path, 2, first=5), last_lines=2)
    assert found == [b"line 3", b"line 4", b"line 5", b"line 6"]


def test_following_waits_for_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    assert followed(path, lambda: None, lambda: write_lines(path, 1)) == [b"line 0"]


def test_following_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    head = f"{stamp(NOON_S)} err ha".encode()
    found = followed(path, lambda: path.write_bytes(head), lambda: path.write_bytes(head + b"lf\n"))
    assert found == [b"half"]


def test_following_survives_rotation_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 1)

    def rotate() -> None:
        write_lines(path, 1, first=1)
        path.rename(tmp_path / "x.log.1")
        write_lines(path, 1, first=2)

    found = followed(path, rotate, lambda: write_lines(path, 1, first=3))
    assert found == [b"line 1", b"line 2", b"line 3"]


def test_following_survives_truncation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    write_lines(path, 3)

    def truncate() -> None:
        os.truncate(path, 0)
        write_lines(path, 1, first=9)

    assert followed(path, truncate) == [b"line 9"]
