"""`octave tools` and `octave call`, with a runtime and without, and servers of every sort."""

import json
import os
import pty
import re
import signal

import pytest

from tests.cli.desk import SERVERS, TOOLBOX, Desk, Done, has_hidden, read_until
from tests.cli.toolbox_forms import ODD_RESULT, PICTURE

ECHO = '{"content":[{"type":"text","text":"hi"}],"isError":false,"resultType":"complete"}\n'


@pytest.fixture
def toolbox(desk: Desk) -> Desk:
    desk.server("toolbox", TOOLBOX)
    return desk


def arguments(desk: Desk, *words: str, text: bytes | None = None) -> object:
    done = desk.octave("call", "toolbox", "arguments", *words, text=text)
    assert (done.code, done.stderr) == (0, "")
    return json.loads(done.stdout)


# Without a runtime.


def test_a_call_without_a_runtime_prints_the_text_and_leaves_nothing_behind(desk: Desk) -> None:
    desk.server("good")
    desk.server("hang-on-call")

    done = desk.octave("call", "good", "echo", "text=hi")

    assert done.told == (0, "hi\n", "")
    assert desk.events() == ["start", "call:echo", "eof"]
    assert desk.servers() == []
    assert [path.name for path in (desk.home / "run").iterdir()] == []
    assert (desk.home / "logs" / "good.log").exists()


def test_a_tool_that_came_later_is_found_although_the_catalogue_is_older(desk: Desk) -> None:
    program = desk.root / "growing.py"
    lines = [
        "import pathlib, sys",
        f"sys.path.insert(0, {str(SERVERS)!r})",
        "from _base import Server, text, tool",
        "class S(Server):",
        "    def tools(self):",
        f"        return [tool(n) for n in pathlib.Path({str(desk.root / 'names')!r})"
        ".read_text().split()]",
        "    def call(self, name, args, msg):",
        "        return text(name)",
        "S().run()",
    ]
    program.write_text("\n".join(lines), encoding="utf-8")
    desk.server("growing", program)
    (desk.root / "names").write_text("old", encoding="utf-8")
    assert desk.octave("call", "growing", "old").told == (0, "old\n", "")
    (desk.root / "names").write_text("old new", encoding="utf-8")
    assert desk.octave("call", "growing", "new").told == (0, "new\n", "")
    assert desk.octave("call", "growing", "none").code == 4


def test_a_call_through_a_running_runtime_gives_the_same_and_keeps_the_server(desk: Desk) -> None:
    desk.server("good")
    desk.octave("start")

    first = desk.octave("call", "good", "pid")
    second = desk.octave("call", "good", "pid")

    assert (first.code, first.stderr) == (0, "")
    assert first == second
    assert [int(first.stdout)] == desk.servers()


def test_json_is_the_result_byte_by_byte_as_the_server_wrote_it(toolbox: Desk) -> None:
    command = ("call", "toolbox", "odd", "--json")
    alone, _ = toolbox.start(*command).communicate()
    toolbox.octave("start")
    through, _ = toolbox.start(*command).communicate()

    assert alone == through == ODD_RESULT + b"\n"


def test_json_on_a_terminal_is_the_same_document_without_hidden_characters(toolbox: Desk) -> None:
    ours, theirs = pty.openpty()
    child = toolbox.start("call", "toolbox", "odd", "--json", stdout=theirs)
    os.close(theirs)
    shown = read_until(ours, b"\n}").decode().replace("\r\n", "\n")
    os.close(ours)

    assert toolbox.ended(child).code == 0
    assert json.loads(shown) == json.loads(ODD_RESULT)
    assert not has_hidden(shown)


# What was asked for.


def test_values_are_converted_by_the_tool_s_schema(toolbox: Desk) -> None:
    told = arguments(
        toolbox,
        *("text=5", "whole=5", "number=-2.5", "flag=true", "nothing=null", 'list=["a"]'),
        *('object={"a":1}', "maybe=null", "loose=7", "level=2", "colour=red", 'point={"x":1}'),
        *("free=1", "unknown=1", "raw:=[1, 2]"),
    )

    assert told == {
        **{"text": "5", "whole": 5, "number": -2.5, "flag": True, "nothing": None, "list": ["a"]},
        **{"object": {"a": 1}, "maybe": None, "loose": "7", "level": 2, "colour": "red"},
        **{"point": {"x": 1}, "free": "1", "unknown": "1", "raw": [1, 2]},
    }


def test_arguments_come_from_files_from_json_and_from_standard_input(toolbox: Desk) -> None:
    (toolbox.cwd / "note.txt").write_bytes(b"one\r\ntwo\n")

    told = arguments(
        toolbox,
        *("--args", "-", "text=@note.txt", "free=won"),
        text=b'{"free": "lost", "number": 1}',
    )

    assert told == {"text": "one\r\ntwo\n", "free": "won", "number": 1}
    assert arguments(toolbox, "--args", '{"whole": 1}') == {"whole": 1}


def test_words_that_are_no_arguments_exit_2_before_anything_is_called(toolbox: Desk) -> None:
    done = toolbox.octave("call", "toolbox", "arguments", "hello")

    assert done.told == (
        2,
        "",
        "error: `hello` is no argument\nhint: use key=value, key:=JSON, key=@FILE or --args JSON\n",
    )
    assert "call:arguments" not in toolbox.events()


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("good", "ecko"), "`good` has no tool `ecko`", "did you mean `echo`?"),
        (("good", "zzz"), "`good` has no tool `zzz`", "octave tools good"),
        (("god", "echo"), "`god` is not installed here", "did you mean `good`?"),
        (("zzz", "echo"), "`zzz` is not installed here", "octave install zzz"),
        (
            ("off", "echo"),
            "`off` is disabled",
            "take `enabled = false` out of `ROOT/h/octave.toml`",
        ),
    ],
)
def test_an_unknown_name_exits_4_and_says_what_it_may_have_been(
    desk: Desk, words: tuple[str, str], message: str, hint: str
) -> None:
    desk.server("good")
    desk.server("off", SERVERS / "good.py", enabled=False)

    done = desk.octave("call", *words)

    assert done.told == (4, "", f"error: {message}\nhint: {hint}\n")


def test_an_error_is_one_line_of_json_when_json_was_asked_for(desk: Desk) -> None:
    desk.server("good")

    done = desk.octave("call", "good", "ecko", "--json")

    assert (done.code, done.stdout) == (4, "")
    assert done.error == {
        "code": "tool_not_found",
        "message": "`good` has no tool `ecko`",
        "hint": "did you mean `echo`?",
        "details": {},
    }


# What came of it.


def test_a_result_with_is_error_is_printed_and_exits_5(toolbox: Desk) -> None:
    assert toolbox.octave("call", "toolbox", "fails").told == (5, "no such city\n", "")
    assert toolbox.octave("call", "toolbox", "fails", "--json").code == 5


def test_a_server_that_refuses_is_quoted_without_its_escape_sequences(toolbox: Desk) -> None:
    assert toolbox.octave("call", "toolbox", "refuses").told == (
        1,
        "",
        "error: `toolbox` refused to run `refuses`: bad\\x1b[2J arguments\n",
    )


@pytest.mark.parametrize("is_running", [False, True])
def test_a_server_that_dies_in_a_call_exits_6_with_the_end_of_its_stderr(
    toolbox: Desk, is_running: bool
) -> None:
    if is_running:
        toolbox.octave("start")

    done = toolbox.octave("call", "toolbox", "dies")

    assert done.told == (
        6,
        "",
        "error: `toolbox` ended with exit code 3 before it answered `tools/call`, outcome unknown\n"
        "  | toolbox begins\n"
        "  | out of \\x1b[31mmemory\n"
        "  | hint: rm -rf /\n"
        "hint: `octave logs toolbox` shows what it wrote\n",
    )
    assert toolbox.events().count("call:dies") == 1


def test_an_interpreter_that_is_not_there_exits_6(desk: Desk) -> None:
    desk.server("gone", command=["/nowhere/python", "x.py"])

    assert desk.octave("call", "gone", "echo").told == (
        6,
        "",
        "error: `gone` could not be started: `/nowhere/python` does not exist\n"
        "hint: `octave logs gone` shows what it wrote\n",
    )


@pytest.mark.parametrize("is_running", [False, True])
def test_a_call_that_takes_too_long_exits_1_and_the_server_hears_of_it(
    desk: Desk, is_running: bool
) -> None:
    desk.server("hang-on-call")
    if is_running:
        desk.octave("start")

    done = desk.octave("call", "hang-on-call", "hang", "--timeout", "0.5")

    assert done.told == (
        1,
        "",
        "error: `hang` did not answer within 0.5 s\nhint: allow more time with `--timeout`\n",
    )
    # It reads in order, so whatever it is asked next comes after that.
    desk.octave("call", "hang-on-call", "echo")
    assert any(event.startswith("cancelled:") for event in desk.events())


def test_a_server_that_never_answers_the_handshake_does_not_hold_the_call_up(desk: Desk) -> None:
    desk.server("never-initialize")

    assert desk.octave("call", "never-initialize", "echo", "--timeout", "0.5").told == (
        1,
        "",
        "error: `never-initialize` did not say within 0.5 s which tools it has\n"
        "hint: allow more time with `--timeout`\n",
    )
    assert desk.servers() == []


@pytest.mark.parametrize("is_running", [False, True])
def test_control_c_cancels_the_call_and_exits_130(desk: Desk, is_running: bool) -> None:
    desk.server("hang-on-call")
    if is_running:
        desk.octave("start")
    child = desk.start("call", "hang-on-call", "hang")
    desk.until(lambda: "call:hang" in desk.events())
    child.send_signal(signal.SIGINT)

    done = desk.ended(child)

    assert (done.code, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    desk.octave("call", "hang-on-call", "echo")
    assert any(event.startswith("cancelled:") for event in desk.events())


# Forms of results.


def test_pictures_and_sound_are_shown_as_their_size(toolbox: Desk) -> None:
    assert toolbox.octave("call", "toolbox", "media").told == (
        0,
        "two of them\n"
        "[image image/svg+xml, 15 bytes; `--save DIR` keeps it]\n"
        "[image image/../../png\\x1b[31m, 15 bytes; `--save DIR` keeps it]\n",
        "warning: the audio is not valid base64\n",
    )


def test_save_keeps_pictures_and_overwrites_none(toolbox: Desk) -> None:
    pictures = toolbox.cwd / "a" / "b"

    first = toolbox.octave("call", "toolbox", "media", "--save", "a/b")
    toolbox.octave("call", "toolbox", "media", "--save", "a/b")

    assert first.stdout == "two of them\na/b/image-1.svg\na/b/image-1.png31m\n"
    assert sorted(path.name for path in pictures.iterdir()) == [
        "image-1.png31m",
        "image-1.svg",
        "image-2.png31m",
        "image-2.svg",
    ]
    assert (pictures / "image-2.svg").read_bytes() == PICTURE


def test_a_folder_that_cannot_be_made_is_told_before_the_call(toolbox: Desk) -> None:
    (toolbox.cwd / "file").touch()

    done = toolbox.octave("call", "toolbox", "media", "--save", "file/x")

    assert done.told == (
        2,
        "",
        "error: cannot save to `file/x`: Not a directory\nhint: --save DIR\n",
    )
    assert toolbox.events() == []


def test_structured_content_alone_is_printed_as_json(toolbox: Desk) -> None:
    done = toolbox.octave("call", "toolbox", "structured")

    assert (done.code, done.stderr) == (0, "")
    assert done.json == {"sum": 3, "text": "\u202eevil"}
    assert not has_hidden(done.stdout)


def test_resources_and_blocks_of_tomorrow_are_shown_as_well_as_can_be(toolbox: Desk) -> None:
    assert toolbox.octave("call", "toolbox", "resources").told == (
        0,
        'inside\nmemo://2\nmemo://3\n{"type": "hologram", "depth": 3}\n',
        "",
    )


def progress_on_a_terminal(desk: Desk, *options: str, terminal: str) -> str:
    ours, theirs = pty.openpty()
    child = desk.start(
        *("call", "toolbox", "steps", *options), environ={"TERM": terminal}, stderr=theirs
    )
    out, _ = child.communicate()
    os.write(theirs, b"END")
    os.close(theirs)
    shown = read_until(ours, b"END").decode()
    os.close(ours)
    assert (child.returncode, out) == (0, b"done\n")
    return shown.removesuffix("END")


def test_progress_is_one_line_of_the_terminal_and_goes_with_the_result(toolbox: Desk) -> None:
    shown = progress_on_a_terminal(toolbox, terminal="xterm")

    clear = "\r\x1b[K"
    assert shown == (f"{clear}progress: 1 of 2 on\\x07 it{clear}progress: 2 of 2 on\\x07 it{clear}")


def test_progress_on_a_dumb_terminal_is_lines_and_none_when_quiet(toolbox: Desk) -> None:
    shown = progress_on_a_terminal(toolbox, terminal="dumb")

    assert shown == "progress: 1 of 2 on\\x07 it\r\nprogress: 2 of 2 on\\x07 it\r\n"
    assert progress_on_a_terminal(toolbox, "-q", terminal="xterm") == ""


# Hostile text.


def told_by(*done: Done) -> str:
    return "".join(each.stdout + each.stderr for each in done)


def test_nothing_a_server_says_reaches_the_terminal_raw(desk: Desk) -> None:
    desk.server("ansi-description")
    name = "bad\x1b[31mname\nnewline"

    called = desk.octave("call", "ansi-description", name)
    desk.octave("start")
    listed = [
        desk.octave("tools", "ansi-description", *options)
        for options in ((), ("--json",), ("--schema",))
    ]
    missed = desk.octave("call", "ansi-description", name + "\x1b[2J")

    assert called.code == 0
    assert missed.code == 4
    assert not has_hidden(told_by(called, missed, *listed))
    # The line break in a name begins no line of its own.
    assert "bad\\x1b[31mname\\nnewline()\n    name itself is hostile\n" in listed[0].stdout
    assert listed[1].json[-1]["name"] == name


# Lists.


SIGNATURE = (
    "arguments(text: string, whole: integer, number?: number, flag?: boolean, nothing?: null,"
    " list?: string[], object?: object, maybe?: integer | null, loose?: integer | string,"
    ' level?: 1 | 2 | 3, colour?: "red" | "blue", point?: object, free?: any)\n'
    "    Its arguments as JSON.\n"
)


def test_tools_are_signatures_with_the_first_line_of_what_they_do(toolbox: Desk) -> None:
    toolbox.octave("start")

    done = toolbox.octave("tools", "toolbox")

    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith(SIGNATURE)
    assert "A second line" not in done.stdout


def test_tools_of_all_servers_carry_the_names_of_an_aggregated_face(desk: Desk) -> None:
    desk.server("good")
    desk.server("hang-on-call")
    desk.octave("start")

    done = desk.octave("tools")

    assert (done.code, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        *("good__echo(text?: string)", "good__pid()", "good__sleep(s?: number)"),
        *("hang-on-call__echo(text?: string)", "hang-on-call__hang()", "hang-on-call__freeze()"),
    ]


def test_schema_shows_the_input_schema_below_each_tool(desk: Desk) -> None:
    desk.server("good")
    desk.octave("call", "good", "echo")

    done = desk.octave("tools", "good", "--schema")

    first, _, rest = done.stdout.partition("pid()")
    head = "echo(text?: string)\n    Echo the text back\n"
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    assert first.startswith(head)
    assert json.loads(first.removeprefix(head)) == schema
    assert rest


def test_tools_are_read_from_files_when_no_runtime_answers(desk: Desk) -> None:
    desk.server("good")
    before = desk.octave("tools", "good")
    desk.octave("call", "good", "echo")
    started = desk.events()

    alone = desk.octave("tools", "--json")
    assert desk.events() == started
    desk.octave("start")

    assert before.told == (0, "", "no tools are known yet; `octave start good` asks for them\n")
    assert alone.json[0] == {
        "server": "good",
        "qualifiedName": "good__echo",
        "name": "echo",
        "description": "Echo the text back",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    assert desk.octave("tools", "--json").json == alone.json


def test_tools_of_a_server_that_cannot_start_exit_6(desk: Desk) -> None:
    desk.server("gone", command=["/nowhere/python", "x.py"])
    desk.octave("start")

    done = desk.octave("tools", "gone")

    assert (done.code, done.stdout) == (6, "")
    assert done.stderr.startswith("error: `gone` could not be started")


def test_a_reader_that_has_seen_enough_is_no_error(toolbox: Desk) -> None:
    toolbox.octave("start")
    reader, writer = os.pipe()
    child = toolbox.start("call", "toolbox", "lines", "n:=100000", stdout=writer)
    os.close(writer)
    assert os.read(reader, 5) == b"line\n"
    os.close(reader)

    assert toolbox.ended(child).stderr == ""


# Consent.


@pytest.mark.parametrize(
    "words", [("call", "good", "echo"), ("start",), ("serve",), ("tools",), ("serve", "--detach")]
)
def test_a_manifest_nobody_trusted_starts_nothing_and_exits_7(
    desk: Desk, words: tuple[str, ...]
) -> None:
    manifest = desk.cwd / "octave.toml"
    desk.project(manifest, "good")

    done = desk.octave(*words)

    assert done.told == (
        7,
        "",
        "error: `ROOT/cwd/octave.toml` is not trusted yet\n"
        "hint: read it, then run `octave trust --manifest ROOT/cwd/octave.toml`\n",
    )
    assert desk.events() == []


def test_a_trusted_project_is_called_with_its_own_state(desk: Desk) -> None:
    desk.project(desk.cwd / "octave.toml", "good")
    desk.octave("trust", "-y")

    assert desk.octave("call", "good", "echo", "text=hi", "--json").told == (0, ECHO, "")
    assert (desk.cwd / ".octave" / "logs" / "good.log").exists()
    assert not (desk.home / "logs").exists()


def test_a_bad_manifest_exits_2_with_line_and_column(desk: Desk) -> None:
    (desk.home / "octave.toml").write_text("[servers.x]\npakage = 1\n", encoding="utf-8")

    done = desk.octave("call", "x", "echo")

    assert (done.code, done.stdout) == (2, "")
    assert re.match(r"error: `octave.toml` line 2, column 1: unknown key `pakage`", done.stderr)
