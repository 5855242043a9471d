"""The real proxy as a child, in front of a socket that the test itself answers."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from octave.home import Home, Workspace, find_workspace
from octave.proxy import usual_socket

CHECKOUT = Path(__file__).parent.parent
INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}\n'
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
CAPABLE = b'{"jsonrpc":"2.0","id":0,"result":{"capabilities":{"tools":{}}}}\n'
TOOLS_CHANGED = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n'
WELCOME = b'{"octave":{"version":1,"runtime":"9.9.9"}}\n'
BOUND_S = 10.0

Spawn = Callable[..., "subprocess.Popen[bytes]"]


class StandIn:
    """Listens where the home's runtime would, and speaks the first line."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.fspath(path))
        self._listener.listen()
        self._listener.settimeout(BOUND_S)
        self._links: list[socket.socket] = []

    def accept(self, answer: bytes = WELCOME) -> tuple[socket.socket, dict[str, Any]]:
        link, _ = self._listener.accept()
        self._links.append(link)
        link.settimeout(BOUND_S)
        hello = bytearray()
        while not hello.endswith(b"\n"):
            hello += link.recv(1)
        link.sendall(answer)
        return link, json.loads(hello)["octave"]

    def accept_nobody(self) -> None:
        """Take the connection of somebody who only looks whether there is a runtime."""
        link, _ = self._listener.accept()
        with link:
            assert link.recv(1) == b""

    def fileno(self) -> int:
        """Readable when somebody wants to connect."""
        return self._listener.fileno()

    def close(self) -> None:
        for each in (self._listener, *self._links):
            each.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "h")
    Workspace.of_home(home).prepare()
    return home


@pytest.fixture
def runtime(home: Home) -> Iterator[StandIn]:
    stand_in = StandIn(Workspace.of_home(home).socket())
    yield stand_in
    stand_in.close()


@pytest.fixture
def children() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def spawn(home: Home, children: list["subprocess.Popen[bytes]"]) -> Spawn:
    def spawn(*words: str) -> "subprocess.Popen[bytes]":
        environ = {**os.environ, "OCTAVE_HOME": os.fspath(home.root), "PYTHONPATH": str(CHECKOUT)}
        child = subprocess.Popen(
            [sys.executable, "-m", "octave", "proxy", *words],
            cwd=CHECKOUT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        children.append(child)
        return child

    return spawn


def stdin(child: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert child.stdin is not None
    return child.stdin


def stdout(child: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert child.stdout is not None
    return child.stdout


def stderr(child: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert child.stderr is not None
    return child.stderr


def read_exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        assert select.select([descriptor], [], [], BOUND_S)[0], "nothing came"
        piece = os.read(descriptor, size - len(data))
        assert piece, "the end came first"
        data += piece
    return bytes(data)


def say(child: "subprocess.Popen[bytes]", *lines: bytes) -> None:
    stdin(child).write(b"".join(lines))
    stdin(child).flush()


def hear(child: "subprocess.Popen[bytes]", *lines: bytes) -> None:
    """Assert that these lines come next on the child's stdout."""
    expected = b"".join(lines)
    assert read_exactly(stdout(child).fileno(), len(expected)) == expected


def receive_exactly(link: socket.socket, *lines: bytes) -> None:
    expected = b"".join(lines)
    assert read_exactly(link.fileno(), len(expected)) == expected


def request(identifier: bytes, method: bytes = b"tools/call") -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":{"id":9}}\n' % (identifier, method)


def shaken(
    spawn: Spawn, runtime: StandIn, *words: str
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Return a proxy whose client and runtime have shaken hands."""
    child = spawn(*words)
    link, _ = runtime.accept()
    say(child, INITIALIZE)
    receive_exactly(link, INITIALIZE)
    link.sendall(CAPABLE)
    hear(child, CAPABLE)
    say(child, INITIALIZED)
    receive_exactly(link, INITIALIZED)
    return child, link


def receive_all(link: socket.socket) -> bytes:
    data = bytearray()
    while piece := link.recv(65536):
        data += piece
    return bytes(data)


def test_bytes_pass_both_ways_as_they_are_and_the_first_line_is_swallowed(
    spawn: Spawn, runtime: StandIn
) -> None:
    child = spawn()
    link, hello = runtime.accept(WELCOME + b'{"early":1}\n')
    assert hello == {"version": 1, "proxy": {"clientPid": os.getpid()}}
    assert read_exactly(stdout(child).fileno(), 12) == b'{"early":1}\n'
    odd = b"\x00\xff\r\n\n{ not json\n"
    stdin(child).write(odd)
    stdin(child).flush()
    assert link.recv(100) == odd
    link.sendall(odd)
    assert read_exactly(stdout(child).fileno(), len(odd)) == odd
    link.close()


def test_names_and_profile_stand_in_the_first_line(spawn: Spawn, runtime: StandIn) -> None:
    spawn("github", "--server", "notes", "--profile=work", "--server=ü")
    _, hello = runtime.accept()
    assert hello["proxy"] == {
        "profile": "work",
        "servers": ["github", "notes", "ü"],
        "clientPid": os.getpid(),
    }


def test_row_62_end_of_input_waits_for_the_answers_and_exits_with_success(
    spawn: Spawn, runtime: StandIn
) -> None:
    child = spawn()
    link, _ = runtime.accept()
    stdin(child).write(b"question\n")
    stdin(child).close()
    assert receive_all(link) == b"question\n"
    link.sendall(b"answer\n")
    link.close()
    assert read_exactly(stdout(child).fileno(), 7) == b"answer\n"
    assert child.wait(BOUND_S) == 0
    assert stderr(child).read() == b""


def test_a_client_that_does_not_read_stops_only_the_direction_it_blocks(
    spawn: Spawn, runtime: StandIn
) -> None:
    child = spawn()
    link, _ = runtime.accept()
    answer = os.urandom(6 * 2**20) + b"\n"
    sender = threading.Thread(target=link.sendall, args=(answer,))
    sender.start()
    stdin(child).write(b"still heard\n")
    stdin(child).flush()
    assert link.recv(100) == b"still heard\n"
    sender.join(0.2)
    assert sender.is_alive(), "the proxy keeps six megabytes for a client that does not read"
    assert read_exactly(stdout(child).fileno(), len(answer)) == answer
    sender.join(BOUND_S)
    assert not sender.is_alive()
    link.close()


def test_a_refusal_is_told_on_stderr_with_its_exit_code(spawn: Spawn, runtime: StandIn) -> None:
    child = spawn("githb")
    error = {"code": "server_not_found", "message": "no server `githb`", "hint": "did you mean?"}
    link, _ = runtime.accept(json.dumps({"octave": {"error": error}}).encode() + b"\n")
    link.close()
    out, err = child.communicate(timeout=BOUND_S)
    assert (child.returncode, out) == (4, b"")
    assert err == b"error: no server `githb`\nhint: did you mean?\n"


def test_a_runtime_that_was_just_ending_is_replaced(spawn: Spawn, runtime: StandIn) -> None:
    child = spawn()
    stdin(child).write(b"question\n")
    stdin(child).flush()
    runtime.accept(b"")[0].close()
    runtime.accept_nobody()
    link, _ = runtime.accept()
    assert link.recv(100) == b"question\n"


def test_row_62_a_client_that_is_gone_ends_the_proxy_quietly(
    spawn: Spawn, runtime: StandIn
) -> None:
    child = spawn()
    link, _ = runtime.accept()
    stdout(child).close()
    link.sendall(b"for nobody\n")
    assert child.wait(BOUND_S) == 0
    assert stderr(child).read() == b""
    link.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -15), (signal.SIGINT, 130)])
def test_a_signal_ends_the_proxy_quietly(
    spawn: Spawn, runtime: StandIn, number: int, status: int
) -> None:
    child = spawn()
    link, _ = runtime.accept()
    link.sendall(b"up\n")
    read_exactly(stdout(child).fileno(), 3)
    child.send_signal(number)
    assert child.wait(BOUND_S) == status
    assert stderr(child).read() == b""
    assert receive_all(link) == b""


def test_row_62_the_proxy_ends_when_its_parent_is_gone_though_the_pipes_stay_open(
    home: Home, runtime: StandIn, tmp_path: Path
) -> None:
    source, _source_end = os.pipe()
    _sink_end, sink = os.pipe()
    program = (
        "import subprocess, sys, os;"
        "subprocess.Popen([sys.executable, '-m', 'octave', 'proxy'], stdin=0, stdout=1);"
        "sys.stderr.close(); os.read(3, 1)"
    )
    hold, let_go = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", program.replace("os.read(3", f"os.read({hold}")],
        cwd=CHECKOUT,
        env={**os.environ, "OCTAVE_HOME": os.fspath(home.root)},
        stdin=source,
        stdout=sink,
        pass_fds=(hold,),
    )
    link, _ = runtime.accept()
    os.close(let_go)
    os.close(hold)
    parent.kill()
    parent.wait(BOUND_S)
    assert receive_all(link) == b""
    link.close()
    for descriptor in (source, _source_end, _sink_end, sink):
        os.close(descriptor)


def test_what_is_no_runtime_is_named_as_such(spawn: Spawn, runtime: StandIn) -> None:
    child = spawn()
    link, _ = runtime.accept(b"220 smtp ready\n")
    _, err = child.communicate(timeout=BOUND_S)
    assert child.returncode == 1
    assert b"no Octave runtime" in err
    link.close()


def test_help_needs_no_runtime(spawn: Spawn) -> None:
    child = spawn("--help")
    out, err = child.communicate(timeout=BOUND_S)
    assert (child.returncode, err) == (0, b"")
    assert out.startswith(b"Usage: octave proxy")


@pytest.mark.parametrize("words", [["--nonsense"], ["--server"], ["--profile="]])
def test_wrong_words_are_usage_errors(spawn: Spawn, words: list[str]) -> None:
    child = spawn(*words)
    out, err = child.communicate(timeout=BOUND_S)
    assert (child.returncode, out) == (2, b"")
    assert err.startswith(b"error: ")
    assert b"hint: octave proxy --help" in err


def test_a_manifest_that_cannot_be_read_is_reported_by_its_code(spawn: Spawn, home: Home) -> None:
    home.manifest.write_text("[servers", encoding="utf-8")
    child = spawn()
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (2, b"")
    assert b"octave.toml" in err


@pytest.mark.parametrize("kind", ["home", "home by link", "project", "project folder", "relative"])
def test_the_socket_is_where_the_workspace_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    home = Home(tmp_path / "h")
    project = tmp_path / "project"
    project.mkdir()
    home.root.mkdir()
    (project / "octave.toml").touch()
    (tmp_path / "link.toml").symlink_to(home.manifest)
    monkeypatch.chdir(tmp_path)
    named = {
        "home": None,
        "home by link": str(tmp_path / "link.toml"),
        "project": str(project / "octave.toml"),
        "project folder": str(project),
        "relative": "project/octave.toml",
    }[kind]
    environ = {"OCTAVE_HOME": str(home.root)}
    expected = find_workspace(home, tmp_path, named, home_only=True).socket()
    assert usual_socket(named, environ) == str(expected)


def test_the_proxy_loads_nothing_but_small_parts_of_the_standard_library() -> None:
    program = "import sys, octave.proxy; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("octave")}
    parts = {f"octave.proxy_{part}" for part in ("ledger", "output", "request", "watch")}
    assert ours == {"octave", "octave.proxy", *parts}
    heavy = {"json", "pathlib", "asyncio", "subprocess", "dataclasses", "typing", "signal"}
    assert not heavy & set(loaded)


def test_row_61_the_next_runtime_gets_the_handshake_and_its_answer_is_not_the_clients(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime, "github")
    link.close()
    link, hello = runtime.accept()
    assert hello["proxy"] == {"servers": ["github"], "clientPid": os.getpid()}
    receive_exactly(link, INITIALIZE, INITIALIZED)
    hear(child, TOOLS_CHANGED)
    link.sendall(CAPABLE)
    say(child, request(b"1"))
    receive_exactly(link, request(b"1"))
    answer = b'{"id":1,"result":{"id":0}}\n'
    link.sendall(answer)
    hear(child, answer)


def test_row_61_what_was_in_flight_is_answered_with_an_error_before_there_is_another_runtime(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    asked = [request(b"1"), request(b'"x\\"y"'), request(b"2")]
    say(child, *asked)
    receive_exactly(link, *asked)
    answer = b'{"id":2,"result":{}}\n'
    link.sendall(answer)
    hear(child, answer)
    link.close()
    for expected in (1, 'x"y'):
        line = stdout(child).readline()
        error = json.loads(line)
        assert error["id"] == expected
        assert error["error"]["code"] == -32603
        assert error["error"]["message"] == (
            "the runtime ended before it answered; outcome unknown"
        )
        assert error["error"]["data"]["octave"]["code"] == "server_died"
    link, _ = runtime.accept()
    receive_exactly(link, INITIALIZE, INITIALIZED)
    hear(child, TOOLS_CHANGED)


def test_a_half_line_of_a_dying_runtime_never_reaches_the_client(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    link.sendall(b'{"whole":1}\n{"id":5,"resu')
    hear(child, b'{"whole":1}\n')
    link.close()
    link, _ = runtime.accept()
    hear(child, TOOLS_CHANGED)
    link.sendall(b'{"whole":2}\n')
    hear(child, b'{"whole":2}\n')


def test_lines_that_come_while_there_is_no_runtime_are_for_the_next(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    lines = [request(b"%d" % number) for number in range(100)]
    link.close()
    say(child, *lines)
    link, _ = runtime.accept()
    receive_exactly(link, INITIALIZE, INITIALIZED, *lines)
    hear(child, TOOLS_CHANGED)


def test_a_long_line_that_left_in_part_is_sent_again_from_its_beginning(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    long = b'{"method":"tools/call","params":{"text":"%b"},"id":7}\n' % (b"x" * 16 * 2**20)
    sender = threading.Thread(target=say, args=(child, long))
    sender.start()
    read_exactly(link.fileno(), 3 * 2**20)
    link.close()
    link, _ = runtime.accept()
    receive_exactly(link, INITIALIZE, INITIALIZED, long)
    sender.join(BOUND_S)
    link.close()
    hear(child, TOOLS_CHANGED)
    assert json.loads(stdout(child).readline())["id"] == 7


def test_a_handshake_in_flight_is_answered_by_the_next_runtime(
    spawn: Spawn, runtime: StandIn
) -> None:
    child = spawn()
    link, _ = runtime.accept()
    say(child, INITIALIZE)
    receive_exactly(link, INITIALIZE)
    link.close()
    link, _ = runtime.accept()
    receive_exactly(link, INITIALIZE)
    link.sendall(CAPABLE)
    hear(child, CAPABLE)


def test_a_runtime_that_ends_again_before_the_handshake_is_done_changes_nothing(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    for _ in range(3):
        link.close()
        link, _hello = runtime.accept()
        receive_exactly(link, INITIALIZE, INITIALIZED)
        hear(child, TOOLS_CHANGED)
    link.sendall(CAPABLE + request(b"0", b"sampling/createMessage"))
    hear(child, request(b"0", b"sampling/createMessage"))


def test_a_next_runtime_that_refuses_ends_the_proxy_with_its_code(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime, "github")
    link.close()
    error = {"code": "server_not_found", "message": "no server `github`", "hint": None}
    runtime.accept(json.dumps({"octave": {"error": error}}).encode() + b"\n")
    assert child.wait(BOUND_S) == 4
    assert stderr(child).read() == b"error: no server `github`\n"


def test_row_61_the_end_of_input_without_a_runtime_ends_the_proxy_at_once_and_quietly(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    # Nobody answers the greeting: the proxy waits in the middle of it.
    link.close()
    assert select.select([runtime], [], [], BOUND_S)[0]
    say(child, request(b"1"))
    stdin(child).close()
    assert child.wait(BOUND_S / 2) == 0
    assert stdout(child).read() == stderr(child).read() == b""


def test_a_signal_without_a_runtime_ends_the_proxy_at_once_and_quietly(
    spawn: Spawn, runtime: StandIn
) -> None:
    child, link = shaken(spawn, runtime)
    link.close()
    assert select.select([runtime], [], [], BOUND_S)[0]
    child.send_signal(signal.SIGTERM)
    assert child.wait(BOUND_S / 2) == -15
    assert stderr(child).read() == b""


def test_without_a_runtime_that_stays_the_proxy_gives_up_and_says_so(
    home: Home, runtime: StandIn
) -> None:
    program = (
        "import sys; from octave import proxy; proxy.GIVE_UP_S = 0.5; sys.exit(proxy.main([]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**os.environ, "OCTAVE_HOME": os.fspath(home.root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    runtime.accept()[0].close()
    runtime.close()
    Workspace.of_home(home).socket().unlink()
    assert child.wait(BOUND_S) == 1
    _, err = child.communicate()
    assert err == b"error: the runtime ended and did not come back\nhint: octave status\n"
