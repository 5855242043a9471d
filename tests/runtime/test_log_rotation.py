"""Rotation: every line is read once and in order, whoever is killed, reads or writes meanwhile."""

import gzip
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from octave.runtime import log_files
from octave.runtime.log_reader import GAP, Entry, follow, read
from octave.runtime.logs import PACK_RETRY_S, ServerLog, stamp

pytestmark = pytest.mark.anyio
WRITER = Path(__file__).with_name("log_writer.py")
NOON_S = 1_795_608_000.123
MANY = 1000


def new_log(path: Path, *, rotate_bytes: int = 1000, keep: int = 5) -> ServerLog:
    return ServerLog(path, rotate_bytes=rotate_bytes, keep=keep)


async def quiet(log: ServerLog) -> None:
    """Wait until nothing is being packed."""
    with anyio.fail_after(5):
        while log.is_packing:
            await anyio.lowlevel.checkpoint()


async def write(log: ServerLog, first: int, count: int, batch: int = 20) -> None:
    """Log numbered lines; a batch of 20 is some 700 bytes, every second one rotates."""
    for start in range(first, first + count, batch):
        log.feed("err", b"".join(b"line %d\n" % number for number in range(start, start + batch)))
        log.flush()
        await quiet(log)


def numbers(path: Path) -> list[int]:
    return [int(entry.line.removeprefix(b"line ")) for entry in read(path)]


def whole_numbers(path: Path) -> list[int]:
    """Of what `log_writer` wrote: a line that it could not end has no full stop."""
    lines = (entry.line for entry in read(path))
    return [int(line[5:-1]) for line in lines if line.startswith(b"line ") and line[-1:] == b"."]


def modes(path: Path) -> set[int]:
    return {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


async def test_a_full_file_is_packed_and_so_many_are_kept(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log", keep=3)
    await write(log, 0, 200)
    log.close()
    assert names(log.path) == ["x.log.1.gz", "x.log.2.gz", "x.log.3.gz"]
    assert numbers(log.path) == list(range(80, 200))
    newest = gzip.decompress((tmp_path / "x.log.1.gz").read_bytes())
    assert newest.endswith(b" err line 199\n")
    assert modes(log.path) == {0o600}


async def test_keeping_none_keeps_the_current_file_only(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log", keep=0)
    await write(log, 0, 60)
    log.close()
    assert names(log.path) == ["x.log"]
    assert numbers(log.path) == list(range(40, 60))


async def test_those_beyond_a_smaller_number_to_keep_go_too(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log")
    await write(log, 0, 200)
    log.close()
    log = new_log(tmp_path / "x.log", keep=2)
    await write(log, 200, 40)
    log.close()
    assert names(log.path) == ["x.log.1.gz", "x.log.2.gz"]
    assert numbers(log.path) == list(range(160, 240))


async def test_the_last_lines_reach_back_into_packed_files(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log")
    await write(log, 0, 140)
    log.close()
    for count in (0, 1, 20, 21, 60, 61, 139, 140, 500):
        found = [entry.line for entry in read(log.path, last_lines=count)]
        assert found == [b"line %d" % n for n in range(140 - min(count, 140), 140)]


@pytest.mark.parametrize("from_line", [0, 1, 99, 100, 199, 200, 299, 300])
def test_lines_since_a_time_come_from_packed_files_too(tmp_path: Path, from_line: int) -> None:
    path = tmp_path / "x.log"
    for number, name in enumerate(("x.log.2.gz", "x.log.1.gz", "x.log")):
        lines = range(number * 100, number * 100 + 100)
        text = "".join(f"{stamp(NOON_S + n)} err line {n}\n" for n in lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    since = stamp(NOON_S + from_line)
    for last_lines in (None, 250):
        found = [int(entry.line[5:]) for entry in read(path, last_lines, since)]
        first = from_line if last_lines is None else max(from_line, 50)
        assert found == list(range(first, 300))


def test_a_damaged_packed_file_gives_what_can_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    text = b"".join(b"%s err %d\n" % (stamp(NOON_S).encode(), n) for n in range(50_000))
    whole = gzip.compress(text)
    (tmp_path / "x.log.2.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x.log.1.gz").write_bytes(b"no gzip")
    path.write_bytes(b"%s err last\n" % stamp(NOON_S).encode())
    found = [entry.line for entry in read(path)]
    assert found[:3] == [b"0", b"1", b"2"]
    assert found[-1] == b"last"
    assert 1000 < len(found) < 50_000


# Killed on the way.


async def three_files(folder: Path) -> Path:
    log = new_log(folder / "x.log")
    await write(log, 0, 120)
    log.close()
    assert names(log.path) == ["x.log.1.gz", "x.log.2.gz", "x.log.3.gz"]
    return log.path


def unpack_first(path: Path) -> None:
    """As after a rename: NAME.log.1 is there, and no NAME.log yet."""
    packed = path.with_name("x.log.1.gz")
    content = gzip.decompress(packed.read_bytes())
    path.with_name("x.log.1").write_bytes(content)
    packed.unlink()


def before_moving_up(path: Path) -> None:
    unpack_first(path)
    path.with_name("x.log.2.gz").rename(path.with_name("x.log.1.gz"))
    path.with_name("x.log.3.gz").rename(path.with_name("x.log.2.gz"))


def while_moving_up(path: Path) -> None:
    unpack_first(path)
    path.with_name("x.log.2.gz").rename(path.with_name("x.log.1.gz"))


def while_packing(path: Path) -> None:
    unpack_first(path)
    path.with_name("x.log.1.gz.tmp").write_bytes(b"\x1f\x8b")


def before_unlinking(path: Path) -> None:
    unpack_first(path)
    plain = path.with_name("x.log.1")
    content = plain.read_bytes()
    log_files.pack(path, 5, lambda: False)
    # The same file once more, as its inode would still be there.
    packed = path.with_name("x.log.1.gz")
    plain.write_bytes(content)
    found = plain.stat()
    identity = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
    with packed.open("wb") as raw, gzip.GzipFile(identity, "wb", 5, raw) as file:
        file.write(content)


@pytest.mark.parametrize(
    "killed", [before_moving_up, while_moving_up, while_packing, before_unlinking]
)
async def test_a_rotation_that_was_killed_loses_no_line_and_the_next_one_goes_on(
    tmp_path: Path, killed: Callable[[Path], None]
) -> None:
    path = await three_files(tmp_path)
    killed(path)
    assert numbers(path) == list(range(120))

    log = new_log(path)
    log.feed("err", b"line 120\n")
    log.flush()
    await quiet(log)
    log.close()

    assert numbers(path) == list(range(121))
    assert names(path) == ["x.log", "x.log.1.gz", "x.log.2.gz", "x.log.3.gz"]


def start_writer(path: Path, *numbers: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(WRITER), str(path), *map(str, numbers)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(words, env=environ, stdout=subprocess.PIPE)


def kill_again_and_again(path: Path, rounds: int) -> None:
    """Let writers that rotate every few milliseconds be killed; each line they told of counts."""
    said = written = 0
    for _ in range(rounds):
        with start_writer(path, 20_000, MANY, written, 10**9, 100, 0) as writer:
            assert writer.stdout is not None
            for _ in range(random.randrange(1, 400)):
                said = int(writer.stdout.readline())
            writer.kill()
            said = max([said, *map(int, writer.stdout.read().split(b"\n")[:-1])])
        found = whole_numbers(path)
        assert found[:said] == list(range(said))
        # What was written and not yet said may be there: then the next one goes on after it.
        assert found == list(range(len(found)))
        written = len(found)


def test_writers_killed_at_any_moment_lose_and_double_no_line(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "x.log", 6)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_two_hundred_killed_writers_lose_and_double_no_line(tmp_path: Path) -> None:
    # Anew from time to time: each round reads all that was written.
    for number in range(40):
        kill_again_and_again(tmp_path / f"{number}.log", 5)


async def test_a_closed_log_leaves_packing_for_the_next_time(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log", rotate_bytes=10)
    log.feed("err", b"line 0\n")
    log.close()
    log.feed("err", b"line 1\n")
    log.flush()
    await quiet(log)
    log.close()
    assert numbers(log.path) == [0, 1]


# Several at once.


async def test_a_file_that_another_process_writes_to_is_not_rotated(tmp_path: Path) -> None:
    one, other = (new_log(tmp_path / "x.log") for _ in range(2))
    other.feed("err", b"line 0\n")
    other.flush()
    await write(one, 1, 100)
    other.feed("err", b"line 101\n")
    other.flush()
    assert names(one.path) == ["x.log"]
    other.close()
    one.close()
    assert numbers(one.path) == list(range(102))


async def test_a_log_that_was_deleted_is_begun_again(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log")
    await write(log, 0, 20)
    log.path.unlink()
    await write(log, 20, 20)
    log.close()
    assert numbers(log.path) == list(range(20, 40))


async def test_what_cannot_be_packed_is_kept_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(ServerLog, "_may_try", lambda log: now_s[0] >= log._retry_at_s)
    monkeypatch.setattr(
        ServerLog, "_try_later", lambda log: setattr(log, "_retry_at_s", now_s[0] + PACK_RETRY_S)
    )
    obstacle = tmp_path / "x.log.1.gz"
    obstacle.mkdir()
    log = new_log(tmp_path / "x.log")
    for first in range(0, 100, 20):
        log.feed("err", b"".join(b"line %d\n" % n for n in range(first, first + 20)))
        log.flush()
        await quiet(log)
    obstacle.rmdir()
    assert numbers(log.path) == list(range(100))
    now_s[0] += PACK_RETRY_S
    await write(log, 100, 20)
    log.close()
    assert numbers(log.path) == list(range(120))
    assert log.dropped == 0


# Following.


class Done(Exception):
    pass


def followed(path: Path, steps: Iterator[object], last_lines: int | None = 0) -> list[bytes]:
    """Follow while the steps happen, one each time there is nothing new."""
    found: list[bytes] = []

    def pause() -> None:
        if next(steps, None) is None:
            raise Done

    with pytest.raises(Done):
        for entry in follow([path], last_lines, pause=pause):
            found.append(entry.line)  # noqa: PERF401 - kept when the generator raises
    return found


async def test_several_rotations_between_two_looks_are_followed(tmp_path: Path) -> None:
    log = new_log(tmp_path / "x.log")
    await write(log, 0, 20)

    async def more() -> None:
        await write(log, 20, 200)

    tail = follow([log.path], None, pause=lambda: None)
    found = [next(tail).line for _ in range(20)]
    await more()
    found += [next(tail).line for _ in range(200)]
    log.close()
    tail.close()  # type: ignore[attr-defined] # it is a generator
    assert found == [b"line %d" % n for n in range(220)]


async def test_lines_that_were_deleted_before_they_could_be_shown_are_told_of(
    tmp_path: Path,
) -> None:
    log = new_log(tmp_path / "x.log", keep=1)
    await write(log, 0, 20)
    tail = follow([log.path], None, pause=lambda: None)
    found = [next(tail).line for _ in range(20)]
    await write(log, 20, 200)
    found += [next(tail).line for _ in range(81)]
    log.close()
    tail.close()  # type: ignore[attr-defined] # it is a generator
    # The file that was open was read to its end.
    expected = [*range(40), None, *range(160, 220)]
    assert found == [GAP if n is None else b"line %d" % n for n in expected]


def test_following_begins_in_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for name, text in (("x.log.1.gz", b"a\nb\n"), ("x.log", b"c\n")):
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)

    def steps() -> Iterator[object]:
        with path.open("ab", buffering=0) as file:
            yield file.write(b"d\n")

    assert followed(path, steps(), 2) == [b"b", b"c", b"d"]


def follow_writers(path: Path, count: int, rotate_bytes: int) -> None:
    """Processes write as fast as they can, each goes on where the one before was killed.

    Whoever follows sees each line once, and so do the files.
    """
    found = follow([path], None, pause=lambda: None)
    entries = (entry for entry in found if entry.line.endswith(b"."))
    sizes: list[int] = []
    for until in (count // 3, count * 2 // 3, count):
        first = len(sizes)
        with start_writer(path, rotate_bytes, MANY, first, count - first, 2000, 1) as writer:
            assert writer.stdout is not None
            while len(sizes) < until:
                sizes.append(numbered(next(entries), len(sizes)))
            if until < count:
                writer.kill()
            writer.stdout.read()
        # What it had written when it was killed.
        written = len(whole_numbers(path))
        while len(sizes) < written:
            sizes.append(numbered(next(entries), len(sizes)))
    found.close()  # type: ignore[attr-defined] # it is a generator
    assert whole_numbers(path) == list(range(count))
    # A file is rotated with the batch that fills it.
    assert len(names(path)) >= sum(sizes) // rotate_bytes // 2 > 10


def numbered(entry: Entry, number: int) -> int:
    """Return how many bytes of the file the entry takes."""
    assert entry.line == b"line %d." % number
    return len(entry.at) + len(" err ") + len(entry.line) + 1


def test_row_24_a_hundred_thousand_lines_are_followed_across_rotations_and_restarts(
    tmp_path: Path,
) -> None:
    follow_writers(tmp_path / "x.log", 100_000, 100_000)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_row_24_a_million_lines_are_followed_across_rotations_and_restarts(tmp_path: Path) -> None:
    follow_writers(tmp_path / "x.log", 1_000_000, 1_000_000)
