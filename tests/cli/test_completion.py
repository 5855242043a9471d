"""Completion, asked as the shipped scripts ask."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from octave.cli.completion import Shell, script
from octave.cli.main import VERBS
from tests.cli.desk import CHECKOUT, SERVERS, TOOLBOX, Desk

SHIPPED = {Shell.bash: "octave.bash", Shell.zsh: "_octave", Shell.fish: "octave.fish"}


def completed(desk: Desk, *words: str) -> list[str]:
    """Return what bash offers for the last of `words`."""
    done = desk.octave(
        environ={
            "_OCTAVE_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(("octave", *words)),
            "COMP_CWORD": str(len(words)),
        }
    )
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("shell", list(Shell))
def test_the_shipped_scripts_are_what_the_verb_prints(desk: Desk, shell: Shell) -> None:
    shipped = (CHECKOUT / "completions" / SHIPPED[shell]).read_text(encoding="utf-8")

    assert shipped == script(shell) + "\n"
    assert desk.octave("completion", shell.value).told == (0, shipped, "")


def test_json_has_the_script_and_an_unknown_shell_exits_2(desk: Desk) -> None:
    assert desk.octave("completion", "bash", "--json").json == {
        "shell": "bash",
        "script": script(Shell.bash),
    }
    done = desk.octave("completion", "tcsh")
    assert (done.code, done.stdout) == (2, "")
    assert "`tcsh` is not one of `bash`, `zsh`, `fish`" in done.stderr


def test_verbs_complete(desk: Desk) -> None:
    assert completed(desk, "") == list(VERBS)
    assert completed(desk, "sta") == ["start", "status"]
    assert completed(desk, "zzz") == []
    assert completed(desk, "--ver") == ["--version"]


def test_options_complete(desk: Desk) -> None:
    assert completed(desk, "call", "--t") == ["--timeout"]
    assert completed(desk, "status", "--j") == ["--json"]


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "status", "logs", "tools", "call"])
def test_servers_complete_for_every_verb_that_takes_one(desk: Desk, verb: str) -> None:
    desk.server("good")
    desk.server("gopher", SERVERS / "good.py")
    desk.server("other", SERVERS / "good.py")

    assert completed(desk, verb, "go") == ["good", "gopher"]


def test_servers_are_those_of_the_manifest_that_was_named(desk: Desk) -> None:
    desk.server("home")
    project = desk.cwd / "octave.toml"
    desk.project(project, "here")
    desk.project(desk.root / "named.toml", "there")

    assert completed(desk, "start", "") == ["here"]
    assert completed(desk, "start", "-g", "") == ["home"]
    assert completed(desk, "start", "--manifest", str(desk.root / "named.toml"), "") == ["there"]


def test_tools_complete_but_for_names_no_shell_should_see(desk: Desk) -> None:
    desk.server("toolbox", TOOLBOX)
    assert completed(desk, "call", "toolbox", "") == []
    desk.octave("call", "toolbox", "fails")

    assert completed(desk, "call", "toolbox", "re") == ["resources", "refuses"]
    assert "$(reboot)" not in completed(desk, "call", "toolbox", "")


def test_topics_of_help_and_shells_complete(desk: Desk) -> None:
    assert completed(desk, "help", "exi") == ["exit-codes"]
    assert completed(desk, "completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(
    "words", [("nope", "x"), ("start", "x"), ("call", "x", "y"), ("start", "--manifest", "/no", "")]
)
def test_whatever_is_wrong_completes_nothing_and_says_nothing(
    desk: Desk, words: tuple[str, ...]
) -> None:
    (desk.home / "octave.toml").write_text("not toml", encoding="utf-8")

    assert completed(desk, *words) == []


def test_in_a_folder_that_is_gone_nothing_completes(desk: Desk) -> None:
    desk.server("good")
    gone = desk.root / "gone"
    gone.mkdir()
    program = (
        "import os, sys; os.rmdir(os.getcwd());"
        "from octave.__main__ import main; sys.argv = ['octave']; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=gone,
        env={
            **desk.environ,
            **{"_OCTAVE_COMPLETE": "complete_bash", "COMP_WORDS": "octave\nstart\n"},
            "COMP_CWORD": "2",
        },
        capture_output=True,
        timeout=30,
    )

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")


def test_bash_completes_through_the_shipped_script(desk: Desk) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    desk.server("good")
    folder = desk.root / "bin"
    folder.mkdir()
    command = folder / "octave"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m octave "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    asked = f"""
        source {CHECKOUT / "completions" / "octave.bash"}
        COMP_WORDS=(octave start g) COMP_CWORD=2
        _octave_completion {command} g start
        echo "${{COMPREPLY[@]}}"
    """

    done = subprocess.run(
        [bash, "--norc", "-c", asked],
        env=desk.environ,
        cwd=desk.cwd,
        capture_output=True,
        timeout=30,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"good\n", b"")


@pytest.mark.parametrize("words", ["octave\nsta", "octave\nstart\ng", "octave\ncall\ngood\ne"])
def test_a_tab_loads_neither_pydantic_nor_the_runtime(desk: Desk, words: str) -> None:
    desk.server("good")
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "from octave.cli.main import run; run([])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **desk.environ,
            **{"_OCTAVE_COMPLETE": "complete_bash", "COMP_WORDS": words},
            "COMP_CWORD": str(words.count("\n")),
        },
        cwd=desk.cwd,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0
    assert {"pydantic", "asyncio", "anyio", "psutil", "msgspec"}.isdisjoint(done.stderr.split())


def test_the_scripts_are_found_where_they_are_shipped() -> None:
    assert {path.name for path in Path(CHECKOUT / "completions").iterdir()} == set(SHIPPED.values())
