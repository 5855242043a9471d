"""Command lines as the pages of real servers give them."""

from typing import Any

import pytest

from octave.clients.launchers import Bridge, Kept, Package, recognise
from octave.settings import Reference

KNOWN = {"mcp_server_git": "mcp-server-git"}


def seen(line: str) -> Any:
    return recognise(line.split(), KNOWN.get)


def npm(name: str, version: str = "*", *args: Any, **more: Any) -> Package:
    return Package("npm", name, version, args, **more)


def pypi(name: str, version: str = "*", *args: Any, **more: Any) -> Package:
    return Package("pypi", name, version, args, **more)


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("npx -y @scope/server /a --b", npm("@scope/server", "*", "/a", "--b")),
        ("npx server@1.2.3", npm("server", "1.2.3")),
        ("npx -y @scope/server@^1.2 -y", npm("@scope/server", "^1.2", "-y")),
        ("npx --yes @scope/server@latest", npm("@scope/server")),
        ("npx server@next", npm("server", "next")),
        ("npx -y -- server --x", npm("server", "*", "--x")),
        ("npx -y -p @scope/pkg@2 tool --x", npm("@scope/pkg", "2", "--x", executable="tool")),
        ("npx --package=@scope/pkg tool", npm("@scope/pkg", executable="tool")),
        ("/usr/local/bin/npx -y server", npm("server")),
        (r"C:\nodejs\npx.cmd -y server", npm("server")),
        ("cmd /c npx -y server", npm("server")),
        ("cmd.exe /C npx server x", npm("server", "*", "x")),
        ("npm exec -y server -- --x", npm("server", "*", "--x")),
        ("npm --silent exec server", npm("server")),
        ("npm x server", npm("server")),
        ("bunx --bun server@1", npm("server", "1")),
        ("bun x server", npm("server")),
        ("pnpm dlx @scope/server a", npm("@scope/server", "*", "a")),
        ("pnpm --package=@scope/pkg dlx tool", None),
        ("yarn dlx server", npm("server")),
        ("uvx mcp-server-git --repository .", pypi("mcp-server-git", "*", "--repository", ".")),
        ("uvx server==1.2", pypi("server", "==1.2")),
        ("uvx server@1.2", pypi("server", "1.2")),
        ("uvx server@latest", pypi("server")),
        ("uvx server[http]>=1,<2 x", pypi("server[http]", ">=1,<2", "x")),
        (
            "uvx --from server[cli]==1.0 tool x",
            pypi("server[cli]", "==1.0", "x", executable="tool"),
        ),
        (
            "uvx --with mcp<2 --with=pydantic<2.12 s",
            pypi("s", constraints=("mcp<2", "pydantic<2.12")),
        ),
        ("uv tool run server", pypi("server")),
        ("uv --quiet tool run server", pypi("server")),
        ("pipx run server x", pypi("server", "*", "x")),
        ("pipx run --spec server==2 tool", pypi("server", "==2", executable="tool")),
    ],
)
def test_launchers_name_the_package_the_version_and_the_rest(line, package):
    assert seen(line) == package


def test_the_python_of_uvx_is_octaves_choice_and_said_to_be():
    found = seen("uvx --python 3.12 -q server")
    assert (found.name, found.args) == ("server", ())
    assert found.notes == ("`--python 3.12` is left out: Octave chooses the Python that runs it",)


def test_a_module_of_a_known_package_is_that_package():
    found = seen("/x/venv/bin/python3.12 -u -m mcp_server_git --repository .")
    assert (found.kind, found.name, found.args) == ("pypi", "mcp-server-git", ("--repository", "."))
    assert seen("python -m my_own_server") is None
    assert seen("python server.py -m mcp_server_git") is None


@pytest.mark.parametrize(
    "line",
    [
        "node server.js",
        "docker run -i x",
        "/opt/npxish -y x",
        "uv run server.py",
        "npm run mcp",
        "x",
    ],
)
def test_programs_of_ones_own_are_nobodys_package(line):
    assert seen(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "npx",
        "npx -y",
        "npx --registry https://other.example server",
        "npx --registry=https://other.example server",
        "npx -p a -p b tool",
        "npx -c whatever",
        "npx github:somebody/server",
        "npx ./server",
        "npx https://x.example/server.tgz",
        "npx server@file:x",
        "npx npm:server",
        "uvx --index-url https://other.example server",
        "uvx --index x=https://other.example server",
        "uvx --extra-index-url https://other.example server",
        "uvx --from git+https://x.example/y tool",
        "uvx --from ./here tool",
        "uvx --with another-package server",
        "uvx --from",
        "uvx --env-file .env server",
        "pipx run --pip-args=--index-url=https://other.example server",
        "npx -y mcp-remote",
        "npx -y mcp-remote https://x.example/mcp --static-oauth-client-info x",
    ],
)
def test_what_is_not_understood_to_the_last_word_stays_a_command(line):
    with pytest.raises(Kept):
        seen(line)


def test_values_that_are_not_to_be_read_pass_as_arguments_only():
    hidden = Reference("env", "X")
    assert recognise(["npx", "-y", "server", hidden], KNOWN.get) == npm("server", "*", hidden)
    for words in (["npx", hidden], ["npx", "-p", hidden, "x"], ["uvx", "--from", hidden, "x"]):
        with pytest.raises(Kept):
            recognise(words, KNOWN.get)
    assert recognise([hidden, "x"], KNOWN.get) is None
    assert recognise([], KNOWN.get) is None


def test_a_bridge_to_a_remote_server_is_that_server():
    words = ["npx", "-y", "mcp-remote@0.1", "https://x.example/mcp", "--header", "A: Bearer ${T}"]
    assert recognise(words, KNOWN.get) == Bridge("https://x.example/mcp", {"A": "Bearer ${T}"})
