import re

import pytest

from octave.packages import names

HASH = "#sha256=" + "0a" * 32


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
        ("oci:thing", "oci", "thing"),
        ("oci:host.test/owner/some_image-x", "oci", "host.test/owner/some_image-x"),
        ("oci:localhost:5000/a.b__c", "oci", "localhost:5000/a.b__c"),
        (f"mcpb:https://h.test/v1/x.mcpb{HASH}", "mcpb", f"https://h.test/v1/x.mcpb{HASH}"),
        (f"mcpb:http://[::1]:80/x?y=@1{HASH}", "mcpb", f"http://[::1]:80/x?y=@1{HASH}"),
        (f"mcpb:my bundle.mcpb{HASH}", "mcpb", f"my bundle.mcpb{HASH}"),
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
        "nuget:x",
        "oci:",
        "oci:-x",
        "oci:Upper/case",
        "oci:a//b",
        "oci:../x",
        "oci:a/",
        "oci:a b",
        "oci:--privileged",
        "oci:host.test/x:1.0",
        "oci:x@sha256:" + "a" * 64,
        "oci:" + "a" * 256,
        "mcpb:https://h.test/x.mcpb",
        "mcpb:https://h.test/x.mcpb#sha256=" + "a" * 63,
        "mcpb:https://h.test/x.mcpb#sha256=" + "A" * 64,
        "mcpb:https://u:p@h.test/x" + HASH,
        "mcpb:https://[::1/x" + HASH,
        "mcpb:https://[::x]/x" + HASH,
        "mcpb:https://h.test:99999/x" + HASH,
        "mcpb:https://h.test/x y" + HASH,
        "mcpb:file:///etc/passwd" + HASH,
        "mcpb:../x.mcpb" + HASH,
        "mcpb:/tmp/x.mcpb" + HASH,
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
    with pytest.raises(
        ValueError, match=r"cannot be the name|is not KIND|has no hash|is not the place"
    ):
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


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("thing", "thing", ""),
        ("h.test/o/thing:1.0", "h.test/o/thing", "1.0"),
        ("localhost:5000/thing", "localhost:5000/thing", ""),
        ("localhost:5000/thing:2", "localhost:5000/thing", "2"),
        ("thing:1@sha256:ab", "thing", "sha256:ab"),
    ],
)
def test_an_image_is_split_into_name_and_tag_or_digest(text, name, version):
    assert names.split_image(text) == (name, version)


@pytest.mark.parametrize("text", ["*", "latest", "1.0", "v1_x-y", "sha256:" + "0" * 64])
def test_an_image_may_be_of_this_version(text):
    assert names.check_range("oci", text) == text


@pytest.mark.parametrize(
    ("kind", "text"), [("oci", "^1"), ("oci", "-x"), ("oci", "sha256:0"), ("mcpb", "1.0")]
)
def test_bundles_and_images_have_no_ranges(kind, text):
    with pytest.raises(ValueError):
        names.check_range(kind, text)


@pytest.mark.parametrize("text", ["~/a:/a", "./a b:/a:ro", "{data}:/data:rw", "/a:/b"])
def test_a_folder_may_be_given_to_a_container_like_this(text):
    assert names.check_mount(text) == text


@pytest.mark.parametrize(
    "text", ["", "/a", "/a:b", ":/b", "/a:/b:z", "/a,x=y:/b", '/a":/b', "a\n:/b"]
)
def test_a_folder_may_not_be_given_to_a_container_like_this(text):
    with pytest.raises(ValueError):
        names.check_mount(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://h.test",
        "http://127.0.0.1:1/mcp?x=1",
        "https://[::1]:8443/mcp",
        "https://b\u00fccher.test/mcp",
        "https://h.test./mcp",
    ],
)
def test_an_address_may_be_like_this(text):
    assert names.check_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "h.test",
        "ftp://h.test",
        "https://",
        "https://u:p@h.test/",
        "https://h.test/a b",
        "https://[::1/mcp",
        "https://[zz]/mcp",
        "https://h.test:99999/mcp",
        "https://h.test:abc/mcp",
        "https://h..test/mcp",
        f"https://{'a' * 64}.test/",
        "https://\u2100.test/mcp",
    ],
)
def test_an_address_may_not_be_like_this(text):
    with pytest.raises(ValueError, match="is not an address"):
        names.check_address(text)


def test_the_error_of_an_address_does_not_tell_the_login_in_it():
    with pytest.raises(ValueError, match=r"https://\*\*\*@h.test/x\?a@b") as caught:
        names.check_address("https://user:hush@hush@h.test/x?a@b")
    assert "hush" not in str(caught.value)
