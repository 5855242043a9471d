"""`octave logs`: files, filters and following."""

import gzip
import json
import os
import re
import resource
import signal
import time

import pytest

from octave.home import Home
from octave.packages.secrets import Secrets
from tests.cli.desk import SERVERS, TOOLBOX, Desk, has_hidden, read_until

SOON_S = 3.0
"""What a person waits for a line without wondering."""


@pytest.fixture
def noted(desk: Desk) -> Desk:
    """Two logs whose lines alternate, one a second."""
    desk.server("good")
    desk.server("twin", SERVERS / "good.py")
    desk.note("good", b"octave starting", b"err good 1", b"err good 2")
    desk.note("twin", b"octave starting", b"out twin 1", b"err twin 2")
    return desk


def test_logs_of_several_servers_are_merged_by_time_and_name_each_line(noted: Desk) -> None:
    assert noted.octave("logs").told == (
        0,
        "good | starting\n"
        "twin | starting\n"
        "good | good 1\n"
        "twin | twin 1\n"
        "good | good 2\n"
        "twin | twin 2\n",
        "",
    )


def test_one_server_needs_no_name_and_naming_it_twice_changes_nothing(noted: Desk) -> None:
    alone = noted.octave("logs", "good")

    assert alone.told == (0, "starting\ngood 1\ngood 2\n", "")
    assert noted.octave("logs", "good", "good") == alone


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (("-n", "3"), ["twin 1", "good 2", "twin 2"]),
        (("-n", "0"), []),
        (("--grep", "1$"), ["good 1", "twin 1"]),
        # The last that match, not those of the last lines that do.
        (("--grep", "good", "-n", "1"), ["good 2"]),
        (("--grep", "starting", "-n", "1"), ["starting"]),
        (("--since", "1h"), []),
        (("--since", "99999d"), ["starting", "starting", "good 1", "twin 1", "good 2", "twin 2"]),
    ],
)
def test_lines_are_chosen_by_number_by_pattern_and_by_age(
    noted: Desk, options: tuple[str, ...], lines: list[str]
) -> None:
    done = noted.octave("logs", *options)

    assert (done.code, done.stderr) == (0, "")
    assert [line.partition("| ")[2] for line in done.stdout.splitlines()] == lines


def test_the_last_100_lines_are_shown_unless_since_asks_for_more(desk: Desk) -> None:
    desk.server("good")
    desk.note("good", *(b"err %d" % number for number in range(150)))

    plain = desk.octave("logs").stdout.splitlines()
    all_of_it = desk.octave("logs", "--since", "99999d").stdout.splitlines()

    assert plain == [str(number) for number in range(50, 150)]
    assert all_of_it == [str(number) for number in range(150)]


def test_times_are_shown_on_request(noted: Desk) -> None:
    assert noted.octave("logs", "good", "-t", "-n", "1").stdout == (
        "2026-01-01T00:00:02.000Z good 2\n"
    )


def test_json_is_one_object_a_line(noted: Desk) -> None:
    done = noted.octave("logs", "--json", "-n", "2")

    assert done.code == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {
            **{"at": "2026-01-01T00:00:02.000Z", "server": name},
            **{"stream": "err", "line": f"{name} 2"},
        }
        for name in ("good", "twin")
    ]


def test_row_25_hostile_lines_are_made_visible_and_raw_gives_the_bytes(desk: Desk) -> None:
    line = b"\x1b[2J\xff caf\xc3\xa9 \xe2\x80\xae\r"
    desk.server("good")
    desk.note("good", b"err " + line)

    shown = desk.octave("logs")
    as_json = desk.octave("logs", "--json")
    raw, _ = desk.start("logs", "--raw").communicate()

    assert shown.stdout == "\\x1b[2J\ufffd caf\u00e9 \\u202e\n"
    assert not has_hidden(as_json.stdout)
    assert json.loads(as_json.stdout)["line"] == "\x1b[2J\ufffd caf\u00e9 \u202e\r"
    assert raw == line + b"\n"


def test_row_25_no_control_character_of_a_server_reaches_a_terminal(desk: Desk) -> None:
    desk.server("binary-stderr")
    desk.server("dies", SERVERS / "dies_in_colour.py")

    echoed = desk.octave("call", "binary-stderr", "echo", "text=x")
    died = desk.octave("call", "dies", "echo", "text=x")
    told = [
        *(desk.octave("logs", name) for name in ("binary-stderr", "dies")),
        *(desk.octave("logs", "--json", name) for name in ("binary-stderr", "dies")),
        desk.octave("status"),
        desk.octave("status", "--json"),
        desk.octave("status", "dies"),
    ]
    raw, _ = desk.start("logs", "--raw", "binary-stderr").communicate()

    assert (echoed.code, echoed.stdout) == (0, "x\n")
    assert "\\x1b[31mfatal\\x1b[0m" in died.stderr
    for done in (died, *told):
        assert not has_hidden(done.stdout.replace("\n", "") + done.stderr.replace("\n", ""))
    assert "\\x1b]0;pwned title\\x07\\x1b[2J\\x1b[1;31mred\\x1b[0m\n" in told[0].stdout
    lines = [json.loads(line)["line"] for line in told[2].stdout.splitlines()]
    assert "\x1b]0;pwned title\x07\x1b[2J\x1b[1;31mred\x1b[0m" in lines
    assert b"\x1b]0;pwned title\x07" in raw
    assert bytes(range(256)) in raw


@pytest.mark.parametrize(
    ("name", "hint"), [("god", "did you mean `good`?"), ("../logs/good", "octave list")]
)
def test_an_unknown_server_exits_4(noted: Desk, name: str, hint: str) -> None:
    assert noted.octave("logs", name).told == (
        4,
        "",
        f"error: there is no server `{name}`\nhint: {hint}\n",
    )


def test_the_log_of_a_server_that_was_removed_can_still_be_read(noted: Desk) -> None:
    noted.note("former", b"err last words")

    assert noted.octave("logs", "former").told == (0, "last words\n", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--since", "soon"), 'error: `--since`: "soon" is not a duration such as'),
        (("--grep", "("), "error: `--grep (` is no regular expression:"),
        (("-n", "-1"), "error: Invalid value for"),
    ],
)
def test_options_that_cannot_be_read_exit_2_with_a_hint(
    noted: Desk, options: tuple[str, ...], message: str
) -> None:
    done = noted.octave("logs", *options)

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert "\nhint: octave logs" in done.stderr


def test_a_server_without_a_log_is_nothing_to_show(desk: Desk) -> None:
    desk.server("good")

    assert desk.octave("logs").told == (0, "", "")


def test_what_a_server_says_is_in_its_log_when_the_call_is_over(desk: Desk) -> None:
    desk.server("toolbox", TOOLBOX)

    desk.octave("call", "toolbox", "says", "text=hello")

    assert desk.octave("logs", "toolbox", "--grep", "hello").told == (0, "hello\n", "")


def test_why_a_server_does_not_come_up_can_be_read_while_it_is_tried_again(desk: Desk) -> None:
    desk.server("crash-loop", args=["0"], auto_start=True)
    desk.octave("start")
    began = time.monotonic()

    desk.until(lambda: "API key" in desk.octave("logs", "crash-loop").stdout)

    assert time.monotonic() - began < SOON_S
    shown = desk.octave("logs", "crash-loop").stdout
    assert "crash_loop: fatal: missing API key\n" in shown
    assert "`crash-loop` ended with exit code 3 before it answered `initialize`\n" in shown


def test_following_shows_the_last_lines_and_new_ones_as_they_come(desk: Desk) -> None:
    desk.server("toolbox", TOOLBOX)
    desk.server("good")
    desk.note("toolbox", b"err long ago", b"err lately")
    desk.octave("start", "toolbox")
    child = desk.start("logs", "-f", "--grep", "a")
    assert child.stdout is not None
    first = read_until(child.stdout, b"ready")

    desk.octave("call", "toolbox", "says", "text=aha")
    began = time.monotonic()
    told = read_until(child.stdout, b"aha\n")
    took_s = time.monotonic() - began
    child.send_signal(signal.SIGINT)
    done = desk.ended(child)

    assert first.startswith(b"toolbox | long ago\ntoolbox | lately\n")
    assert told == b"toolbox | aha\n"
    assert took_s < SOON_S
    assert done.code == 130
    assert "Traceback" not in done.stderr


def test_following_goes_on_with_a_new_file_and_the_next_runtime(desk: Desk) -> None:
    desk.server("good")
    desk.note("good", b"err before")
    child = desk.start("logs", "-f", "--json", "good")
    assert child.stdout is not None
    read_until(child.stdout, b"before")

    log = desk.home / "logs" / "good.log"
    log.rename(log.with_suffix(".log.1"))
    desk.note("good", b"err after")
    read_until(child.stdout, b"after")
    desk.octave("call", "good", "echo")

    assert b'"stream": "octave"' in read_until(child.stdout, b"ready")


def test_following_ends_quietly_when_nobody_reads_any_more(desk: Desk) -> None:
    desk.server("good")
    desk.note("good", b"err first")
    reader, writer = os.pipe()
    child = desk.start("logs", "-f", stdout=writer)
    os.close(writer)
    read_until(reader, b"first\n")
    os.close(reader)
    desk.note("good", b"err second")

    assert desk.ended(child).stderr == ""


def test_packed_files_are_read_too_and_a_removed_server_s_as_well(desk: Desk) -> None:
    desk.server("good")
    desk.note("good", b"err old 1", b"err old 2")
    log = desk.home / "logs" / "good.log"
    (desk.home / "logs" / "good.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    (desk.home / "logs" / "former.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    desk.note("good", b"err new")

    assert desk.octave("logs", "good", "-n", "2").stdout == "old 2\nnew\n"
    assert desk.octave("logs", "good", "--grep", "old").stdout == "old 1\nold 2\n"
    assert desk.octave("logs", "good", "--since", "99999d").stdout == "old 1\nold 2\nnew\n"
    assert desk.octave("logs", "former").stdout == "old 1\nold 2\n"


def test_row_24_no_line_of_a_flood_is_lost_or_doubled_under_follow_across_rotations(
    desk: Desk,
) -> None:
    manifest = desk.home / "octave.toml"
    settings = 'runtime.port = 0\nruntime.log_rotate = "1MB"\nruntime.log_keep = 100\n'
    manifest.write_text(settings, encoding="utf-8")
    desk.server("flood-stderr", args=["0"])
    shown = desk.root / "shown"
    with shown.open("wb") as file:
        desk.start("logs", "-f", "--raw", stdout=file)
    count = 200_000

    desk.octave("call", "flood-stderr", "flood", f"n={count}")
    desk.until(lambda: f"call {count - 1:09d} ".encode() in shown.read_bytes()[-100_000:])

    lines = [line for line in shown.read_bytes().split(b"\n") if line.startswith(b"call ")]
    assert [int(line[5:14]) for line in lines] == list(range(count))
    assert len(list((desk.home / "logs").glob("*.gz"))) > 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of others are Linux only")
def test_row_27_a_full_disk_is_counted_and_said_and_the_server_lives(desk: Desk) -> None:
    desk.server("flood-stderr", args=["0"])
    desk.octave("start", "flood-stderr")
    runtime = desk.facts()["pid"]
    before = resource.prlimit(runtime, resource.RLIMIT_FSIZE)

    resource.prlimit(runtime, resource.RLIMIT_FSIZE, (500_000, before[1]))
    flooded = desk.octave("call", "flood-stderr", "flood", "n=20000")
    echoed = desk.octave("call", "flood-stderr", "echo", "text=alive")
    (server,) = desk.octave("status", "--json").json["servers"]
    resource.prlimit(runtime, resource.RLIMIT_FSIZE, before)
    desk.octave("call", "flood-stderr", "flood", "n=3")
    desk.until(lambda: desk.log("flood-stderr").count(" err call 000000002 ") == 2)

    assert (flooded.stdout, echoed.stdout) == ("wrote 20000\n", "alive\n")
    assert server["state"] == "ready"
    lines = desk.log("flood-stderr").splitlines()
    whole = [line for line in lines if re.search(r" err call [0-9]{9} y{80}$", line)][:-3]
    assert 15_000 < server["dropped"] < 20_000
    assert server["dropped"] == 20_000 - len(whole)
    assert f"octave {server['dropped']} lines could not be written" in lines[-4]
    assert [line.split()[3] for line in lines[-3:]] == ["000000000", "000000001", "000000002"]


def test_values_of_secrets_are_not_in_the_log(desk: Desk) -> None:
    Secrets(Home(desk.home)).set("env-echo/SECRET_TOKEN", "hush-hush")
    desk.server("env-echo", env={"SECRET_TOKEN": {"secret": "env-echo/SECRET_TOKEN"}})

    assert desk.octave("start", "env-echo").code == 0
    assert desk.octave("shutdown").code == 0  # the last lines are on disk now

    assert "starting with token=***\n" in desk.octave("logs").stdout
    assert "hush-hush" not in desk.log("env-echo")
