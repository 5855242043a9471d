"""What `install` asks for, where the answers go, and where they never go."""

import contextlib
import json
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import psutil
import pytest

from tests.cli.terminal import on_terminal
from tests.packages.mcp_registry import RegistryServer, configure, package
from tests.packages.story import ECHO, World

VALUE = "hush-0815-value"
REQUIRED = ("CLICKHOUSE_HOST", "CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD")
NONE = "(Enter: none): "


def agreed(name: str) -> tuple[str, str]:
    return f"Install `{name}`? [Y/n]: ", ""


def environ_of(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(world.manifest)["servers"][name].get("env", {})
    return found


def test_what_the_registry_requires_is_asked_for_secrets_unseen(world: World) -> None:
    world.offer("mcp-clickhouse", ECHO)
    answers = [
        agreed("clickhouse"),
        (f"Value of {REQUIRED[0]} {NONE}", "db.example"),
        (f"Value of {REQUIRED[1]} {NONE}", "me"),
        (f"Value of {REQUIRED[2]} {NONE}", VALUE),
    ]
    code, shown = on_terminal(world.environ, world.cwd, answers, "install", "clickhouse")
    assert code == 0, shown
    assert "db.example" in shown
    assert VALUE not in shown
    assert "installed clickhouse 1.0 (2 tools)" in shown
    assert environ_of(world, "clickhouse") == {
        "CLICKHOUSE_HOST": "db.example",
        "CLICKHOUSE_USER": "me",
        "CLICKHOUSE_PASSWORD": {"secret": "clickhouse/CLICKHOUSE_PASSWORD"},
    }
    assert world.call("clickhouse", "env").json["env"]["CLICKHOUSE_PASSWORD"] == VALUE
    code, shown = on_terminal(world.environ, world.cwd, [], "install", "clickhouse")
    assert (code, "Value of" in shown) == (0, False), "what is there already is asked for again"


def test_a_secret_argument_that_is_required_is_asked_for_unseen(world: World) -> None:
    argument = {"type": "positional", "valueHint": "DSN", "isRequired": True, "isSecret": True}
    with RegistryServer() as registry:
        registry.add("com.example/quokka", package("pypi", "quokka", packageArguments=[argument]))
        configure(world.home, company=registry.url)
        world.offer("quokka", ECHO, readme="mcp-name: com.example/quokka")
        answers = [("Install `quokka`? [y/N]: ", "y"), (f"Value of DSN {NONE}", VALUE)]
        code, shown = on_terminal(world.environ, world.cwd, answers, "install", "quokka")
    assert (code, VALUE in shown) == (0, False), shown
    assert 'args = [{secret = "quokka/DSN"}]' in world.manifest
    assert world.call("quokka", "env").json["argv"][-1] == VALUE


def test_what_is_given_is_not_asked_for(world: World) -> None:
    world.offer("mcp-clickhouse", ECHO)
    (world.cwd / "vars").write_text("CLICKHOUSE_HOST=h\n", encoding="utf-8")
    words = ("install", "clickhouse", "-e", "CLICKHOUSE_USER=me", "--env-file", "vars")
    answers = [agreed("clickhouse"), (f"Value of {REQUIRED[2]} {NONE}", VALUE)]
    code, shown = on_terminal(world.environ, world.cwd, answers, *words)
    assert (code, shown.count("Value of")) == (0, 1)
    assert set(environ_of(world, "clickhouse")) == set(REQUIRED)


def test_enter_takes_what_the_environment_has_and_else_nothing(world: World) -> None:
    world.offer("mcp-clickhouse", ECHO)
    environ = {**world.environ, "CLICKHOUSE_PASSWORD": VALUE, "CLICKHOUSE_USER": "me"}
    answers = [
        agreed("clickhouse"),
        (f"Value of {REQUIRED[0]} {NONE}", ""),
        (f"Value of {REQUIRED[1]} (Enter: that of your environment): ", ""),
        (f"Value of {REQUIRED[2]} (Enter: that of your environment): ", ""),
    ]
    code, shown = on_terminal(environ, world.cwd, answers, "install", "clickhouse")
    assert code == 0, shown
    assert "`clickhouse` needs `CLICKHOUSE_HOST`" in shown
    assert environ_of(world, "clickhouse") == {
        "CLICKHOUSE_USER": "me",
        "CLICKHOUSE_PASSWORD": {"secret": "clickhouse/CLICKHOUSE_PASSWORD"},
    }
    assert VALUE in (world.home / "secrets.toml").read_text(encoding="utf-8")
    assert VALUE not in shown


def test_of_several_ways_the_first_that_is_answered_is_enough(world: World) -> None:
    world.offer("mcp-server-qdrant", ECHO)
    answers = [
        agreed("qdrant"),
        (f"Value of COLLECTION_NAME {NONE}", "c"),
        (f"Value of QDRANT_URL {NONE}", ""),
        (f"Value of QDRANT_LOCAL_PATH {NONE}", "/q"),
    ]
    code, shown = on_terminal(world.environ, world.cwd, answers, "install", "qdrant")
    assert code == 0, shown
    assert environ_of(world, "qdrant") == {"COLLECTION_NAME": "c", "QDRANT_LOCAL_PATH": "/q"}
    answers = [agreed("other"), (f"Value of QDRANT_URL {NONE}", "http://q")]
    words = ("install", "qdrant", "--as", "other", "-e", "COLLECTION_NAME=c")
    assert on_terminal(world.environ, world.cwd, answers, *words)[0] == 0
    assert environ_of(world, "other") == {"COLLECTION_NAME": "c", "QDRANT_URL": "http://q"}
    words = ("install", "qdrant", "--as", "third", "-e", "QDRANT_LOCAL_PATH=/q")
    answers = [agreed("third"), (f"Value of COLLECTION_NAME {NONE}", "c")]
    code, shown = on_terminal(world.environ, world.cwd, answers, *words)
    assert (code, shown.count("Value of")) == (0, 1)


@pytest.mark.parametrize("way", ["-y", "CI", "pipe"])
def test_nobody_is_asked_who_does_not_want_or_is_not_there(world: World, way: str) -> None:
    world.offer("mcp-clickhouse", ECHO)
    words = ("install", "clickhouse", *(["-y"] if way == "-y" else []))
    environ = {**world.environ, **({"CI": "1"} if way == "CI" else {})}
    if way == "pipe":
        done = world.octave(*words)
        code, shown = done.code, done.stderr
    else:
        code, shown = on_terminal(environ, world.cwd, [], *words)
    assert code == 0
    assert "Value of" not in shown
    assert "`clickhouse` needs `CLICKHOUSE_HOST`" in shown


@pytest.mark.parametrize("word", [f"1X={VALUE}", f"A B={VALUE}", f"X_TOKEN={VALUE}"])
def test_a_value_in_a_word_that_is_refused_is_not_repeated(world: World, word: str) -> None:
    world.offer("story-echo", ECHO)
    for more in ((), ("--json",)):
        done = world.octave("install", "pypi:story-echo", "-e", word, *more)
        assert (done.code, done.stdout) == (2, "")
        assert VALUE not in done.stderr
    assert not (world.home / "octave.toml").exists()


TELLS_WHO_IS_THERE = """
import os, pathlib
seen = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        seen.append((folder / "cmdline").read_bytes() + b" " + (folder / "comm").read_bytes())
    except OSError:
        pass
pathlib.Path("seen").write_bytes(b"\\n".join(seen))
""" + (Path(__file__).parents[1] / "servers" / "env_echo.py").read_text(encoding="utf-8")
"""A server that notes, while it is started once, the command lines of all processes."""


@contextlib.contextmanager
def watched(pid: int) -> Iterator[set[str]]:
    """Collect the command lines of all children of `pid` for as long as it lives."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            with contextlib.suppress(psutil.Error):
                for child in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                    seen.add(" ".join([child.name(), *child.cmdline()]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_secret_is_in_no_command_line_no_output_and_no_file_but_the_store(world: World) -> None:
    # Other tests give theirs on command lines, to be refused, and those are seen here, too.
    value = token_hex(16)
    world.offer("story-secretive", TELLS_WHO_IS_THERE)
    (world.root / "vars").write_text(f"X_TOKEN={value}\n", encoding="utf-8")
    child = world.start(
        *("install", "pypi:story-secretive", "--env-file", str(world.root / "vars"), "-v"),
        *("-e", "Y_TOKEN"),
        environ={"Y_TOKEN": value},
    )
    with watched(child.pid) as seen:
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert value not in out + err
    noted = (world.home / "data" / "story-secretive" / "seen").read_bytes()
    assert b"story-secretive" in noted
    assert value.encode() not in noted
    assert any("pypi:story-secretive" in line for line in seen)
    assert not [line for line in seen if value in line]
    world.octave("install", "pypi:story-secretive", "--json")
    told = world.octave("list", "--json")
    assert value not in json.dumps([told.stdout, told.stderr])
    (world.root / "vars").unlink()
    holding = [
        path.name
        for path in world.root.rglob("*")
        if path.is_file() and value.encode() in path.read_bytes()
    ]
    assert holding == ["secrets.toml"]
