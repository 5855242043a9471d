"""Outbox: everything leaves whole and in order, and it is known what has begun to."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.runtime.outbox import TOGETHER_BYTES, TOGETHER_LINES, Outbox
from octave.runtime.pace import Pace

pytestmark = pytest.mark.anyio
BOUND_S = 5.0


class Reader:
    """The other end of the pipe of an outbox."""

    def __init__(self) -> None:
        self._descriptor, writing = os.pipe()
        self.is_lost = anyio.Event()
        self.outbox = Outbox(os.fdopen(writing, "wb", buffering=0), self.is_lost.set)

    def now(self) -> bytes:
        """Return what has left."""
        os.set_blocking(self._descriptor, False)
        try:
            return os.read(self._descriptor, 2**20)
        except BlockingIOError:
            return b""

    async def all(self, size_bytes: int) -> bytes:
        """Read so much, in small pieces."""
        received = b""
        with anyio.fail_after(BOUND_S):
            while len(received) < size_bytes:
                received += self.now()
                await anyio.lowlevel.checkpoint()
        return received

    def leave(self) -> None:
        """Read no more."""
        os.close(self._descriptor)
        self._descriptor = -1

    def close(self) -> None:
        self.outbox.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)


@asynccontextmanager
async def reading() -> AsyncIterator[Reader]:
    reader = Reader()
    try:
        yield reader
    finally:
        reader.close()


async def test_a_line_that_is_alone_leaves_at_once() -> None:
    async with reading() as reader:
        assert reader.outbox.put(b"one") == 1
        assert (reader.now(), reader.outbox.written) == (b"one\n", 1)


async def test_lines_of_one_turn_leave_together_after_the_first() -> None:
    async with reading() as reader:
        for line in (b"one", b"two", b"three"):
            reader.outbox.put(line)
        assert (reader.now(), reader.outbox.waiting) == (b"one\n", 2)
        await anyio.lowlevel.checkpoint()
        assert (reader.now(), reader.outbox.waiting_bytes) == (b"two\nthree\n", 0)
        reader.outbox.put(b"four")
        assert reader.now() == b"four\n"


async def test_lines_that_come_of_one_peers_turn_leave_together_at_its_end() -> None:
    async with reading() as reader:
        seen: list[bytes] = []

        def hear(data: bytes) -> None:
            reader.outbox.put(b"one")
            reader.outbox.put(b"two")
            seen.append(reader.now())

        Pace(hear, lambda: None, lambda: None).take(b"x")
        assert seen == [b""]
        assert reader.now() == b"one\ntwo\n"
        assert reader.outbox.written == 2


async def test_many_lines_do_not_wait_for_the_end_of_the_turn() -> None:
    async with reading() as reader:
        for _ in range(TOGETHER_LINES + 1):
            reader.outbox.put(b"x")
        assert reader.outbox.written == TOGETHER_LINES + 1


async def test_what_a_pipe_takes_to_the_middle_of_a_line_has_begun_to_leave() -> None:
    async with reading() as reader:
        lines = [b"%d " % number + b"x" * 5000 for number in range(40)]
        for line in lines:
            reader.outbox.put(line)
        await anyio.lowlevel.checkpoint()
        assert reader.outbox.is_blocked
        begun = reader.outbox.written
        assert not reader.outbox.withdraw(begun)
        assert reader.outbox.withdraw(begun + 2)
        del lines[begun + 1]
        expected = b"".join(line + b"\n" for line in lines)
        assert await reader.all(len(expected)) == expected
        assert reader.outbox.put(b"end") == 41
        assert await reader.all(4) == b"end\n"


async def test_a_pipe_nobody_reads_any_more_is_lost_once_and_takes_no_more() -> None:
    async with reading() as reader:
        reader.leave()
        with anyio.fail_after(BOUND_S):
            await reader.is_lost.wait()
        with pytest.raises(BrokenPipeError):
            reader.outbox.put(b"x")


async def test_writing_may_be_the_first_to_notice_and_nothing_was_written_then() -> None:
    async with reading() as reader:
        reader.leave()
        assert reader.outbox.put(b"x") == 1
        assert reader.is_lost.is_set()
        assert (reader.outbox.written, reader.outbox.is_closed) == (0, True)


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.just(b"y" * (TOGETHER_BYTES + 1))), max_size=8),
    st.sets(st.integers(0, 7)),
)
def test_whatever_is_put_when_arrives_whole_and_in_order(
    lines: list[bytes], ends: set[int]
) -> None:
    async def exchange() -> None:
        async with reading() as reader:
            for number, line in enumerate(lines):
                reader.outbox.put(line)
                if number in ends:
                    await anyio.lowlevel.checkpoint()
            expected = b"".join(line + b"\n" for line in lines)
            assert await reader.all(len(expected)) == expected
            assert (reader.outbox.waiting, reader.outbox.waiting_bytes) == (0, 0)

    anyio.run(exchange)
