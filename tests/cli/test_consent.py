"""What is shown and asked before a first installation, and that nothing happens without a yes."""

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.terminal import on_terminal
from tests.packages.npm_registry import NpmRegistry, running
from tests.packages.story import ECHO, GOOD, Done, World, ended

NOWHERE = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "npm_config_registry": "http://[::1]:9"}
"""Whoever asks a registry fails in another way."""


def octave(world: World, *words: str, **more: Any) -> Done:
    """Run octave as somebody without a terminal who did not say `-y`."""
    return ended(world.run([sys.executable, "-m", "octave", *words], **more))


def test_an_unknown_package_needs_a_yes_and_no_registry_is_asked_before(world: World) -> None:
    done = octave(world, "install", "pypi:story-good", "--json", environ=NOWHERE)
    assert (done.code, done.stdout) == (2, "")
    assert done.error["code"] == "missing_answer"
    assert "`octave install pypi:story-good -y`" in done.error["hint"]
    assert not world.home.exists()


def test_what_is_shown_is_the_whole_truth(world: World) -> None:
    world.offer("story-good", ECHO, author="Mallory \x1b[2J")
    args = ("--arg", "--deep", "--arg", "a b", "--arg", "a\n  publisher")
    words = (*args, "-e", "X_TOKEN", "-e", "MODE=fast")
    done = world.octave("install", "pypi:story-good", *words, environ={"X_TOKEN": "hush-0815"})
    assert done.code == 0, done.stderr
    record = world.record("story-good")
    place = world.home / "servers" / world.installed()[0]
    command = " ".join(word.replace("{folder}", str(place)) for word in record["command"])
    assert f"  runs: {command} --deep 'a b' 'a\\n  publisher'\n" in done.stderr
    assert "not in Octave's registry; nobody vouches for it\n" in done.stderr
    assert "  publisher, by its own account: Mallory \\x1b[2J\n" in done.stderr
    assert "  variables: MODE, X_TOKEN (secret)\n" in done.stderr
    assert "hush-0815" not in done.stderr + world.manifest
    assert "\x1b" not in done.stderr
    again = world.octave("install", "pypi:story-good")
    assert "publisher" not in again.stderr


def test_on_a_terminal_enter_declines_what_nobody_vouches_for(world: World) -> None:
    world.offer("story-good", GOOD)
    question = "Install `story-good`? [y/N]: "
    words = ("install", "pypi:story-good")
    code, shown = on_terminal(world.environ, world.cwd, [(question, "")], *words)
    assert code == 7
    assert "publisher, by its own account: unknown" in shown
    assert world.installed() == []
    assert not (world.home / "octave.toml").exists()
    assert not (world.home / "data").exists()
    code, shown = on_terminal(world.environ, world.cwd, [(question, "y")], *words)
    assert code == 0, shown
    code, shown = on_terminal(world.environ, world.cwd, [], *words)
    assert (code, "Install `" in shown) == (0, False), "what is locked is asked for again"


def test_a_known_server_goes_on_without_a_terminal_and_is_shown(world: World) -> None:
    world.offer("mcp-server-time", GOOD)
    done = octave(world, "install", "time")
    assert done.code == 0, done.stderr
    assert "time: pypi:mcp-server-time 1.0, in Octave's registry" in done.stderr
    shutil.rmtree(world.home)
    assert "publisher" not in octave(world, "install", "time", "-q").stderr


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("npm:@modelcontextprotoco1/server-github", "npm:@modelcontextprotocol/server-github"),
        ("npm:modelcontextprotocol-server-github", "npm:@modelcontextprotocol/server-github"),
        ("npm:server-github", "npm:@modelcontextprotocol/server-github"),
        ("npm:@evil/server-github", "npm:@modelcontextprotocol/server-github"),
        ("npm:github", "npm:@modelcontextprotocol/server-github"),
        ("npm:mcp-server-git", "pypi:mcp-server-git"),
        ("pypi:mcp-server-tim", "pypi:mcp-server-time"),
        ("pypi:mcpservertime", "pypi:mcp-server-time"),
    ],
)
@pytest.mark.parametrize("more", [(), ("-y",)])
def test_a_package_that_looks_like_a_known_one_is_refused_where_nobody_can_be_asked(
    world: World, asked: str, known: str, more: tuple[str, ...]
) -> None:
    done = octave(world, "install", asked, *more, "--json", environ=NOWHERE)
    assert (done.code, done.error["code"]) == (4, "ambiguous")
    assert done.error["details"]["candidates"] == [known, asked]
    assert f"`octave install {known}`" in done.error["hint"]
    assert not world.home.exists()


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ("githb", 4, "did you mean `github`"),
        ("g\u0456thub", 4, "did you mean `github`"),
        ("pypi:mcp-server-fet\u0441h", 2, "did you mean `pypi:mcp-server-fetch`"),
    ],
)
def test_a_name_that_looks_like_a_known_one_is_answered_with_it(
    world: World, asked: str, code: int, said: str
) -> None:
    done = octave(world, "install", asked, "-y", environ=NOWHERE)
    assert done.code == code
    assert said in done.stderr


def test_on_a_terminal_a_look_alike_is_a_question(world: World) -> None:
    world.offer("mcp-server-tim", GOOD)
    answers = [("Install `tim`? [y/N]: ", "n")]
    words = ("install", "pypi:mcp-server-tim")
    code, shown = on_terminal(world.environ, world.cwd, answers, *words)
    assert code == 7
    assert "looks like `pypi:mcp-server-time`, and is another package" in shown
    assert world.installed() == []


def test_what_somebody_wrote_into_the_manifest_is_not_questioned(world: World) -> None:
    world.offer("mcp-server-tim", GOOD)
    world.home.mkdir(mode=0o700)
    text = '[servers.tim]\npackage = "pypi:mcp-server-tim"\n'
    (world.home / "octave.toml").write_text(text, encoding="utf-8")
    assert octave(world, "install").code == 0
    assert octave(world, "install", "pypi:mcp-server-tim").code == 0


@pytest.fixture
def registry(world: World) -> Iterator[NpmRegistry]:
    for registry in running():
        world.environ["npm_config_registry"] = registry.url
        world.environ["npm_config_fetch_retries"] = "0"
        yield registry


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_publisher_and_install_scripts_of_an_npm_package_are_told(
    world: World, registry: NpmRegistry
) -> None:
    registry.offer(
        "story-node",
        dependencies={"dep": "*"},
        maintainers=[{"name": "ann", "email": "a@x"}, {"name": "bob", "email": "b@x"}],
        _npmUser={"name": "bob", "email": "b@x"},
        repository={"type": "git", "url": "git+https://x.example/story.git"},
    )
    registry.offer("dep", scripts={"postinstall": "touch made"})
    done = world.octave("install", "npm:story-node", "--dry-run", "--json")
    (row,) = done.json["results"]
    plan = row["plan"]
    assert (row["status"], row["version"], row["locked"]) == ("would-install", "1.0.0", False)
    assert plan["publisher"]["by"].startswith("bob")
    assert [name.split()[0] for name in plan["publisher"]["maintainers"]] == ["ann", "bob"]
    assert plan["publisher"]["page"] == "https://x.example/story"
    assert plan["scripts"] == {"run": [], "ignored": ["dep"]}
    assert (plan["packages"], plan["standing"]) == (2, "unknown")
    assert plan["command"][-1].endswith("/node_modules/story-node/index.js")
    assert not world.home.exists()
    words = ("npm:story-node", "--allow-scripts", "dep", "--dry-run")
    assert "RUNS the install scripts of: dep\n" in octave(world, "install", *words).stdout


def test_a_dry_run_tells_and_leaves_everything_as_it_is(world: World) -> None:
    world.offer("story-good", GOOD)
    done = octave(world, "install", "pypi:story-good", "-e", "MODE=x", "--dry-run")
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("would install story-good 1.0\n")
    assert "  runs: " in done.stdout
    wheel = "story_good-1.0-py3-none-any.whl"
    world.index.published[wheel] = "2026-01-01T00:00:00Z"
    (row,) = octave(world, "install", "pypi:story-good", "--dry-run", "--json").json["results"]
    assert row["downloadBytes"] == len(world.index.files[wheel])
    assert not world.home.exists()
    world.octave("install", "pypi:story-good", "--no-start")
    with (world.home / "octave.toml").open("a", encoding="utf-8") as file:
        file.write('[servers.more]\npackage = "pypi:story-more"\n')
        file.write('[servers.none]\npackage = "pypi:story-none"\n')
    world.offer("story-more", GOOD)
    before = world.state()
    done = octave(world, "install", "--dry-run", "--json")
    assert done.code == 4
    told = {row["name"]: row["status"] for row in done.json["results"]}
    assert told == {"story-good": "present", "more": "would-install", "none": "failed"}
    assert world.state() == before


def test_a_client_is_connected_after_success_and_only_then(world: World) -> None:
    world.offer("story-good", GOOD)
    file = world.root / ".cursor" / "mcp.json"
    words = ("install", "pypi:story-good", "--client", "cursor")
    assert octave(world, *words[:-1], "cursr", "-y").code == 4
    assert octave(world, "install", "pypi:story-none", "-y", "--client", "cursor").code == 4
    rehearsed = octave(world, *words, "--dry-run")
    assert (rehearsed.code, '+    "octave": {' in rehearsed.stdout) == (0, True), rehearsed.stdout
    (row,) = octave(world, *words, "--dry-run", "--json").json["clients"]
    assert (row["id"], row["status"], row["dryRun"]) == ("cursor", "added", True)
    assert not file.exists()
    done = octave(world, *words, "-y", "--json")
    assert done.code == 0, done.stderr
    assert [row["status"] for row in done.json["clients"]] == ["added"]
    assert "octave" in json.loads(file.read_bytes())["mcpServers"]
    assert octave(world, *words, "-y").stdout.splitlines()[1].startswith("present cursor ")


@pytest.mark.parametrize(
    ("address", "words", "name"),
    [
        ("https://mcp.linear.app/mcp", (), "linear"),
        ("https://api.githubcopilot.com/mcp/", (), "github"),
        ("https://www.some-thing.example.org/x", (), "example"),
        ("http://127.0.0.1:9/mcp", ("--as", "mine"), "mine"),
    ],
)
def test_an_address_is_connected_as_add_does(
    world: World, address: str, words: tuple[str, ...], name: str
) -> None:
    done = octave(world, "install", address, *words, "--no-start")
    assert (done.code, done.stdout) == (0, f"added {name}\n")
    assert tomllib.loads(world.manifest)["servers"] == {name: {"url": address}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://127.0.0.1:9/mcp",), "--as NAME"),
        (("https://x.example/", "-e", "A=b"), "an address takes only"),
        (("https://x.example/", "--dry-run"), "an address takes only"),
        (("ftp://x.example/",), "names no package"),
    ],
)
def test_an_address_that_does_not_do_is_told(
    world: World, words: tuple[str, ...], said: str
) -> None:
    done = octave(world, "install", *words)
    assert done.code == 2
    assert said in done.stderr
