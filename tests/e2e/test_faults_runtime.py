"""The installed runtime when something happens to it: signals, rivals, removed files, no files."""

import json
import os
import pty
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from octave.background import RUN_MARK
from octave.runtime.guardian import find
from tests.e2e.conftest import OCTAVE, Conversation, Octave
from tests.e2e.fleet import (
    BOUND_S,
    GONE_S,
    events,
    lives,
    read_until_ready,
    records,
    served,
    states,
    wait_until,
    write_manifest,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

STOP_S = 12.0
"""An ordered stop of everything."""


def runtime_of(octave: Octave) -> Any:
    return octave("status", "--json").document["runtime"]


def pid_of(octave: Octave, server: str) -> int:
    (found,) = octave("status", server, "--json").document["servers"]
    return int(found["pid"])


# What a server started ends with it.


def test_row_31_a_server_that_ignores_everything_is_killed_and_the_stop_says_so(
    octave: Octave,
) -> None:
    with served(octave, "stubborn", "good"):
        pid = pid_of(octave, "stubborn")
        done = octave("stop", "stubborn", "--json").document
        (result,) = done["results"]
        assert (result["status"], result["killed"]) == ("stopped", True)
        assert done["tookSeconds"] < 6 + GONE_S
        assert not psutil.pid_exists(pid)
        assert "and was killed (signal 9)" in octave("logs", "stubborn").stdout
        assert octave("stop", "stubborn", "good").stdout == "stopped stubborn\nstopped good\n"


def test_row_32_nothing_of_an_uninstalled_server_stays(octave: Octave) -> None:
    with served(octave, "group", "session", "daemon", "good") as (_, mark):
        wait_until(lambda: len(find([mark])) == 7)
        octave("uninstall", "group", "session", "daemon")
        wait_until(lambda: len(find([mark])) == 1)
        assert states(octave) == {"good": "ready"}


def test_row_58_a_server_killed_from_outside_is_told_as_such_and_comes_back(
    octave: Octave,
) -> None:
    with served(octave, "good") as (process, _):
        assert process.stdout is not None
        octave("call", "good", "echo", "text=hi")
        first = pid_of(octave, "good")
        os.kill(first, signal.SIGKILL)
        assert process.stdout.readline() == "good: died, `good` was killed (signal 9)\n"
        assert process.stdout.readline() == "good: ready\n"
        (server,) = octave("status", "good", "--json").document["servers"]
        assert server["pid"] != first
        assert server["restarts"] == 1
        assert server["lastError"]["signal"] == signal.SIGKILL
        assert octave("call", "good", "echo", "text=hi").stdout == "hi\n"


# Signals to the runtime.


@contextmanager
def terminal(octave: Octave, *names: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """`octave serve` in the foreground of a terminal of its own, with that terminal's keyboard."""
    write_manifest(octave, names)
    keyboard, screen = pty.openpty()
    # The leader of a new session gets the first terminal that it opens.
    command = f"exec <{os.ttyname(screen)}; exec {shlex.quote(str(OCTAVE))} serve"
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=octave.cwd,
        env=octave.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        read_until_ready(process)
        yield process, keyboard
    finally:
        process.kill()
        process.communicate()
        os.close(keyboard)
        os.close(screen)


def press_control_c(keyboard: int) -> None:
    os.write(keyboard, b"\x03")


def test_row_35_control_c_is_one_orderly_stop_that_servers_only_hear_of_from_the_runtime(
    octave: Octave,
) -> None:
    with terminal(octave, "stubborn", "good", "group") as (process, keyboard):
        (record,) = records(octave)
        mark = f"{RUN_MARK}={record.stem}".encode()
        press_control_c(keyboard)
        _, told = process.communicate(timeout=STOP_S)
        assert (process.returncode, told) == (0, "")
        assert find([mark]) == []
    assert events(octave, "stubborn") == ["start", "eof", "sig15"]
    assert events(octave, "good") == ["start", "eof"]


def test_row_35_a_second_control_c_kills_at_once(octave: Octave) -> None:
    with terminal(octave, "stubborn") as (process, keyboard):
        pid = pid_of(octave, "stubborn")
        press_control_c(keyboard)
        # The first is being obeyed: whoever comes now is not let in.
        wait_until(lambda: not can_connect(octave))
        press_control_c(keyboard)
        process.communicate(timeout=BOUND_S)
        assert process.returncode == 0
        assert not psutil.pid_exists(pid)
    # It did not get as far as SIGTERM, which comes after two seconds.
    assert events(octave, "stubborn") == ["start", "eof"]


def can_connect(octave: Octave) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(octave.home / "run" / "octave.sock")) == 0


def test_row_36_sigterm_waits_for_the_call_in_flight(octave: Octave) -> None:
    with served(octave, "good") as (process, mark):
        calling = octave.start("call", "good", "sleep", "s=1")
        wait_until(lambda: "call:sleep" in events(octave, "good"))
        process.terminate()
        out, _ = calling.communicate(timeout=BOUND_S)
        assert (calling.returncode, out) == (0, "slept\n")
        _, told = process.communicate(timeout=STOP_S)
        assert (process.returncode, told) == (0, "")
        assert find([mark]) == []


def test_row_36_hangup_reads_the_manifest_anew_and_touches_only_what_changed(
    octave: Octave,
) -> None:
    with served(octave, "good", "deaf") as (process, _):
        kept = pid_of(octave, "good")
        write_manifest(octave, ["good", "good2"])
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: states(octave) == {"good": "ready", "good2": "ready"})
        assert pid_of(octave, "good") == kept
        assert process.poll() is None


# Who was there first.


def test_row_37_a_second_serve_names_pid_and_address_of_the_first(octave: Octave) -> None:
    with served(octave, "good") as (process, _):
        url = runtime_of(octave)["url"]
        began_s = time.monotonic()
        second = octave("serve", code=9)
        assert time.monotonic() - began_s < BOUND_S
        assert (second.stdout, second.stderr) == (
            "",
            f"error: a runtime for `{octave.home}/octave.toml` runs already"
            f" (pid {process.pid} on {url})\n"
            "hint: `octave status` shows it, `octave shutdown` stops it\n",
        )
        detached = octave("serve", "--detach", "--json", code=9)
        assert detached.error["details"]["pid"] == process.pid
        assert states(octave) == {"good": "ready"}


def test_row_38_a_port_of_another_program_is_told_with_its_pid_before_any_server_starts(
    octave: Octave,
) -> None:
    write_manifest(octave, ["good"])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = octave("serve", "--port", str(port), code=1)
    assert done.stdout == ""
    name = re.escape(psutil.Process().name())
    assert re.fullmatch(
        rf"error: port {port} is taken by `{name}` \(pid {os.getpid()}\)\n"
        rf"hint: end that program, or choose another port: `octave serve --port {port + 1}`\n",
        done.stderr,
    )
    assert events(octave, "good") == []


# What lies in the workspace.


def test_row_39_what_a_killed_runtime_left_is_ignored_and_replaced(octave: Octave) -> None:
    run = octave.home / "run"
    with served(octave, "good") as (process, _):
        process.kill()
        process.wait(BOUND_S)
        assert octave("status", code=3).stderr.startswith("error: no runtime is running for ")
        left = {path.name: path.read_bytes() for path in (run / "token", run / "runtime.json")}
        assert (run / "octave.sock").is_socket()
        with served(octave) as (second, _):
            assert runtime_of(octave)["pid"] == second.pid
            for name, content in left.items():
                assert (run / name).read_bytes() != content
            assert octave("call", "good", "echo", "text=hi").stdout == "hi\n"


@pytest.mark.parametrize("names", [("octave.sock",), ("runtime.json", "token"), ()])
def test_row_39_a_runtime_whose_files_are_removed_can_be_reached_again(
    octave: Octave, names: tuple[str, ...]
) -> None:
    """Without names: the whole folder, the lock with it."""
    run = octave.home / "run"
    with served(octave, "good") as (process, _):
        before = {path.name for path in run.iterdir()}
        token = (run / "token").read_bytes()
        for name in names or before:
            (run / name).unlink()
        if not names:
            run.rmdir()
            wait_until(lambda: (run / "octave.sock").exists())
        assert runtime_of(octave)["pid"] == process.pid
        wait_until(lambda: run.exists() and before == {path.name for path in run.iterdir()})
        assert (run / "token").read_bytes() == token
        assert octave("serve", code=9).stderr.startswith("error: a runtime for ")
        octave("shutdown")
        assert process.wait(BOUND_S) == 0


def test_row_39_a_runtime_that_lost_its_workspace_to_another_leaves_it_alone(
    octave: Octave,
) -> None:
    run = octave.home / "run"
    with served(octave, "good") as (first, _):
        # As if the folder had been replaced: no second passes between the two.
        first.send_signal(signal.SIGSTOP)
        for path in run.iterdir():
            path.unlink()
        with served(octave) as (second, _):
            first.send_signal(signal.SIGCONT)
            _, told = first.communicate(timeout=STOP_S)
            assert first.returncode == 0
            assert "the workspace has another runtime by now, this one ends" in told
            assert runtime_of(octave)["pid"] == second.pid
            assert octave("call", "good", "echo", "text=hi").stdout == "hi\n"


def test_the_name_of_no_server_starts_no_runtime(octave: Octave) -> None:
    write_manifest(octave, ["good"])
    done = octave("start", "god", code=4)
    assert done.stderr == "error: no server `god`\nhint: did you mean `good`?\n"
    assert records(octave) == []
    octave("status", code=3)


# Time that passes without the runtime.


def test_row_45_after_a_sleep_of_the_machine_every_server_is_ready_and_the_same(
    octave: Octave,
) -> None:
    write_manifest(
        octave, ["good", "deaf", "good2"], runtime='health_interval = "1s"\nidle_timeout = "5m"'
    )
    with served(octave) as (process, _):
        before = {name: pid_of(octave, name) for name in ("good", "deaf", "good2")}
        process.send_signal(signal.SIGSTOP)
        # Longer than a health interval and a probe: whoever counts would call all of them dead.
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
        for name in before:
            assert octave("call", name, "echo", "text=hi").stdout == "hi\n"
        # And as long again for what the late timers may have begun.
        time.sleep(2)
        assert {name: pid_of(octave, name) for name in before} == before
        assert set(states(octave).values()) == {"ready"}


# No more open files.


def test_row_46_a_start_without_files_is_refused_and_what_runs_goes_on(octave: Octave) -> None:
    names = [f"good{number}" for number in range(20)]
    write_manifest(octave, names)
    with served(octave, files=40) as (process, _):
        found = octave("status", "--json").document
        files = found["runtime"]["openFiles"]
        assert files["used"] < files["limit"] == 40
        assert "only 40 files may be open at once" in found["runtime"]["warning"]
        assert "`ulimit -n 194`" in found["runtime"]["warning"]
        up = [server["name"] for server in found["servers"] if server["state"] == "ready"]
        refused = [server for server in found["servers"] if server["name"] not in up]
        assert up
        for server in refused:
            assert server["lastError"]["message"].endswith(
                "could not be started: too many files are open, 40 are allowed"
            )
            assert "ulimit -n" in server["lastError"]["hint"]
        for name in up:
            assert octave("call", name, "echo", "text=hi").stdout == "hi\n"
        octave("stop", *up)
        # What they gave back is enough for others, not for all.
        again = octave("start", *[server["name"] for server in refused], code=6)
        assert "ready good" in again.stdout
        octave("shutdown")
        assert process.wait(BOUND_S) == 0


@contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """Let the process open not one file more than it has open."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The highest number in use is not given away, those below it may have gaps.
    numbers = sorted(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    lowest = next(number for number in range(len(numbers) + 1) if number not in numbers)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_row_46_without_files_connections_wait_and_are_served_when_there_are_some(
    octave: Octave, proxy: Callable[..., Conversation]
) -> None:
    with served(octave, "good", "deaf") as (process, _):
        runtime = psutil.Process(process.pid)
        url = runtime_of(octave)["url"]
        client = proxy("good")
        client.initialize()
        with no_more_files(process.pid):
            host, port = url.removeprefix("http://").split(":")
            waiting = socket.create_connection((host, int(port)), timeout=BOUND_S)
            waiting.sendall(
                b"GET /health HTTP/1.1\r\nHost: %b:%b\r\n\r\n" % (host.encode(), port.encode())
            )
            asking = octave.start("status", "--json")
            before_s = busy_s(runtime)
            for _ in range(30):
                assert call(client, "echo", text="goes on") == "goes on"
                time.sleep(0.1)
            # It waits, it does not spin.
            assert busy_s(runtime) - before_s < 1.5
            assert asking.poll() is None
        out, _ = asking.communicate(timeout=BOUND_S)
        assert asking.returncode == 0
        assert {server["state"] for server in json.loads(out)["servers"]} == {"ready"}
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200")
        waiting.close()
        wait_until(lambda: runtime_of(octave)["warning"] is None)
        assert client.close() == 0
        octave("shutdown")
        _, told = process.communicate(timeout=BOUND_S)
        assert told == "warning: too many files are open: new connections wait\n"


def busy_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def call(client: Conversation, tool: str, **arguments: object) -> str:
    answer = client.request("tools/call", {"name": tool, "arguments": arguments})
    return str(answer["result"]["content"][0]["text"])


# The proxy.


def test_row_61_a_proxy_goes_on_with_the_runtime_that_follows_and_ends_with_its_input(
    octave: Octave, proxy: Callable[..., Conversation]
) -> None:
    with served(octave, "good") as (first, _):
        client = proxy("good")
        client.initialize()
        server = call(client, "pid")
        client.send(request("long", "tools/call", name="sleep", arguments={"s": 600}))
        # Answered at once and in order: the call before it is in the runtime's hands.
        client.request("ping", {})
        first.kill()
        answer = json.loads(client.receive())
        assert answer["id"] == "long"
        assert answer["error"]["message"] == "the runtime ended before it answered; outcome unknown"
        with served(octave):
            assert call(client, "pid") != server
            tools = client.request("tools/list", {})["result"]["tools"]
            assert "echo" in {tool["name"] for tool in tools}
            began_s = time.monotonic()
            assert client.close() == 0
            assert time.monotonic() - began_s < GONE_S


def test_row_62_no_proxy_outlives_an_ai_tool_that_is_killed(octave: Octave) -> None:
    with served(octave, "good"):
        # It holds both ends of the proxy's pipes, as AI tools do.
        program = f"""if True:
            import subprocess
            child = subprocess.Popen([{str(OCTAVE)!r}, "proxy"], stdin=-1, stdout=-1)
            child.stdin.write(b'{{"jsonrpc":"2.0","id":1,"method":"ping"}}\\n')
            child.stdin.flush()
            child.stdout.readline()
            print(child.pid, flush=True)
            child.wait()
        """
        tool = subprocess.Popen(
            [sys.executable, "-c", program], env=octave.environ, stdout=subprocess.PIPE, text=True
        )
        assert tool.stdout is not None
        pid = int(tool.stdout.readline())
        assert psutil.Process(pid).cmdline()[-1] == "proxy"
        tool.kill()
        tool.communicate()
        wait_until(lambda: not lives(pid))


# Starting, and starting anew.


def test_row_63_servers_that_hang_at_start_hold_back_neither_the_others_nor_the_api(
    octave: Octave,
) -> None:
    write_manifest(octave, ["silent", "silent2", "good"])
    process = octave.start("serve")
    try:
        assert process.stdout is not None
        # The line that says all is settled comes later.
        assert process.stdout.readline() == "good: ready\n"
        facts = octave.home / "run" / "runtime.json"
        wait_until(lambda: json.loads(facts.read_bytes())["url"])
        url = json.loads(facts.read_bytes())["url"]
        with urllib.request.urlopen(f"{url}/health", timeout=BOUND_S) as health:
            assert json.load(health)["status"] == "ok"
        assert octave("call", "good", "echo", "text=hi").stdout == "hi\n"
        assert states(octave) == {"silent": "starting", "silent2": "starting", "good": "ready"}
    finally:
        process.kill()
        process.communicate()


def test_row_64_the_old_servers_are_gone_before_those_of_the_next_runtime_start(
    octave: Octave,
) -> None:
    with served(octave, "stubborn", "session", "daemon") as (old, old_mark):
        (old_record,) = records(octave)
        old.terminate()
        wait_until(lambda: not can_connect(octave))
        starting = octave.start("start", "--all")
        while starting.poll() is None:
            new = [path.stem for path in records(octave) if path != old_record]
            if find([f"{RUN_MARK}={run}".encode() for run in new]):
                assert not find([old_mark])
        out, told = starting.communicate()
        assert (starting.returncode, told) == (0, "")
        assert sorted(out.splitlines()) == ["ready daemon", "ready session", "ready stubborn"]
        assert not find([old_mark])


def request(identifier: str, method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
