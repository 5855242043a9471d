"""`secret`: a value goes in by a prompt or stdin, and comes out for a server alone."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.desk import Desk
from tests.cli.terminal import on_terminal
from tests.packages.drawer import VARIABLE

VALUE = "hush-0815-value"
REFERENCES = {"TOKEN": {"secret": "env-echo/TOKEN"}, "MORE": {"secret": "env-echo/MORE"}}
NO_KEYRING = "note: not in the system's keyring: no keyring answers here\n"


@pytest.fixture
def drawer(desk: Desk, tmp_path: Path) -> Path:
    """A keyring that lies in a file, as the system's."""
    path = tmp_path / "drawer"
    desk.environ["PYTHON_KEYRING_BACKEND"] = "tests.packages.drawer.Drawer"
    desk.environ[VARIABLE] = str(path)
    return path


def holders(folder: Path, value: str = VALUE) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and value.encode() in path.read_bytes():
            yield path.name


def test_a_value_comes_from_stdin_without_its_line_break_and_reaches_the_server(desk: Desk) -> None:
    desk.server("env-echo", env=REFERENCES)
    assert desk.octave("secret", "set", "env-echo", "TOKEN", text=f"{VALUE}\n".encode()).told == (
        0,
        "stored env-echo/TOKEN in ROOT/h/secrets.toml\n",
        NO_KEYRING,
    )
    desk.octave("secret", "set", "env-echo", "MORE", text=b"a=b c\n\n")
    environ = desk.octave("call", "env-echo", "env").json["env"]
    assert (environ["TOKEN"], environ["MORE"]) == (VALUE, "a=b c\n")
    assert stat.S_IMODE((desk.home / "secrets.toml").stat().st_mode) == 0o600


def test_with_a_keyring_no_file_has_the_value_and_the_server_has(desk: Desk, drawer: Path) -> None:
    desk.server("env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    done = desk.octave("secret", "set", "env-echo", "TOKEN", text=VALUE.encode())
    assert done.told == (0, "stored env-echo/TOKEN in the system's keyring\n", "")
    assert desk.octave("call", "env-echo", "env").json["env"]["TOKEN"] == VALUE
    assert set(holders(desk.root)) - {"env-echo.log"} == {drawer.name}
    assert not (desk.home / "secrets.toml").exists()
    assert desk.octave("secret", "remove", "env-echo", "TOKEN").code == 0
    assert VALUE not in drawer.read_text(encoding="utf-8")


def test_a_keyring_that_is_locked_stops_what_needs_it_with_the_way_out(
    desk: Desk, drawer: Path
) -> None:
    desk.server("env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    desk.octave("secret", "set", "env-echo", "TOKEN", text=VALUE.encode())
    drawer.rename(drawer.with_name("elsewhere"))
    drawer.mkdir()
    told = (
        "error: `env-echo/TOKEN` lies in the system's keyring, which cannot be used: "
        "the drawer is locked\n"
        "hint: unlock it, or give the value anew: `octave secret set env-echo TOKEN`\n"
    )
    assert desk.octave("call", "env-echo", "env").told == (6, "", told)
    assert desk.octave("secret", "remove", "env-echo", "TOKEN").told == (1, "", told)
    (row,) = desk.octave("secret", "list", "--json").json
    assert row["place"] == "keyring"
    assert desk.octave("secret", "set", "env-echo", "TOKEN", text=b"anew").told == (
        0,
        "stored env-echo/TOKEN in ROOT/h/secrets.toml\n",
        "note: not in the system's keyring: the drawer is locked\n",
    )
    assert desk.octave("call", "env-echo", "env").json["env"]["TOKEN"] == "anew"


def test_a_purge_does_all_it_can_while_the_keyring_is_locked(desk: Desk, drawer: Path) -> None:
    desk.server("env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    desk.octave("secret", "set", "env-echo", "TOKEN", text=VALUE.encode())
    drawer.rename(drawer.with_name("elsewhere"))
    drawer.mkdir()
    assert desk.octave("uninstall", "env-echo", "--purge", "-q").told == (
        0,
        "removed env-echo\n",
        "warning: `env-echo/TOKEN` lies in the system's keyring, which cannot be used: "
        "the drawer is locked\n",
    )
    drawer.rmdir()
    drawer.with_name("elsewhere").rename(drawer)
    assert desk.octave("secret", "remove", "env-echo", "TOKEN").code == 0
    assert VALUE not in drawer.read_text(encoding="utf-8")


def test_on_a_terminal_it_is_typed_unseen(desk: Desk) -> None:
    answers = [("Value of TOKEN for env-echo: ", VALUE)]
    words = ("secret", "set", "env-echo", "TOKEN")
    code, shown = on_terminal(desk.environ, desk.cwd, answers, *words)
    assert code == 0, shown
    assert VALUE not in shown
    assert list(holders(desk.home)) == ["secrets.toml"]


def test_in_ci_nobody_is_asked(desk: Desk) -> None:
    desk.environ["CI"] = "1"
    code, shown = on_terminal(desk.environ, desk.cwd, [], "secret", "set", "env-echo", "TOKEN")
    assert code == 2
    assert "nobody can be asked" in shown


@pytest.mark.parametrize("words", [("TOKEN", VALUE), (f"TOKEN={VALUE}",), ("TOKEN", "a", VALUE)])
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_value_on_the_command_line_is_refused_and_not_repeated(
    desk: Desk, words: tuple[str, ...], more: tuple[str, ...]
) -> None:
    done = desk.octave("secret", "set", "env-echo", *words, *more, text=b"x")
    assert (done.code, done.stdout) == (2, "")
    assert "a secret's value is not taken from the command line" in done.stderr
    assert "octave secret set env-echo TOKEN" in done.stderr
    assert VALUE not in done.stderr
    assert not (desk.home / "secrets.toml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no value for `TOKEN` on stdin, and nobody can be asked"),
        (b"\n", "no value for `TOKEN` on stdin, and nobody can be asked"),
        (b"hush\xff", "what stands on stdin is not UTF-8 text"),
        (b"hush\0", "what stands on stdin is too long, or not text, for a value"),
        (b"hush" * 2**15 + b"x", "what stands on stdin is too long, or not text, for a value"),
    ],
    ids=["empty", "line", "bytes", "nul", "long"],
)
def test_what_cannot_be_a_value_is_told_without_it(desk: Desk, text: bytes, message: str) -> None:
    done = desk.octave("secret", "set", "env-echo", "TOKEN", text=text)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}\n")
    assert "hush" not in done.stderr


@pytest.mark.parametrize(("name", "key"), [("X", "TOKEN"), ("a/b", "T"), ("x", "A B"), ("x", "")])
def test_what_cannot_be_a_name_is_refused(desk: Desk, name: str, key: str) -> None:
    done = desk.octave("secret", "set", name, key, text=b"x")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.endswith("hint: octave secret set NAME KEY\n")


def test_what_is_left_to_do_is_told(desk: Desk) -> None:
    desk.server("env-echo")
    done = desk.octave("secret", "set", "env-echo", "TOKEN", text=b"x")
    assert done.stderr == NO_KEYRING + (
        "note: `env-echo` is given it by "
        "`octave set env-echo env.TOKEN='{ secret = \"env-echo/TOKEN\" }'`\n"
    )
    done = desk.octave("secret", "set", "env-eco", "TOKEN", text=b"x")
    assert done.stderr == NO_KEYRING + (
        "note: there is no server `env-eco` here yet; did you mean `env-echo`?\n"
    )
    assert desk.octave("secret", "set", "env-echo", "TOKEN", "-q", text=b"y").stderr == ""


def test_the_command_that_is_named_gives_the_server_its_secret(desk: Desk) -> None:
    desk.server("env-echo")
    desk.octave("secret", "set", "env-echo", "TOKEN", text=VALUE.encode())
    desk.octave("set", "env-echo", 'env.TOKEN={ secret = "env-echo/TOKEN" }')
    assert desk.octave("call", "env-echo", "env").json["env"]["TOKEN"] == VALUE


def test_a_running_server_is_told_to_have_the_old_value(desk: Desk) -> None:
    desk.server("env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    desk.octave("secret", "set", "env-echo", "TOKEN", text=b"old")
    assert desk.octave("start", "env-echo").code == 0
    done = desk.octave("secret", "set", "env-echo", "TOKEN", text=b"new")
    assert done.stderr == (
        "note: `env-echo` runs with the old value until `octave restart env-echo`\n"
    )
    assert desk.octave("call", "env-echo", "env").json["env"]["TOKEN"] == "old"
    assert desk.octave("restart", "env-echo").code == 0
    assert desk.octave("call", "env-echo", "env").json["env"]["TOKEN"] == "new"


def test_the_list_has_names_places_and_users_and_marks_what_is_unset(desk: Desk) -> None:
    assert desk.octave("secret", "list").told == (
        0,
        "",
        "no secrets are stored, and none are missing\n",
    )
    desk.server("env-echo", env=REFERENCES)
    desk.octave("secret", "set", "env-echo", "TOKEN", text=VALUE.encode())
    desk.octave("secret", "set", "other", "TOKEN", text=VALUE.encode())
    done = desk.octave("secret", "list")
    assert (done.code, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["SERVER", "KEY", "KEPT", "IN", "USED", "BY"],
        ["env-echo", "MORE", "nowhere:", "unset", "env-echo"],
        ["env-echo", "TOKEN", "file", "env-echo"],
        ["other", "TOKEN", "file", "-"],
    ]
    rows = desk.octave("secret", "list", "--json").json
    use = {"server": "env-echo", "manifest": "ROOT/h/octave.toml"}
    assert rows == [
        {"server": "env-echo", "key": "MORE", "place": None, "usedBy": [use]},
        {"server": "env-echo", "key": "TOKEN", "place": "file", "usedBy": [use]},
        {"server": "other", "key": "TOKEN", "place": "file", "usedBy": []},
    ]
    assert desk.octave("secret", "list", "env-echo", "--json").json == rows[:2]
    assert desk.octave("secret", "list", "other", "--json").json == rows[2:]
    assert desk.octave("secret", "list", "env-eco").told == (
        4,
        "",
        "error: no server `env-eco`\nhint: did you mean `env-echo`?\n",
    )


def test_a_secret_of_another_project_is_not_taken_for_unused(desk: Desk) -> None:
    folder = desk.root / "project"
    folder.mkdir()
    desk.project(folder / "octave.toml", "env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    desk.octave("trust", "-y", cwd=folder)
    desk.octave("secret", "set", "env-echo", "TOKEN", text=b"x", cwd=folder)
    (row,) = desk.octave("secret", "list", "-g", "--json").json
    assert row["usedBy"] == [{"server": "env-echo", "manifest": "ROOT/project/octave.toml"}]
    assert "env-echo (ROOT/project/octave.toml)" in desk.octave("secret", "list", "-g").stdout
    (folder / "octave.toml").write_text("broken", encoding="utf-8")
    assert desk.octave("secret", "list", "-g", "--json").json[0]["usedBy"] == []


def test_removing_warns_of_who_needs_it_and_names_near_ones(desk: Desk) -> None:
    desk.server("env-echo", env={"TOKEN": REFERENCES["TOKEN"]})
    desk.octave("secret", "set", "env-echo", "TOKEN", text=b"x")
    assert desk.octave("secret", "remove", "env-echo", "TOKE").told == (
        4,
        "",
        "error: no secret `env-echo/TOKE` is stored\nhint: did you mean `env-echo/TOKEN`?\n",
    )
    assert desk.octave("secret", "remove", "env-echo", "TOKEN").told == (
        0,
        "removed env-echo/TOKEN\n",
        "warning: without it these do not start: env-echo\n",
    )
    done = desk.octave("call", "env-echo", "env")
    assert done.code == 6
    assert done.stderr.endswith("hint: octave secret set env-echo TOKEN\n")


def test_json_has_no_value_anywhere(desk: Desk) -> None:
    told = [
        desk.octave("secret", "set", "env-echo", "TOKEN", "--json", text=VALUE.encode()),
        desk.octave("secret", "list", "--json"),
        desk.octave("secret", "remove", "env-echo", "TOKEN", "--json"),
    ]
    assert [done.code for done in told] == [0, 0, 0]
    assert told[0].json == {
        "server": "env-echo",
        "key": "TOKEN",
        "status": "stored",
        "place": "file",
    }
    assert told[2].json == {"server": "env-echo", "key": "TOKEN", "status": "removed"}
    assert not any(VALUE in done.stdout + done.stderr for done in told)
    assert [done.stderr for done in told] == ["", "", ""]


def test_a_broken_manifest_keeps_nobody_from_storing_and_removing(desk: Desk) -> None:
    (desk.home / "octave.toml").write_text("[servers.x\n", encoding="utf-8")
    done = desk.octave("secret", "set", "x", "TOKEN", text=b"x")
    assert (done.code, done.stdout) == (0, "stored x/TOKEN in ROOT/h/secrets.toml\n")
    assert "note: `octave.toml` line 1" in done.stderr
    assert desk.octave("secret", "list").code == 2
    assert desk.octave("secret", "remove", "x", "TOKEN").told == (0, "removed x/TOKEN\n", "")


def test_two_at_once_lose_nothing(desk: Desk) -> None:
    children = [
        desk.start("secret", "set", "x", f"KEY_{number}", "-q", stdin=subprocess.PIPE)
        for number in range(6)
    ]
    for number, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write(f"value {number}".encode())
        child.stdin.close()
        child.stdin = None
    assert [desk.ended(child).code for child in children] == [0] * 6
    rows = desk.octave("secret", "list", "--json").json
    assert [row["key"] for row in rows] == [f"KEY_{number}" for number in range(6)]
    text = (desk.home / "secrets.toml").read_text(encoding="utf-8")
    assert all(json.dumps(f"value {number}") in text for number in range(6))


def test_without_a_sub_verb_it_explains_itself(desk: Desk) -> None:
    done = desk.octave("secret")
    assert (done.code, done.stderr) == (0, "")
    assert all(f"  {verb}" in done.stdout for verb in ("set", "list", "remove"))
    shown = desk.octave("secret", "set", "--help").stdout
    assert shown.startswith("Usage: octave secret set [OPTIONS] {NAME} {KEY}\n")
