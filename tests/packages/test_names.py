import re

import pytest

from octave.packages import names


@pytest.mark.parametrize("name", ["a", "github", "0x", "a-b-", "a" * 40])
def test_a_server_may_have_this_name(name):
    assert names.is_server_name(name)
    assert names.check_server_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", "A", "a_b", "a.b", "a" * 41, "a\n", "../x", "x;touch pwn", "g\u0456thub", "\uff47"],
)
def test_a_server_may_not_have_this_name(name):
    assert not names.is_server_name(name)
    with pytest.raises(ValueError, match="a server's name"):
        names.check_server_name(name)


def test_a_letter_that_only_looks_right_is_named():
    with pytest.raises(ValueError, match="CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I"):
        names.check_server_name("g\u0456thub")


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("npm:left-pad", "npm", "left-pad"),
        ("npm:@scope/server-x", "npm", "@scope/server-x"),
        ("npm:JSONStream", "npm", "JSONStream"),
        ("pypi:mcp-server-fetch", "pypi", "mcp-server-fetch"),
        ("pypi:mcp[cli,ws]", "pypi", "mcp[cli,ws]"),
        ("pypi:A.b_c", "pypi", "A.b_c"),
    ],
)
def test_a_package_is_split_into_kind_and_name(text, kind, name):
    assert names.split_package(text) == (kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "npm",
        "npm:",
        "left-pad",
        "oci:x",
        "npm:--global",
        "npm:@x",
        "npm:@-x/y",
        "npm:../x",
        "npm:.hidden",
        "npm:git+https://x/y",
        "npm:a@1",
        "npm:a b",
        "npm:a\n",
        "npm:" + "a" * 215,
        "npm:left-p\u0430d",
        "pypi:-r",
        "pypi:a-",
        "pypi:a[",
        "pypi:a[]",
        "pypi:a[-x]",
        "pypi:a==1",
        "pypi:a @ file:///x",
        "pypi:a;x",
    ],
)
def test_a_package_may_not_be_named_like_this(text):
    with pytest.raises(ValueError, match=r"cannot be the name|is not KIND"):
        names.split_package(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("npm", "*"),
        ("npm", "latest"),
        ("npm", "1.2.3"),
        ("npm", "^1.2"),
        ("npm", "~1"),
        ("npm", ">=1 <2 || 3.x"),
        ("npm", "1.0.0 - 2.0.0"),
        ("npm", "1.0.0-beta.1+build"),
        ("pypi", "*"),
        ("pypi", "latest"),
        ("pypi", "1.2.3"),
        ("pypi", "2026.1.14"),
        ("pypi", ">=1.2,<2"),
        ("pypi", ">= 1.2, != 1.3.*"),
        ("pypi", "~=1.2"),
        ("pypi", "==1.0a1"),
        ("pypi", "1!2.0.post1+local"),
    ],
)
def test_a_range_may_be_written_like_this(kind, text):
    assert names.check_range(kind, text) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("npm", ""),
        ("npm", "--global"),
        ("npm", " 1"),
        ("npm", "file:../x"),
        ("npm", "https://x"),
        ("npm", "1;x"),
        ("npm", "1\n2"),
        ("pypi", ""),
        ("pypi", ">=1,"),
        ("pypi", "-r x"),
        ("pypi", ">=1 || 2"),
        ("pypi", "1.x; y"),
        ("pypi", ">=1\n--index-url=x"),
    ],
)
def test_a_range_may_not_be_written_like_this(kind, text):
    with pytest.raises(ValueError, match=re.escape(f'"{text}" is not')):
        names.check_range(kind, text)


@pytest.mark.parametrize(
    ("npm", "pep440"),
    [
        ("^1.2", ">=1.2,<2"),
        ("^1.2.3", ">=1.2.3,<2"),
        ("^1", ">=1,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0", ">=0,<1"),
        ("^0.0", ">=0.0,<0.1"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1.2", ">=1.2,<1.3"),
        ("~1", ">=1,<2"),
        ("^ v1.2", ">=1.2,<2"),
    ],
)
def test_an_npm_range_for_a_pypi_package_is_answered_with_its_equivalent(npm, pep440):
    with pytest.raises(ValueError, match=re.escape(f'for a PyPI package write "{pep440}"')):
        names.check_range("pypi", npm)


@pytest.mark.parametrize("text", ["mcp<2", "pydantic>=1,<2.12", "@scope/x<1"])
def test_a_constraint_may_be_written_like_this(text):
    assert names.check_constraint(text) == text


@pytest.mark.parametrize("text", ["", "mcp", "-r x", "mcp @ file:///x", "mcp<2\n-r x", "mcp<2;x"])
def test_a_constraint_may_not_be_written_like_this(text):
    with pytest.raises(ValueError, match="is not a limit"):
        names.check_constraint(text)


def test_variables_and_headers_have_names_that_can_be_passed_on():
    assert names.check_variable("A_1.b-c") == "A_1.b-c"
    assert names.check_header("X-Api-Key") == "X-Api-Key"
    for text in ("", "1A", "A=B", "A B", "A\0", "Ä"):
        with pytest.raises(ValueError, match="environment variable"):
            names.check_variable(text)
    for text in ("", "A B", "A:", "A\r\nB", "Ä"):
        with pytest.raises(ValueError, match="HTTP header"):
            names.check_header(text)
