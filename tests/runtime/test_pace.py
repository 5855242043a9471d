"""Pace: everything arrives in order, and whoever costs much waits while others go on."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.runtime.pace import (
    BURST_S,
    LONG_STEP_S,
    PIECE_BYTES,
    PORTION_BYTES,
    SHARE,
    TURN_S,
    Pace,
    PipeReader,
    at_end_of_turn,
)

pytestmark = pytest.mark.anyio
BOUND_S = 5.0
LINE = b"x" * (PORTION_BYTES - 1) + b"\n"
"""One portion."""


def burn(seconds: float) -> None:
    """Cost time of the processor."""
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


class Peer:
    """What came of it, and whether it may be read."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.pieces: list[bytes] = []
        self.is_paused = False
        self._cost_s = cost_s
        self._resumed = anyio.Event()
        self.pace = Pace(self.receive, self.pause, self.resume)

    def receive(self, data: bytes) -> None:
        self.pieces.append(data)
        burn(self._cost_s)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        self._resumed.set()

    async def may_be_read(self) -> None:
        with anyio.fail_after(BOUND_S):
            while self.is_paused:
                self._resumed = anyio.Event()
                await self._resumed.wait()


async def test_what_costs_little_is_handed_over_at_once() -> None:
    peer = Peer()
    peer.pace.take(b"x" * PIECE_BYTES)
    assert b"".join(peer.pieces) == b"x" * PIECE_BYTES
    assert not peer.is_paused


async def test_what_costs_much_is_spread_over_turns_and_stays_in_order() -> None:
    data = bytes(range(256)) * (8 * PORTION_BYTES // 256)
    peer = Peer(cost_s=TURN_S)
    peer.pace.take(data)
    assert peer.pieces == [data[:PORTION_BYTES]]
    assert peer.is_paused
    await peer.may_be_read()
    assert b"".join(peer.pieces) == data
    assert len(peer.pieces) == 8


async def test_a_peer_that_has_cost_more_than_its_share_is_left_alone_for_a_while() -> None:
    peer = Peer(cost_s=BURST_S * 2)
    began_s = time.monotonic()
    peer.pace.take(b"x")
    assert peer.is_paused
    cost_s = time.monotonic() - began_s
    await peer.may_be_read()
    waited_s = time.monotonic() - began_s - cost_s
    assert waited_s >= BURST_S / SHARE * 0.9


async def test_a_line_is_handed_over_whole_where_it_fits() -> None:
    line = b"x" * (PORTION_BYTES * 2 // 3) + b"\n"
    peer = Peer(cost_s=TURN_S)
    peer.pace.take(line * 8)
    await peer.may_be_read()
    assert peer.pieces == [line] * 8


async def test_a_piece_without_the_end_of_a_line_is_one_portion() -> None:
    peer = Peer(cost_s=TURN_S)
    peer.pace.take(b"x" * PIECE_BYTES)
    assert peer.pieces == [b"x" * PIECE_BYTES]


async def test_what_comes_of_a_turn_leaves_at_its_end_and_only_then() -> None:
    peer, order = Peer(), list[str]()

    def receive(data: bytes) -> None:
        order.append("heard")
        assert at_end_of_turn(lambda: order.append("left"))

    peer.pace = Pace(receive, peer.pause, peer.resume)
    peer.pace.take(LINE * 2)
    assert order == ["heard", "heard", "left", "left"]
    assert not at_end_of_turn(lambda: None)


async def test_a_task_that_is_begun_in_a_turn_is_none_of_its_parts() -> None:
    peer, found = Peer(), list[bool]()

    async def task() -> None:
        found.append(at_end_of_turn(lambda: None))

    async with anyio.create_task_group() as tasks:

        def receive(_: bytes) -> None:
            tasks.start_soon(task)

        peer.pace = Pace(receive, peer.pause, peer.resume)
        peer.pace.take(b"x")
    assert found == [False]


async def test_what_somebody_waits_for_is_held_up_less() -> None:
    peer = Peer()

    def receive(data: bytes) -> None:
        burn(LONG_STEP_S / 2)
        peer.pace.heed()

    peer.pace = Pace(receive, peer.pause, peer.resume)
    for _ in range(10):
        # Otherwise the sixth would be held up.
        assert not peer.is_paused
        peer.pace.take(b"x")


async def test_in_a_hurry_nobody_waits() -> None:
    peer = Peer(cost_s=TURN_S)
    peer.pace.take(LINE * 40)
    began_s = time.thread_time()
    peer.pace.hurry()
    await peer.may_be_read()
    # All of it has cost this much; with pauses it would have taken four times as long.
    assert time.thread_time() - began_s >= 38 * TURN_S
    assert len(peer.pieces) == 40


async def test_what_waits_can_be_had_at_once_and_comes_once() -> None:
    peer = Peer(cost_s=TURN_S)
    data = bytes(range(256)) * (4 * PORTION_BYTES // 256)
    peer.pace.take(data)
    peer.pace.flush()
    assert b"".join(peer.pieces) == data
    await peer.may_be_read()
    assert b"".join(peer.pieces) == data


async def test_after_the_end_nothing_happens_any_more() -> None:
    peer = Peer(cost_s=TURN_S)
    peer.pace.take(LINE * 4)
    peer.pace.end()
    await anyio.wait_all_tasks_blocked()
    assert len(peer.pieces) == 1
    assert peer.is_paused


@given(st.lists(st.binary(max_size=5 * PORTION_BYTES), max_size=8))
async def test_no_byte_is_lost_or_moved(chunks: list[bytes]) -> None:
    peer = Peer()
    for chunk in chunks:
        peer.pace.take(chunk)
        await peer.may_be_read()
    assert b"".join(peer.pieces) == b"".join(chunks)


@asynccontextmanager
async def pipe(
    received: Callable[[bytes], None],
) -> AsyncIterator[tuple[PipeReader, int, anyio.Event]]:
    """A reader, what writes to it, and its end."""
    reading, writing = os.pipe()
    ended = anyio.Event()
    reader = PipeReader(os.fdopen(reading, "rb", buffering=0), received, ended.set)
    try:
        yield reader, writing, ended
    finally:
        reader.close()


async def test_a_pipe_is_read_to_its_end() -> None:
    found = bytearray()
    async with pipe(found.extend) as (_, writing, ended):
        data = os.urandom(60_000)
        os.write(writing, data)
        os.close(writing)
        with anyio.fail_after(BOUND_S):
            await ended.wait()
    assert found == data


async def test_the_end_comes_after_all_that_was_written_however_dear_it_was() -> None:
    found: list[bytes] = []

    def receive(data: bytes) -> None:
        found.append(data)
        burn(TURN_S)

    async with pipe(receive) as (_, writing, ended):
        os.write(writing, b"x" * 20 * PORTION_BYTES)
        os.close(writing)
        with anyio.fail_after(BOUND_S):
            await ended.wait()
        assert len(b"".join(found)) == 20 * PORTION_BYTES


async def test_a_closed_reader_hands_over_what_it_has_and_says_no_more() -> None:
    found: list[bytes] = []
    read = anyio.Event()

    def receive(data: bytes) -> None:
        found.append(data)
        burn(TURN_S)
        read.set()

    async with pipe(receive) as (reader, writing, ended):
        os.write(writing, b"x" * 4 * PORTION_BYTES)
        with anyio.fail_after(BOUND_S):
            await read.wait()
        reader.close()
        reader.close()
        os.close(writing)
        await anyio.wait_all_tasks_blocked()
        assert len(b"".join(found)) == 4 * PORTION_BYTES
        assert not ended.is_set()
