"""What `octave proxy` shows: everything, one server, several, or a profile, by each spelling."""

import json
import os
import sys
from collections.abc import Iterator

import pytest

from octave.runtime import wire
from tests.e2e.conftest import OCTAVE, Octave
from tests.transparency.comparison import member
from tests.transparency.conversation import PROBE, Probe, Talk, piped
from tests.transparency.scripts import Era, Scene, ask, both, call, text

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.xdist_group("transparency")]

NAMES = ("one", "two", "tri")
SAYS = both("", [], {"tools/call say": [text("said")]})
PROFILES = """
[profiles.pair]
servers = ["tri", "one"]
[profiles.single]
servers = ["two"]
"""
WISHES = [
    ("", ["one", "two", "tri"]),
    ("one", [""]),
    ("--server two", [""]),
    ("--server tri --server one", ["tri", "one"]),
    ("one two", ["one", "two"]),
    ("--profile pair", ["tri", "one"]),
    ("--profile single", ["two"]),
    ("--profile single one", ["two", "one"]),
]
"""The words, and the servers whose tools are shown: with their names in front, or (empty) alone."""


@pytest.fixture(scope="module")
def octave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Octave]:
    folder = tmp_path_factory.mktemp("scopes")
    octave = Octave(folder / "h", folder, {"HOME": str(folder)})
    octave.home.mkdir(mode=0o700)
    lines = ["[runtime]\nport = 0\n"]
    for number, name in enumerate(NAMES):
        probe = Probe(folder, SAYS, ("legacy", "modern", "legacy")[number], name)
        command = json.dumps([sys.executable, "-S", os.fspath(PROBE), *probe.words])
        lines.append(f"[servers.{name}]\ncommand = {command}\n")
    (octave.home / "octave.toml").write_text("\n".join(lines) + PROFILES)
    octave("serve", "--detach")
    yield octave
    octave("shutdown", code=None)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("words", "servers"), WISHES, ids=[words or "all" for words, _ in WISHES])
async def test_proxy_shows_and_calls_what_was_wished_for_and_nothing_else(
    octave: Octave, words: str, servers: list[str], era: Era
) -> None:
    calls = {"say": "", **{f"{name}__say": name for name in NAMES}}
    scene = Scene(
        "",
        {
            era: [
                ask('"list"', "tools/list", ""),
                *(call(f'"{tool}"', tool) for tool in calls),
            ]
        },
        {},
    )
    talk = Talk(era, {})
    folder = octave.cwd
    argv = [os.fspath(OCTAVE), "proxy", *words.split()]
    heard = (
        await piped(argv, talk, scene, Probe(folder, SAYS, era, "none"), octave.environ)
    ).client
    answers = {message.id: line for line in heard if (message := wire.decode(line)).is_answer}
    tools = wire.elements(member(answers[b'"list"'], "result", "tools"))
    names = {json.loads(member(tool, "name")).rpartition("__")[0] for tool in tools}
    assert names == set(servers)
    for tool, server in calls.items():
        is_answered = wire.decode(answers[f'"{tool}"'.encode()]).result is not None
        assert is_answered == (server in servers), tool


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["--profile", "pare"], "pair"), (["oen"], "one"), (["one", "towo"], "two")],
)
def test_what_is_not_there_ends_the_proxy_with_a_suggestion(
    octave: Octave, words: list[str], hint: str
) -> None:
    ended = octave("proxy", *words, code=4)
    assert f"did you mean `{hint}`?" in ended.stderr
    assert ended.stdout == ""
