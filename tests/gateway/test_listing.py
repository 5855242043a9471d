"""Definitions keep every byte but their name; the way back is a table."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.gateway.listing import Listing, listing
from octave.packages.offered import Offered


def tool(name: bytes) -> bytes:
    """A definition; more members may follow the name."""
    return b'{"inputSchema":{"type":"object"},"name":%b}' % name


def of(server: str = "s", **lists: tuple[bytes, ...]) -> Listing:
    return listing(server, Offered(b"{}", lists))


def test_definition_changes_in_its_name_alone() -> None:
    schema = b'{"x":[1.10,1E2, -0],"name":"inner","type" : "object"}'
    raw = b'{ "inputSchema":%b , "name" :\t"read.file","z":null}' % schema
    (key,) = of(tools=(raw,)).tools
    (entry,) = of(tools=(raw,)).tools[key]
    assert entry.definition == raw.replace(b'"read.file"', b'"%b"' % key.encode())
    assert (entry.server, entry.name, entry.name_json) == ("s", "read.file", b'"read.file"')


def test_escaped_name_goes_back_to_the_server_as_it_was_written() -> None:
    ((entry,),) = of(tools=(b'{"name":"caf\\u00e9 \\ud800"}',)).tools.values()
    assert entry.name_json == b'"caf\\u00e9 \\ud800"'


def test_tool_listed_twice_is_listed_once_as_first_defined() -> None:
    found = of(tools=(tool(b'"a","n":1'), tool(b'"b"'), tool(b'"a","n":2'), tool(b'"a"')))
    assert list(found.definitions("tools")) == [tool(b'"s__a","n":1'), tool(b'"s__b"')]
    assert len(found.tools["s__a"]) == 1
    assert found.problems == dict.fromkeys((2, 3), "an earlier tool has its name")
    assert found.warnings == ("tool `a` is listed 3 times: the first definition counts",)


def test_two_names_that_become_the_same_are_both_kept_as_a_collision() -> None:
    (changed,) = of(tools=(b'{"name":"a.b"}',)).tools
    twin = changed.removeprefix("s__")
    found = of(tools=(b'{"name":"a.b"}', b'{"name":"%b"}' % twin.encode()))
    assert [entry.name for entry in found.tools[changed]] == ["a.b", twin]
    assert f"tools `a.b` and `{twin}` get the same name `{changed}`: no call of it works" in (
        found.warnings
    )


@pytest.mark.parametrize(
    "item", [b"null", b"7", b"[]", b"{}", b'{"name":null}', b'{"name":1}', b'{"name":""}']
)
def test_item_without_a_usable_name_takes_only_itself_away(item: bytes) -> None:
    found = of(tools=(item, tool(b'"good"')), prompts=(item, b'{"name":"p"}'))
    assert list(found.tools) == ["s__good"]
    assert list(found.prompts) == ["s__p"]
    assert list(found.problems) == [0]
    assert found.warnings == (
        "tools without a name, not shown to AI tools: 1",
        "prompts without a name, not shown to AI tools: 1",
    )


def test_tool_that_no_client_could_use_is_named_with_the_reason_and_stays_callable() -> None:
    bad = b'{"name":"bad","inputSchema":null}'
    found = of(tools=(tool(b'"good"'), bad))
    assert list(found.definitions("tools")) == [tool(b'"s__good"')]
    assert found.problems == {1: "`inputSchema` is null, not an object"}
    assert found.warnings == (f"tool `bad` is not shown to AI tools: {found.problems[1]}",)
    assert (found.tools["s__bad"][0].name, found.tools["s__bad"][0].definition) == ("bad", bad)


def test_changed_names_are_told_in_one_sentence() -> None:
    found = of(tools=tuple(tool(b'"a/%d"' % number) for number in range(5)))
    (told,) = found.warnings
    assert told.startswith("AI tools know tool `a/0` as `s__a_0_")
    assert told.endswith(", and 2 more: they do not take every name")


def test_long_and_dangerous_names_are_quoted_safely() -> None:
    found = of(tools=(tool(b'"\\ud800\\u001b[2J%b"' % (b"x" * 5000)),))
    (told,) = found.warnings
    assert told.startswith("AI tools know tool `\\ud800\\u001b[2Jxxx")
    assert len(told) < 300


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
    named = isinstance(item, dict) and isinstance(item.get("name"), str) and item["name"] != ""
    assert len(of(tools=(raw,)).tools) == named
    assert len(of(prompts=(raw,)).prompts) == named


def test_prompts_and_resources_have_their_own_tables() -> None:
    found = of(
        prompts=(b'{"name":"greet"}',),
        resources=(b'{"uri":"a://1"}', b'{"uri":"a://2"}'),
    )
    assert list(found.prompts) == ["s__greet"]
    assert not found.tools
    assert found.resources == {"a://1", "a://2"}
    assert list(found.definitions("resources")) == [b'{"uri":"a://1"}', b'{"uri":"a://2"}']


def test_resources_without_a_uri_are_counted() -> None:
    found = of(resources=(b"null", b'{"uri":"a://1"}'), resourceTemplates=(b"{}",))
    assert found.warnings == ("resources and templates without a URI: 2",)


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
