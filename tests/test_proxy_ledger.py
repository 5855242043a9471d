"""What the proxy remembers: ids found without decoding, and what another runtime is told."""

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from octave.proxy_ledger import Ledger, envelope

LOST = "the runtime ended before it answered; outcome unknown"

TEXTS = st.one_of(
    st.sampled_from(["id", "method", "result", '"id":1', '\\"id', ',"id":5}', "}", "{", "ü", "\\"]),
    st.text(max_size=8),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
IDS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
NESTED = st.recursive(
    st.one_of(IDS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Return requests, notifications and answers, their members in any order."""
    members: dict[str, Any] = {}
    if draw(st.booleans()):
        members["jsonrpc"] = "2.0"
    if draw(st.booleans()):
        members["id"] = draw(IDS)
    if draw(st.booleans()):
        members["method"] = draw(st.one_of(st.just("tools/call"), TEXTS))
        members["params"] = draw(NESTED)
    else:
        members[draw(st.sampled_from(["result", "error"]))] = draw(NESTED)
    extra = draw(st.dictionaries(TEXTS.filter(lambda key: key not in members), NESTED, max_size=2))
    for key in ("id", "method", "result", "error"):
        extra.pop(key, None)
    ordered = draw(st.permutations(list((members | extra).items())))
    return dict(ordered)


@given(messages(), st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]), st.booleans())
def test_id_and_method_are_those_that_a_parser_finds(
    message: dict[str, Any],
    separators: tuple[str, str],
    ascii_only: bool,
) -> None:
    line = json.dumps(message, separators=separators, ensure_ascii=ascii_only)
    found = envelope(line.encode("utf-8", "surrogatepass"))
    for name, text in zip(("id", "method"), found, strict=True):
        expected = None
        if name in message:
            dumped = json.dumps(message[name], ensure_ascii=ascii_only)
            expected = dumped.encode("utf-8", "surrogatepass")
        assert text == expected


@given(st.binary(max_size=60), st.sampled_from([b"", b'{"id":', b'{"id":1,"method":"x",', b"[{"]))
def test_what_is_no_message_does_no_harm(rest: bytes, begin: bytes) -> None:
    ledger = Ledger()
    say(ledger, begin + rest + b"\n")
    ledger.hear(begin + rest + b"\n")
    ledger.lost()


@given(
    st.lists(st.one_of(st.integers(0, 5), TEXTS), max_size=8),
    st.lists(st.one_of(st.integers(0, 5), TEXTS), max_size=8),
    st.integers(1, 50),
)
def test_whatever_the_pieces_every_request_is_answered_once(
    asked: list[Any], answered: list[Any], size: int
) -> None:
    ledger = Ledger()
    requests = b"".join(
        line({"method": "tools/call", "params": {"id": 3}, "id": each}) for each in asked
    )
    for start in range(0, len(requests), size):
        say(ledger, requests[start : start + size])
    left = [json.dumps(each) for each in asked]
    answers = b"".join(line({"result": {"id": 4}, "id": each}) for each in answered)
    heard = b"".join(
        ledger.hear(answers[start : start + size]) for start in range(0, len(answers), size)
    )
    assert heard == answers
    for each in map(json.dumps, answered):
        if each in left:
            left.remove(each)
    lost = [json.loads(each) for each in ledger.lost().splitlines()]
    assert sorted(json.dumps(each["id"]) for each in lost) == sorted(left)
    assert all(each["error"]["message"] == LOST for each in lost)
    assert ledger.lost() == b""


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def say(ledger: Ledger, piece: bytes) -> None:
    """Let the client say `piece` and the runtime take all of it."""
    ledger.say(piece)
    ledger.send(len)


def asks(identifier: object, method: str = "tools/call", **params: object) -> bytes:
    return line({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})


def answers(identifier: object, **result: object) -> bytes:
    return line({"jsonrpc": "2.0", "id": identifier, "result": result})


def test_a_request_of_the_server_with_the_id_of_an_open_one_is_no_answer() -> None:
    ledger = Ledger()
    say(ledger, asks(1))
    ledger.hear(asks(1, "sampling/createMessage"))
    ledger.hear(line({"method": "elicitation/create", "params": {"result": 1}, "id": 1}))
    assert json.loads(ledger.lost())["id"] == 1


def test_an_answer_of_the_client_opens_nothing() -> None:
    ledger = Ledger()
    say(ledger, answers(1, method="x") + line({"result": {"method": "y"}, "id": 2}))
    assert ledger.lost() == b""


def test_an_id_is_given_back_in_the_text_it_came_in() -> None:
    ledger = Ledger()
    ids = [b"1.50e1", b'"\\u00e9"', b'"\xc3\xa9"', b"-0"]
    for each in ids:
        say(ledger, b'{"method":"x","params":{"id":1},"id": %b }\n' % each)
    lost = ledger.lost().splitlines()
    assert [each.split(b'"id":')[1].split(b',"error"')[0] for each in lost] == ids


def test_a_cancelled_request_is_not_waited_for() -> None:
    ledger = Ledger()
    say(ledger, asks(1) + asks("a"))
    cancelled = {"requestId": "a", "reason": 'said "requestId":1'}
    say(ledger, line({"method": "notifications/cancelled", "params": cancelled}))
    assert json.loads(ledger.lost())["id"] == 1


def test_of_a_line_taken_in_part_the_whole_is_unsent_again() -> None:
    ledger = Ledger()
    lines = asks(1) + asks(2)
    ledger.say(lines)
    ledger.send(lambda unsent: len(unsent) - 3)
    assert ledger.unsent_bytes == 3
    assert json.loads(ledger.lost())["id"] == 1
    taken = io.BytesIO()
    ledger.send(taken.write)
    assert taken.getvalue() == asks(2)


def test_an_endless_line_does_not_fill_the_memory() -> None:
    ledger = Ledger()
    for _ in range(40):
        say(ledger, b"x" * 2**20)
    ledger.lost()
    assert ledger.unsent_bytes < 34 * 2**20


def test_another_runtime_is_told_the_handshake_the_log_level_and_the_subscriptions() -> None:
    ledger = Ledger()
    told = [
        asks(0, "initialize", capabilities={}),
        line({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        asks(3, "logging/setLevel", level="debug"),
        asks(4, "resources/subscribe", uri="a"),
    ]
    say(ledger, told[0] + told[1] + asks(1, "logging/setLevel", level="info") + told[2])
    say(ledger, told[3] + asks(5, "resources/subscribe", uri="initialize"))
    say(ledger, asks(6, "resources/unsubscribe", uri="initialize") + asks(7))
    passed = b"".join(map(answers, range(8)))
    assert ledger.hear(passed) == passed
    assert ledger.lost() == b""
    for _ in range(2):
        assert ledger.anew() == b"".join(told)
        assert ledger.hear(answers(0)[:9]) == b""
        assert ledger.hear(answers(0)[9:] + answers(3) + answers(8)) == answers(8)
        ledger.lost()


def test_a_subscription_in_flight_is_answered_with_an_error_and_not_repeated() -> None:
    ledger = Ledger()
    say(ledger, asks(4, "resources/subscribe", uri="a"))
    assert json.loads(ledger.lost())["id"] == 4
    assert ledger.anew() == b""


def test_the_lists_that_changed_are_those_the_handshake_promised() -> None:
    ledger = Ledger()
    say(ledger, asks(0, "initialize"))
    assert ledger.news() == b""
    ledger.hear(answers(0, capabilities={"tools": {}, "prompts": {}}, instructions='"resources"'))
    methods = [json.loads(each)["method"] for each in ledger.news().splitlines()]
    assert methods == ["notifications/tools/list_changed", "notifications/prompts/list_changed"]


def test_ids_without_answers_do_not_fill_the_memory() -> None:
    ledger = Ledger()
    long = "x" * 2**20
    for number in range(8):
        say(ledger, asks(f"{number}{long}"))
    lost = [json.loads(each)["id"][0] for each in ledger.lost().splitlines()]
    assert lost == ["5", "6", "7"]
