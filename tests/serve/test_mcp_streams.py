import anyio
import pytest

from octave.serve import sse
from octave.serve.sse import Stream

pytestmark = pytest.mark.anyio


async def numbers(stream: Stream, after: int | None = None) -> list[int]:
    """What a reader is given until the end."""
    reader = stream.attach(after)
    found = []
    with anyio.fail_after(5):
        while (event := await reader.next()) is not None:
            found.append(event.number)
    return found


async def test_events_come_in_order_and_the_answer_ends_the_stream() -> None:
    stream = Stream("7")
    reader = stream.attach()
    stream.put(b"one")
    stream.put(b"two", is_answer=True)
    stream.put(b"late")
    first, second = await reader.next(), await reader.next()
    assert first is not None
    assert second is not None
    assert (first.line, first.is_answer) == (b"one", False)
    assert (second.line, second.is_answer) == (b"two", True)
    assert await reader.next() is None


async def test_a_reader_waits_for_what_is_still_to_come() -> None:
    stream = Stream("7")
    reader = stream.attach()
    async with anyio.create_task_group() as tasks:

        async def read() -> None:
            event = await reader.next()
            assert event is not None
            assert event.line == b"x"

        tasks.start_soon(read)
        await anyio.lowlevel.checkpoint()
        stream.put(b"x")


async def test_an_event_is_one_line_with_an_id() -> None:
    stream = Stream("7")
    assert not stream.is_resumable
    assert stream.encode(sse.Event(3, b'{"a":\r1}')) == (
        b'id: 7-3\nevent: message\ndata: {"a": 1}\n\n'
    )
    assert stream.is_resumable


async def test_without_a_name_there_are_no_ids() -> None:
    stream = Stream()
    assert stream.encode(sse.Event(3, b"{}")) == b"event: message\ndata: {}\n\n"
    assert not stream.is_resumable


async def test_the_first_event_can_be_one_to_come_back_with() -> None:
    stream = Stream("7")
    assert stream.prime() == b"id: 7-0\nretry: 1000\ndata:\n\n"
    assert stream.is_resumable


async def test_what_was_read_can_be_read_again() -> None:
    stream = Stream("7")
    for number in range(4):
        stream.put(b"%d" % number)
    stream.end()
    assert await numbers(stream) == [1, 2, 3, 4]
    assert await numbers(stream) == []
    assert await numbers(stream, 2) == [3, 4]
    assert await numbers(stream, 99) == []


async def test_a_second_reader_takes_over() -> None:
    stream = Stream("7")
    first = stream.attach()
    second = stream.attach()
    stream.put(b"x")
    assert await first.next() is None
    assert (await second.next()) is not None
    first.close()
    assert stream.has_reader
    second.close()
    assert not stream.has_reader


async def test_of_what_nobody_reads_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "KEPT_BYTES", 10)
    stream = Stream("0")
    for number in range(8):
        stream.put(b"%03d" % number)
    assert stream.size_bytes == 9
    stream.put(b"x" * 100)
    assert stream.size_bytes == 100
    stream.end()
    assert await numbers(stream) == [9]


async def test_of_what_was_read_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEPT_BYTES", 10)
    stream = Stream("0")
    reader = stream.attach()
    for number in range(20):
        stream.put(b"%03d" % number)
    assert stream.size_bytes == 60
    for _ in range(20):
        await reader.next()
    assert stream.size_bytes == 9
    reader.close()
    stream.end()
    assert await numbers(stream, 0) == [18, 19, 20]


async def test_without_a_name_nothing_that_was_read_is_kept() -> None:
    stream = Stream()
    reader = stream.attach()
    for _ in range(20):
        stream.put(b"x")
        await reader.next()
    assert stream.size_bytes == 1


async def test_a_reader_too_far_behind_is_cut_and_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "KEPT_BYTES", 10)
    monkeypatch.setattr(sse, "CUT_AFTER_BYTES", 20)
    stream = Stream("0")
    reader = stream.attach()
    cut = anyio.Event()
    reader.on_cut = cut.set
    stream.put(b"x" * 100)
    assert not cut.is_set(), "one message always fits"
    stream.put(b"y")
    assert cut.is_set()
    assert await reader.next() is None
    stream.put(b"z", is_answer=True)
    assert await numbers(stream) == [2, 3]
