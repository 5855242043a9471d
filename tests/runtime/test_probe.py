import json
import os
import signal
import sys
import time
from pathlib import Path

import anyio
import pytest

from octave.errors import StartFailed
from octave.packages.launch import LaunchSpec
from octave.runtime import probe as probe_module
from octave.runtime.connection import Callbacks, connect
from octave.runtime.nesting import is_deeper
from octave.runtime.probe import ask, probe

SERVERS = Path(__file__).parent.parent / "servers"
BOUND_S = 5.0


def spec_of(*argv: str, **environ: str) -> LaunchSpec:
    environment = {**os.environ, **environ}
    return LaunchSpec("child", (sys.executable, *argv), Path.cwd(), lambda: environment)


def server(name: str, *arguments: str, **environ: str) -> LaunchSpec:
    return spec_of(str(SERVERS / f"{name}.py"), *arguments, **environ)


def script(*methods: str, **environ: str) -> LaunchSpec:
    """A server whose class has the given methods."""
    lines = (f"    {line}" for method in methods for line in method.strip("\n").split("\n"))
    head = (
        f"import os, sys; sys.path.insert(0, {str(SERVERS)!r})\n"
        "from _base import Server, event, raw, tool\nclass S(Server):\n"
    )
    return spec_of("-c", head + "\n".join(lines) + "\nS().run()", **environ)


def test_a_server_is_asked_once_and_stopped(tmp_path):
    offered = probe(server("good", HOSTILE_STATE=str(tmp_path)), BOUND_S)
    assert json.loads(offered.initialize)["serverInfo"]["name"] == "good"
    assert offered.names() == ("echo", "pid", "sleep")
    assert list(offered.lists) == ["tools"]
    assert offered.tools[0] == (
        b'{"name":"echo","description":"Echo the text back","inputSchema":'
        b'{"type":"object","properties":{"text":{"type":"string"}}}}'
    )
    events = (tmp_path / "events.log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in events] == ["start", "eof"]


STAYS = """
def on_eof(self):
    import time
    with open(os.environ["SEEN"], "w") as seen:
        seen.write(str(os.getpid()))
    time.sleep(60)
"""


def test_ctrl_c_while_the_server_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            probe(script(STAYS, SEEN=str(seen)), BOUND_S)
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    deadline = time.monotonic() + BOUND_S
    while not (seen.exists() and seen.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert not Path(f"/proc/{seen.read_text()}").exists()


CAPABLE = """
def caps(self):
    return {"prompts": {}, "tools": {}, "resources": {"subscribe": True}}
def before(self, msg):
    method = msg["method"]
    if method == "prompts/list":
        self.reply(msg, {"prompts": [{"name": "p"}, 5]})
    elif method == "resources/list":
        self.reply(msg, {"resources": None})
    return method in ("prompts/list", "resources/list")
"""


def test_every_list_the_server_announces_is_fetched_and_a_refused_one_is_empty():
    offered = probe(script(CAPABLE), BOUND_S)
    assert offered.names("tools") == ("echo",)
    assert offered.lists["prompts"] == (b'{"name":"p"}', b"5")
    assert offered.lists["resources"] == ()
    assert offered.lists["resourceTemplates"] == ()


PAGED = """
pages = 0
def list_tools(self, msg, params):
    self.pages += 1
    cursor = params.get("cursor")
    event("cursor:%r" % cursor)
    tools = [tool("t%d" % self.pages)]
    following = NEXT
    self.reply(msg, {"tools": tools} | ({} if following is None else {"nextCursor": following}))
"""


def pages(following: str, state: Path) -> tuple[tuple[str, ...], list[str]]:
    offered = probe(script(PAGED.replace("NEXT", following), HOSTILE_STATE=str(state)), BOUND_S)
    events = (state / "events.log").read_text(encoding="utf-8").splitlines()
    asked = [line.split()[0].partition(":")[2] for line in events if line.startswith("cursor")]
    return offered.names(), asked


def test_all_pages_are_fetched_and_an_empty_cursor_is_one(tmp_path):
    names, asked = pages('{None: "", "": "a\\u2028"}.get(cursor)', tmp_path)
    assert names == ("t1", "t2", "t3")
    assert asked == ["None", "''", r"'a\u2028'"]


def test_a_repeated_cursor_ends_the_list(tmp_path):
    assert pages('"again"', tmp_path)[0] == ("t1", "t2")


@pytest.mark.parametrize(
    ("bound", "value", "count", "warning"),
    [
        ("PAGES", 5, 5, "has more than 5 pages"),
        ("ITEMS", 5, 5, "has more than 5 items"),
        ("LISTS_TIME_S", -1, 1, "takes longer than -1 s"),
        ("CURSOR_BYTES", 1, 9, "gives a cursor of 2 bytes"),
        ("LISTS_BYTES", 170, 2, "makes the lists longer than 170 bytes"),
    ],
)
def test_a_list_without_end_is_ended_with_a_warning(monkeypatch, bound, value, count, warning):
    monkeypatch.setattr(probe_module, bound, value)
    offered = probe(script(PAGED.replace("NEXT", "self.pages + 1")), BOUND_S)
    assert len(offered.tools) == count
    assert offered.warnings == (f"`tools/list` {warning}; what follows is left out",)


def test_a_list_as_long_as_a_bound_has_no_warning(monkeypatch):
    monkeypatch.setattr(probe_module, "PAGES", 3)
    monkeypatch.setattr(probe_module, "ITEMS", 3)
    offered = probe(
        script(PAGED.replace("NEXT", "self.pages if self.pages < 3 else None")), BOUND_S
    )
    assert offered.warnings == ()


LATER_REFUSED = """
def caps(self):
    return {"prompts": {}}
def before(self, msg):
    if msg["method"] == "prompts/list" and "cursor" in msg.get("params", {}):
        self.error(msg, -32000, "gone")
    elif msg["method"] == "prompts/list":
        self.reply(msg, {"prompts": [{"name": "p"}], "nextCursor": "2"})
    return msg["method"] == "prompts/list"
"""


def test_a_page_that_is_refused_ends_its_list():
    offered = probe(script(LATER_REFUSED), BOUND_S)
    assert offered.names("prompts") == ("p",)
    (warning,) = offered.warnings
    assert warning.startswith("`prompts/list` refused a page: ")


@pytest.mark.parametrize("depth", [300, 20_000])
def test_what_is_nested_too_deep_is_cut_and_the_rest_kept(depth):
    spec = script(
        f"""
def list_tools(self, msg, params):
    deep = '{{"name":"deep","x":' + '[' * {depth} + ']' * {depth} + '}}'
    raw('{{"jsonrpc":"2.0","id":%d,"result":{{"tools":[%s,{{"name":"b","n":1.10}}]}}}}\\n'
        % (msg["id"], deep))
"""
    )
    deep, plain = probe(spec, BOUND_S).tools
    assert plain == b'{"name":"b","n":1.10}'
    assert deep.startswith(b'{"name":"deep","x":[[[')
    assert not is_deeper(deep, probe_module.LEVELS)


def test_odd_definitions_keep_their_text():
    spec = script(
        """
def list_tools(self, msg, params):
    tools = '[ {"name":"a","n":1.10,"s":"\\\\ud800"} , {"inputSchema":null,"name":"b"}, null ]'
    raw('{"jsonrpc":"2.0","id":%d,"result":{"tools":%s}}\\n' % (msg["id"], tools))
"""
    )
    assert probe(spec, BOUND_S).tools == (
        b'{"name":"a","n":1.10,"s":"\\ud800"}',
        b'{"inputSchema":null,"name":"b"}',
        b"null",
    )


@pytest.mark.parametrize("name", ["banner_on_stdout", "garbage", "binary_stderr", "flood_stderr"])
def test_noisy_servers_are_understood(name):
    offered = probe(server(name, *(["20000"] if name == "flood_stderr" else [])), BOUND_S)
    assert "echo" in offered.names()


def failure(spec: LaunchSpec, timeout_s: float = BOUND_S) -> StartFailed:
    with pytest.raises(StartFailed) as failed:
        probe(spec, timeout_s)
    return failed.value


def test_a_missing_interpreter_fails_at_the_start():
    failed = failure(LaunchSpec("child", ("/no/such/node",), Path.cwd(), dict))
    assert "`/no/such/node` does not exist" in failed.message
    assert failed.details["phase"] == "start"


def test_one_that_exits_shows_its_code_and_last_words():
    failed = failure(server("crash_loop", "0"))
    assert failed.details == {
        "phase": "initialize",
        "exitCode": 3,
        "signal": None,
        "stderrTail": ["crash_loop: fatal: missing API key"],
        "permanent": False,
    }


def test_one_that_stays_silent_has_no_exit_code():
    details = failure(server("never_initialize"), 0.3).details
    assert (details["phase"], details["exitCode"], details["signal"]) == ("timeout", None, None)


@pytest.mark.parametrize(
    ("body", "phase", "expected"),
    [
        ("pass", "timeout", "did not list what it offers within 0."),
        ("os._exit(4)", "tools/list", "ended with exit code 4 before it listed what it offers"),
        ("self.error(msg, -32000, 'no token')", "tools/list", '"message":"no token"'),
        ('raw(\'{"jsonrpc":"2.0","id":2,x\\n\')', "tools/list", "cannot be read"),
    ],
)
def test_one_that_does_not_list_its_tools_fails(body, phase, expected):
    spec = script(f"def list_tools(self, msg, params):\n    {body}")
    failed = failure(spec, 0.5 if phase == "timeout" else BOUND_S)
    assert failed.message.startswith("`child` ")
    assert expected in failed.message
    assert failed.details["phase"] == phase


@pytest.mark.anyio
async def test_a_running_server_can_be_asked_again():
    with anyio.fail_after(BOUND_S):
        async with connect(server("changing_tools"), Callbacks()) as connection:
            before = await ask(connection, BOUND_S)
            arguments = b'{"name":"add","arguments":{"a":1,"b":2}}'
            await connection.request("tools/call", arguments, BOUND_S)
            after = await ask(connection, BOUND_S)
    assert before.names() == ("add",)
    assert after.names() == ("add", "extra")
