"""`octave start`, `stop`, `restart`, `status` and `shutdown`."""

import json
import os
import pty
import re
import signal

import pytest

from tests.cli.desk import SERVERS, TOOLBOX, Desk, lives, read_until

NO_RUNTIME = (
    "error: no runtime is running for `ROOT/h/octave.toml`\n"
    "hint: `octave start` brings it up in the background, `octave serve` in front\n"
)


@pytest.fixture
def good(desk: Desk) -> Desk:
    desk.server("good")
    return desk


@pytest.fixture
def up(good: Desk) -> Desk:
    assert good.octave("start").told == (0, "", "the runtime is running\n")
    return good


def state(desk: Desk, name: str) -> str:
    (server,) = desk.octave("status", name, "--json").json["servers"]
    return str(server["state"])


# No runtime.


@pytest.mark.parametrize("words", [("stop", "good"), ("restart", "--all"), ("status",)])
def test_without_a_runtime_there_is_nothing_to_ask(good: Desk, words: tuple[str, ...]) -> None:
    assert good.octave(*words).told == (3, "", NO_RUNTIME)


def test_status_as_json_says_without_a_runtime_that_none_is_running(good: Desk) -> None:
    done = good.octave("status", "--json")

    assert done.code == 3
    assert done.json == {
        "runtime": {
            **{"running": False, "pid": None, "url": None, "version": None},
            **{"uptimeSeconds": None, "memoryBytes": None},
        },
        "servers": [],
    }
    assert done.error["code"] == "runtime_not_running"


def test_shutdown_without_a_runtime_is_done_already(good: Desk) -> None:
    assert good.octave("shutdown").told == (0, "", "no runtime was running\n")
    assert good.octave("shutdown", "-q").told == (0, "", "")
    assert good.octave("shutdown", "--json").json == {"stopped": False}


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_stop_and_restart_need_to_know_what(good: Desk, verb: str) -> None:
    assert good.octave(verb).told == (
        2,
        "",
        f"error: `{verb}` needs names, or `--all`\nhint: octave {verb} --all\n",
    )


# Starting and stopping.


def test_start_brings_up_the_runtime_and_shutdown_ends_it_with_its_servers(good: Desk) -> None:
    started = good.octave("start", "good")
    pid = good.facts()["pid"]
    (server,) = good.servers()

    ended = good.octave("shutdown")

    assert started.told == (0, "ready good\n", "")
    assert ended.told == (0, "", "the runtime has stopped\n")
    assert not lives(server)
    good.until(lambda: not lives(pid))
    left = sorted(path.name for path in (good.home / "run").iterdir())
    assert left == ["runtime.lock", "runtime.log"]


def test_start_stop_and_restart_may_be_repeated(up: Desk) -> None:
    assert up.octave("start", "good").told == (0, "ready good\n", "")
    (first,) = up.servers()
    assert up.octave("start", "good").told == (0, "ready good\n", "")
    assert up.servers() == [first]

    assert up.octave("restart", "good").told == (0, "ready good\n", "")
    (second,) = up.servers()
    assert second != first

    assert up.octave("stop", "good").told == (0, "stopped good\n", "")
    assert up.octave("stop", "good").told == (0, "stopped good\n", "")
    assert up.servers() == []

    assert up.octave("restart", "good").told == (0, "ready good\n", "")
    assert len(up.servers()) == 1


def test_a_stopped_server_stays_stopped_until_it_is_started(up: Desk) -> None:
    up.octave("stop", "good")
    up.octave("shutdown")
    refused = (3, "", "error: `good` is stopped\nhint: octave start good\n")

    alone = up.octave("call", "good", "echo")
    up.octave("start")
    after = up.octave("call", "good", "echo")
    status = up.octave("status", "good")
    up.octave("start", "good")

    assert alone.told == after.told == refused
    assert status.code == 3
    assert up.octave("call", "good", "echo", "text=hi").stdout == "hi\n"


def test_results_as_json_name_each_server_and_what_became_of_it(up: Desk) -> None:
    done = up.octave("start", "good", "god", "--json")

    assert (done.code, done.stderr) == (4, "")
    good, god = done.json["results"]
    assert good == {"name": "good", "status": "ready", "pid": up.servers()[0]}
    assert (god["name"], god["status"]) == ("god", "unknown")
    assert god["error"]["code"] == "server_not_found"
    assert god["error"]["hint"] == "did you mean `good`?"
    assert done.json["tookSeconds"] >= 0


def test_several_servers_are_all_done_and_fail_with_their_common_code_else_1(up: Desk) -> None:
    up.server("gone", command=["/nowhere/python"])
    up.octave("shutdown")

    done = up.octave("start", "good", "god", "gone")

    assert done.code == 1
    assert done.stdout == "ready good\n"
    assert done.stderr.startswith("error: no server `god`\nhint: did you mean `good`?\n")
    assert "error: `gone` could not be started: `/nowhere/python` does not exist\n" in done.stderr
    assert up.octave("start", "gone").code == 6


def test_all_means_every_server_of_the_manifest(desk: Desk) -> None:
    desk.server("good")
    desk.server("twin", SERVERS / "good.py")

    done = desk.octave("start", "--all")

    assert done.told == (0, "ready good\nready twin\n", "")
    assert desk.octave("stop", "--all").stdout == "stopped good\nstopped twin\n"


# Status.


def test_status_has_the_documented_shape(up: Desk) -> None:
    up.octave("call", "good", "echo")

    found = up.octave("status", "--json").json

    assert set(found) == {"runtime", "servers"}
    runtime = {"running", "pid", "url", "version", "uptimeSeconds", "memoryBytes"}
    assert runtime <= set(found["runtime"])
    assert found["runtime"]["running"] is True
    assert found["runtime"]["pid"] == up.facts()["pid"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", found["runtime"]["url"])
    (server,) = found["servers"]
    assert {key: server[key] for key in ("name", "state", "pid", "restarts", "instances")} == {
        **{"name": "good", "state": "ready", "pid": up.servers()[0]},
        **{"restarts": 0, "instances": 1},
    }
    assert {key: server[key] for key in ("calls", "errors", "tools", "dropped", "noise")} == {
        **{"calls": 1, "errors": 0, "tools": 3, "dropped": 0, "noise": 0},
    }
    assert server["lastError"] is None
    assert server["memoryBytes"] > 10**6
    for figure in ("uptimeSeconds", "p50Ms", "p95Ms", "p99Ms"):
        assert server[figure] > 0


def test_status_for_a_person_is_a_table(up: Desk) -> None:
    up.octave("call", "good", "echo")

    done = up.octave("status")

    head, columns, row = done.stdout.splitlines()
    assert (done.code, done.stderr) == (0, "")
    assert re.fullmatch(
        r"runtime [\d.]+, pid \d+, up \d+ s, \d+ MB, http://127\.0\.0\.1:\d+", head.rstrip()
    )
    assert columns.split() == [
        *("NAME", "STATE", "PID", "UPTIME", "MEMORY", "CALLS", "ERRORS", "P50", "P95", "RESTARTS")
    ]
    assert re.fullmatch(
        r"good +ready +\d+ +\d+ s +\d+ MB +1 +0 +[\d.]+ ms +[\d.]+ ms +0", row.rstrip()
    )


def test_status_of_a_name_shows_how_much_of_its_time_the_server_was_there(up: Desk) -> None:
    (before,) = up.octave("status", "good", "--json").json["servers"]
    assert (before["availability"], before["downSeconds"]) == (None, 0.0)
    assert "available" not in up.octave("status", "good").stdout

    up.octave("call", "good", "echo")

    assert up.octave("status", "good").stdout.splitlines()[-1] == (
        "good: available 100 % of its time, down for 0.0 s"
    )
    assert "available" not in up.octave("status").stdout


def test_status_shows_why_a_server_failed(desk: Desk) -> None:
    desk.server("toolbox", TOOLBOX)
    desk.server("gone", command=["/nowhere/python"])
    desk.octave("start")
    desk.octave("call", "toolbox", "dies")
    desk.octave("start", "gone")

    done = desk.octave("status")

    assert done.code == 0
    assert re.search(
        r"^toolbox, \S+Z: `toolbox` ended with exit code 3\n"
        r"  \| toolbox begins\n"
        r"  \| out of \\x1b\[31mmemory\n"
        r"  \| hint: rm -rf /\n"
        r"  hint: `octave logs toolbox` shows what it wrote\n",
        done.stdout,
        re.MULTILINE,
    )
    assert "`/nowhere/python` does not exist" in done.stdout
    assert desk.octave("status", "gone").code == 3
    last = desk.octave("status", "gone", "--json").json["servers"][0]["lastError"]
    assert {"at", "message", "hint", "exitCode", "signal", "stderrTail"} <= set(last)


def test_status_shows_only_the_last_of_many_last_words(desk: Desk) -> None:
    desk.server("usage", command=["/bin/sh", "-c", "seq 100 130 >&2; exit 1"])
    desk.octave("start", "usage")

    shown = desk.octave("status").stdout

    assert re.findall(r"^  \| (.*)$", shown, re.MULTILINE) == ["126", "127", "128", "129", "130"]


def test_status_of_a_name_tells_by_its_exit_code_whether_it_is_of_use(up: Desk) -> None:
    assert up.octave("status", "good").code == 0
    up.octave("start", "good")
    assert up.octave("status", "good").code == 0
    up.octave("stop", "good")
    assert up.octave("status", "good").code == 3
    assert up.octave("status").code == 0

    unknown = up.octave("status", "god")
    assert unknown.told == (4, "", "error: no server `god`\nhint: did you mean `good`?\n")


# Watching.


def test_watch_as_json_is_one_object_a_line_until_control_c(up: Desk) -> None:
    child = up.start("status", "--watch", "--json")
    assert child.stdout is not None
    first = read_until(child.stdout, b"\n")
    second = read_until(child.stdout, b"\n")
    child.send_signal(signal.SIGINT)

    done = up.ended(child)

    assert json.loads(first)["servers"][0]["name"] == "good"
    assert json.loads(second)["runtime"]["uptimeSeconds"] > 0
    assert done.code == 130
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("terminal", "clear"), [("xterm", b"\x1b[H\x1b[J"), ("dumb", b"")])
def test_watch_refreshes_a_terminal_in_place_unless_it_is_a_dumb_one(
    up: Desk, terminal: str, clear: bytes
) -> None:
    ours, theirs = pty.openpty()
    child = up.start("status", "--watch", stdout=theirs, environ={"TERM": terminal})
    os.close(theirs)
    shown = read_until(ours, b"idle")
    child.send_signal(signal.SIGINT)
    code = up.ended(child).code
    os.close(ours)

    assert code == 130
    assert shown.startswith(clear + b"runtime ")
    assert (b"\x1b" in shown) == bool(clear)


def test_watch_ends_with_the_runtime(up: Desk) -> None:
    child = up.start("status", "--watch")
    assert child.stdout is not None
    read_until(child.stdout, b"idle")
    up.octave("shutdown")

    done = up.ended(child)

    assert (done.code, done.stderr) == (
        3,
        "error: the runtime ended before it answered\nhint: octave status\n",
    )


@pytest.mark.parametrize(
    ("environ", "is_coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_those_who_want_it(
    up: Desk, environ: dict[str, str], is_coloured: bool
) -> None:
    done = up.octave("status", environ=environ)

    assert done.code == 0
    assert ("\x1b[" in done.stdout) == is_coloured
