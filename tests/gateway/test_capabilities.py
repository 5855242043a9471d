"""What several servers can do is announced as if one could do it all."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from octave.gateway.capabilities import ALWAYS, DEPTH, union

LISTS: dict[str, Any] = json.loads(ALWAYS)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 2), st.just([]), st.text(max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def merged(*each: object) -> Any:
    return json.loads(union(json.dumps(one).encode() for one in each))


def paths(tree: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the paths of all members of an object."""
    if not isinstance(tree, dict):
        return {path}
    return {path}.union(*(paths(value, (*path, name)) for name, value in tree.items()))


def test_without_servers_the_lists_are_announced() -> None:
    assert merged() == LISTS


def test_members_of_all_are_announced_those_that_nobody_knows_too() -> None:
    one = {"logging": {}, "experimental": {"x": {"y": 1.0}}, "resources": {"subscribe": False}}
    two = {"completions": {}, "experimental": {"z": {}}, "resources": {"subscribe": True}}
    assert merged(one, two, {"own": [1]}) == {
        **LISTS,
        "resources": {"listChanged": True, "subscribe": True},
        "logging": {},
        "completions": {},
        "experimental": {"x": {"y": 1.0}, "z": {}},
        "own": [1],
    }


def test_numbers_and_odd_names_are_kept_as_they_came() -> None:
    assert union([b'{"a":{"n":1.0E2},"\\ud800":{"\\u0061":1}}']).endswith(
        b',"a":{"n":1.0E2},"\\ud800":{"a":1}}'
    )


def test_list_of_tasks_is_left_to_the_face_of_one_server() -> None:
    said: dict[str, Any] = {"tasks": {"list": {}, "cancel": {}}}
    assert merged(said)["tasks"] == {"cancel": {}}


def test_what_announces_nothing_takes_nothing_away() -> None:
    assert merged([1], "x", None, {"a": True}) == {**LISTS, "a": True}


def test_nesting_without_end_is_passed_on_as_it_came() -> None:
    deep = b'{"a":' * (DEPTH + 400) + b"1" + b"}" * (DEPTH + 400)
    assert union([deep, deep]).endswith(b",%b}" % deep[1:-1])


@given(st.lists(OBJECTS, max_size=4))
def test_nothing_that_a_server_announces_is_lost(servers: list[dict[str, Any]]) -> None:
    found = paths(merged(*servers))
    for server in servers:
        for name, value in server.items():
            assert (name,) in found
            if value is True:
                assert merged(*servers)[name] is True


@given(OBJECTS)
def test_one_alone_announces_what_it_has(server: dict[str, Any]) -> None:
    assert merged(server) == {**LISTS, **server}
