import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octave.runtime import json_text, wire
from octave.runtime.wire import (
    Framer,
    Malformed,
    Oversize,
    decode,
    elements,
    member,
    rewrite,
    splice,
)

LIMIT = 1000


def whole(framer: Framer, *chunks: bytes) -> list[bytes | Oversize]:
    return [line for chunk in chunks for line in framer.feed(chunk)]


# Framing


@given(
    st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line)),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_lines_are_the_same_however_the_bytes_are_cut(lines, sizes):
    stream = b"".join(line + b"\n" for line in lines)
    framer, found, position = Framer(LIMIT), [], 0
    while position < len(stream):
        for size in sizes:
            found += framer.feed(stream[position : position + size])
            position += size
    expected = [line.removesuffix(b"\r") for line in lines]
    assert found == [line for line in expected if line]
    assert framer.end() == b""


def test_only_newlines_end_a_line():
    line = "a\u2028b\u2029c\u0085d\x0be\x0cf".encode()
    assert Framer(LIMIT).feed(line + b"\r\n\n" + b"g\rh\n") == [line, b"g\rh"]


def test_the_unterminated_rest_is_kept_for_the_log():
    framer = Framer(LIMIT)
    assert framer.feed(b"one\ntw") == [b"one"]
    assert framer.end() == b"tw"
    assert framer.feed(b"three\n") == [b"three"]


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_row_20_a_line_over_the_limit_is_reported_once_and_the_next_one_is_read(chunk):
    stream = b"first\n" + b"x" * (LIMIT + 1) + b"\n" + b"y" * LIMIT + b"\nlast\n"
    framer = Framer(LIMIT)
    chunks = (stream[at : at + chunk] for at in range(0, len(stream), chunk))
    found = whole(framer, *chunks)
    assert found == [b"first", Oversize(b"x" * (LIMIT + 1), LIMIT + 1), b"y" * LIMIT, b"last"]


def test_row_20_a_hundred_megabytes_without_newline_take_bounded_memory():
    framer, chunk = Framer(2**20), b"z" * 2**16
    tracemalloc.start()
    for _ in range(1600):
        assert framer.feed(chunk) == []
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert framer.feed(b"\n") == [Oversize(b"z" * wire.HEAD_BYTES, 1600 * 2**16)]
    assert peak_bytes < 3 * 2**20


# Envelopes


def test_a_request_shows_its_envelope_and_keeps_its_text():
    line = b'{ "jsonrpc":"2.0","id":"a\\u0031","method":"m","params":{"b":1.10,"a":1E2}}'
    message = decode(line)
    assert (message.line, message.id, message.method) == (line, b'"a\\u0031"', "m")
    assert message.params == b'{"b":1.10,"a":1E2}'
    assert message.is_request
    assert not message.is_notification
    assert not message.is_answer


def test_notifications_and_answers_are_told_apart():
    assert decode(b'{"jsonrpc":"2.0","method":"m"}').is_notification
    assert decode(b'{"jsonrpc":"2.0","id":0,"result":null}').result == b"null"
    answer = decode(b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"","x":2}}')
    assert answer.is_answer
    assert (answer.id, answer.error) == (b"null", b'{"code":1,"message":"","x":2}')


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", wire.PARSE_ERROR),
        (b"Listening...", wire.PARSE_ERROR),
        (b"{not json}", wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"result":NaN}', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"result":[Infinity]}', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"result":1}x', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"resu', wire.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 10_000 + b"]" * 10_000 + b"}", -32700),
        (b"42", wire.INVALID_REQUEST),
        (b"null", wire.INVALID_REQUEST),
        (b'["\\ud800"]', wire.INVALID_REQUEST),
        (b'[{"jsonrpc":"2.0","method":"m"}]', wire.INVALID_REQUEST),
        (b'{"level":"info","method":"GET"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","method":"m"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":7}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","method":7,"x":"\\ud800"}', wire.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":{},"method":"m"}', wire.INVALID_REQUEST),
    ],
)
def test_what_is_no_message_is_refused_with_the_code_it_deserves(line, code):
    with pytest.raises(Malformed) as refused:
        decode(line)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "value",
    [
        b'"\\ud800"',
        b'{"\\udfff":["\\ud800",1.10]}',
        b"1e400",
        b"7" * 5000,
        b"-0.0",
        '"a\u2028\u0085b"'.encode(),
        b"[" * 200 + b"]" * 200,
    ],
)
def test_extreme_values_pass_as_the_text_they_came_in(value):
    line = b'{"jsonrpc":"2.0","id":1,"result":' + value + b"}"
    message = decode(line)
    assert (message.line, message.id, message.result) == (line, b"1", value)
    renamed = splice(line, {("id",): b'"\\ud800"'})
    assert renamed == b'{"jsonrpc":"2.0","id":"\\ud800","result":' + value + b"}"


def test_a_number_of_digits_python_refuses_passes_beside_a_lone_surrogate():
    line = b'{"jsonrpc":"2.0","id":1,"result":["\\ud800",' + b"7" * 5000 + b"]}"
    assert decode(line).line == line


def test_a_byte_order_mark_is_dropped_and_bytes_that_are_no_text_are_replaced():
    message = decode(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"result":"\xff\xed\xa0\x80"}')
    assert message.line.decode() == '{"jsonrpc":"2.0","id":1,"result":"\ufffd\ufffd\ufffd\ufffd"}'


def test_of_members_given_twice_the_last_counts():
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b","id":22}')
    assert (message.id, message.method) == (b"22", "b")
    assert member(b'{"a":{"b":1},"a":{"b":2,"b":{"c":3}}}', "a", "b", "c") == b"3"


# Splicing


def test_only_the_values_named_are_replaced():
    text = (
        b'\t{ "jsonrpc" : "2.0" ,"id":7,"method":"tools/call", "x":"id","params":{"name": "echo",'
        b'"arguments":{"name":"no","id":1E2},"_meta":{"a":[1, 2],"progressToken" : 3 }} } '
    )
    changes = {
        ("id",): b"12",
        ("params", "name"): b'"other"',
        ("params", "_meta", "progressToken"): b'"tok"',
    }
    assert splice(text, changes) == (
        b'\t{ "jsonrpc" : "2.0" ,"id":12,"method":"tools/call", "x":"id","params":{"name": "other",'
        b'"arguments":{"name":"no","id":1E2},"_meta":{"a":[1, 2],"progressToken" : "tok" }} } '
    )


def test_a_member_given_twice_is_replaced_each_time():
    text = b'{"id":1,"id":12,"params":{"name":"a"},"params":{"x":1,"name":"b","n\\u0061me":"c"}}'
    assert splice(text, {("id",): b"9", ("params", "name"): b"0"}) == (
        b'{"id":9,"id":9,"params":{"name":0},"params":{"x":1,"name":0,"n\\u0061me":0}}'
    )


def test_twins_of_misleading_lengths_are_told_apart():
    text = b'{"a":"x\\",\\"id\\":1,\\"b\\":\\"","id":5,"a":"x\\",\\"id\\":1"}'
    assert splice(text, {("id",): b"6"}) == text.replace(b'"id":5', b'"id":6')


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b"1", b'{"a":{}}', b'{"a":[{"b":1}]}', b'{"b":1}', b'{"a":"\\ud800"}']
)
def test_a_missing_path_is_an_error(text):
    with pytest.raises(KeyError):
        splice(text, {("a", "b"): b"1"})
    assert member(text, "a", "b") is None


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(st.sampled_from('ab"\\{}[],:é\u2028'), max_size=3), inner),
    ),
    max_leaves=12,
)
raw_scalars = st.one_of(
    scalars.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"1E2", b"1e400", b"-0", b'"\\ud800"', b'"\\u0041"', b"1.10", b"9" * 400]),
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """An object as JSON text with odd spacing, escapes, twins and values."""
    names = st.sampled_from(['"id"', '"params"', '"i\\u0064"', '"x"', '"\\ud800"', '"é"'])
    space = st.sampled_from(["", " ", "\t", "\r", " \n"])
    ascii_only = draw(st.booleans())

    def value() -> str:
        if draw(st.booleans()):
            return draw(raw_scalars).decode()
        return json.dumps(draw(values), ensure_ascii=ascii_only)

    members = [
        f"{draw(space)}{draw(names)}{draw(space)}:{draw(space)}{value()}{draw(space)}"
        for _ in range(draw(st.integers(0, 5)))
    ]
    return ("{" + ",".join(members) + "}").encode("utf-8", "replace")


@given(texts(), raw_scalars)
@example(b'{"id":1,"id":12}', b"3")
def test_a_splice_changes_the_value_and_no_other_byte(text, new):
    pairs = json.loads(text, object_pairs_hook=list)
    if not any(key == "id" for key, _ in pairs):
        with pytest.raises(KeyError):
            splice(text, {("id",): new})
        return
    changed = splice(text, {("id",): new})
    expected = [(key, json.loads(new) if key == "id" else value) for key, value in pairs]
    assert json.loads(changed, object_pairs_hook=list) == expected
    assert member(changed, "id") == new
    # Putting back what stood there gives the bytes back.
    olds = [text[start:end] for key, start, end in json_text.members(text) if key == "id"]
    if len(set(olds)) == 1:
        assert splice(changed, {("id",): olds[0]}) == text


@given(texts(), st.sampled_from([(), ("params", "name"), ("_meta",)]))
@example(b'{"id":1,"id":12}', ())
@example(b'{"id" : 1,"params":{"id":1,"name":"a","name":"b"}}', ("params", "name"))
@example(b'{"params":{"x\\"id":1},"id":1}', ())
@example(b'{"\\u0069d":1,"params":{"id":1}}', ())
@example(b'{"id":1,"params":{"name":"%b"}}' % (b"x" * json_text.SHORT_BYTES), ("params", "name"))
def test_a_rewritten_message_is_its_line_spliced(text, path):
    try:
        message = decode(b'{"jsonrpc":"2.0","method":"m",%b' % text.lstrip()[1:])
    except Malformed:
        return
    changes = {("id",): b"7"} | ({path: b'"c"'} if path else {})
    try:
        expected = splice(message.line, changes)
    except KeyError:
        with pytest.raises(KeyError):
            rewrite(message, changes)
    else:
        assert rewrite(message, changes) == expected


@given(texts())
def test_members_and_elements_are_pieces_of_the_text(text):
    for key, value in dict(json.loads(text, object_pairs_hook=list)).items():
        raw = member(text, key)
        assert raw is not None
        assert raw in text
        assert json.loads(raw, object_pairs_hook=list) == value


def test_elements_of_an_array_keep_their_text():
    assert elements(b'[ {"b":1, "a":1.10} ,2,"]" ]') == [b'{"b":1, "a":1.10}', b"2", b'"]"']
    assert elements(b' [ {"a":"\\ud800"} , [1,[2]],"," ,3 ]') == [
        b'{"a":"\\ud800"}',
        b"[1,[2]]",
        b'","',
        b"3",
    ]
    assert elements(b'{"a":["\\ud800"]}') == []
    assert elements(b"[]") == elements(b"{}") == elements(b"null") == []


def test_a_large_argument_passes_whole():
    argument = json.dumps([{"key": index, "text": f"value {index}"} for index in range(40_000)])
    text = b'{"id":1,"params":{"name":"a","arguments":%b}}' % argument.encode()
    changed = splice(text, {("id",): b"22", ("params", "name"): b'"b"'})
    assert changed == text.replace(b'"id":1', b'"id":22').replace(b'"name":"a"', b'"name":"b"')


# Broken lines


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":12,"result":{"content":["xxxx', b"12"),
        (b'{"jsonrpc":"2.0","id":"a","result":\xff garbage', b'"a"'),
        (b'{"jsonrpc":"2.0","id":1', None),
        (b'{"jsonrpc":"2.0","id":1,"method":"m","params":"xx', None),
        (b'{"result":"xxxx', None),
        (b"DEBUG: handling call", None),
    ],
)
def test_the_id_of_a_broken_answer_is_found_where_it_shows(head, expected):
    assert wire.scan_id(head) == expected


# Building


def test_lines_are_built_compact_from_raw_parts():
    assert wire.request(3, "a/b", b"{}") == b'{"jsonrpc":"2.0","id":3,"method":"a/b","params":{}}'
    assert wire.request(b'"x"', 'q"') == b'{"jsonrpc":"2.0","id":"x","method":"q\\""}'
    assert wire.notification("n", b"[1]") == b'{"jsonrpc":"2.0","method":"n","params":[1]}'
    assert wire.result(b"0", b"{}") == b'{"jsonrpc":"2.0","id":0,"result":{}}'
    assert wire.error(None, -32700, 'no "x"', b"[1]") == (
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no \\"x\\"","data":[1]}}'
    )
