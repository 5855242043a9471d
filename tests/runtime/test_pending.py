"""Which call an answer or a word of progress belongs to, however the server writes its number."""

from functools import partial

import pytest

from octave.runtime import wire
from octave.runtime.pending import Call, Outcome, Pending
from octave.runtime.questions import Caller

pytestmark = pytest.mark.anyio


class Waiting:
    """Three open calls, each with a token, under the ids 1, 2 and 3 of a link."""

    def __init__(self) -> None:
        self.pending = Pending(lambda _: None)
        self.outcomes: list[tuple[int, Outcome]] = []
        self.progress: list[bytes] = []
        for number in (1, 2, 3):
            done, caller = partial(self._ended, number), Caller(on_message=self.progress.append)
            call = Call("tools/call", 60.0, 60.0, done, caller, token=b'"t%d"' % number)
            self.pending.add(self.pending.next_id(), call)

    def _ended(self, number: int, outcome: Outcome) -> None:
        self.outcomes.append((number, outcome))

    def answer(self, identifier: bytes) -> Call | None:
        return self.pending.answered(wire.decode(wire.result(identifier, b"{}")))

    def tell(self, token: bytes) -> None:
        params = b'{"progressToken":%b}' % token
        self.pending.progressed(wire.decode(wire.notification("notifications/progress", params)))


@pytest.mark.parametrize("written", [b"2", b"2.0", b"2.00", b"2e0", b"0.2E1", b"20e-1"])
async def test_a_number_is_the_same_however_it_is_written(written: bytes) -> None:
    """As by libraries whose numbers are all floating-point."""
    waiting = Waiting()
    waiting.tell(written)
    assert [wire.member(line, "params", "progressToken") for line in waiting.progress] == [b'"t2"']
    assert waiting.answer(written) is not None
    assert [number for number, _ in waiting.outcomes] == [2]
    # Twice is once too often, and no fault either: it was one of ours.
    assert waiting.answer(b"2") is None
    assert (len(waiting.pending), waiting.pending.strays) == (2, 0)


@pytest.mark.parametrize(
    "written",
    [b'"2"', b"2.5", b"02", b"-2", b"null", b'""', b"1e400", b"9" * 5000, b"4", b"0", b'"\\ud800"'],
)
async def test_what_is_none_of_the_ids_is_counted_and_reaches_nobody(written: bytes) -> None:
    waiting = Waiting()
    message = wire.Message(b"", written, None, None, b"{}", None)
    assert waiting.pending.answered(message) is None
    assert waiting.outcomes == []
    assert (len(waiting.pending), waiting.pending.strays) == (3, 1)


@pytest.mark.parametrize("params", [b"{}", b'{"progressToken":null}', b'{"progressToken":[1]}'])
async def test_progress_without_a_token_reaches_nobody(params: bytes) -> None:
    waiting = Waiting()
    line = wire.notification("notifications/progress", params)
    waiting.pending.progressed(wire.decode(line))
    assert waiting.progress == []
    assert waiting.pending.strays == 1
