"""The story of installing, for real: an index on loopback, uv, little servers, the command."""

import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octave.errors import NotTrusted, RuntimeSilent, StartFailed
from octave.home import Home, Workspace
from octave.packages import install as story
from octave.packages import ledger, lockfile
from octave.packages.ecosystems.base import Bench
from octave.packages.install import Request
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.secrets import Secrets
from octave.packages.update import Terms, update
from octave.packages.variables import Answers
from tests.packages.story import (
    CRASHES,
    ECHO,
    GOOD,
    QUOTES_ITS_KEY,
    SERVERS,
    WAIT_S,
    WANTS_KEY,
    WANTS_NETWORK,
    World,
    ended,
)
from tests.small_disk import small_disk

TOKEN = "hush-0815-value"


def content(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_install_lock_record_launch_and_probe_are_one_story(world: World) -> None:
    world.offer("story-good", GOOD)
    done = world.octave("install", "pypi:story-good", "--json")
    (result,) = done.json["results"]
    assert (done.code, done.stderr) == (0, "")
    assert (result["status"], result["checked"], result["tools"]) == ("installed", True, 3)
    (folder,) = world.installed()
    assert re.fullmatch(r"story-good/1\.0-[0-9a-f]{8}", folder)
    assert '[servers.story-good]\npackage = "pypi:story-good"\n' in world.manifest
    assert 'name = "story-good"' in world.lockfile
    assert str(world.root) not in world.lockfile + json.dumps(world.record("story-good"))
    assert list((world.home / "staging").iterdir()) == []
    assert world.call("story-good", "echo", "text=hi").told == (0, "hi\n", "")


def test_a_definition_nobody_can_pin_costs_neither_the_others_nor_the_server(world: World) -> None:
    answer = (
        '"result":{"tools":[null,{"inputSchema":{}},{"name":"good","inputSchema":{"type":"object"}},'
        '{"name":"two","name":"faced","inputSchema":{"type":"object"}}]}'
    )
    server = (SERVERS / "list_answer.py").read_text(encoding="utf-8")
    server = server.replace("import sys\n", f"import sys\nsys.argv[1:] = [{answer!r}]\n")
    world.offer("story-odd", server)
    done = world.octave("install", "pypi:story-odd")
    assert done.code == 0, done.stderr
    (pin,) = tomllib.loads(world.lockfile)["server"]
    assert [tool["name"] for tool in pin["tools"]] == ["good"]
    assert world.octave("audit").code in {0, 1}


def test_the_second_install_finds_what_is_there(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    before = world.state()
    world.index.status = 503
    done = world.octave("install", "pypi:story-good", "--json")
    assert done.json["results"][0]["status"] == "present"
    assert world.state() == before


def test_the_range_that_was_asked_for_stays_in_the_manifest(world: World) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.offer("story-good", GOOD, "1.5")
    world.offer("story-good", GOOD, "2.0")
    world.octave("install", "pypi:story-good@<2")
    assert 'version = "<2"' in world.manifest
    assert world.record("story-good")["version"] == "1.5"
    assert world.octave("install", "pypi:story-good", "--json").json["results"][0]["status"] == (
        "present"
    )
    assert 'version = "<2"' in world.manifest


def test_another_version_is_installed_beside_the_old_one(world: World) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.octave("install", "pypi:story-good@1.0")
    world.offer("story-good", GOOD, "2.0")
    done = world.octave("install", "pypi:story-good@2.0", "--json")
    assert done.json["results"][0]["version"] == "2.0"
    assert [name.rpartition("-")[0] for name in world.installed()] == [
        "story-good/1.0",
        "story-good/2.0",
    ]
    assert world.octave("list", "--json").json[0]["version"] == "2.0"


def test_one_package_can_be_two_servers_with_arguments_of_their_own(world: World) -> None:
    world.offer("story-echo", ECHO)
    world.octave("install", "pypi:story-echo")
    done = world.octave("install", "pypi:story-echo", "--as", "other", "--arg", "a b", "--arg=--x")
    assert done.code == 0
    assert 'args = ["a b", "--x"]' in world.manifest
    told = world.call("other", "env").json
    assert told["argv"][1:] == ["a b", "--x"]
    assert told["cwd"] == str(world.home / "data" / "other")
    assert world.call("story-echo", "env").json["argv"][1:] == []


def test_a_name_that_means_another_package_is_not_taken_over(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good", "--as", "x")
    before = world.state()
    done = world.octave("install", "pypi:story-echo", "--as", "x")
    assert done.code == 2
    assert "`x` already names `pypi:story-good`" in done.stderr
    assert world.state() == before


@pytest.mark.parametrize("name", ["../../x", "X", "a/b", "", "-x", "x" * 41, "g\u0456thub", "x\n"])
def test_a_name_unfit_for_a_path_makes_nothing_anywhere(world: World, name: str) -> None:
    before = sorted(world.root.rglob("*"))
    done = world.octave("install", "pypi:story-good", "--as", name)
    assert done.code == 2
    assert "cannot name a server" in done.stderr
    assert sorted(world.root.rglob("*")) == before


def test_a_package_of_the_registry_brings_its_names_and_needs(world: World) -> None:
    world.offer("elevenlabs-mcp", ECHO)
    done = world.octave("install", "elevenlabs")
    assert done.code == 0
    assert "`elevenlabs` needs `ELEVENLABS_API_KEY` (`octave install elevenlabs -e" in done.stderr
    assert not world.record("elevenlabs")["checked"]
    assert world.octave("install", "elevenlabs", "--check").code == 6
    done = world.octave(
        "install", "elevenlabs", "-e", "ELEVENLABS_API_KEY", environ={"ELEVENLABS_API_KEY": TOKEN}
    )
    assert (done.code, done.stdout) == (0, "present elevenlabs 1.0 (2 tools)\n")
    assert world.record("elevenlabs")["checked"]
    assert world.call("elevenlabs", "env").json["env"]["ELEVENLABS_API_KEY"] == TOKEN


def test_a_server_that_starts_without_what_it_needs_is_installed_with_a_word_about_it(
    world: World,
) -> None:
    world.offer("mcp-server-motherduck", GOOD)
    done = world.octave("install", "duckdb")
    assert (done.code, world.record("duckdb")["checked"]) == (0, True)
    said = "note: `duckdb` starts, but it needs `--db-path PATH`; give it with `--arg`\n"
    assert said in done.stderr
    done = world.octave("install", "duckdb", "--arg=--db-path", "--arg", "x.db")
    assert (done.code, "give it with" in done.stderr) == (0, False)


def test_a_secret_lies_in_the_store_and_nowhere_else(world: World) -> None:
    world.offer("story-echo", ECHO)
    done = world.octave(
        "install", "pypi:story-echo", "-e", "SECRET_TOKEN", environ={"SECRET_TOKEN": TOKEN}
    )
    assert done.code == 0
    assert TOKEN not in done.stdout + done.stderr
    told = world.call("story-echo", "env").json
    assert told["env"]["SECRET_TOKEN"] == TOKEN
    assert TOKEN not in json.dumps(told["argv"])
    holding = [path.name for path, found in content(world.home) if TOKEN.encode() in found]
    # The server writes it to stderr itself when it runs; the log of a run is not the installer's.
    assert set(holding) - {"story-echo.log"} == {"secrets.toml"}
    assert (world.home / "secrets.toml").stat().st_mode & 0o777 == 0o600
    assert tomllib.loads(world.manifest)["servers"]["story-echo"]["env"] == {
        "SECRET_TOKEN": {"secret": "story-echo/SECRET_TOKEN"}
    }


def test_the_value_of_a_secret_on_the_command_line_is_refused(world: World) -> None:
    world.offer("elevenlabs-mcp", GOOD)
    done = world.octave("install", "elevenlabs", "-e", f"ELEVENLABS_API_KEY={TOKEN}")
    assert done.told == (
        2,
        "",
        "error: `ELEVENLABS_API_KEY` is a secret, and a command line can be read by others\n"
        "hint: export ELEVENLABS_API_KEY and use `-e ELEVENLABS_API_KEY`, or use "
        "`--env-file FILE`\n",
    )
    assert world.installed() == []
    assert not (world.home / "octave.toml").exists()


def test_an_env_file_gives_secrets_and_plain_values(world: World) -> None:
    world.offer("story-echo", ECHO)
    (world.cwd / "vars").write_text(f"MODE=plain\nX_TOKEN={TOKEN}\n", encoding="utf-8")
    assert world.octave("install", "pypi:story-echo", "--env-file", "vars").code == 0
    assert 'MODE = "plain"' in world.manifest
    assert TOKEN not in world.manifest
    environ = world.call("story-echo", "env").json["env"]
    assert (environ["MODE"], environ["X_TOKEN"]) == ("plain", TOKEN)


def test_secrets_are_put_back_when_the_install_fails(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-crash", CRASHES)
    names = ("X_TOKEN", "NEW_TOKEN")
    world.octave(
        "install", "pypi:story-good", "--as", "x", "-e", "X_TOKEN", environ={"X_TOKEN": "1"}
    )
    world.offer("story-good", CRASHES, "2.0")
    before = world.state()
    words = [word for name in names for word in ("-e", name)]
    done = world.octave(
        *("install", "pypi:story-good@2.0", "--as", "x", *words),
        environ={"X_TOKEN": TOKEN, "NEW_TOKEN": TOKEN},
    )
    assert done.code == 6
    assert world.state() == before


def test_a_secret_that_a_server_quotes_is_hidden_in_every_text(world: World) -> None:
    world.offer("story-quote", QUOTES_ITS_KEY)
    world.offer("story-crash", CRASHES)
    environ = {"STORY_TOKEN": TOKEN}
    quoting = world.octave("install", "pypi:story-quote", "-e", "STORY_TOKEN", environ=environ)
    assert quoting.code == 0
    assert "invalid credentials in STORY_TOKEN: ***" in quoting.stderr
    crashing = world.octave("install", "pypi:story-crash", "-e", "STORY_TOKEN", environ=environ)
    assert "given ***" in crashing.stderr
    as_json = world.octave(
        "install", "pypi:story-crash", "-e", "STORY_TOKEN", "--json", environ=environ
    )
    assert TOKEN not in quoting.stderr + crashing.stderr + as_json.stderr + as_json.stdout
    holding = [path.name for path, found in content(world.home) if TOKEN.encode() in found]
    assert holding == ["secrets.toml"]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (WANTS_KEY, "it says: Error: STORY_KEY environment variable is required"),
        (WANTS_NETWORK, "it says: error: connect ECONNREFUSED 192.0.2.1:443"),
    ],
)
def test_a_server_that_asks_for_something_is_installed_unchecked(
    world: World, server: str, reason: str
) -> None:
    world.offer("story-wants", server)
    done = world.octave("install", "pypi:story-wants", "--json")
    (result,) = done.json["results"]
    assert (done.code, result["status"], result["checked"]) == (0, "installed", False)
    assert result["warning"] == f"`story-wants` was not checked: {reason}"
    assert world.octave("install", "pypi:story-wants", "--check").code == 6
    assert len(world.installed()) == 1


def test_an_unchecked_server_becomes_checked_when_it_gets_what_it_wants(world: World) -> None:
    world.offer("story-key", WANTS_KEY)
    world.octave("install", "pypi:story-key")
    done = world.octave(
        "install", "pypi:story-key", "-e", "STORY_KEY", environ={"STORY_KEY": TOKEN}
    )
    assert (done.code, done.stdout) == (0, "present story-key 1.0 (3 tools)\n")
    assert 'name = "echo"' in world.lockfile


def test_a_broken_server_leaves_nothing(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-crash", CRASHES)
    world.octave("install", "pypi:story-good")
    before = world.state()
    done = world.octave("install", "pypi:story-crash", "--json")
    assert (done.code, done.stdout) == (6, "")
    assert done.error["code"] == "start_failed"
    assert done.error["details"]["exitCode"] == 1
    assert any("AttributeError" in line for line in done.error["details"]["stderrTail"])
    assert world.state() == before


def test_a_broken_server_leaves_nothing_in_a_new_project_either(world: World) -> None:
    world.offer("story-crash", CRASHES)
    manifest = world.cwd / "octave.toml"
    assert world.octave("install", "pypi:story-crash", "--manifest", str(manifest)).code == 6
    assert list(world.cwd.iterdir()) == []


def test_a_server_that_is_not_to_be_started_is_installed_unchecked(world: World) -> None:
    world.offer("story-crash", CRASHES)
    done = world.octave("install", "pypi:story-crash", "--no-start")
    assert (done.code, done.stdout) == (0, "installed story-crash 1.0\n")
    assert world.record("story-crash")["unchecked_reason"] == "not started, as asked"


@pytest.mark.parametrize(
    ("words", "code", "kind", "hint"),
    [
        (["githb"], 4, "server_not_found", "did you mean `github`"),
        (["pypi:story-none-such"], 4, "package_not_found", "spelling"),
        (["pypi:story-good@9"], 4, "version_not_found", "the newest is `1.0`"),
        (["pypi:story-good@^1"], 2, "usage", ""),
        (["pypi:story-two"], 4, "ambiguous", "`--bin aa`"),
        (["pypi:story-two", "--bin", "x"], 1, "install_failed", "choose one with `--bin aa`"),
        (["pypi:story-no-script"], 1, "install_failed", "how it is started"),
        (["ftp://example.com"], 2, "usage", "npm:PACKAGE"),
        (["--", "--global"], 4, "server_not_found", ""),
        (["x;touch pwn"], 4, "server_not_found", ""),
    ],
)
def test_what_cannot_be_installed_says_why_and_leaves_nothing(
    world: World, words: list[str], code: int, kind: str, hint: str
) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-two", GOOD, scripts=["aa", "bb"])
    world.offer("story-no-script", GOOD, scripts=[])
    done = world.octave("install", "--json", *words)
    assert (done.code, done.stdout, done.error["code"]) == (code, "", kind)
    assert hint in (done.error["hint"] or "")
    assert world.state() == {} or set(world.state().values()) == {b"folder"}
    assert list(world.cwd.iterdir()) == []


def test_the_executable_can_be_chosen_and_chosen_anew(world: World) -> None:
    world.offer("story-two", GOOD, scripts=["aa", "bb"])
    assert world.octave("install", "pypi:story-two", "--bin", "bb").code == 0
    assert world.record("story-two")["command"][1] == "{folder}/venv/bin/bb"
    assert 'bin = "bb"' in world.manifest
    assert world.octave("install", "pypi:story-two", "--bin", "aa").code == 0
    assert world.record("story-two")["command"][1] == "{folder}/venv/bin/aa"
    assert 'entry = "aa"' in world.lockfile


def test_an_executable_changed_by_hand_is_followed_by_the_next_install(world: World) -> None:
    world.offer("story-two", GOOD, scripts=["aa", "bb"])
    world.octave("install", "pypi:story-two", "--bin", "bb")
    path = world.home / "octave.toml"
    path.write_text(world.manifest.replace('"bb"', '"aa"'), encoding="utf-8")
    assert world.octave("lock", "--check").code == 7
    assert world.octave("install").code == 0
    assert world.record("story-two")["command"][1] == "{folder}/venv/bin/aa"
    assert world.octave("lock", "--check").code == 0


@pytest.mark.parametrize(
    "text", ["[servers.x\n", "[servers.x]\npackge = 1\n", "[servers]\nx = 3\n"]
)
@pytest.mark.parametrize("verb", ["install", "list", "lock", "uninstall x", "trust"])
def test_an_unreadable_manifest_is_told_with_line_and_column(
    world: World, text: str, verb: str
) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(text, encoding="utf-8")
    done = world.octave(*verb.split(), "--json")
    assert (done.code, done.error["code"]) == (2, "manifest_invalid")
    assert re.search(r"line \d+, column \d+", done.error["message"])
    assert (world.home / "octave.toml").read_text(encoding="utf-8") == text


def test_a_lockfile_that_answers_something_else_is_stale(world: World) -> None:
    world.offer("story-good", GOOD, "1.0")
    world.octave("install", "pypi:story-good")
    with (world.home / "octave.toml").open("a", encoding="utf-8") as file:
        file.write('version = "<1"\n')
    before = world.state()
    for words in (["lock", "--check"], ["install", "--locked"]):
        done = world.octave(*words, "--json")
        assert (done.code, done.error["code"]) == (7, "lock_stale")
        assert (
            "`story-good` is wanted as `pypi:story-good@<1` and locked as" in done.error["message"]
        )
    assert world.state() == before


def test_the_same_lockfile_gives_the_same_on_another_machine(world: World, tmp_path: Path) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    (tmp_path / "second").mkdir()
    second = World(tmp_path / "second", world.index)
    second.home.mkdir(mode=0o700)
    for name in ("octave.toml", "octave.lock"):
        shutil.copy(world.home / name, second.home / name)
    done = second.octave("install", "--locked", "--json")
    assert (done.code, done.json["results"][0]["status"]) == (0, "installed")
    assert second.lockfile == world.lockfile
    assert second.installed() == world.installed()
    assert second.call("story-good", "echo", "text=hi").stdout == "hi\n"


def with_a_digit_changed(path: Path, *, recomputed: bool) -> str:
    """Return the lockfile with one digit of its package's hash changed, digest and all or not."""
    pin = lockfile.read(path).pins["story-good"]
    digit = "0" if pin.integrity[-1] != "0" else "1"
    text = path.read_text(encoding="utf-8").replace(pin.integrity, pin.integrity[:-1] + digit)
    changed = ({**pin.graph[0], "hashes": [pin.integrity[:-1] + digit]},)
    digest = replace(pin, graph=changed).graph_digest
    return text.replace(pin.graph_digest, digest) if recomputed else text


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_changed_hash_in_the_lockfile_installs_nothing(
    world: World, tmp_path: Path, *, recomputed: bool
) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    (tmp_path / "second").mkdir()
    second = World(tmp_path / "second", world.index)
    second.home.mkdir(mode=0o700)
    shutil.copy(world.home / "octave.toml", second.home / "octave.toml")
    changed = with_a_digit_changed(world.home / "octave.lock", recomputed=recomputed)
    (second.home / "octave.lock").write_text(changed, encoding="utf-8")
    done = second.octave("install", "--locked", "--json")
    assert (done.code, done.error["code"]) == (7, "integrity_failed")
    assert "story-good" in done.error["message"]
    assert second.installed() == []
    assert second.lockfile == changed


def test_an_artifact_changed_on_the_index_is_refused(world: World, tmp_path: Path) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    world.offer("story-good", CRASHES)
    (tmp_path / "second").mkdir()
    second = World(tmp_path / "second", world.index)
    second.home.mkdir(mode=0o700)
    for name in ("octave.toml", "octave.lock"):
        shutil.copy(world.home / name, second.home / name)
    done = second.octave("install", "--locked")
    assert done.code == 7
    assert "`story-good==1.0` is not what was locked" in done.stderr
    assert second.installed() == []


def project(world: World, text: str = '[servers.good]\npackage = "pypi:story-good"\n') -> Path:
    folder = world.cwd / "project"
    folder.mkdir()
    (folder / "octave.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_project_someone_else_wrote_needs_trust_before_anything_runs(world: World) -> None:
    world.offer("story-good", GOOD)
    folder = project(world)
    before = (folder / "octave.toml").read_bytes()
    for words in (["install"], ["install", "pypi:story-good", "--as", "x"], ["install", "time"]):
        done = world.octave(*words, cwd=folder)
        assert done.code == 7
        assert "octave trust" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["octave.toml"]
    assert (folder / "octave.toml").read_bytes() == before
    assert world.octave("trust", "-y", cwd=folder).code == 0
    assert world.octave("install", cwd=folder).code == 0
    assert world.octave("call", "good", "echo", "text=x", cwd=folder).stdout == "x\n"


def test_installing_into_a_new_project_of_ones_own_trusts_it(world: World) -> None:
    world.offer("story-good", GOOD)
    manifest = world.cwd / "octave.toml"
    assert world.octave("install", "pypi:story-good", "--manifest", str(manifest)).code == 0
    assert world.octave("install").code == 0
    assert (world.cwd / ".octave" / ".gitignore").read_bytes() == b"*\n"
    assert not (world.home / "octave.toml").exists()
    with manifest.open("a", encoding="utf-8") as file:
        file.write('[servers.more]\ncommand = ["true"]\n')
    assert world.octave("install").code == 7


def test_four_installs_at_once_are_one_install_and_three_finds(world: World) -> None:
    world.offer("story-good", GOOD)
    children = [world.start("install", "pypi:story-good", "--json") for _ in range(4)]
    ends = [ended(child) for child in children]
    assert [done.code for done in ends] == [0] * 4
    statuses = sorted(done.json["results"][0]["status"] for done in ends)
    assert statuses == ["installed", "present", "present", "present"]
    assert len(world.installed()) == 1


def test_row_43_installs_at_once_all_end_up_in_both_files(world: World) -> None:
    names = [f"story-{letter}" for letter in "abcd"]
    for name in names:
        world.offer(name, GOOD)
    ends = [ended(child) for child in [world.start("install", f"pypi:{name}") for name in names]]
    assert [done.code for done in ends] == [0] * 4
    assert sorted(row["name"] for row in world.octave("list", "--json").json) == names
    assert world.octave("lock", "--check").code == 0


@pytest.mark.parametrize("moment", range(5))
def test_after_kill_9_the_old_state_works_and_the_next_install_succeeds(
    world: World, moment: int
) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    world.offer("story-next", GOOD)
    child = world.start("install", "pypi:story-next")
    # Each step is announced on stderr: kill it at the beginning of another one each time.
    assert child.stderr is not None
    for _ in range(moment):
        child.stderr.readline()
    child.kill()
    child.communicate()
    assert world.call("story-good", "echo", "text=hi").stdout == "hi\n"
    assert all(
        (world.home / "servers" / name / "record.json").exists() for name in world.installed()
    )
    done = world.octave("install", "pypi:story-next", "--json")
    assert done.code == 0
    assert done.json["results"][0]["status"] in {"installed", "present"}
    assert list((world.home / "staging").iterdir()) == []
    assert world.octave("lock", "--check").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_install_leaves_nothing(world: World, number: int) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    world.offer("story-slow", "import time\ntime.sleep(60)\n")
    before = world.state()
    child = world.start("install", "pypi:story-slow", "-e", "X_TOKEN", environ={"X_TOKEN": TOKEN})
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("starting"):
            break
    child.send_signal(number)
    done = ended(child)
    assert (done.code, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert world.state() == before


def test_several_servers_are_installed_at_the_same_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.offer("story-one", GOOD)
    world.offer("story-two", GOOD)
    meeting, answer = threading.Barrier(2, timeout=WAIT_S), world.index.answer
    first = {"/simple/story-one/", "/simple/story-two/"}

    def answer_both(path: str) -> bytes | None:
        if path in first:
            first.remove(path)
            meeting.wait()
        return answer(path)

    monkeypatch.setattr(world.index, "answer", answer_both)
    world.wants("story-two", "story-one")
    done = world.octave("install", "--json")
    assert [row["status"] for row in done.json["results"]] == ["installed"] * 2
    assert [row["name"] for row in done.json["results"]] == ["story-two", "story-one"]
    assert world.octave("install", "--locked").code == 0


def test_interrupting_the_installation_of_several_leaves_nothing(world: World) -> None:
    world.offer("story-slow", "import time\ntime.sleep(60)\n")
    world.offer("story-tardy", "import time\ntime.sleep(60)\n")
    world.wants("story-slow", "story-tardy")
    assert world.octave("lock").code == 0
    before = world.state()
    child = world.start("install")
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("starting"):
            break
    child.send_signal(signal.SIGINT)
    done = ended(child)
    assert (done.code, done.stdout) == (130, "")
    assert done.stderr.endswith("error: interrupted\n")
    assert world.state() == before


def test_a_damaged_record_is_replaced_by_the_next_install(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    (path,) = (world.home / "servers").glob("*/*/record.json")
    path.write_text('{"format": 1, "command": 5}', encoding="utf-8")
    assert world.octave("list", "--json").json[0]["state"] == "failed"
    done = world.octave("install", "--json")
    assert (done.code, done.json["results"][0]["status"]) == (0, "installed")
    assert world.call("story-good", "echo", "text=hi").stdout == "hi\n"


@pytest.mark.parametrize("lost", ["venv/bin/python", "venv/bin/story-good"])
def test_what_starts_a_server_is_put_back_by_the_next_install(world: World, lost: str) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    (path,) = (world.home / "servers").glob(f"*/*/{lost}")
    path.unlink()
    done = world.octave("install", "--json")
    assert (done.code, done.json["results"][0]["status"]) == (0, "installed")
    assert world.call("story-good", "echo", "text=hi").stdout == "hi\n"


def test_a_home_that_was_moved_works_on(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good", "-e", "X_TOKEN", environ={"X_TOKEN": TOKEN})
    moved = world.root / "moved"
    world.home.rename(moved)
    environ = {"OCTAVE_HOME": str(moved)}
    call = world.octave("call", "story-good", "echo", "text=hi", environ=environ)
    assert (call.code, call.stdout) == (0, "hi\n")
    assert world.octave("install", "--locked", environ=environ).code == 0


def test_without_network_the_index_is_named_as_unreachable(world: World) -> None:
    world.index.close()
    done = world.octave("install", "pypi:story-good", "--json")
    assert (done.code, done.error["code"]) == (8, "registry_unreachable")
    assert done.error["hint"]
    assert world.installed() == []


def test_what_is_in_the_cache_installs_offline(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    world.index.close()
    done = world.octave("install", "pypi:story-good", "--as", "again", "--offline")
    assert (done.code, done.stdout) == (0, "installed again 1.0 (3 tools)\n")
    done = world.octave("install", "pypi:story-other", "--offline", "--json")
    assert (done.code, done.error["code"]) == (8, "registry_unreachable")
    assert "--offline" in done.error["hint"]


def test_a_limit_on_file_size_is_a_storage_error_that_leaves_nothing(world: World) -> None:
    world.offer("story-good", GOOD)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = world.octave("install", "pypi:story-good", "--json", preexec_fn=limited)
    assert (done.code, done.error["code"]) == (1, "storage_failed")
    assert done.error["hint"]
    assert world.installed() == []


@pytest.mark.parametrize("size", ["64k", "160k"])
def test_row_28_a_full_disk_is_a_storage_error_that_leaves_nothing(world: World, size: str) -> None:
    world.offer("story-good", GOOD)
    with small_disk(world.home, size):
        done = world.octave("install", "pypi:story-good", "--json")
        assert (done.code, done.error["code"]) == (1, "storage_failed")
        assert "space" in done.error["hint"]
        assert world.installed() == []
        assert not (world.home / "octave.toml").exists()


AS_ANOTHER_USER = """
import importlib, os, sys
# First: another user may not be allowed to read what this interpreter is made of.
for name in ("cli.packages", "packages.ecosystems.pypi", "runtime.probe"):
    importlib.import_module(f"octave.{name}")
run = importlib.import_module("octave.cli.main").run
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(run(sys.argv[1:]))
"""


def test_a_home_that_may_not_be_written_is_a_storage_error(world: World) -> None:
    world.offer("story-good", GOOD)
    world.home.mkdir(mode=0o500)
    words = ["install", "-y", "pypi:story-good", "--json"]
    program = [sys.executable, "-m", "octave", *words]
    if os.getuid() == 0:
        shutil.chown(world.home, 65534)
        for folder in [world.root, *world.root.parents[:3]]:
            if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        program = [sys.executable, "-c", AS_ANOTHER_USER, *words]
    done = ended(world.run(program))
    assert (done.code, done.error["code"]) == (1, "storage_failed")
    assert "OCTAVE_HOME" in done.error["hint"]


def test_a_file_in_the_place_of_the_home_is_a_storage_error(world: World) -> None:
    world.home.write_text("not a folder", encoding="utf-8")
    done = world.octave("install", "pypi:story-good", "--json")
    assert (done.code, done.error["code"]) == (1, "storage_failed")


def test_install_without_names_makes_the_machine_equal_the_manifest(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-crash", CRASHES)
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(
        '[servers.a]\npackage = "pypi:story-good"\n\n[servers.bad]\npackage = "pypi:story-crash"\n'
        '[servers.gone]\npackage = "pypi:story-gone"\n[servers.off]\npackage = "pypi:x"\n'
        'enabled = false\n[servers.own]\ncommand = ["true"]\n',
        encoding="utf-8",
    )
    done = world.octave("install", "--json")
    found = {
        row["name"]: (row["status"], (row["error"] or {}).get("code"))
        for row in done.json["results"]
    }
    assert done.code == 1
    assert found == {
        "a": ("installed", None),
        "bad": ("failed", "start_failed"),
        "gone": ("failed", "package_not_found"),
    }


def test_lock_answers_the_manifest_and_installs_nothing(world: World) -> None:
    world.offer("story-good", GOOD)
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(
        '[servers.a]\npackage = "pypi:story-good"\n[servers.b]\npackage = "pypi:story-gone"\n',
        encoding="utf-8",
    )
    done = world.octave("lock", "--json")
    assert [row["status"] for row in done.json["results"]] == ["locked", "failed"]
    assert done.code == 4
    assert world.installed() == []
    assert 'name = "a"' in world.lockfile
    world.offer("story-gone", GOOD)
    assert world.octave("lock").code == 0
    assert world.octave("lock", "--check").code == 0
    assert world.octave("install", "--locked").code == 0


# What follows drives the function itself: the moments are inside of it.


@pytest.fixture
def site(world: World) -> Site:
    home = Home(world.home)
    home.prepare()
    offer = Offered(b"{}", {"tools": (b'{"name":"a"}',)})
    return Site(
        workspace=Workspace.of_home(home),
        registry=Registry(bundled_folder()),
        bench=Bench(home, world.environ),
        check=lambda _: offer,
    )


def failing(site: Site, step: Callable[[], None]) -> Site:
    def check(spec: LaunchSpec) -> Offered:
        step()
        return site.check(spec)

    return Site(site.workspace, site.registry, site.bench, check)


def test_an_error_while_writing_down_takes_everything_back(world: World, site: Site) -> None:
    world.offer("story-good", GOOD)
    story.install(Request("pypi:story-good"), site)
    world.offer("story-next", GOOD)
    before = world.state()
    in_the_way = site.workspace.lockfile.parent / "catalogue" / "story-next.json"
    in_the_way.mkdir()
    answers = Answers(file={"X_TOKEN": TOKEN})
    with pytest.raises(IsADirectoryError):
        story.install(Request("pypi:story-next", answers=answers), site)
    assert world.state() == before


def test_a_manifest_that_becomes_a_strangers_meanwhile_is_not_trusted(
    world: World, site: Site
) -> None:
    world.offer("story-good", GOOD)
    workspace = Workspace(site.workspace.home, world.cwd / "octave.toml")
    text = '[servers.evil]\ncommand = ["evil"]\n'
    project_site = Site(workspace, site.registry, site.bench, site.check)

    def someone_writes() -> None:
        workspace.manifest.write_text(text, encoding="utf-8")

    step = failing(project_site, someone_writes)
    with pytest.raises(NotTrusted):
        story.install(Request("pypi:story-good"), step)
    assert workspace.manifest.read_text(encoding="utf-8") == text
    assert world.installed() == []


def test_the_runtime_is_told_after_everything_is_written(world: World, site: Site) -> None:
    world.offer("story-good", GOOD)
    seen: list[str] = []
    told = Site(
        site.workspace,
        site.registry,
        site.bench,
        site.check,
        changed=lambda: seen.append(world.lockfile),
    )
    story.install(Request("pypi:story-good"), told)
    assert ['name = "story-good"' in text for text in seen] == [True]


def test_an_update_with_nothing_to_do_needs_no_runtime_that_answers(
    world: World, site: Site
) -> None:
    world.offer("story-good", GOOD)
    story.install(Request("pypi:story-good"), site)

    def swapped(name: str) -> None:
        raise RuntimeSilent("the runtime (pid 7) does not answer", hint="`kill -9 7` ends it")

    silent = replace(site, swapped=swapped)
    outcome = update("story-good", silent, Terms(agrees=lambda _: True))
    assert (outcome.status, outcome.warning) == (
        "current",
        "the runtime (pid 7) does not answer, and may have another version: `kill -9 7` ends it",
    )


def test_threads_that_install_the_same_take_turns(world: World, site: Site) -> None:
    world.offer("story-good", GOOD)
    outcomes: list[str] = []

    def one() -> None:
        outcomes.append(story.install(Request("pypi:story-good"), site).status)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["installed", "present", "present", "present"]


def test_leaving_a_change_with_an_error_puts_both_files_back(site: Site) -> None:
    workspace = site.workspace
    workspace.manifest.write_text("# mine\n", encoding="utf-8")
    workspace.manifest.chmod(0o640)
    with pytest.raises(KeyError), ledger.changing(workspace):
        workspace.manifest.write_text("# changed\n", encoding="utf-8")
        workspace.lockfile.write_text("new", encoding="utf-8")
        raise KeyError
    assert workspace.manifest.read_text(encoding="utf-8") == "# mine\n"
    assert workspace.manifest.stat().st_mode & 0o777 == 0o640
    assert not workspace.lockfile.exists()


def test_a_server_that_fails_its_start_installs_nothing_of_its_secrets(
    world: World, site: Site
) -> None:
    world.offer("story-good", GOOD)

    def crash() -> None:
        raise StartFailed("no", details={"exitCode": None, "signal": 11})

    answers = Answers(file={"X_TOKEN": TOKEN})
    with pytest.raises(StartFailed):
        story.install(Request("pypi:story-good", answers=answers), failing(site, crash))
    assert Secrets(site.workspace.home).list() == []
    assert world.installed() == []
