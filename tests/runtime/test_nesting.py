import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.runtime.nesting import is_deeper, pruned

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{}"\\a,', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('[{"\\', max_size=2), inner, max_size=3)
    ),
)


def levels_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels_of, value.values()), default=0)
    return 1 + max(map(levels_of, value), default=0) if isinstance(value, list) else 0


def cut(value: object, levels: int) -> object:
    if isinstance(value, dict):
        return {key: cut(part, levels - 1) for key, part in value.items()} if levels else None
    if isinstance(value, list):
        return [cut(part, levels - 1) for part in value] if levels else None
    return value


@given(value=JSON, levels=st.integers(0, 5))
def test_depth_is_that_of_a_parser_and_pruning_cuts_there_alone(value: object, levels: int) -> None:
    text = json.dumps(value).encode()
    assert is_deeper(text, levels) is (levels_of(value) > levels)
    assert json.loads(pruned(text, levels)) == cut(value, levels)


def test_text_that_is_not_too_deep_keeps_every_byte() -> None:
    text = b' {"a" : [1.10, "]\\"}{"],"b":\t{} }\n'
    assert pruned(text, 2) == text


@pytest.mark.parametrize(
    "deep", [b"[" * 10**5 + b"]" * 10**5, b'{"a":' * 10**5 + b"1" + b"}" * 10**5]
)
def test_no_depth_is_too_deep(deep: bytes) -> None:
    text = b'[%b,"after"]' % deep
    assert is_deeper(text, 200)
    assert json.loads(pruned(text, 1)) == [None, "after"]
    assert not is_deeper(pruned(text, 200), 200)


@pytest.mark.parametrize("text", [b"", b"]", b"[[", b'"[', b"]][[", b'[["'])
def test_text_that_is_no_json_is_no_error(text: bytes) -> None:
    assert not is_deeper(text, 9)
    pruned(text, 1)
