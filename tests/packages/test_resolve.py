from pathlib import Path

import pytest

from octave.errors import OctaveError, ServerNotFound, UsageError
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import answers, choose, of_manifest, short_name


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(bundled_folder())


@pytest.mark.parametrize(
    ("text", "name", "source", "version_range"),
    [
        ("time", "time", "pypi:mcp-server-time", "*"),
        ("time@1.2", "time", "pypi:mcp-server-time", "1.2"),
        ("time==1.2", "time", "pypi:mcp-server-time", "==1.2"),
        ("time>=1,<2", "time", "pypi:mcp-server-time", ">=1,<2"),
        ("time@", "time", "pypi:mcp-server-time", "*"),
        ("time@latest", "time", "pypi:mcp-server-time", "latest"),
        ("everything@^1", "everything", "npm:@modelcontextprotocol/server-everything", "^1"),
        ("pypi:mcp-server-time", "time", "pypi:mcp-server-time", "*"),
        ("pypi:MCP_server.time@1", "time", "pypi:MCP_server.time", "1"),
        ("npm:@x/server-memory@1.0.0", "memory", "npm:@x/server-memory", "1.0.0"),
        ("npm:@x/server-memory", "memory", "npm:@x/server-memory", "*"),
        ("pypi:thing[extra]>=2", "thing", "pypi:thing[extra]", ">=2"),
    ],
)
def test_a_request_means_one_package_and_a_range(
    registry: Registry, text: str, name: str, source: str, version_range: str
) -> None:
    choice = choose(text, registry)
    assert (choice.name, choice.source, choice.version_range) == (name, source, version_range)


@pytest.mark.parametrize(
    "text", ["githb", "../../x", "", "@", "GITHUB;touch x", "g\u0456thub", "-g"]
)
def test_an_unknown_name_is_not_found(registry: Registry, text: str) -> None:
    with pytest.raises(ServerNotFound) as caught:
        choose(text, registry)
    assert caught.value.hint


def test_a_name_nearly_right_is_suggested(registry: Registry) -> None:
    with pytest.raises(ServerNotFound) as caught:
        choose("githb", registry)
    assert "did you mean `github`" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "npm:",
        "pypi:",
        "oci:Thing",
        "oci:thing:^1",
        "nuget:thing",
        "https://example.com",
        "npm:--global",
        "npm:git+https://x",
        "npm:file:../x",
        "pypi:a b",
        "pypi:x;touch pwn",
        "npm:../../x",
        "npm:x\n",
        "pypi:x@^1",
        "time@^1",
        "time@nonsense",
        "npm:x@--prefix=/",
        "npm:x@git+https://y",
    ],
)
def test_what_is_no_package_or_no_range_is_refused(registry: Registry, text: str) -> None:
    with pytest.raises(OctaveError) as caught:
        choose(text, registry)
    assert caught.value.exit_code in {2, 4}


def test_an_npm_range_for_pypi_is_told_in_its_own_words(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r">=1\.2,<2"):
        choose("time@^1.2", registry)


def test_a_name_the_user_chose_in_the_manifest_stays(registry: Registry) -> None:
    server = ServerEntry("clock", package="pypi:mcp-server-time", version="1")
    choice = of_manifest(server, registry)
    assert (choice.name, choice.version_range) == ("clock", "1")
    assert choice.entry is not None
    assert choice.entry.short_name == "time"


def test_a_package_whose_name_gives_no_server_name_can_stand_in_a_manifest(
    registry: Registry,
) -> None:
    assert of_manifest(ServerEntry("tilde", package="npm:~"), registry).name == "tilde"


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("@modelcontextprotocol/server-memory", "memory"),
        ("mcp-server-git", "git"),
        ("weather-mcp-server", "weather"),
        ("Some_Thing.py", "some-thing-py"),
        ("mcp", "mcp"),
        ("server", "server"),
        ("a" * 60, "a" * 40),
    ],
)
def test_a_server_is_named_after_its_package(package: str, name: str) -> None:
    assert short_name(package) == name


def pin(**more: object) -> Pin:
    given = {"request": "pypi:x@*", "constraints": ("a<1", "b<2"), **more}
    return Pin(name="x", kind="pypi", package="x", version="1", integrity="", graph=(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "is_answered"),
    [
        ({}, True),
        ({"version": ">=1"}, False),
        ({"package": "pypi:y"}, False),
        ({"constraints": ("a<1",)}, True),
        ({"constraints": ("c<1",)}, False),
        ({"executable": "other"}, False),
        ({"args": ("--x",), "env": {"A": "b"}, "auto_start": True}, True),
    ],
)
def test_a_pin_answers_what_decides_the_package_and_no_more(
    changes: dict[str, object], is_answered: bool
) -> None:
    server = ServerEntry("x", **{"package": "pypi:x", **changes})  # type: ignore[arg-type]
    assert answers(pin(), server) is is_answered


def test_no_pin_answers_nothing(tmp_path: Path) -> None:
    assert not answers(None, ServerEntry("x", package="pypi:x"))


def test_a_pin_for_one_executable_does_not_answer_for_another() -> None:
    assert answers(pin(executable="b"), ServerEntry("x", package="pypi:x", executable="b"))
    assert not answers(pin(executable="b"), ServerEntry("x", package="pypi:x"))
