"""Definitions keep every byte but their name; the way back is a table."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.gateway.listing import Listing, listing
from octave.packages.offered import Offered


def of(server: str = "s", **lists: tuple[bytes, ...]) -> Listing:
    return listing(server, Offered(b"{}", lists))


def test_definition_changes_in_its_name_alone() -> None:
    raw = b'{ "inputSchema":{"x":[1.10,1E2, -0],"name":"inner"} , "name" :\t"read.file","z":null}'
    (key,) = of(tools=(raw,)).tools
    (entry,) = of(tools=(raw,)).tools[key]
    assert entry.definition == raw.replace(b'"read.file"', b'"%b"' % key.encode())
    assert (entry.server, entry.name, entry.name_json) == ("s", "read.file", b'"read.file"')


def test_escaped_name_goes_back_to_the_server_as_it_was_written() -> None:
    ((entry,),) = of(tools=(b'{"name":"caf\\u00e9 \\ud800"}',)).tools.values()
    assert entry.name_json == b'"caf\\u00e9 \\ud800"'


def test_tool_listed_twice_is_listed_once_as_first_defined() -> None:
    found = of(tools=(b'{"name":"a","n":1}', b'{"name":"a","n":2}'))
    assert found.tools["s__a"][0].definition == b'{"name":"s__a","n":1}'
    assert len(found.tools["s__a"]) == 1


def test_two_names_that_become_the_same_are_both_kept_as_a_collision() -> None:
    (changed,) = of(tools=(b'{"name":"a.b"}',)).tools
    twin = changed.removeprefix("s__")
    found = of(tools=(b'{"name":"a.b"}', b'{"name":"%b"}' % twin.encode()))
    assert [entry.name for entry in found.tools[changed]] == ["a.b", twin]


@pytest.mark.parametrize("item", [b"null", b"7", b"[]", b"{}", b'{"name":null}', b'{"name":1}'])
def test_item_without_a_usable_name_takes_only_itself_away(item: bytes) -> None:
    found = of(tools=(item, b'{"name":"good"}'))
    assert list(found.tools) == ["s__good"]
    assert found.broken == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "uri", "x"]), inner),
)


@given(item=JSON, ascii_only=st.booleans())
def test_no_item_a_server_can_send_is_an_error(item: object, *, ascii_only: bool) -> None:
    raw = json.dumps(item, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    named = isinstance(item, dict) and isinstance(item.get("name"), str)
    assert len(of(tools=(raw,)).tools) == named


def test_prompts_and_resources_have_their_own_tables() -> None:
    found = of(
        prompts=(b'{"name":"greet"}',),
        resources=(b'{"uri":"a://1"}', b'{"uri":"a://2"}'),
    )
    assert list(found.prompts) == ["s__greet"]
    assert not found.tools
    assert found.resources == {"a://1", "a://2"}


@pytest.mark.parametrize(
    ("template", "uri", "fits"),
    [
        ("a://{id}/data", "a://7/data", True),
        ("a://{id}/data", "a://7/other", False),
        ("a://{id}/data", "b://7/data", False),
        ("file:///{+path}", "file:///x/y/z", True),
        ("a://fixed", "a://fixed", True),
        ("a://fixed", "a://fixed2", False),
        ("a://{x}-{y}", "a://1-2", True),
        ("a://{x}-{y}", "a://12", False),
        ("aa{x}aa", "aaa", False),
    ],
)
def test_template_fits_the_uris_it_can_make(template: str, uri: str, *, fits: bool) -> None:
    found = of(resourceTemplates=(b'{"uriTemplate":"%b"}' % template.encode(),))
    assert found.has_template_for(uri) is fits


def test_template_made_to_be_slow_is_matched_in_linear_time() -> None:
    template = "{x}a" * 1000
    found = of(resourceTemplates=(b'{"uriTemplate":"%b!"}' % template.encode(),))
    assert not found.has_template_for("a" * 100_000)
