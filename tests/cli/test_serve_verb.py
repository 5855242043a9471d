"""`octave serve`, in the foreground and in the background."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.desk import SERVERS, Desk, lives, read_until

READY = re.compile(rb"ready on (http://127\.0\.0\.1:\d+)\n")


def serving(desk: Desk, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """Return a runtime in the foreground and what it told up to and with `ready`."""
    child = desk.start("serve", *words)
    assert child.stdout is not None
    lines = read_until(child.stdout, b"ready on ")
    if not lines.endswith(b"\n"):
        lines += read_until(child.stdout, b"\n")
    assert READY.search(lines)
    return child, lines.decode()


def stopped(desk: Desk, child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    child.send_signal(number)
    done = desk.ended(child)
    assert (done.code, done.stderr) == (0, "")
    assert desk.servers() == []
    assert sorted(path.name for path in (desk.home / "run").iterdir()) == ["runtime.lock"]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


# In the foreground.


def test_start_up_is_one_line_a_server_then_ready_and_control_c_an_ordered_stop(
    desk: Desk,
) -> None:
    desk.server("awake", SERVERS / "good.py", auto_start=True)
    desk.server("asleep", SERVERS / "good.py")
    desk.server("absent", SERVERS / "good.py", enabled=False)
    desk.server("gone", command=["/nowhere/python"], auto_start=True)

    child, lines = serving(desk)

    *servers, ready = lines.splitlines()
    assert sorted(servers) == [
        "asleep: idle",
        "awake: ready",
        "gone: failed, `gone` could not be started: `/nowhere/python` does not exist",
    ]
    assert ready == f"ready on {desk.facts()['url']}"
    assert len(desk.servers()) == 1
    stopped(desk, child, signal.SIGINT)


def test_term_is_an_ordered_stop_too(desk: Desk) -> None:
    desk.server("good", auto_start=True)
    child, _ = serving(desk)

    stopped(desk, child, signal.SIGTERM)

    assert desk.events() == ["start", "eof"]


def test_shutdown_ends_a_runtime_in_the_foreground(desk: Desk) -> None:
    desk.server("good")
    child, _ = serving(desk)

    assert desk.octave("shutdown").told == (0, "", "the runtime has stopped\n")

    assert desk.ended(child).told == (0, "", "")


def test_what_happens_to_servers_later_is_told_as_it_happens(desk: Desk) -> None:
    desk.server("crash-on-call")
    child, lines = serving(desk)
    assert lines.startswith("crash-on-call: idle\n")
    assert child.stdout is not None

    desk.octave("call", "crash-on-call", "crash")

    told = read_until(child.stdout, b"backoff")
    assert told.startswith(b"crash-on-call: ready\ncrash-on-call: died, ")
    assert b"`crash-on-call` was killed (signal 11)" in told


def test_a_server_that_is_to_stay_stopped_says_so(desk: Desk) -> None:
    desk.server("good", auto_start=True)
    desk.octave("start")
    desk.octave("stop", "good")
    desk.octave("shutdown")

    _, lines = serving(desk)

    assert lines.startswith("good: stopped\nready on ")


def test_as_json_every_event_is_an_object(desk: Desk) -> None:
    desk.server("good", auto_start=True)
    child = desk.start("serve", "--json")
    assert child.stdout is not None

    lines = [json.loads(line) for line in read_until(child.stdout, b'"url"').splitlines()]

    assert [(line["server"], line["event"]) for line in lines] == [
        ("good", "starting"),
        ("good", "ready"),
        (None, "ready"),
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line["at"]) for line in lines)
    assert lines[1]["pid"] == desk.servers()[0]
    assert lines[2]["url"] == desk.facts()["url"]


def test_a_runtime_outlives_the_reader_of_its_lines(desk: Desk) -> None:
    desk.server("good")
    child, _ = serving(desk)
    assert child.stdout is not None
    child.stdout.close()

    desk.octave("start", "good")
    done = desk.octave("call", "good", "echo", "text=hi")
    child.send_signal(signal.SIGTERM)

    assert done.told == (0, "hi\n", "")
    child.wait(30)
    assert child.stderr is not None
    assert child.stderr.read() == b""


# Who was there first.


def test_a_second_one_exits_9_and_names_the_first(desk: Desk) -> None:
    desk.server("good")
    child, _ = serving(desk)
    url = desk.facts()["url"]

    second = desk.octave("serve")
    detached = desk.octave("serve", "--detach", "--json")

    assert second.told == (
        9,
        "",
        f"error: a runtime for `ROOT/h/octave.toml` runs already (pid {child.pid} on {url})\n"
        "hint: `octave status` shows it, `octave shutdown` stops it\n",
    )
    assert (detached.code, detached.stdout) == (9, "")
    assert detached.error["code"] == "locked"
    assert detached.error["details"]["pid"] == child.pid
    assert detached.error["message"].endswith(f"(pid {child.pid} on {url})")


def test_a_port_somebody_else_has_exits_1_and_names_the_owner(desk: Desk, taken: int) -> None:
    done = desk.octave("serve", "--port", str(taken))

    assert (done.code, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"error: port {taken} is taken by `\S+` \(pid {os.getpid()}\)\n"
        rf"hint: end that program, or choose another port: `octave serve --port {taken + 1}`\n",
        done.stderr,
    )


def test_port_0_is_any_and_a_port_that_is_named_is_kept(desk: Desk, taken: int) -> None:
    desk.server("good")
    manifest = desk.home / "octave.toml"
    manifest.write_text(manifest.read_text().replace("port = 0", f"port = {taken}"))
    child, lines = serving(desk, "--port", "0")
    port = int(lines.rpartition(":")[2])
    stopped(desk, child, signal.SIGTERM)

    _, lines = serving(desk, "--port", str(port))

    assert lines.endswith(f"ready on http://127.0.0.1:{port}\n")


def test_an_address_that_others_can_reach_needs_consent(desk: Desk) -> None:
    done = desk.octave("serve", "--host", "0.0.0.0")

    assert done.told == (
        2,
        "",
        "error: `0.0.0.0` can be reached from other machines\n"
        "hint: that needs `--allow-remote`, and `token` and `allowed_hosts` in octave.toml\n",
    )


# In the background.


def test_detach_returns_when_it_is_ready_and_the_runtime_stays(desk: Desk) -> None:
    desk.server("good")

    done = desk.octave("serve", "--detach", "--port", "0")

    facts = desk.facts()
    assert done.told == (0, f"ready on {facts['url']}\n", "")
    assert lives(facts["pid"])
    assert desk.octave("call", "good", "echo", "text=hi").told == (0, "hi\n", "")


def test_detach_as_json_tells_pid_and_address(desk: Desk) -> None:
    done = desk.octave("serve", "--detach", "--json")

    assert done.code == 0
    assert done.json == {"pid": desk.facts()["pid"], "url": desk.facts()["url"]}


def test_in_the_background_a_taken_port_is_a_warning(desk: Desk, taken: int) -> None:
    desk.server("good")

    done = desk.octave("serve", "--detach", "--port", str(taken))

    where = str(desk.facts()["socket"]).replace(str(desk.root), "ROOT")
    assert (done.code, done.stdout) == (0, f"ready on {where}\n")
    assert done.stderr.startswith(f"warning: port {taken} is taken by ")
    assert desk.octave("call", "good", "echo", "text=hi").told == (0, "hi\n", "")
    assert "no HTTP" in desk.octave("status").stdout


def test_what_keeps_a_runtime_from_starting_is_told_by_who_started_it(desk: Desk) -> None:
    (desk.home / "octave.toml").write_text("[runtime]\nprot = 1\n", encoding="utf-8")

    for words in (("serve",), ("serve", "--detach"), ("start",)):
        done = desk.octave(*words)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith(
            "error: `octave.toml` line 2, column 1: unknown key `prot` in [runtime];"
            " did you mean `port`?\n"
        )
