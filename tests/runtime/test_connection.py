import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from octave.errors import (
    CallTimedOut,
    LockStale,
    OctaveError,
    ServerBusy,
    ServerDied,
    StartFailed,
)
from octave.packages.launch import LaunchSpec, Policy
from octave.runtime import wire
from octave.runtime.connection import Callbacks, Connection, connect
from octave.runtime.handshake import Opening
from octave.runtime.questions import Caller
from octave.runtime.wire import Message, decode

pytestmark = pytest.mark.anyio

SERVERS = Path(__file__).parent.parent / "servers"
BOUND_S = 5.0
TIMES_S = (BOUND_S, BOUND_S)
SOON_S = 0.25
"""How fast a call must fail once its server is dead: 0.05 s, and room for a loaded machine."""

SCRIPT = f"""
import os, sys, time
sys.path.insert(0, {str(SERVERS)!r})
from _base import Server, raw, send, text, event
class S(Server):
    def call(self, name, args, msg):
        own = getattr(self, name, None)
        return own(msg) if own else super().call(name, args, msg)
"""
"""Beginning of a server whose tools are methods of `S`; `run` adds the end."""


def spec_of(*argv: str, policy: Policy | None = None, **environ: str) -> LaunchSpec:
    environment = {**os.environ, **environ}
    return LaunchSpec(
        "child", (sys.executable, *argv), Path.cwd(), lambda: environment, policy=policy or Policy()
    )


def server(name: str, *arguments: str, **environ: str) -> LaunchSpec:
    return spec_of(str(SERVERS / f"{name}.py"), *arguments, policy=None, **environ)


def script(body: str, policy: Policy | None = None, **environ: str) -> LaunchSpec:
    methods = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return spec_of("-c", f"{SCRIPT}{methods}\nS().run()", policy=policy, **environ)


def call(tool: str, arguments: Mapping[str, Any] | None = None, **meta: Any) -> Message:
    params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
    if meta:
        params["_meta"] = meta
    return decode(wire.request(b'"mine"', "tools/call", json.dumps(params).encode()))


async def forward(connection: Connection, message: Message, timeout_s: float = BOUND_S) -> Message:
    with anyio.fail_after(2 * BOUND_S):
        return await connection.forward(message, {}, Caller(), (timeout_s, timeout_s))


def text_of(answer: Message) -> str:
    assert answer.result is not None, answer.line
    return str(json.loads(answer.result)["content"][0]["text"])


async def echoes(connection: Connection, text: str = "hello") -> bool:
    return text_of(await forward(connection, call("echo", {"text": text}))) == text


@asynccontextmanager
async def running(spec: LaunchSpec, **callbacks: Any) -> AsyncIterator[Connection]:
    with anyio.fail_after(4 * BOUND_S):
        async with connect(spec, Callbacks(**callbacks)) as connection:
            yield connection


def events(state: Path) -> list[str]:
    lines = (state / "events.log").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines]


# The handshake


async def test_the_handshake_keeps_what_the_server_said():
    async with running(server("good")) as connection:
        assert connection.greeting.protocol_version == "2025-11-25"
        assert connection.greeting.result == (
            b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":false}},'
            b'"serverInfo":{"name":"good","version":"0.0.0"}}'
        )
        assert connection.pid > 1


async def test_initialized_follows_the_handshake(tmp_path):
    spec = script(
        """
def before(self, msg):
    event(msg["method"])
""",
        HOSTILE_STATE=str(tmp_path),
    )
    async with running(spec) as connection:
        await connection.request("ping", None, BOUND_S)
    assert events(tmp_path) == ["start", "initialize", "notifications/initialized", "ping", "eof"]


async def refused(spec: LaunchSpec, start_timeout_s: float = BOUND_S) -> StartFailed:
    with pytest.raises(StartFailed) as failed:
        async with connect(spec, Callbacks(), start_timeout_s):
            pass
    return failed.value


async def test_one_that_never_answers_is_given_up():
    failed = await refused(server("never_initialize"), 0.5)
    assert failed.message == "`child` did not answer `initialize` within 0.5 s"
    assert failed.details == {
        "phase": "timeout",
        "exitCode": None,
        "signal": None,
        "stderrTail": ["never_initialize: started, will stay silent"],
        "permanent": False,
    }


async def test_one_that_ends_first_shows_its_exit_code_and_last_words():
    failed = await refused(server("crash_loop", "0"))
    assert failed.message == "`child` ended with exit code 3 before it answered `initialize`"
    assert failed.details["exitCode"] == 3
    assert failed.details["phase"] == "initialize"
    assert failed.details["stderrTail"] == ["crash_loop: fatal: missing API key"]


async def test_the_exit_code_of_a_missing_command_is_permanent():
    assert (await refused(spec_of("-c", "raise SystemExit(127)"))).details["permanent"] is True


async def test_a_server_of_the_modern_era_alone_is_opened_in_it():
    async with connect(server("good", HOSTILE_ERA="modern"), Callbacks()) as connection:
        assert connection.greeting.era == "modern"
        assert wire.member(connection.greeting.result, "supportedVersions") is not None
        answer = await connection.request("tools/list", None, BOUND_S)
        assert answer.result is not None


async def test_a_server_of_both_eras_is_opened_in_the_one_that_is_wanted():
    wanted = Opening("modern")
    async with connect(server("good"), Callbacks(), opening=wanted) as connection:
        assert connection.greeting.era == "modern"
    async with connect(server("good"), Callbacks()) as connection:
        assert connection.greeting.era == "legacy"


async def test_a_server_of_a_still_newer_protocol_is_named_as_such():
    data = '{"supported":["2099-01-01"]}'
    answers = (
        '{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no","data":%s}}' % data,  # noqa: UP031
        '{"jsonrpc":"2.0","id":2,"result":{"supportedVersions":["2099-01-01"]}}',
    )
    code = "; ".join(f"input(); print('''{answer}''', flush=True)" for answer in answers)
    assert '["2099-01-01"]' in (await refused(spec_of("-c", f"{code}; input()"))).message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('"error":{"code":-32000,"message":"no token"}', "refused `initialize`: no token"),
        ('"result":{"protocolVersion":1}', "has no `protocolVersion`"),
        ('"result":{"x":NaN}', "cannot be read"),
    ],
)
async def test_a_useless_answer_to_initialize_is_quoted(answer, expected):
    line = '{"jsonrpc":"2.0","id":1,%s}' % answer  # noqa: UP031
    failed = await refused(spec_of("-c", f"input(); print('''{line}''', flush=True); input()"))
    assert expected in failed.message


async def test_what_cannot_be_started_says_why():
    spec = LaunchSpec("child", ("/no/such/program",), Path.cwd(), dict)
    assert (await refused(spec)).details["phase"] == "start"


async def test_a_spec_with_a_problem_raises_it():
    problem = LockStale("`child` is not in the lockfile")
    spec = LaunchSpec("child", (), Path.cwd(), dict, problem=problem)
    with pytest.raises(LockStale):
        async with connect(spec, Callbacks()):
            pass


# Calls


async def test_the_clients_line_reaches_the_server_as_it_was_but_for_its_id():
    spy = script(
        """
def lines(self):
    for line in super().lines():
        self.line = line
        yield line
def show(self, msg):
    return text(self.line.decode())
"""
    )
    line = (
        b'{"jsonrpc":"2.0", "params":{"x":1E2,"name":"shown","n":"\\u0061\\/","arguments":{}} ,'
        b'"id":"one","method":"tools/call"}'
    )
    async with running(spy) as connection:
        changes: dict[wire.Path, bytes] = {("params", "name"): b'"show"'}
        answer = await connection.forward(decode(line), changes, Caller(), TIMES_S)
    assert answer.id == b"2"
    sent = line.replace(b'"id":"one"', b'"id":2').replace(b'"shown"', b'"show"')
    assert text_of(answer) == sent.decode() + "\n"


async def test_errors_of_the_server_are_answers():
    async with running(server("good")) as connection:
        answer = await forward(connection, call("nothing"))
        assert answer.error == b'{"code":-32602,"message":"Unknown tool: \'nothing\'"}'
        assert (await connection.request("x/y", b"{}", BOUND_S)).error is not None


async def test_many_calls_at_once_get_their_own_answers():
    async with running(server("good")) as connection, anyio.create_task_group() as tasks:

        async def check(number: int) -> None:
            assert await echoes(connection, f"text {number}")

        for number in range(100):
            tasks.start_soon(check, number)
    assert connection.in_flight == 0


async def test_progress_comes_back_with_the_clients_token_and_before_the_answer():
    spec = script(
        """
def work(self, msg):
    token = msg["params"]["_meta"]["progressToken"]
    for step in (1, 2):
        params = {"progressToken": token, "progress": step, "x": 1}
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    return text(repr(token))
"""
    )
    heard: list[bytes] = []
    async with running(spec) as connection:
        message = call("work", progressToken="mine")
        answer = await connection.forward(message, {}, Caller(None, heard.append), TIMES_S)
    assert text_of(answer) == "2"
    assert heard == [
        b'{"jsonrpc":"2.0","method":"notifications/progress",'
        b'"params":{"progressToken":"mine","progress":%d,"x":1}}' % step
        for step in (1, 2)
    ]


PROGRESS = """
def work(self, msg):
    token = msg["params"]["_meta"]["progressToken"]
    for step in range(STEPS):
        time.sleep(0.1)
        params = {"progressToken": token, "progress": step}
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
    return text("done")
"""


async def test_progress_extends_the_deadline():
    async with running(script(PROGRESS.replace("STEPS", "6"))) as connection:
        message = call("work", progressToken=0)
        assert text_of(await connection.forward(message, {}, Caller(), (0.4, BOUND_S))) == "done"


async def test_progress_without_end_ends_at_the_maximum():
    async with running(script(PROGRESS.replace("STEPS", "20"))) as connection:
        with pytest.raises(CallTimedOut):
            await connection.forward(call("work", progressToken=0), {}, Caller(), (0.4, 0.6))
        assert connection.strays == 0
        os.kill(connection.pid, signal.SIGKILL)


async def test_a_call_that_hangs_times_out_is_cancelled_and_the_server_goes_on(tmp_path):
    async with running(server("hang_on_call", HOSTILE_STATE=str(tmp_path))) as connection:
        with pytest.raises(CallTimedOut) as timed_out:
            await forward(connection, call("hang"), 0.2)
        assert "`child` did not answer `tools/call` in time" in timed_out.value.message
        assert await echoes(connection)
    assert "cancelled:2" in events(tmp_path)


async def test_row_17_a_caller_that_leaves_cancels_its_call_and_a_late_answer_is_swallowed(
    tmp_path,
):
    spec = script(
        """
def before(self, msg):
    if msg.get("method") == "notifications/cancelled":
        event("cancelled:%s" % msg["params"]["requestId"])
        send({"jsonrpc": "2.0", "id": msg["params"]["requestId"], "result": {}})
def hang(self, msg):
    send({"jsonrpc": "2.0", "method": "notifications/hanging"})
""",
        HOSTILE_STATE=str(tmp_path),
    )
    hanging = anyio.Event()
    async with running(spec, on_notification=lambda _: hanging.set()) as connection:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward, connection, call("hang"))
            await hanging.wait()
            tasks.cancel_scope.cancel()
        assert (await connection.request("ping", None, BOUND_S)).result == b"{}"
        assert (connection.strays, connection.in_flight) == (0, 0)
    assert "cancelled:2" in events(tmp_path)


async def test_a_call_that_never_left_is_taken_back_in_silence():
    spec = server("hang_on_call")
    async with running(spec) as connection, anyio.create_task_group() as tasks:
        tasks.start_soon(dies, connection, call("freeze"))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(CallTimedOut):
            await forward(connection, call("echo", {"text": "x" * 200_000}), 0.2)
        with pytest.raises(CallTimedOut):
            await forward(connection, call("echo", {"text": "never"}), 0.1)
        os.kill(connection.pid, signal.SIGKILL)
        assert (await dies(connection, call("echo"))).details["sent"] is False


async def dies(connection: Connection, message: Message) -> ServerDied:
    with pytest.raises(ServerDied) as died:
        await forward(connection, message, 2 * BOUND_S)
    return died.value


async def test_a_server_that_does_not_read_is_busy_before_long():
    async with running(server("hang_on_call")) as connection:
        with pytest.raises(ExceptionGroup) as refused:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(forward, connection, call("freeze"))
                for _ in range(400):
                    tasks.start_soon(forward, connection, call("echo", {"text": "x" * 5000}))
        assert refused.group_contains(ServerBusy)
        os.kill(connection.pid, signal.SIGKILL)


# Deaths


@pytest.mark.parametrize(
    ("name", "tool", "end", "exit_code", "number"),
    [
        ("crash_on_call", "crash", "was killed (signal 11)", None, 11),
        ("exit_mid_call", "half", "ended with exit code 0", 0, None),
        ("exit_mid_call", "clean", "ended with exit code 0", 0, None),
    ],
)
async def test_a_death_during_a_call_fails_it_with_its_circumstances(
    name, tool, end, exit_code, number
):
    async with running(server(name)) as connection:
        with pytest.raises(ServerDied) as died:
            await forward(connection, call(tool))
        assert died.value.message == f"`child` {end} before it answered `tools/call`"
        assert died.value.details == {
            "exitCode": exit_code,
            "signal": number,
            "stderrTail": [],
            "sent": True,
        }
        with pytest.raises(ServerDied) as later:
            await forward(connection, call("echo"))
        assert later.value.details["sent"] is False


@pytest.mark.parametrize("start", ["pass", "subprocess.Popen(['sleep', '600'])"])
async def test_row_01_calls_fail_soon_after_the_death_even_if_a_grandchild_holds_the_pipes(start):
    spec = script(
        f"""
def on_start(self):
    import subprocess
    {start}
def hang(self, msg):
    return None
"""
    )
    async with running(spec) as connection, anyio.create_task_group() as tasks:
        failed = anyio.Event()

        async def fails() -> None:
            died = await dies(connection, call("hang"))
            assert died.details["signal"] == signal.SIGKILL
            failed.set()

        assert await echoes(connection)
        tasks.start_soon(fails)
        await anyio.wait_all_tasks_blocked()
        os.kill(connection.pid, signal.SIGKILL)
        with anyio.fail_after(SOON_S):
            await failed.wait()


async def test_an_answer_given_just_before_the_end_counts():
    spec = script(
        """
def last(self, msg):
    self.reply(msg, text("bye"))
    os._exit(1)
"""
    )
    async with running(spec) as connection:
        assert text_of(await forward(connection, call("last"))) == "bye"
        await connection.closed.wait()
        assert str(connection.exit_status) == "exit code 1"


@pytest.mark.parametrize(("descriptor", "pipe"), [(1, "stdout"), (0, "stdin")])
async def test_a_closed_pipe_of_a_living_server_ends_the_conversation(descriptor, pipe):
    spec = script(
        f"""
def close(self, msg):
    os.close({descriptor})
    if {descriptor} == 0:
        self.reply(msg, text("closed"))
    time.sleep(60)
"""
    )
    async with running(spec) as connection:
        with pytest.raises(ServerDied) as died:
            if text_of(await forward(connection, call("close"))) == "closed":
                await forward(connection, call("echo"))
        assert died.value.message.startswith(f"`child` closed its {pipe}")
        assert died.value.details["sent"] is (pipe == "stdout")
        assert connection.closed.is_set()
        assert connection.exit_status is None
        os.kill(connection.pid, signal.SIGKILL)


async def test_leaving_the_scope_fails_what_is_pending():
    async with anyio.create_task_group() as tasks:
        async with running(server("hang_on_call")) as connection:
            failed = anyio.Event()

            async def hang() -> None:
                await dies(connection, call("hang"))
                failed.set()

            tasks.start_soon(hang)
            await echoes(connection)
        await failed.wait()


# Noise, strays, extremes


@pytest.mark.parametrize(("name", "least"), [("banner_on_stdout", 2), ("garbage", 100)])
async def test_noise_on_stdout_is_reported_and_does_no_harm(name, least):
    noise: list[bytes] = []
    spec = server(name, *(["1"] if name == "garbage" else []))
    async with running(spec, on_noise=noise.append) as connection:
        assert await echoes(connection)
        before = len(noise)
        assert await echoes(connection)
        assert len(noise) > before
        assert connection.noise == len(noise) > least


async def test_stderr_arrives_as_bytes():
    heard: list[bytes] = []
    async with running(server("binary_stderr"), on_stderr=heard.append) as connection:
        assert await echoes(connection)
    stderr = b"".join(heard)
    assert stderr.startswith(b"\xff\xfe\x00binary\x80\x81\n")
    assert bytes(range(256)) + b"\n" in stderr


async def test_a_flood_on_stderr_delays_no_call():
    async with running(server("flood_stderr", "50000")) as connection:
        assert await echoes(connection)


async def test_row_29_answers_nobody_asked_for_are_counted_and_the_first_of_two_counts():
    spec = script(
        """
def work(self, msg):
    for strange in ("1", None, True, 999, "x", "2", 1.5):
        send({"jsonrpc": "2.0", "id": strange, "result": text("wrong")})
    self.reply(msg, text("right"))
    return text("twice")
"""
    )
    async with running(spec) as connection:
        assert text_of(await forward(connection, call("work"))) == "right"
        assert await connection.request("ping", None, BOUND_S)
        assert connection.strays == 7


@pytest.mark.parametrize("tool", ["large", "large_and_id_last"])
async def test_a_message_over_the_limit_fails_its_call_only(tool):
    spec = script(
        """
def large(self, msg):
    return text("x" * 300_000)
def large_and_id_last(self, msg):
    raw('{"result":{"content":"%s"},"jsonrpc":"2.0","id":%d}\\n' % ("x" * 300_000, msg["id"]))
""",
        policy=Policy(max_message_bytes=200_000),
    )
    heads: list[bytes] = []
    async with running(spec, on_noise=heads.append) as connection:
        with pytest.raises(OctaveError, match="too large: the limit is 200,000") as failed:
            await forward(connection, call(tool))
        assert failed.value.code == "failed"
        assert [len(head) for head in heads] == [wire.HEAD_BYTES]
        assert await echoes(connection)


async def test_row_21_a_large_message_passes():
    async with running(server("good")) as connection:
        assert await echoes(connection, "y" * 10_000_000)


async def test_an_answer_that_cannot_be_read_fails_its_call_at_once():
    spec = script(
        """
def broken(self, msg):
    raw('{"jsonrpc":"2.0","id":%d,"result":{"x":NaN}}\\n' % msg["id"])
"""
    )
    async with running(spec) as connection:
        with pytest.raises(OctaveError, match=r"cannot be read: .*NaN"):
            await forward(connection, call("broken"))
        assert await echoes(connection)


@pytest.mark.parametrize(
    "text", ["a\u2028b\u0085c", "nul\0", "\ud800", "\ufeff", "😀", "\r\n", '"\\']
)
async def test_row_60_odd_text_comes_back_the_same(text):
    async with running(server("good")) as connection:
        answer = await forward(connection, call("echo", {"text": text}))
        # The kit's server writes surrogates as bytes that are no UTF-8: they are replaced.
        expected = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        assert text_of(answer) == expected


# What the server says of its own accord


async def test_notifications_are_passed_on_raw():
    heard: list[bytes] = []
    spec = server("changing_tools")
    async with running(spec, on_notification=lambda note: heard.append(note.line)) as connection:
        await forward(connection, call("add", {"a": 1, "b": 2}))
        await connection.request("ping", None, BOUND_S)
    assert heard == [b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}']


ASKING = """
def before(self, msg):
    if "method" not in msg:
        send({"jsonrpc": "2.0", "method": "notifications/got", "params": msg})
        return True
def work(self, msg):
    send({"jsonrpc": "2.0", "id": "p", "method": "ping"})
    send({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})
    return text("asked")
"""


async def test_row_59_requests_of_the_server_are_answered():
    heard: list[bytes] = []
    both = anyio.Event()

    def note(message: Message) -> None:
        heard.append(message.params or b"")
        if len(heard) == 2:
            both.set()

    async with running(script(ASKING), on_notification=note) as connection:
        await forward(connection, call("work"))
        await both.wait()
    assert heard == [
        b'{"jsonrpc":"2.0","id":"p","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"error":'
        b'{"code":-32601,"message":"Method not found: roots/list"}}',
    ]


async def test_requests_of_the_server_can_be_taken_over():
    asked: list[Message] = []
    async with running(script(ASKING), on_request=asked.append) as connection:
        await forward(connection, call("work"))
        await connection.request("ping", None, BOUND_S)
    assert [message.method for message in asked] == ["roots/list"]


async def test_a_keyring_that_asks_a_person_holds_nobody_else_up() -> None:
    spec, typed, asked = server("good"), threading.Event(), anyio.Event()
    loop = asyncio.get_running_loop()
    answers: list[bool] = []

    def environment() -> dict[str, str]:
        loop.call_soon_threadsafe(asked.set)
        answers.append(typed.wait(BOUND_S))
        return spec.environment()

    async def answer() -> None:
        await asked.wait()
        typed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with connect(replace(spec, environment=environment), Callbacks()):
            assert answers == [True]


async def test_a_start_that_is_given_up_waits_for_no_keyring_and_nor_does_the_end() -> None:
    spec, typed, asking = server("good"), threading.Event(), list[threading.Thread]()

    def environment() -> dict[str, str]:
        asking.append(threading.current_thread())
        typed.wait(BOUND_S)
        return spec.environment()

    began_s = anyio.current_time()
    with anyio.move_on_after(0.05) as given_up:
        async with connect(replace(spec, environment=environment), Callbacks()):
            pass
    typed.set()
    assert given_up.cancelled_caught
    assert anyio.current_time() - began_s < BOUND_S / 2
    assert asking[0].daemon
