"""`edit`: a person's editor on octave.toml, and what is said of what it left."""

import signal
import stat
import sys
from pathlib import Path

import pytest

from tests.cli.desk import Desk
from tests.cli.terminal import on_terminal


def editor(desk: Desk, code: str, *, name: str = "editor") -> str:
    """Return an editor that runs `code` on `path` of the file, and notes that it was there."""
    program = desk.root / name
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[-1])\n"
        f"with open({str(desk.root / 'opened')!r}, 'a') as file:\n"
        "    file.write(f'{sys.argv[1:]}\\n')\n"
        f"{code}\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    return str(program)


def replacing(old: str, new: str) -> str:
    return f"path.write_text(path.read_text().replace({old!r}, {new!r}))"


@pytest.fixture
def path(desk: Desk) -> Path:
    desk.server("good")
    return desk.home / "octave.toml"


def test_what_was_changed_is_checked_and_told(desk: Desk, path: Path) -> None:
    environ = {"EDITOR": editor(desk, replacing("runtime.port", "# mine\nruntime.port"))}
    assert desk.octave("edit", environ=environ).told == (
        0,
        "changed ROOT/h/octave.toml\n",
        "note: `octave install` installs what is new in it\n",
    )
    assert path.read_text(encoding="utf-8").startswith("# mine\n")
    environ = {"EDITOR": editor(desk, "pass")}
    assert desk.octave("edit", environ=environ).told == (0, "unchanged ROOT/h/octave.toml\n", "")
    assert desk.octave("edit", "--json", environ=environ).json == {
        "manifest": "ROOT/h/octave.toml",
        "status": "unchanged",
    }


def test_visual_comes_first_and_may_have_arguments(desk: Desk, path: Path) -> None:
    program = editor(desk, "pass", name="my editor")
    environ = {"VISUAL": f"'{program}' --wait -n", "EDITOR": "false"}
    assert desk.octave("edit", environ=environ).code == 0
    assert (desk.root / "opened").read_text(encoding="utf-8") == (
        f"{['--wait', '-n', str(path)]}\n"
    )


def test_a_mistake_is_told_with_its_place_and_the_file_left_as_it_is(
    desk: Desk, path: Path
) -> None:
    environ = {"EDITOR": editor(desk, replacing("command", "commnd"))}
    done = desk.octave("edit", environ=environ)
    assert done.told == (
        2,
        "",
        "error: `octave.toml` line 4, column 1: unknown key `commnd` in [servers.good]; did you "
        "mean `command`?; the file is left as you saved it\n"
        "hint: `octave edit` opens it again; a running runtime goes on with what it had\n",
    )
    assert "commnd" in path.read_text(encoding="utf-8")
    done = desk.octave("edit", "--json", environ=environ)
    assert (done.code, done.error["details"]["line"], done.error["details"]["column"]) == (2, 4, 1)
    environ = {"EDITOR": editor(desk, replacing("commnd", "command"))}
    assert desk.octave("edit", environ=environ).code == 0


def test_on_a_terminal_it_offers_to_edit_again(desk: Desk, path: Path) -> None:
    program = editor(
        desk,
        "text = path.read_text()\n"
        "again = 'commnd' in text\n"
        "path.write_text(text.replace('commnd', 'command') if again else "
        "text.replace('command', 'commnd'))",
    )
    environ = {**desk.environ, "EDITOR": program}
    before = path.read_bytes()
    code, shown = on_terminal(environ, desk.cwd, [("Edit it again? [Y/n]: ", "")], "edit")
    assert (code, path.read_bytes()) == (0, before)
    assert "line 4, column 1: unknown key `commnd`" in shown
    code, shown = on_terminal(environ, desk.cwd, [("Edit it again? [Y/n]: ", "n")], "edit")
    assert code == 2
    assert "the file is left as you saved it" in shown
    assert b"commnd" in path.read_bytes()


def test_a_running_runtime_takes_the_change_over_and_survives_a_mistake(
    desk: Desk, path: Path
) -> None:
    assert desk.octave("start", "good").code == 0
    desk.octave("edit", environ={"EDITOR": editor(desk, replacing("command", "commnd"))})
    assert desk.octave("status", "--json").json["servers"][0]["state"] == "ready"
    desk.octave("edit", environ={"EDITOR": editor(desk, replacing("commnd", "command"))})
    add = "path.write_text(path.read_text() + '[servers.more]\\ncommand = [\"cat\"]\\n')"
    desk.octave("edit", environ={"EDITOR": editor(desk, add)})
    names = [row["name"] for row in desk.octave("status", "--json").json["servers"]]
    assert names == ["good", "more"]


def test_a_trusted_project_stays_so_and_another_does_not_become_it(desk: Desk) -> None:
    folder = desk.root / "project"
    folder.mkdir()
    desk.project(folder / "octave.toml", "good")
    environ = {"EDITOR": editor(desk, replacing("[servers", "\n[servers"))}
    assert desk.octave("edit", cwd=folder, environ=environ).code == 0
    assert desk.octave("call", "good", "echo", "text=hi", cwd=folder).code == 7
    desk.octave("trust", "-y", cwd=folder)
    add = "path.write_text(path.read_text() + 'pass_env = [\"A\"]\\n')"
    assert desk.octave("edit", cwd=folder, environ={"EDITOR": editor(desk, add)}).code == 0
    assert desk.octave("call", "good", "echo", "text=hi", cwd=folder).stdout == "hi\n"


def test_without_a_manifest_there_is_one_to_edit(desk: Desk) -> None:
    environ = {"EDITOR": editor(desk, "assert path.read_text().startswith('# What Octave')")}
    assert desk.octave("edit", environ=environ).told[:2] == (0, "unchanged ROOT/h/octave.toml\n")
    assert stat.S_IMODE((desk.home / "octave.toml").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("environ", "code", "stderr"),
    [
        (
            {},
            2,
            "error: nobody is there to edit, and EDITOR names no program\n"
            "hint: change single keys with `octave set NAME KEY=VALUE`\n",
        ),
        (
            {"EDITOR": "nonesuch"},
            2,
            "error: the editor `nonesuch` cannot be run: No such file or directory\n"
            "hint: export EDITOR=PROGRAM\n",
        ),
        (
            {"EDITOR": "'vi"},
            2,
            "error: EDITOR is no command: No closing quotation\nhint: export EDITOR=nano\n",
        ),
        (
            {"EDITOR": "false"},
            1,
            "error: the editor `false` ended with 1, so nothing was taken over\n"
            "hint: `ROOT/h/octave.toml` is as the editor left it\n",
        ),
    ],
)
def test_an_editor_that_is_none_is_told(
    desk: Desk, path: Path, environ: dict[str, str], code: int, stderr: str
) -> None:
    before = path.read_bytes()
    assert desk.octave("edit", environ=environ).told == (code, "", stderr)
    assert path.read_bytes() == before


def test_ctrl_c_is_the_editors(desk: Desk, path: Path) -> None:
    program = editor(
        desk,
        "import os, signal\n"
        "caught = []\n"
        "signal.signal(signal.SIGINT, lambda *_: caught.append(1))\n"
        "os.killpg(os.getpgrp(), signal.SIGINT)\n"
        "assert caught\n" + replacing("runtime.port", "# kept\nruntime.port"),
    )
    child = desk.start("edit", environ={"EDITOR": program}, start_new_session=True)
    done = desk.ended(child)
    assert (done.code, done.stdout) == (0, "changed ROOT/h/octave.toml\n"), done.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
