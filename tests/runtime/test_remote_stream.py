"""What of a stream of events is a message, and what the SDK sees of it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from octave.runtime import wire
from octave.runtime.remote_stream import DONE, EventStream, messages
from octave.runtime.wire import Oversize

LIMIT_BYTES = 1000
NOTIFICATION = b'{"jsonrpc":"2.0","method":"n"}'
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class Heard:
    def __init__(self) -> None:
        self.lines: list[bytes | Oversize] = []
        self.events: list[tuple[bytes, bytes]] = []
        self.stream = EventStream(LIMIT_BYTES, self._message, self._event)

    def _message(self, line: bytes | Oversize) -> bool:
        self.lines.append(line)
        return isinstance(line, bytes) and b"result" in line

    def _event(self, name: bytes, data: bytes) -> bool:
        self.events.append((name, data))
        return True


def heard(text: bytes) -> tuple[Heard, bytes]:
    found = Heard()
    return found, found.stream.feed(text)


def test_an_answer_is_seen_as_done_and_nothing_is_seen_of_the_rest() -> None:
    found, seen = heard(b"data: %b\n\ndata: %b\n\n" % (NOTIFICATION, ANSWER))
    assert found.lines == [NOTIFICATION, ANSWER]
    assert seen == b"data: " + DONE + b"\n\n"


def test_ids_and_delays_are_seen_so_that_the_stream_can_be_resumed() -> None:
    _, seen = heard(b"id: 7\nretry: 500\ndata: %b\n\nid: 8\ndata:\n\n" % NOTIFICATION)
    assert seen == b"id: 7\nretry: 500\n\nid: 8\n\n"


def test_of_ids_and_delays_in_one_event_the_last_ones_count() -> None:
    _, seen = heard(b"id: 1\nretry: 200\nid: 2\nretry: 300\nid: 3\n\n")
    assert seen == b"id: 3\nretry: 300\n\n"


def test_data_of_several_lines_is_one_message_on_one_line() -> None:
    pretty = json.dumps(json.loads(ANSWER), indent=1).encode()
    found, _ = heard(b"".join(b"data: %b\n" % line for line in pretty.split(b"\n")) + b"\n")
    (line,) = found.lines
    assert isinstance(line, bytes)
    assert b"\n" not in line
    assert json.loads(line) == json.loads(ANSWER)


def test_other_events_pass() -> None:
    found, seen = heard(b": hello\nevent: endpoint\ndata: /m?s=1\n\nevent: message\ndata: {}\n")
    assert found.events == [(b"endpoint", b"/m?s=1")]
    assert seen == b"event: endpoint\ndata: /m?s=1\n\n"


def test_what_is_over_the_limit_is_dropped_but_for_both_ends() -> None:
    long = b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"x" * 2 * LIMIT_BYTES)
    found, _ = heard(b"data: %b\n\ndata: %b\n\n" % (long, ANSWER))
    cut, line = found.lines
    assert isinstance(cut, Oversize)
    assert wire.scan_id(cut.head) == b"1"
    assert line == ANSWER


def test_many_lines_together_may_be_over_the_limit_too() -> None:
    found, _ = heard(b"data: %b\n" % (b" " * 99) * 50 + b"\ndata: %b\n\n" % ANSWER)
    assert isinstance(found.lines[0], Oversize)
    assert found.lines[1:] == [ANSWER]


def test_many_empty_lines_together_are_over_the_limit_too() -> None:
    found, _ = heard(b"data:\n" * (LIMIT_BYTES + 2) + b"\ndata: %b\n\n" % ANSWER)
    assert isinstance(found.lines[0], Oversize)
    assert found.lines[1:] == [ANSWER]


def test_a_message_may_be_as_long_as_the_limit() -> None:
    message = b'{"jsonrpc":"2.0","id":1,"result":"%b"}'
    message %= b"x" * (LIMIT_BYTES - len(message) + 2)
    found, _ = heard(b"data: %b\n\n" % message)
    assert (len(message), found.lines) == (LIMIT_BYTES, [message])


_FIELDS = st.sampled_from(
    [b"data: " + NOTIFICATION, b"data:" + ANSWER, b"id: 1", b"event: x", b"", b"", b": note"]
)


@given(st.lists(_FIELDS), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
def test_neither_the_cuts_nor_the_ends_of_lines_matter(
    lines: list[bytes], newline: bytes, data: Any
) -> None:
    whole, seen = heard(b"".join(line + b"\n" for line in lines))
    text = b"".join(line + newline for line in lines)
    pieces, seen_of_pieces, position = Heard(), b"", 0
    while position < len(text):
        size = data.draw(st.integers(1, len(text)))
        seen_of_pieces += pieces.stream.feed(text[position : position + size])
        position += size
    assert (pieces.lines, pieces.events, seen_of_pieces) == (whole.lines, whole.events, seen)


def test_a_batch_is_taken_apart() -> None:
    assert messages(b"[%b,\r\n%b]" % (ANSWER, NOTIFICATION)) == [ANSWER, NOTIFICATION]
    assert messages(b" \n" + ANSWER) == [ANSWER]
